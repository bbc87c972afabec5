// Services of the mesh: what a Kubernetes Service and a ServiceEntry have in common.

import type { ObjectRef } from "#base";
import { defineQuery, sameData, type Read } from "#engine";
import { refOf, type KubeObject, type ServiceEntry } from "#objects";
import { namespaceOf, type Service } from "./core-kinds.ts";
import { claimsForeign } from "./claims.ts";
import { narrowedExport } from "./entry-visibility.ts";
import { environmentOf, readMesh } from "./mesh.ts";
import { parseProtocol, selectProtocol, type Protocol } from "./protocol.ts";
import { clusterAddresses, everything, tables } from "./tables.ts";
import { preferenceOf, type Preference } from "./traffic-distribution.ts";

/** Where the endpoints of a service come from, and who picks one. */
export type Resolution =
  /** Envoy balances over endpoints that the control plane sends. */
  | "endpoints"
  /** Envoy resolves names by DNS. */
  | "dns"
  | "dns-round-robin"
  /** Envoy resolves the name that a request or a connection carries. */
  | "dynamic-dns"
  /** The client has picked an address; Envoy goes there. */
  | "original-destination"
  /** Another name for a service. */
  | "alias";

export interface MeshPort {
  readonly port: number;
  readonly name: string;
  readonly protocol: Protocol;
  /** Number or name of the workload's port. */
  readonly targetPort: number | string;
}

export interface MeshService {
  /** `namespace/host`. */
  readonly key: string;
  readonly host: string;
  readonly namespace: string;
  /** The Service's name; for a ServiceEntry its host. */
  readonly name: string;
  readonly registry: "Kubernetes" | "External";
  /** The objects behind it: one Service, or every ServiceEntry of the namespace with this host, oldest first. */
  readonly objects: readonly ObjectRef[];
  readonly created: string;
  /** Virtual addresses; may be CIDRs for a ServiceEntry. Empty for headless services. */
  readonly addresses: readonly string[];
  /** Addresses that the mesh chose, since the ServiceEntry names none: for clients whose DNS the proxy answers. */
  readonly autoAddresses: readonly string[];
  readonly resolution: Resolution;
  readonly external: boolean;
  readonly ports: readonly MeshPort[];
  /** "*", "~" for none, or namespaces; "." is already resolved. */
  readonly exportTo: readonly string[];
  /** The host that an alias stands for. */
  readonly aliasOf: string;
  readonly subjectAltNames: readonly string[];
  /** Who may answer for it beside its endpoints: `namespace/serviceAccount`, or whole identities as certificates have them. */
  readonly serviceAccounts: readonly string[];
  /** Which endpoints go first; others when there are none. */
  readonly prefers: Preference;
  readonly selects: boolean;
  readonly labels: Readonly<Record<string, string>>;
}

export function serviceKey(namespace: string, host: string): string {
  return `${namespace}/${host}`;
}

/** Orders services as Istio does: oldest first, then by namespace and host. */
export function byAge(
  a: { readonly created: string; readonly key: string },
  b: { readonly created: string; readonly key: string },
): number {
  if (a.created !== b.created) return a.created < b.created ? -1 : 1;
  return a.key < b.key ? -1 : a.key > b.key ? 1 : 0;
}

/** The service of one Service object, by row key. */
export const kubeService = defineQuery<MeshService | undefined>(
  "kubeService",
  (read, key) => {
    const row = read(tables.Service, key);
    if (row === undefined) return undefined;
    const { clusterDomain } = read(environmentOf, "");
    return ofService(row, clusterDomain, readMesh(read, "defaultServiceExportTo"));
  },
  sameData,
);

/** The services of one ServiceEntry object, by row key: one for each host. */
export const entryServices = defineQuery<readonly MeshService[]>(
  "entryServices",
  (read, key) => {
    const row = read(tables.ServiceEntry, key);
    if (row === undefined) return [];
    return ofServiceEntry(row, readMesh(read, "defaultServiceExportTo")).map((service) => ({
      ...service,
      exportTo: narrowedExport(read, service.namespace, service.exportTo),
    }));
  },
  sameData,
);

