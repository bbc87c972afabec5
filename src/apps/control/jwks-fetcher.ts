// Keys of JWT issuers that are no services of the mesh: fetched here and put into the configuration, so that proxies need no way
// to the outside.

import type { Clock, Logger } from "#base";
import type { Change, Changed, Engine, Table } from "#engine";
import { jwksTable, jwksUris, usableKeys, type FetchedKeys } from "#model";
import { Following, type Attempt } from "./following.ts";
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
const limits = { time: "keysTime", bytes: "keysBytes", redirects: "keysRedirects" } as const;
const headers = { accept: "application/json" };
const urisMax = controlPlaneLimits.keySources.value;

export class JwksFetcher {
  readonly #options: JwksFetcherOptions;
  readonly #following: Following;

  constructor(options: JwksFetcherOptions) {
    this.#options = options;
    this.#following = new Following({
      clock: options.clock,
      max: urisMax,
      ask: (uri, attempt) => this.#ask(uri, attempt),
      forget: (uri) => this.#put(uri, undefined),
      tooMany: (uris) => {
        options.reached?.("keySources");
        options.log.warn({ uris, followed: urisMax }, "too many places of JWT keys");
      },
    });
  }

  start(): void {
    this.#following.follow(this.#options.engine.watch(jwksUris, ""));
  }

  stop(): void {
    this.#following.follow([]);
  }

  /** To be told what each settling of the engine changed. */
  settled(changed: readonly Changed[]): void {
    for (const { query, value } of changed) {
      if (query.id === jwksUris.id) this.#following.follow(value as readonly string[]);
    }
  }

  async #ask(uri: string, { failures, isGone }: Attempt): Promise<number | undefined> {
    const { log, allowLocal, engine } = this.#options;
    const before = engine.rows(jwksTable).get(uri);
    try {
      const jwks = checkedKeys((await fetchBody(uri, { allowLocal, limits, headers })).toString());
      if (!isGone() && (before?.jwks !== jwks || before.failure !== undefined)) this.#put(uri, { jwks });
      return refreshMs;
    } catch (error) {
      if (error instanceof LimitReached) this.#options.reached?.(error.limit);
      if (isGone()) return undefined;
      const failure = error instanceof Error ? error.message : String(error);
      if (failures === 0) log.warn({ uri, failure }, "keys of a JWT issuer cannot be fetched");
      // Keys that were good once stay: an issuer that is down for an hour must not lock everybody out.
      if (before?.failure !== failure) this.#put(uri, { ...before, failure });
      return undefined;
    }
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
