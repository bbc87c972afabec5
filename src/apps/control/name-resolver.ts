// Names of other networks' gateways, which cloud load balancers have in place of addresses: resolved here, since Envoy takes endpoints
// of EDS as addresses alone. A name is asked for anew when its answer has grown old; an answer that fails leaves the one before.

import { Resolver } from "node:dns/promises";
import type { Clock, Logger } from "#base";
import { sameData, type Change, type Changed, type Engine, type Table } from "#engine";
import { gatewayNames, resolvedNamesTable, type ResolvedName } from "#model";
import { controlPlaneLimits, type ReachControlLimit } from "./limits.ts";

export interface Answer {
  readonly address: string;
  /** How long it holds, in seconds. */
  readonly ttl: number;
}

/** Rejects where there is no answer. */
export type Resolve = (name: string) => Promise<readonly Answer[]>;

export interface NameResolverOptions {
  readonly engine: Engine;
  readonly clock: Clock;
  readonly log: Logger;
  readonly publish: (changes: readonly Change[]) => void;
  readonly resolve: Resolve;
  readonly reached?: ReachControlLimit;
}

/** Load balancers' names say a minute mostly; shorter would be load on DNS, longer would keep addresses that are gone. */
const answerMinMs = 5_000;
const answerMaxMs = 60_000;
const retryMinMs = 1_000;
const retryMaxMs = 60_000;
const namesMax = controlPlaneLimits.gatewayNames.value;
const addressesMax = controlPlaneLimits.gatewayAddresses.value;

interface Followed {
  failures: number;
  cancel: () => void;
  gone: boolean;
}

/** Asks the machine's DNS servers for IPv4 addresses. */
export function systemResolve(): Resolve {
  const resolver = new Resolver({ timeout: 2_000, tries: 2 });
  return (name) => resolver.resolve4(name, { ttl: true });
}

export class NameResolver {
  readonly #options: NameResolverOptions;
  readonly #followed = new Map<string, Followed>();

  constructor(options: NameResolverOptions) {
    this.#options = options;
  }

  start(): void {
    this.#follow(this.#options.engine.watch(gatewayNames, ""));
  }

  stop(): void {
    this.#follow([]);
  }

  /** To be told what each settling of the engine changed. */
  settled(changed: readonly Changed[]): void {
    for (const { query, value } of changed) {
      if (query.id === gatewayNames.id) this.#follow(value as readonly string[]);
    }
  }

  #follow(names: readonly string[]): void {
    const wanted = new Set(names.slice(0, namesMax));
    if (names.length > namesMax) {
      this.#options.reached?.("gatewayNames");
      this.#options.log.warn({ names: names.length, followed: namesMax }, "too many names of gateways");
    }
    for (const [name, followed] of this.#followed) {
      if (wanted.has(name)) continue;
      followed.gone = true;
      followed.cancel();
      this.#followed.delete(name);
      this.#put(name, undefined);
    }
    for (const name of wanted) {
      if (this.#followed.has(name)) continue;
      const followed: Followed = { failures: 0, cancel: () => {}, gone: false };
      this.#followed.set(name, followed);
      void this.#round(name, followed);
    }
  }

  async #round(name: string, followed: Followed): Promise<void> {
    const { clock, log, engine, resolve } = this.#options;
    let pauseMs = answerMaxMs;
    let outcome: ResolvedName;
    try {
      const answers = await resolve(name);
      if (answers.length === 0) throw new Error("it has no IPv4 address");
      followed.failures = 0;
      const addresses = [...new Set(answers.map(({ address }) => address))].toSorted();
      if (addresses.length > addressesMax) this.#options.reached?.("gatewayAddresses");
      outcome = { addresses: addresses.slice(0, addressesMax) };
      const shortestMs = Math.min(...answers.map(({ ttl }) => ttl)) * 1_000;
      pauseMs = Math.min(answerMaxMs, Math.max(answerMinMs, shortestMs));
    } catch (error) {
      const failure = error instanceof Error ? error.message : String(error);
      if (followed.failures === 0) log.warn({ name, failure }, "the name of a gateway cannot be resolved");
      pauseMs = Math.min(retryMaxMs, retryMinMs * 2 ** followed.failures++);
      outcome = { addresses: engine.rows(resolvedNamesTable).get(name)?.addresses ?? [], failure };
    }
    if (followed.gone) return;
    if (!sameData(engine.rows(resolvedNamesTable).get(name), outcome)) this.#put(name, outcome);
    followed.cancel = clock.after(pauseMs, () => void this.#round(name, followed));
  }

  #put(name: string, value: ResolvedName | undefined): void {
    this.#options.publish([{ table: resolvedNamesTable as Table<unknown>, key: name, value }]);
  }
}