/** One service by `namespace/host`. */
export const serviceOf = defineQuery<MeshService | undefined>(
  "service",
  (read, key) => {
    const slash = key.indexOf("/");
    const namespace = key.slice(0, slash);
    const host = key.slice(slash + 1);
    const { clusterDomain } = read(environmentOf, "");
    const row = kubeRowOf(host, clusterDomain);
    const kube = row?.startsWith(`${namespace}/`) === true ? read(kubeService, row) : undefined;
    if (kube !== undefined) return kube;
    const entries = read(tables.ServiceEntry.by.host.members, host)
      .filter((entry) => entry.startsWith(`${namespace}/`))
      .flatMap((entry) => read(entryServices, entry).filter((service) => service.host === host));
    const merged = mergeEntries(entries);
    return merged === undefined ? undefined : withinWalls(read, merged);
  },
  sameData,
);

/** What claims a name or an address of another namespace's Service is for its own namespace's clients alone. */
function withinWalls(read: Read, service: MeshService): MeshService {
  if (!claimsForeign(read, service)) return service;
  const { exportTo, namespace } = service;
  return { ...service, exportTo: isExportedTo(exportTo, namespace, namespace) ? [namespace] : ["~"] };
}

/** Keys of the services with this host, whatever their namespace: the Kubernetes one first, then oldest first. */
export const servicesOfHost = defineQuery<readonly string[]>(
  "servicesOfHost",
  (read, host) => {
    const { clusterDomain } = read(environmentOf, "");
    const row = kubeRowOf(host, clusterDomain);
    const kube = row === undefined ? undefined : read(kubeService, row);
    const namespaces = new Set(
      read(tables.ServiceEntry.by.host.members, host).map((entry) => entry.slice(0, entry.indexOf("/"))),
    );
    if (kube !== undefined) namespaces.delete(kube.namespace);
    const others = [...namespaces]
      .flatMap((namespace) => read(serviceOf, serviceKey(namespace, host)) ?? [])
      .toSorted(byAge);
    return [...(kube === undefined ? [] : [kube]), ...others].map(({ key }) => key);
  },
  sameData,
);

/** Keys of the services of a namespace, oldest first. */
export const servicesOfNamespace = defineQuery<readonly string[]>(
  "servicesOfNamespace",
  (read, namespace) => {
    const kube = read(tables.Service.by.namespace.members, namespace).flatMap(
      (row) => read(kubeService, row)?.key ?? [],
    );
    const entries = read(tables.ServiceEntry.by.namespace.members, namespace).flatMap((row) =>
      read(entryServices, row).map(({ key }) => key),
    );
    const services = [...new Set([...kube, ...entries])].flatMap((key) => read(serviceOf, key) ?? []);
    return services.toSorted(byAge).map(({ key }) => key);
  },
  sameData,
);

/** Keys of the services with this port number, in any namespace, oldest first. */
export const servicesOfPort = defineQuery<readonly string[]>(
  "servicesOfPort",
  (read, port) => {
    const kube = read(tables.Service.by.port.members, port).flatMap(
      (row) => read(kubeService, row)?.key ?? [],
    );
    const entries = read(tables.ServiceEntry.by.port.members, port).flatMap((row) =>
      read(entryServices, row).map(({ key }) => key),
    );
    const services = [...new Set([...kube, ...entries])].flatMap((key) => read(serviceOf, key) ?? []);
    return services.toSorted(byAge).map(({ key }) => key);
  },
  sameData,
);

/** Hosts of the ExternalName Services that stand for this host. */
export const aliasesOf = defineQuery<readonly string[]>(
  "aliases",
  (read, host) =>
    read(tables.Service.by.externalName.members, host)
      .flatMap((row) => read(kubeService, row)?.host ?? [])
      .filter((alias) => alias !== host),
  sameData,
);

/** Port numbers that the services of a namespace have. */
const portsOfNamespace = defineQuery<readonly number[]>(
  "portsOfNamespace",
  (read, namespace) => {
    const ports = read(servicesOfNamespace, namespace).flatMap((key) => read(serviceOf, key)?.ports ?? []);
    return [...new Set(ports.map(({ port }) => port))].toSorted((a, b) => a - b);
  },
  sameData,
);

