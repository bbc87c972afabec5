// Asks the API server which service accounts may list the Secrets of their namespace: one question after another, for those
// that a rule brings keys to, and again now and then.

import type { Clock, Logger } from "#base";
import type { Change, Changed, Engine, Table } from "#engine";
import { secretReadersInQuestion, secretReaderTable, type SecretReader } from "#model";
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

/** How long answers hold: Istio's values. A no is doubted sooner, since people mend it and wait. */
const allowedMs = 5 * 60_000;
const refusedMs = 60_000;
const retryMs = 5_000;
/** Nobody else waits longer for the answers about some. */
const firstAnswersMs = 5_000;
const accountsMax = controlPlaneLimits.secretReaders.value;

interface Followed {
  cancel: () => void;
  gone: boolean;
  isFailing: boolean;
  /** The last answer. */
  said?: boolean;
}

export class SecretReaders {
  readonly #options: SecretReadersOptions;
  readonly #followed = new Map<string, Followed>();
  /** One question at a time: a rule that selects a thousand service accounts is no reason to crowd the API server. */
  #asking: Promise<void> = Promise.resolve();

  constructor(options: SecretReadersOptions) {
    this.#options = options;
  }

  /** Resolves with the first answers, so that proxies that come back to a new control plane keep their keys; or after a while. */
  async start(): Promise<void> {
    this.#follow(this.#options.engine.watch(secretReadersInQuestion, ""));
    let cancel = (): void => {};
    const patience = new Promise<void>((resolve) => {
      cancel = this.#options.clock.after(firstAnswersMs, resolve);
    });
    await Promise.race([this.#asking, patience]);
    cancel();
  }

  stop(): void {
    this.#follow([]);
  }

  /** To be told what each settling of the engine changed. */
  settled(changed: readonly Changed[]): void {
    for (const { query, value } of changed) {
      if (query.id === secretReadersInQuestion.id) this.#follow(value as readonly string[]);
    }
  }

  #follow(accounts: readonly string[]): void {
    const wanted = new Set(accounts.slice(0, accountsMax));
    if (accounts.length > accountsMax) {
      this.#options.reached?.("secretReaders");
      this.#options.log.warn({ accounts: accounts.length, accountsMax }, "too many readers of Secrets");
    }
    for (const [account, followed] of this.#followed) {
      if (wanted.has(account)) continue;
      followed.gone = true;
      followed.cancel();
      this.#followed.delete(account);
      this.#put(account, undefined);
    }
    for (const account of wanted) {
      if (this.#followed.has(account)) continue;
      const followed: Followed = { cancel: () => {}, gone: false, isFailing: false };
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
      return allowed ? allowedMs : refusedMs;
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
