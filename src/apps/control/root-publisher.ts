// The mesh's root certificate as ConfigMap `istio-ca-root-cert` in every namespace: what proxies trust istiod by. Only
// the leader writes; what somebody changes or deletes comes back.

import type { Clock, Logger } from "#base";
import { slim, WatchCache, type KubeClient, type RateLimitedWriter } from "#kube";
import { objectKey, type KubeObject, type MeshConfig } from "#objects";

const configMapName = "istio-ca-root-cert";
const dataKey = "root-cert.pem";
/** Roots that MeshConfig adds for calls between workloads; the control plane itself is not trusted by them. */
const addedKey = "added-roots.pem";
const label = "istio.io/config";

export interface RootPublisherOptions {
  readonly client: KubeClient;
  readonly writer: RateLimitedWriter;
  readonly rootPem: () => string;
  /** "" where MeshConfig adds none. */
  readonly addedRootsPem: () => string;
  readonly clock: Clock;
  readonly random: () => number;
  readonly log: Logger;
}

export class RootPublisher {
  readonly #options: RootPublisherOptions;
  readonly #namespaces: WatchCache;
  readonly #maps: WatchCache;
  #synced = 0;
  #leading = false;

  constructor(options: RootPublisherOptions) {
    this.#options = options;
    const { client, clock, random, log } = options;
    const synced = (): void => {
      this.#synced++;
      this.publishAll();
    };
    const shared = { client, clock, random, log, slim, synced };
    this.#namespaces = new WatchCache({
      ...shared,
      source: { kind: "Namespace", apiVersion: "v1", path: "/api/v1/namespaces" },
      changed: (set) => this.#check(set.map(({ metadata }) => metadata.name)),
    });
    this.#maps = new WatchCache({
      ...shared,
      source: {
        kind: "ConfigMap",
        apiVersion: "v1",
        path: "/api/v1/configmaps",
        fieldSelector: `metadata.name=${configMapName}`,
      },
      changed: (set, removed) =>
        this.#check([...set, ...removed].map(({ metadata }) => metadata.namespace ?? "default")),
    });
  }

  start(): void {
    void this.#namespaces.run();
    void this.#maps.run();
  }

  stop(): void {
    this.#namespaces.stop();
    this.#maps.stop();
  }

  setLeading(leading: boolean): void {
    this.#leading = leading;
    this.publishAll();
  }

  /** After the root changed, or when this replica begins to lead. */
  publishAll(): void {
    this.#check([...this.#namespaces.objects.keys()]);
  }

  #check(namespaces: readonly string[]): void {
    if (!this.#leading || this.#synced < 2) return;
    const { writer, rootPem, addedRootsPem } = this.#options;
    const root = rootPem();
    const added = addedRootsPem();
    for (const namespace of namespaces) {
      const own = this.#namespaces.objects.get(namespace);
      if (own === undefined || own.metadata.deletionTimestamp !== undefined) continue;
      const map = this.#maps.objects.get(objectKey({ ...own, metadata: { name: configMapName, namespace } }));
      const data = dataOf(map);
      if (data?.[dataKey] === root && (data[addedKey] ?? "") === added) continue;
      writer.submit(`root ${namespace}`, () => this.#write(namespace, map !== undefined));
    }
  }

  #write(namespace: string, exists: boolean): Promise<unknown> {
    const { client, rootPem, addedRootsPem } = this.#options;
    const added = addedRootsPem();
    // In a patch null takes away what is no longer added.
    const more = added !== "" ? { [addedKey]: added } : exists ? { [addedKey]: null } : {};
    const body = {
      apiVersion: "v1",
      kind: "ConfigMap",
      metadata: { name: configMapName, namespace, labels: { [label]: "true" } },
      data: { [dataKey]: rootPem(), ...more },
    };
    const collection = `/api/v1/namespaces/${namespace}/configmaps`;
    if (!exists) return client.request(collection, { method: "POST", body });
    return client.request(`${collection}/${configMapName}`, { method: "PATCH", patch: "merge", body });
  }
}

/** The certificates of MeshConfig's caCertificates, each as it stands there. */
export function addedRootsOf({ caCertificates = [] }: MeshConfig): string {
  return caCertificates
    .flatMap(({ pem = "" }) => (pem === "" ? [] : [pem.trimEnd()]))
    .map((pem) => `${pem}\n`)
    .join("");
}

function dataOf(map: KubeObject | undefined): Readonly<Record<string, string>> | undefined {
  return (map as { readonly data?: Readonly<Record<string, string>> } | undefined)?.data;
}