/** Namespaces that have services, in order. Runs again only when a Service or ServiceEntry comes or goes. */
export const serviceNamespaces = defineQuery<readonly string[]>(
  "serviceNamespaces",
  (read) => {
    const rows = [
      ...read(tables.Service.by.all.members, everything),
      ...read(tables.ServiceEntry.by.all.members, everything),
    ];
    return [...new Set(rows.map((row) => row.slice(0, row.indexOf("/"))))].toSorted();
  },
  sameData,
);

/** Every port number of the mesh, in order. */
export const servicePorts = defineQuery<readonly number[]>(
  "servicePorts",
  (read) => {
    const ports = read(serviceNamespaces, "").flatMap((namespace) => read(portsOfNamespace, namespace));
    return [...new Set(ports)].toSorted((a, b) => a - b);
  },
  sameData,
);

/** Is the service offered to clients of this namespace? */
export function isExportedTo(
  exportTo: readonly string[],
  ownNamespace: string,
  clientNamespace: string,
): boolean {
  if (exportTo.includes("~")) return false;
  return exportTo.includes("*") || exportTo.includes(clientNamespace) || exportTo.length === 0
    ? true
    : exportTo.includes(".") && ownNamespace === clientNamespace;
}

/** The row of the Service that has this host, if a Service can have it: `namespace/name`. */
export function kubeRowOf(host: string, clusterDomain: string): string | undefined {
  const suffix = `.svc.${clusterDomain}`;
  if (!host.endsWith(suffix)) return undefined;
  const parts = host.slice(0, -suffix.length).split(".");
  return parts.length === 2 ? `${parts[1]}/${parts[0]}` : undefined;
}

/** The parts of an annotation that lists something. */
function listed({ metadata }: KubeObject<object>, annotation: string): readonly string[] {
  const parts = metadata.annotations?.[annotation]?.split(",") ?? [];
  return parts.map((part) => part.trim()).filter((part) => part !== "");
}

function ofService(
  row: Service,
  clusterDomain: string,
  defaultExportTo: readonly string[] | undefined,
): MeshService {
  const namespace = namespaceOf(row);
  const host = `${row.metadata.name}.${namespace}.svc.${clusterDomain}`;
  const spec = row.spec ?? {};
  const alias = spec.type === "ExternalName" ? (spec.externalName ?? "") : "";
  const addresses = clusterAddresses(row);
  const ports = (spec.ports ?? []).map((port) => ({
    port: port.port,
    name: port.name ?? "",
    protocol: selectProtocol(port),
    targetPort: port.targetPort === undefined || port.targetPort === 0 ? port.port : port.targetPort,
  }));
  return {
    key: serviceKey(namespace, host),
    host,
    namespace,
    name: row.metadata.name,
    registry: "Kubernetes",
    objects: [refOf(row)],
    created: row.metadata.creationTimestamp ?? "",
    addresses,
    autoAddresses: [],
    resolution: alias !== "" ? "alias" : addresses.length === 0 ? "original-destination" : "endpoints",
    external: false,
    ports,
    exportTo: exportOf(listed(row, "networking.istio.io/exportTo"), namespace, defaultExportTo),
    aliasOf: alias,
    subjectAltNames: [],
    serviceAccounts: [
      ...listed(row, "alpha.istio.io/kubernetes-serviceaccounts").map((name) => `${namespace}/${name}`),
      ...listed(row, "alpha.istio.io/canonical-serviceaccounts"),
    ],
    prefers: preferenceOf(row),
    selects: Object.keys(spec.selector ?? {}).length > 0,
    labels: labelsOf(row),
  };
}

const resolutions: Readonly<Record<string, Resolution>> = {
  STATIC: "endpoints",
  DNS: "dns",
  DNS_ROUND_ROBIN: "dns-round-robin",
  DYNAMIC_DNS: "dynamic-dns",
};

