// Keys of JWT issuers that are no services of the mesh: fetched here and put into the configuration, so that proxies need no way
// to the outside.

import type { Clock, Logger } from "#base";
import type { Change, Changed, Engine, Table } from "#engine";
import { jwksTable, jwksUris, usableKeys, type FetchedKeys } from "#model";
import { fetchBody, LimitReached } from "./guarded-fetch.ts";
import { controlPlaneLimits, type ReachControlLimit } from "./limits.ts";

export interface JwksFetcherOptions {
  readonly engine: Engine;
  readonly clock: Clock;
  readonly log: Logger;
  readonly publish: (changes: readonly Change[]) => void;
  /** For tests, and for issuers beside the control plane. */
  readonly allowLocal: boolean;
  readonly reached?: ReachControlLimit;
}

/** How long keys are used before they are asked for anew: Istio's value. */
const refreshMs = 20 * 60_000;
const retryMinMs = 1_000;
const retryMaxMs = 60_000;
const limits = { time: "keysTime", bytes: "keysBytes", redirects: "keysRedirects" } as const;
const headers = { accept: "application/json" };
const urisMax = controlPlaneLimits.keySources.value;

interface Followed {
  failures: number;
  cancel: () => void;
  gone: boolean;
}

export class JwksFetcher {
  readonly #options: JwksFetcherOptions;
  readonly #followed = new Map<string, Followed>();

  constructor(options: JwksFetcherOptions) {
    this.#options = options;
  }

  start(): void {
    this.#follow(this.#options.engine.watch(jwksUris, ""));
  }

  stop(): void {
    this.#follow([]);
  }

  /** To be told what each settling of the engine changed. */
  settled(changed: readonly Changed[]): void {
    for (const { query, value } of changed) {
      if (query.id === jwksUris.id) this.#follow(value as readonly string[]);
    }
  }

  #follow(uris: readonly string[]): void {
    const wanted = new Set(uris.slice(0, urisMax));
    if (uris.length > urisMax) {
      this.#options.reached?.("keySources");
      this.#options.log.warn({ uris: uris.length, followed: urisMax }, "too many places of JWT keys");
    }
    for (const [uri, followed] of this.#followed) {
      if (wanted.has(uri)) continue;
      followed.gone = true;
      followed.cancel();
      this.#followed.delete(uri);
      this.#put(uri, undefined);
    }
    for (const uri of wanted) {
      if (this.#followed.has(uri)) continue;
      const followed: Followed = { failures: 0, cancel: () => {}, gone: false };
      this.#followed.set(uri, followed);
      void this.#round(uri, followed);
    }
  }

  async #round(uri: string, followed: Followed): Promise<void> {
    const { clock, log, allowLocal, engine } = this.#options;
    const before = engine.rows(jwksTable).get(uri);
    let pauseMs = refreshMs;
    try {
      const jwks = checkedKeys((await fetchBody(uri, { allowLocal, limits, headers })).toString());
      if (followed.gone) return;
      followed.failures = 0;
      if (before?.jwks !== jwks || before.failure !== undefined) this.#put(uri, { jwks });
    } catch (error) {
      if (error instanceof LimitReached) this.#options.reached?.(error.limit);
      if (followed.gone) return;
      const failure = error instanceof Error ? error.message : String(error);
      if (followed.failures === 0) log.warn({ uri, failure }, "keys of a JWT issuer cannot be fetched");
      pauseMs = Math.min(retryMaxMs, retryMinMs * 2 ** followed.failures++);
      // Keys that were good once stay: an issuer that is down for an hour must not lock everybody out.
      if (before?.failure !== failure) this.#put(uri, { ...before, failure });
    }
    followed.cancel = clock.after(pauseMs, () => void this.#round(uri, followed));
  }

  #put(uri: string, value: FetchedKeys | undefined): void {
    this.#options.publish([{ table: jwksTable as Table<unknown>, key: uri, value }]);
  }
}

function checkedKeys(text: string): string {
  const keys = usableKeys(text);
  if (keys === undefined) throw new Error("the answer is no JSON Web Key Set with a key that can be used");
  return keys;
}
