// The watch caches of everything that the mesh reads from an API server.

import type { Clock, Logger } from "#base";
import { collectionPath, slim, WatchCache, type CacheSource, type KubeClient } from "#kube";
import { kinds, type KubeObject } from "#objects";
import { tables } from "#model";

export interface KubeSourceOptions {
  readonly client: KubeClient;
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
    this.#caches = sources().map((source) => {
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

/** ConfigMaps of which every namespace has one: they are never asked for. */
const notEverywhere = "metadata.name!=istio-ca-root-cert,metadata.name!=kube-root-ca.crt";

/** The kinds that have a table. */
function sources(): CacheSource[] {
  return kinds
    .filter(({ kind }) => Object.hasOwn(tables, kind))
    .map(({ kind, group, plural, storageVersion }) => ({
      kind,
      apiVersion: group === "" ? storageVersion : `${group}/${storageVersion}`,
      path: collectionPath({ group, version: storageVersion, plural }),
      ...(kind === "ConfigMap" ? { fieldSelector: notEverywhere } : {}),
    }));
}