function ofServiceEntry(row: ServiceEntry, defaultExportTo: readonly string[] | undefined): MeshService[] {
  const namespace = namespaceOf(row);
  const spec = row.spec;
  if (spec === undefined) return [];
  const resolution = resolutions[spec.resolution ?? "NONE"] ?? "original-destination";
  const ports = (spec.ports ?? []).map((port) => ({
    port: port.number,
    name: port.name,
    protocol: parseProtocol(port.protocol),
    targetPort: port.targetPort === undefined || port.targetPort === 0 ? port.number : port.targetPort,
  }));
  return spec.hosts.map((host) => ({
    key: serviceKey(namespace, host),
    host,
    namespace,
    name: host,
    registry: "External",
    objects: [refOf(row)],
    created: row.metadata.creationTimestamp ?? "",
    addresses: (spec.addresses ?? []).map(withoutWholeLength),
    autoAddresses: autoAddressesOf(row, host),
    resolution,
    external: spec.location !== "MESH_INTERNAL",
    ports,
    exportTo: exportOf(spec.exportTo, namespace, defaultExportTo),
    aliasOf: "",
    subjectAltNames: spec.subjectAltNames ?? [],
    serviceAccounts: [],
    prefers: preferenceOf(row),
    selects: spec.workloadSelector !== undefined,
    labels: labelsOf(row),
  }));
}

/** Several ServiceEntries of one namespace may carry one host: the oldest rules, the others add ports and addresses. */
function mergeEntries(entries: readonly MeshService[]): MeshService | undefined {
  const [first, ...others] = entries.toSorted((a, b) =>
    byAge({ created: a.created, key: refKey(a) }, { created: b.created, key: refKey(b) }),
  );
  if (first === undefined || others.length === 0) return first;
  const alike = others.filter(({ resolution }) => resolution === first.resolution);
  const ports = new Map(first.ports.map((port) => [port.port, port]));
  for (const { ports: more } of alike) {
    for (const port of more) if (!ports.has(port.port)) ports.set(port.port, port);
  }
  return {
    ...first,
    objects: [first, ...alike].flatMap(({ objects }) => objects),
    addresses: [...new Set([first, ...alike].flatMap(({ addresses }) => addresses))],
    autoAddresses: [...new Set([first, ...alike].flatMap(({ autoAddresses }) => autoAddresses))],
    ports: [...ports.values()],
    selects: first.selects || alike.some(({ selects }) => selects),
  };
}

/** The addresses that the leader wrote into the status, unless the entry has left the condition under which they hold. */
function autoAddressesOf(row: ServiceEntry, host: string): readonly string[] {
  if (!wantsAutoAddresses(row)) return [];
  return (row.status?.addresses ?? []).flatMap(({ value, host: owner }) =>
    owner === host && value !== undefined ? [value] : [],
  );
}

/**
 * Whether the mesh chooses addresses for the hosts of a ServiceEntry, as Istio does: it names none itself, its clients do
 * not go to addresses of their own choice, and its label does not say no. Hosts with a wildcard never get any.
 */
export function wantsAutoAddresses({ metadata, spec }: ServiceEntry): boolean {
  const label = metadata.labels?.["networking.istio.io/enable-autoallocate-ip"] ?? "";
  return (
    (spec?.addresses ?? []).length === 0 &&
    (spec?.resolution ?? "NONE") !== "NONE" &&
    spec?.resolution !== "DYNAMIC_DNS" &&
    label.toLowerCase() !== "false"
  );
}

/** A range of one address is that address: it gets a listener of its own. */
function withoutWholeLength(address: string): string {
  return address.includes(":") ? address.replace(/\/128$/, "") : address.replace(/\/32$/, "");
}

function refKey({ objects }: MeshService): string {
  return `${objects[0]?.namespace}/${objects[0]?.name}`;
}

function exportOf(
  own: readonly string[] | undefined,
  namespace: string,
  byDefault: readonly string[] | undefined,
): readonly string[] {
  const given = own === undefined || own.length === 0 ? byDefault : own;
  if (given === undefined || given.length === 0) return ["*"];
  return [...new Set(given.map((entry) => (entry === "." ? namespace : entry)))].toSorted();
}

/** Only the labels that mean something to the mesh: others would wake readers for nothing. */
function labelsOf(row: KubeObject): Readonly<Record<string, string>> {
  const entries = Object.entries(row.metadata.labels ?? {});
  return Object.fromEntries(
    entries.filter(([name]) => name.includes("istio.io/")).toSorted(([a], [b]) => (a < b ? -1 : 1)),
  );
}
