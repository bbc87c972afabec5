// The watch caches of everything that the mesh reads from an API server.

import type { Clock, Logger } from "#base";
import { collectionPath, slim, WatchCache, type CacheSource, type KubeClient } from "#kube";
import { kinds, type KubeObject } from "#objects";
import { tables } from "#model";

export interface KubeSourceOptions {
  readonly client: KubeClient;
  /** The control plane's namespace: of ConfigMaps only those there are read. */
  readonly namespace: string;
  readonly clock: Clock;
  readonly random: () => number;
  readonly log: Logger;
  readonly changed: (set: readonly KubeObject[], removed: readonly KubeObject[]) => void;
}

export class KubeSource {
  readonly #caches: WatchCache[];
  /** Resolves when the first list of every kind is in. */
  readonly synced: Promise<void>;

  constructor(options: KubeSourceOptions) {
    const { client, clock, random, log, changed } = options;
    const waits: Promise<void>[] = [];
    this.#caches = sourcesOf(options.namespace).map((source) => {
      let synced = (): void => {};
      waits.push(new Promise((resolve) => (synced = resolve)));
      return new WatchCache({ client, source, clock, random, log, slim, changed, synced });
    });
    this.synced = Promise.all(waits).then(() => undefined);
  }

  start(): void {
    for (const cache of this.#caches) void cache.run();
  }

  stop(): void {
    for (const cache of this.#caches) cache.stop();
  }
}

/** The kinds that have a table. Gateway API's Gateway shares its name with Istio's and has none yet. */
function sourcesOf(namespace: string): CacheSource[] {
  return kinds
    .filter(({ kind, family }) => Object.hasOwn(tables, kind) && family !== "gateway-api")
    .map(({ kind, group, plural, storageVersion }) => ({
      kind,
      apiVersion: group === "" ? storageVersion : `${group}/${storageVersion}`,
      path: collectionPath(
        { group, version: storageVersion, plural },
        kind === "ConfigMap" ? namespace : undefined,
      ),
    }));
}
