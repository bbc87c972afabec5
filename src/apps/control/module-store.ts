// The bytes of Wasm modules that proxies get from here, by their SHA-256, and the objects whose modules they are.

import { createHash } from "node:crypto";
import type { Clock } from "#base";
import { LimitReached } from "./guarded-fetch.ts";
import { controlPlaneLimits } from "./limits.ts";

interface Stored {
  readonly bytes: Buffer;
  /** Keys of objects, also those that had it until lately. */
  readonly holders: Set<string>;
}

const bytesMax = controlPlaneLimits.modulesBytes.value;
/** Proxies may be about to fetch what a change has just replaced. */
const lingerMs = 60_000;

export class ModuleStore {
  readonly #modules = new Map<string, Stored>();
  /** The SHA-256 of each object's module. */
  readonly #held = new Map<string, string>();
  readonly #clock: Clock;
  #bytes = 0;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** Takes a module in as that of some objects, at least one; returns its SHA-256. Throws LimitReached. */
  keep(bytes: Buffer, holders: Iterable<string>): string {
    const sha256 = createHash("sha256").update(bytes).digest("hex");
    if (!this.#modules.has(sha256)) {
      if (this.#bytes + bytes.length > bytesMax)
        throw new LimitReached("modulesBytes", `all modules together have more than ${bytesMax} bytes`);
      this.#bytes += bytes.length;
      this.#modules.set(sha256, { bytes, holders: new Set() });
    }
    for (const holder of holders) this.share(sha256, holder);
    return sha256;
  }

  /** A module that is here already is another object's too, in the place of what that had. */
  share(sha256: string, holder: string): void {
    const before = this.#held.get(holder);
    this.#modules.get(sha256)?.holders.add(holder);
    this.#held.set(holder, sha256);
    if (before !== undefined && before !== sha256) this.#letGo(before, holder);
  }

  release(holder: string): void {
    const before = this.#held.get(holder);
    this.#held.delete(holder);
    if (before !== undefined) this.#letGo(before, holder);
  }

  /** The bytes, if they are some object's for which the caller may have them. */
  find(sha256: string, isAllowed: (holder: string) => boolean): Buffer | undefined {
    const stored = this.#modules.get(sha256);
    return stored !== undefined && [...stored.holders].some(isAllowed) ? stored.bytes : undefined;
  }

  #letGo(sha256: string, holder: string): void {
    this.#clock.after(lingerMs, () => {
      const stored = this.#modules.get(sha256);
      if (stored === undefined || this.#held.get(holder) === sha256) return;
      stored.holders.delete(holder);
      if (stored.holders.size > 0) return;
      this.#modules.delete(sha256);
      this.#bytes -= stored.bytes.length;
    });
  }
}
