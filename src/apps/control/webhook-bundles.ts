// Keeps the CA bundle in our webhook configurations current, so that the API server trusts us and calls us.

import type { Clock, Logger } from "#base";
import { KubeError, slim, WatchCache, type KubeClient, type RateLimitedWriter } from "#kube";
import type { KubeObject } from "#objects";
import {
  injectorConfigurationName,
  validatorConfigurationName,
  webhookConfigurationPatch,
} from "./webhooks/index.ts";

export interface WebhookBundlesOptions {
  readonly client: KubeClient;
  readonly writer: RateLimitedWriter;
  readonly rootPem: () => string;
  readonly clock: Clock;
  readonly random: () => number;
  readonly log: Logger;
}

const configurations = [
  {
    kind: "MutatingWebhookConfiguration",
    plural: "mutatingwebhookconfigurations",
    name: injectorConfigurationName,
  },
  {
    kind: "ValidatingWebhookConfiguration",
    plural: "validatingwebhookconfigurations",
    name: validatorConfigurationName,
  },
] as const;

export class WebhookBundles {
  readonly #options: WebhookBundlesOptions;
  readonly #caches: readonly WatchCache[];

  constructor(options: WebhookBundlesOptions) {
    this.#options = options;
    const { client, clock, random, log } = options;
    this.#caches = configurations.map(({ kind, plural, name }) => {
      const path = `/apis/admissionregistration.k8s.io/v1/${plural}`;
      const apiVersion = "admissionregistration.k8s.io/v1";
      return new WatchCache({
        client,
        source: { kind, apiVersion, path, fieldSelector: `metadata.name=${name}` },
        clock,
        random,
        log,
        slim,
        changed: (set) => this.#check(path, set),
        synced: () => {},
      });
    });
  }

  /** To be called once the webhooks serve: from then on the API server is sent here. */
  start(): void {
    for (const cache of this.#caches) void cache.run();
  }

  stop(): void {
    for (const cache of this.#caches) cache.stop();
  }

  /** After the root changed. */
  publishAll(): void {
    for (const [at, cache] of this.#caches.entries()) {
      const plural = configurations[at]?.plural ?? "";
      this.#check(`/apis/admissionregistration.k8s.io/v1/${plural}`, [...cache.objects.values()]);
    }
  }

  #check(path: string, set: readonly KubeObject[]): void {
    const { client, writer, rootPem, log } = this.#options;
    for (const configuration of set) {
      const operations = webhookConfigurationPatch(configuration, rootPem());
      if (operations === undefined) continue;
      const { name } = configuration.metadata;
      writer.submit(`webhooks ${name}`, async () => {
        try {
          const body = operations;
          await client.request(`${path}/${name}`, { method: "PATCH", patch: "json", body });
          log.info({ configuration: name }, "webhook configuration brought up to date");
        } catch (error) {
          // Somebody else changed it meanwhile: the watch brings it again.
          if (!(error instanceof KubeError && error.status === 422)) throw error;
        }
      });
    }
  }
}
