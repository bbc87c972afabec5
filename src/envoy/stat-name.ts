// Names of clusters in Envoy's statistics, by MeshConfig's inboundClusterStatName and outboundClusterStatName. The mesh's own metrics
// do not go by them.

import type { Read } from "#engine";
import { readMesh, serviceOf } from "#model";
import type { Message } from "./proto/api.ts";

export interface StatSubject {
  /** `namespace/host`. */
  readonly service: string;
  /** Of the service. */
  readonly port: number;
  /** "" is the whole service, and the inbound side. */
  readonly subset?: string;
  /** Where the application listens; the outbound side has none, as in Istio. */
  readonly targetPort?: number;
}

type Side = "inbound" | "outbound";

/** By the side's pattern; undefined where MeshConfig has none, or there is no such service. */
export function statName(read: Read, side: Side, subject: StatSubject): string | undefined {
  const pattern = readMesh(read, `${side}ClusterStatName`) ?? "";
  const service = pattern === "" ? undefined : read(serviceOf, subject.service);
  if (service === undefined) return undefined;
  const { host, name, namespace, registry, ports } = service;
  const isKubernetes = registry === "Kubernetes";
  const variables: Readonly<Record<string, string>> = {
    SERVICE: isKubernetes ? `${name}.${namespace}` : host,
    SERVICE_NAME: isKubernetes ? name : host,
    SERVICE_FQDN: host,
    SUBSET_NAME: subject.subset ?? "",
    TARGET_PORT: String(subject.targetPort ?? 0),
    SERVICE_PORT: String(subject.port),
    SERVICE_PORT_NAME: ports.find(({ port }) => port === subject.port)?.name ?? "",
  };
  return pattern.replaceAll(/%([A-Z_]+)%/g, (whole, variable: string) => variables[variable] ?? whole);
}

/** `alt_stat_name`, with Istio's mark of its end: names have dots, as what follows them has. */
export function altStatName(read: Read, side: Side, subject: StatSubject): Message {
  const name = statName(read, side, subject);
  return name === undefined ? {} : { altStatName: `${name};` };
}
