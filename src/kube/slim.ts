// What is kept in memory of each object: what the mesh reads. A Pod as the API sends it is 8 KB, as the mesh reads it 1.

import type { KubeObject, ObjectMeta } from "#objects";

type Fields = Readonly<Record<string, unknown>>;

/** Set by kubectl: a second copy of the object. */
const lastApplied = "kubectl.kubernetes.io/last-applied-configuration";

/** Keeps what the mesh reads of an object; undefined for one that it does not read at all. */
export function slim(object: KubeObject): KubeObject | undefined {
  const slimmed = { ...object, metadata: slimMeta(object.metadata) };
  switch (object.kind) {
    case "Pod":
      return slimPod(slimmed);
    case "Secret":
      return isCredential(slimmed) ? slimmed : undefined;
    case "ConfigMap":
      return slimConfigMap(slimmed);
    case "Node": {
      const { apiVersion, kind, metadata } = slimmed;
      const addresses = externalAddresses(slimmed);
      return { apiVersion, kind, metadata, ...(addresses.length === 0 ? {} : { status: { addresses } }) };
    }
    default:
      return slimmed;
  }
}

function slimMeta(metadata: ObjectMeta): ObjectMeta {
  const { managedFields: _managedFields, ...kept } = metadata as ObjectMeta & { managedFields?: unknown };
  if (kept.annotations?.[lastApplied] === undefined) return kept;
  const { [lastApplied]: _lastApplied, ...annotations } = kept.annotations;
  return { ...kept, annotations };
}

/** The others, and the rest of a Node's status, change often and mean nothing here. */
function externalAddresses({ status }: KubeObject): readonly Fields[] {
  const { addresses = [] } = (status ?? {}) as { readonly addresses?: readonly Fields[] };
  return addresses.filter(({ type }) => type === "ExternalIP");
}

function slimPod(pod: KubeObject): KubeObject {
  const spec = (pod.spec ?? {}) as Fields;
  const status = (pod.status ?? {}) as Fields;
  return {
    apiVersion: pod.apiVersion,
    kind: pod.kind,
    metadata: pod.metadata,
    spec: {
      ...pick(spec, ["serviceAccountName", "nodeName", "hostNetwork", "hostname", "subdomain"]),
      containers: containersOf(spec["containers"]),
      ...(spec["initContainers"] !== undefined && { initContainers: containersOf(spec["initContainers"]) }),
    },
    status: pick(status, ["phase", "podIP", "podIPs", "hostIP", "conditions", "startTime"]),
  };
}

function containersOf(containers: unknown): Fields[] {
  return (Array.isArray(containers) ? (containers as Fields[]) : []).map((container) =>
    pick(container, ["name", "ports", "restartPolicy"]),
  );
}

function pick(from: Fields, names: readonly string[]): Fields {
  return Object.fromEntries(names.flatMap((name) => (from[name] === undefined ? [] : [[name, from[name]]])));
}

/** What the mesh reads of ConfigMaps: its own settings, CA bundles, parameters of Gateways. */
const configMapKeys = [
  "mesh",
  "meshNetworks",
  "values",
  "ca.crt",
  "ca.crl",
  "cacert",
  "deployment",
  "service",
  "serviceAccount",
  "horizontalPodAutoscaler",
  "podDisruptionBudget",
];

/** Others are known to exist, and no more: applications keep large things in ConfigMaps. */
function slimConfigMap(map: KubeObject): KubeObject {
  const { data = {} } = map as KubeObject & { data?: Fields };
  const { apiVersion, kind, metadata } = map;
  return { apiVersion, kind, metadata, data: pick(data, configMapKeys) } as KubeObject;
}

/** The keys of a gateway's credential, in both layouts. */
const credentialKeys = ["tls.crt", "tls.key", "ca.crt", "ca.crl", "cert", "key", "cacert", "crl"];

function isCredential(secret: KubeObject): boolean {
  const { data = {}, type } = secret as KubeObject & { data?: Fields; type?: string };
  return type === "kubernetes.io/tls" || credentialKeys.some((key) => data[key] !== undefined);
}
