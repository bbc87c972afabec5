// Names of other networks' gateways, which cloud load balancers have in place of addresses: resolved here, since Envoy takes endpoints
// of EDS as addresses alone. A name is asked for anew when its answer has grown old; an answer that fails leaves the one before.

import { Resolver } from "node:dns/promises";
import type { Clock, Logger } from "#base";
import { sameData, type Change, type Changed, type Engine, type Table } from "#engine";
import { gatewayNames, resolvedNamesTable, type ResolvedName } from "#model";
import { Following, type Attempt } from "./following.ts";
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
const namesMax = controlPlaneLimits.gatewayNames.value;
const addressesMax = controlPlaneLimits.gatewayAddresses.value;

/** Asks the machine's DNS servers for IPv4 addresses. */
export function systemResolve(): Resolve {
  const resolver = new Resolver({ timeout: 2_000, tries: 2 });
  return (name) => resolver.resolve4(name, { ttl: true });
}

export class NameResolver {
  readonly #options: NameResolverOptions;
  readonly #following: Following;

  constructor(options: NameResolverOptions) {
    this.#options = options;
    this.#following = new Following({
      clock: options.clock,
      max: namesMax,
      ask: (name, attempt) => this.#ask(name, attempt),
      forget: (name) => this.#put(name, undefined),
      tooMany: (names) => {
        options.reached?.("gatewayNames");
        options.log.warn({ names, followed: namesMax }, "too many names of gateways");
      },
    });
  }

  start(): void {
    this.#following.follow(this.#options.engine.watch(gatewayNames, ""));
  }

  stop(): void {
    this.#following.follow([]);
  }

  /** To be told what each settling of the engine changed. */
  settled(changed: readonly Changed[]): void {
    for (const { query, value } of changed) {
      if (query.id === gatewayNames.id) this.#following.follow(value as readonly string[]);
    }
  }

  async #ask(name: string, { failures, isGone }: Attempt): Promise<number | undefined> {
    const { log, engine, resolve } = this.#options;
    const before = engine.rows(resolvedNamesTable).get(name);
    try {
      const answers = await resolve(name);
      if (answers.length === 0) throw new Error("it has no IPv4 address");
      const addresses = [...new Set(answers.map(({ address }) => address))].toSorted();
      if (addresses.length > addressesMax) this.#options.reached?.("gatewayAddresses");
      const outcome: ResolvedName = { addresses: addresses.slice(0, addressesMax) };
      if (!isGone() && !sameData(before, outcome)) this.#put(name, outcome);
      const shortestMs = Math.min(...answers.map(({ ttl }) => ttl)) * 1_000;
      return Math.min(answerMaxMs, Math.max(answerMinMs, shortestMs));
    } catch (error) {
      if (isGone()) return undefined;
      const failure = error instanceof Error ? error.message : String(error);
      if (failures === 0) log.warn({ name, failure }, "the name of a gateway cannot be resolved");
      const outcome: ResolvedName = { addresses: before?.addresses ?? [], failure };
      if (!sameData(before, outcome)) this.#put(name, outcome);
      return undefined;
    }
  }

  #put(name: string, value: ResolvedName | undefined): void {
    this.#options.publish([{ table: resolvedNamesTable as Table<unknown>, key: name, value }]);
  }
}
