// How a sidecar gets its clusters: all that it may need at once, or each when a request first needs it.

import { defineKeyedQuery, defineQuery } from "#engine";
import { clusterDiscoveryVariable, labels } from "#objects";
import { readProxyDefaults } from "./mesh.ts";
import type { ProxyClass } from "./proxy.ts";
import { tables } from "./tables.ts";

/**
 * `eager`: a sidecar holds the clusters of every service that it may call, as in Istio. `on-demand`: it holds those that
 * it has called; Envoy asks for a cluster when the first request wants to go there (ODCDS).
 */
export type ClusterDiscovery = "eager" | "on-demand";

const ofNamespace = defineQuery<string>(
  "clusterDiscoveryOfNamespace",
  (read, namespace) => read(tables.Namespace, namespace)?.metadata.labels?.[labels.clusterDiscovery] ?? "",
);

const ofMesh = defineQuery<string>(
  "clusterDiscoveryOfMesh",
  (read) => readProxyDefaults(read).proxyMetadata?.[clusterDiscoveryVariable] ?? "",
);

/** The Pod's annotation goes before the namespace's label, and that before MeshConfig. Other words than the two say nothing. */
export const clusterDiscoveryOf = defineKeyedQuery<
  Pick<ProxyClass, "namespace" | "clusterDiscovery">,
  ClusterDiscovery
>(
  "clusterDiscoveryOf",
  ({ namespace, clusterDiscovery = "" }) => `${namespace} ${clusterDiscovery}`,
  (read, { namespace, clusterDiscovery = "" }) => {
    const said = [clusterDiscovery, read(ofNamespace, namespace), read(ofMesh, "")];
    return said.find((word): word is ClusterDiscovery => word === "eager" || word === "on-demand") ?? "eager";
  },
);
