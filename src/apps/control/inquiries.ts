// What the control plane asks others, so that it can go into the configuration: keys of JWT issuers, Wasm modules, addresses of names,
// and which service accounts may read Secrets.

import type { Clock, Logger } from "#base";
import type { Change, Changed, Engine } from "#engine";
import type { KubeClient } from "#kube";
import { JwksFetcher } from "./jwks-fetcher.ts";
import type { ReachControlLimit } from "./limits.ts";
import { ModuleFetcher } from "./module-fetcher.ts";
import { NameResolver, systemResolve } from "./name-resolver.ts";
import { pullSecretReader } from "./pull-secret.ts";
import { mayListSecrets } from "./reviews.ts";
import { SecretReaders } from "./secret-readers.ts";
import type { Settings } from "./settings.ts";

export interface InquiriesOptions {
  readonly settings: Settings;
  readonly engine: Engine;
  /** Undefined where there is no API server. */
  readonly client: KubeClient | undefined;
  readonly clock: Clock;
  readonly log: Logger;
  readonly publish: (changes: readonly Change[]) => void;
  readonly reached: ReachControlLimit;
}

export class Inquiries {
  readonly modules: ModuleFetcher;
  readonly #keys: JwksFetcher;
  readonly #names: NameResolver;
  readonly #secretReaders: SecretReaders;

  constructor({ settings, client, ...shared }: InquiriesOptions) {
    const allowLocal = settings.jwksAllowLocal;
    this.#keys = new JwksFetcher({ ...shared, allowLocal });
    this.#names = new NameResolver({ ...shared, resolve: systemResolve() });
    this.modules = new ModuleFetcher({
      ...shared,
      readSecret: pullSecretReader(client, shared.engine),
      insecureRegistries: settings.insecureRegistries,
      allowLocal,
    });
    this.#secretReaders = new SecretReaders({
      ...shared,
      // Without an API server the objects are the operator's own files.
      ask: async (namespace, account) => client === undefined || mayListSecrets(client, namespace, account),
    });
  }

  /** Resolves when what proxies must not lose for want of an answer was asked for once, or took too long. */
  async start(): Promise<void> {
    this.#keys.start();
    this.#names.start();
    await Promise.all([this.#secretReaders.start(), this.modules.start()]);
  }

  stop(): void {
    for (const one of [this.#keys, this.#names, this.modules, this.#secretReaders]) one.stop();
  }

  /** To be told what each settling of the engine changed. */
  settled(answers: readonly Changed[]): void {
    for (const one of [this.#keys, this.#names, this.modules, this.#secretReaders]) one.settled(answers);
  }

  /** A gateway of a service account, `namespace/name`, is let in: resolves when it is known what it may have. */
  router(account: string): Promise<void> {
    return this.#secretReaders.admitted(account);
  }
}
