// An ordered log of names that changed, in which readers are cursors. So waking a proxy costs what changed since it
// last looked, and a proxy that waits for an acknowledgement costs nothing but a number.

import { logLengthMax } from "./limits.ts";

export class ChangeLog {
  #names: string[] = [];
  /** The sequence number of `#names[0]`. */
  #first = 0;

  /** The sequence number that the next entry gets: the cursor of who has seen everything. */
  get head(): number {
    return this.#first + this.#names.length;
  }

  append(name: string): void {
    this.#names.push(name);
    // Cut in halves, so that appending stays cheap.
    if (this.#names.length < logLengthMax * 2) return;
    this.#first += logLengthMax;
    this.#names = this.#names.slice(logLengthMax);
  }

  /** The names changed since a cursor, repeated as often as they changed; undefined if the log no longer reaches back. */
  since(cursor: number): readonly string[] | undefined {
    if (cursor < this.#first) return undefined;
    return cursor === this.head ? [] : this.#names.slice(cursor - this.#first);
  }
}
