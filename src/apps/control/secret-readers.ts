// Asks the API server which service accounts may list the Secrets of their namespace: one question after another, for those
// that a Gateway or a rule brings keys to, and again now and then.

import type { Clock, Logger } from "#base";
import type { Change, Changed, Engine, Table } from "#engine";
import { routers, secretReadersInQuestion, secretReaderTable, type SecretReader } from "#model";
import { controlPlaneLimits, type ReachControlLimit } from "./limits.ts";

export interface SecretReadersOptions {
  readonly engine: Engine;
  readonly clock: Clock;
  readonly log: Logger;
  readonly publish: (changes: readonly Change[]) => void;
  /** Rejects if there is no answer. */
  readonly ask: (namespace: string, account: string) => Promise<boolean>;
  readonly reached?: ReachControlLimit;
}

/** How long answers hold: Istio's values. A no is doubted sooner, since people mend it and wait, and a new one soonest. */
const allowedMs = 5 * 60_000;
const refusedMs = 60_000;
const retryMs = 5_000;
/** Nobody else waits longer for the answers about some. */
const firstAnswersMs = 5_000;
/** A gateway that connects waits so long for the answer about itself: it is to keep its keys when it comes back. */
const ownAnswerMs = 2_000;
const accountsMax = controlPlaneLimits.secretReaders.value;

interface Followed {
  cancel: () => void;
  gone: boolean;
  isFailing: boolean;
  /** The last answer. */
  said?: boolean;
  /** How often it was no, one time after another. */
  refusals: number;
  /** Resolves with the first answer, or when nobody waits for one any more. */
  readonly answered: Promise<void>;
  readonly settle: () => void;
}

export class SecretReaders {
  readonly #options: SecretReadersOptions;
  readonly #followed = new Map<string, Followed>();
  /** One question at a time: a rule that selects a thousand service accounts is no reason to crowd the API server. */
  #asking: Promise<void> = Promise.resolve();
  #inQuestion: readonly string[] = [];
  /** Of gateways that connected though nothing said before that they are any: their Pods look like others. */
  readonly #unforeseen = new Set<string>();

  constructor(options: SecretReadersOptions) {
    this.#options = options;
  }

  /** Resolves with the first answers, so that proxies that come back to a new control plane keep their keys; or after a while. */
  async start(): Promise<void> {
    this.#inQuestion = this.#options.engine.watch(secretReadersInQuestion, "");
    this.#follow();
    let cancel = (): void => {};
    const patience = new Promise<void>((resolve) => {
      cancel = this.#options.clock.after(firstAnswersMs, resolve);
    });
    await Promise.race([this.#asking, patience]);
    cancel();
  }

  stop(): void {
    this.#inQuestion = [];
    this.#unforeseen.clear();
    this.#follow();
  }

  /** A gateway of a service account, `namespace/name`, connects: resolves when it is known what it may have, or after a while. */
  async admitted(account: string): Promise<void> {
    const { engine, clock } = this.#options;
    if (!this.#followed.has(account)) {
      // Who is known to be a gateway and is not followed is not told to use any key.
      if (engine.get(routers, "").some((router) => router.account === account)) return;
      this.#unforeseen.add(account);
      this.#follow();
    }
    const followed = this.#followed.get(account);
    if (followed === undefined || followed.said !== undefined) return;
    const cancel = clock.after(ownAnswerMs, followed.settle);
    await followed.answered;
    cancel();
  }

  /** To be told what each settling of the engine changed. */
  settled(changed: readonly Changed[]): void {
    for (const { query, value } of changed) {
      if (query.id !== secretReadersInQuestion.id) continue;
      this.#inQuestion = value as readonly string[];
      this.#follow();
    }
  }

  #follow(): void {
    const accounts = [...new Set([...this.#inQuestion, ...this.#unforeseen])];
    const wanted = new Set(accounts.slice(0, accountsMax));
    if (accounts.length > accountsMax) {
      this.#options.reached?.("secretReaders");
      this.#options.log.warn({ accounts: accounts.length, accountsMax }, "too many readers of Secrets");
    }
    for (const [account, followed] of this.#followed) {
      if (wanted.has(account)) continue;
      followed.gone = true;
      followed.cancel();
      followed.settle();
      this.#followed.delete(account);
      this.#put(account, undefined);
    }
    for (const account of wanted) {
      if (this.#followed.has(account)) continue;
      const { promise: answered, resolve: settle } = Promise.withResolvers<void>();
      const followed: Followed = {
        cancel: () => {},
        gone: false,
        isFailing: false,
        refusals: 0,
        answered,
        settle,
      };
      this.#followed.set(account, followed);
      this.#queue(account, followed);
    }
  }

  #queue(account: string, followed: Followed): void {
    this.#asking = this.#asking.then(() => this.#round(account, followed));
  }

  async #round(account: string, followed: Followed): Promise<void> {
    if (followed.gone) return;
    const { clock } = this.#options;
    const pauseMs = await this.#ask(account, followed);
    if (followed.gone) return;
    followed.cancel = clock.after(pauseMs, () => this.#queue(account, followed));
  }

  /** How long the answer holds. Without one the last stays: an API server that restarts must not take keys away. */
  async #ask(account: string, followed: Followed): Promise<number> {
    const { ask, log } = this.#options;
    const [namespace = "", name = ""] = account.split("/");
    try {
      const allowed = await ask(namespace, name);
      followed.isFailing = false;
      if (followed.gone) return 0;
      if (followed.said !== allowed) {
        followed.said = allowed;
        if (!allowed) log.warn({ account }, "a service account may not list Secrets and gets no keys");
        this.#put(account, { allowed });
      }
      followed.settle();
      followed.refusals = allowed ? 0 : followed.refusals + 1;
      return allowed ? allowedMs : Math.min(refusedMs, retryMs * 2 ** (followed.refusals - 1));
    } catch (error) {
      if (!followed.isFailing)
        log.warn({ account, error: String(error) }, "nobody says whether a service account may list Secrets");
      followed.isFailing = true;
      return retryMs;
    }
  }

  #put(account: string, value: SecretReader | undefined): void {
    this.#options.publish([{ table: secretReaderTable as Table<unknown>, key: account, value }]);
  }
}
