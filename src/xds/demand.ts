// Which names of a view go to those alone who ask for them, and who asks. A view offers a type when its plan says so
// (`Chunk.onDemand`); then what is planned outside of such chunks is for everyone, and all else is computed and served
// only from the moment somebody asks.

import type { Subscriber } from "./view.ts";

export class Demand {
  /** Whether the view has names of the type that only those get who ask. */
  isOffering = false;
  #everyones: ReadonlySet<string> = new Set();
  readonly #askers = new Map<string, Set<Subscriber>>();

  /** Names that are asked for, however many ask. */
  get size(): number {
    return this.#askers.size;
  }

  /** Returns the names that are newly for everyone, or no longer. */
  setEveryones(names: ReadonlySet<string>): string[] {
    const before = this.#everyones;
    this.#everyones = names;
    return [...before.symmetricDifference(names)];
  }

  isForEveryone(name: string): boolean {
    return !this.isOffering || this.#everyones.has(name);
  }

  isAsked(name: string): boolean {
    return this.#askers.has(name);
  }

  /** Returns whether nobody had asked before. */
  ask(name: string, subscriber: Subscriber): boolean {
    const askers = this.#askers.get(name);
    if (askers === undefined) this.#askers.set(name, new Set([subscriber]));
    else askers.add(subscriber);
    return askers === undefined;
  }

  /** Returns whether nobody asks any more. */
  release(name: string, subscriber: Subscriber): boolean {
    const askers = this.#askers.get(name);
    if (askers?.delete(subscriber) !== true || askers.size > 0) return false;
    this.#askers.delete(name);
    return true;
  }

  /** Returns the names that nobody asks for any more. */
  releaseAll(subscriber: Subscriber): string[] {
    return [...this.#askers.keys()].filter((name) => this.release(name, subscriber));
  }

  /** Who tries out a name for the others: the canary if it has asked, or else who asked first. */
  testerOf(name: string, canary: Subscriber | undefined): Subscriber | undefined {
    if (this.isForEveryone(name)) return canary;
    const askers = this.#askers.get(name);
    if (askers === undefined || (canary !== undefined && askers.has(canary))) return canary;
    return askers.values().next().value;
  }
}
