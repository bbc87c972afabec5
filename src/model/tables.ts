// The input tables: one for each kind that the mesh reads, row key `namespace/name` (`name` for cluster-scoped kinds).
// A row is the object as the API has it. Indexes are what keeps work proportional to a change.

import { defineTable, type Table } from "#engine";
import {
  groupOf,
  type AuthorizationPolicy,
  type BackendTLSPolicy,
  type DestinationRule,
  type EnvoyFilter,
  type Gateway,
  type GatewayClass,
  type GRPCRoute,
  type HTTPRoute,
  type Ingress,
  type IngressClass,
  type KubeGateway,
  type KubeObject,
  type ListenerSet,
  type MeshConfig,
  type MeshNetworks,
  type PeerAuthentication,
  type ProxyConfig,
  type ReferenceGrant,
  type RequestAuthentication,
  type ServiceEntry,
  type Sidecar,
  type TCPRoute,
  type UDPRoute,
  type Telemetry,
  type TLSRoute,
  type TrafficExtension,
  type VirtualService,
  type WasmPlugin,
  type WorkloadEntry,
  type WorkloadGroup,
  type XBackend,
} from "#objects";
import {
  namespaceOf,
  type ConfigMap,
  type EndpointSlice,
  type Namespace,
  type Node,
  type Pod,
  type Secret,
  type Service,
} from "./core-kinds.ts";
import {
  backendGroups,
  gatewayApiGroup,
  meshGroup,
  parentGroups,
  policyGroups,
} from "./gateway-api/references.ts";
import { hostGroup } from "./hosts.ts";
import { preferenceOf } from "./traffic-distribution.ts";

const namespace = (row: KubeObject): readonly string[] => [namespaceOf(row)];

/** Objects that choose workloads by their labels. */
const selecting = (
  row: KubeObject<{ readonly selector?: { readonly matchLabels?: Readonly<Record<string, string>> } }>,
): readonly string[] => (Object.keys(row.spec?.selector?.matchLabels ?? {}).length > 0 ? [everything] : []);

/** Whether it has patches for some proxies by what is known of them. */
const asksForFacts = (row: EnvoyFilter): boolean =>
  (row.spec?.configPatches ?? []).some(({ match }) => Object.keys(match?.proxy?.metadata ?? {}).length > 0);

/** Services that prefer endpoints of the client's node. */
const ownNode = (row: KubeObject<object>): readonly string[] =>
  preferenceOf(row) === "node" ? [everything] : [];

/** Extensions whose module may have to be fetched. */
const remoteModule = (url: string | undefined): readonly string[] =>
  url === undefined || url.startsWith("file:") ? [] : [everything];

/** The one group of an index that holds a whole (small) subset of a table. */
export const everything = "all";

/** The group that holds a whole subset in an index whose other groups are namespaces: no namespace is called so. */
export const everyNamespace = "*";

export const tables = {
  Service: defineTable<
    Service,
    "namespace" | "port" | "address" | "externalName" | "network" | "ownNode" | "all"
  >("Service", {
    namespace,
    address: (row) => clusterAddresses(row),
    ownNode,
    network: (row) => (row.metadata.labels?.["topology.istio.io/network"] === undefined ? [] : [everything]),
    externalName: (row) =>
      row.spec?.type === "ExternalName" && row.spec.externalName !== undefined ? [row.spec.externalName] : [],
    port: (row) => [...new Set((row.spec?.ports ?? []).map(({ port }) => String(port)))],
    all: () => [everything],
  }),
  EndpointSlice: defineTable<EndpointSlice, "service" | "address">("EndpointSlice", {
    service: (row) => {
      const service = row.metadata.labels?.["kubernetes.io/service-name"];
      return service === undefined ? [] : [`${namespaceOf(row)}/${service}`];
    },
    address: (row) => (row.endpoints ?? []).flatMap(({ addresses }) => addresses),
  }),
  Pod: defineTable<Pod, "namespace" | "address" | "router">("Pod", {
    namespace,
    router: (row) => (isRouter(row) ? [everything] : []),
    address: (row) => (row.spec?.hostNetwork === true ? [] : podAddresses(row)),
  }),
  Namespace: defineTable<Namespace, "all">("Namespace", { all: () => [everything] }),
  Node: defineTable<Node, "all">("Node", { all: () => [everything] }),
  Secret: defineTable<Secret, "namespace">("Secret", { namespace }),
  ConfigMap: defineTable<ConfigMap, "namespace">("ConfigMap", { namespace }),
  VirtualService: defineTable<VirtualService, "namespace" | "host" | "gateway" | "sourceLabels" | "all">(
    "VirtualService",
    {
      namespace,
      host: (row) => (row.spec?.hosts ?? []).map((host) => hostGroup(host, namespaceOf(row))),
      gateway: (row) =>
        (row.spec?.gateways ?? []).map((name) => (name.includes("/") ? name : `${namespaceOf(row)}/${name}`)),
      sourceLabels: (row) => (usesSourceLabels(row) ? [everything] : []),
      all: () => [everything],
    },
  ),
  DestinationRule: defineTable<
    DestinationRule,
    "namespace" | "host" | "selecting" | "ordering" | "credential" | "everyonesCredential"
  >("DestinationRule", {
    namespace,
    ordering: (row) => (JSON.stringify(row.spec ?? {}).includes('"failoverPriority"') ? [everything] : []),
    host: (row) => [hostGroup(row.spec?.host ?? "", namespaceOf(row))],
    selecting: (row) => (row.spec?.workloadSelector === undefined ? [] : [everything]),
    // By namespace and all together, those that may bring Secrets to sidecars.
    credential: (row) =>
      row.spec?.workloadSelector !== undefined && namesCredentials(row)
        ? [namespaceOf(row), everyNamespace]
        : [],
    // Those that may bring them to gateways alone.
    everyonesCredential: (row) =>
      row.spec?.workloadSelector === undefined && namesCredentials(row) ? [everything] : [],
  }),
  Gateway: defineTable<Gateway, "namespace" | "credential" | "all">("Gateway", {
    namespace,
    credential: (row) => (namesCredentials(row) ? [everything] : []),
    all: () => [everything],
  }),
  ServiceEntry: defineTable<
    ServiceEntry,
    "namespace" | "host" | "selecting" | "port" | "dynamic" | "ownNode" | "all"
  >("ServiceEntry", {
    namespace,
    ownNode,
    dynamic: (row) => (row.spec?.resolution === "DYNAMIC_DNS" ? [everything] : []),
    port: (row) => [...new Set((row.spec?.ports ?? []).map((port) => String(port.number)))],
    all: () => [everything],
    host: (row) => row.spec?.hosts ?? [],
    selecting: (row) => (row.spec?.workloadSelector === undefined ? [] : [namespaceOf(row)]),
  }),
  WorkloadEntry: defineTable<WorkloadEntry, "namespace" | "address">("WorkloadEntry", {
    namespace,
    address: (row) => (row.spec?.address === undefined ? [] : [row.spec.address]),
  }),
  WorkloadGroup: defineTable<WorkloadGroup, "namespace">("WorkloadGroup", { namespace }),
  Sidecar: defineTable<Sidecar, "namespace">("Sidecar", { namespace }),
  PeerAuthentication: defineTable<PeerAuthentication, "namespace">("PeerAuthentication", { namespace }),
  AuthorizationPolicy: defineTable<AuthorizationPolicy, "namespace">("AuthorizationPolicy", { namespace }),
  RequestAuthentication: defineTable<RequestAuthentication, "namespace" | "remote">("RequestAuthentication", {
    namespace,
    remote: (row) => (fetchesKeys(row) ? [everything] : []),
  }),
  EnvoyFilter: defineTable<EnvoyFilter, "namespace" | "selecting" | "facts">("EnvoyFilter", {
    facts: (row) => (asksForFacts(row) ? [everything] : []),
    namespace,
    selecting: (row) =>
      Object.keys(row.spec?.workloadSelector?.labels ?? {}).length > 0 ? [everything] : [],
  }),
  Telemetry: defineTable<Telemetry, "namespace" | "selecting">("Telemetry", { namespace, selecting }),
  WasmPlugin: defineTable<WasmPlugin, "namespace" | "selecting" | "remote">("WasmPlugin", {
    namespace,
    selecting,
    remote: (row) => remoteModule(row.spec?.url),
  }),
  TrafficExtension: defineTable<TrafficExtension, "namespace" | "selecting" | "remote">("TrafficExtension", {
    namespace,
    selecting,
    remote: (row) => remoteModule(row.spec?.wasm?.url),
  }),
  ProxyConfig: defineTable<ProxyConfig, "namespace">("ProxyConfig", { namespace }),
  Ingress: defineTable<Ingress, "all">("Ingress", { all: () => [everything] }),
  IngressClass: defineTable<IngressClass>("IngressClass"),
  GatewayClass: defineTable<GatewayClass, "all">("GatewayClass", { all: () => [everything] }),
  /** Gateway API's Gateway: Istio's has the name. */
  KubeGateway: defineTable<KubeGateway, "default" | "all">("KubeGateway", {
    default: (row) => (row.spec?.defaultScope === "All" ? [everything] : []),
    all: () => [everything],
  }),
  ListenerSet: defineTable<ListenerSet, "parent" | "all">("ListenerSet", {
    parent: (row) => parentGroups([row.spec?.parentRef], namespaceOf(row)),
    all: () => [everything],
  }),
  HTTPRoute: routeTable<HTTPRoute>("HTTPRoute"),
  GRPCRoute: routeTable<GRPCRoute>("GRPCRoute"),
  TLSRoute: routeTable<TLSRoute>("TLSRoute"),
  TCPRoute: routeTable<TCPRoute>("TCPRoute"),
  UDPRoute: routeTable<UDPRoute>("UDPRoute"),
  ReferenceGrant: defineTable<ReferenceGrant, "namespace">("ReferenceGrant", { namespace }),
  BackendTLSPolicy: defineTable<BackendTLSPolicy, "target" | "all">("BackendTLSPolicy", {
    target: (row) => policyGroups(row.spec?.targetRefs, namespaceOf(row)),
    all: () => [everything],
  }),
  XBackend: defineTable<XBackend, "all">("XBackend", { all: () => [everything] }),
} as const;

/** A table of routes: by the parents and the backends that they name, and those with a parent in the mesh together. */
function routeTable<Route extends HTTPRoute | GRPCRoute | TLSRoute | TCPRoute | UDPRoute>(kind: string) {
  return defineTable<Route, "parent" | "mesh" | "backend" | "defaulted" | "all">(kind, {
    defaulted: (row) => (row.spec?.useDefaultGateways === "All" ? [everything] : []),
    parent: (row) => parentGroups(row.spec?.parentRefs, namespaceOf(row)),
    mesh: (row) => meshGroup(row.spec?.parentRefs),
    backend: (row) => backendGroups(row.spec?.rules, namespaceOf(row)),
    all: () => [everything],
  });
}

export type TableKind = keyof typeof tables;

/** MeshConfig: one row, `meshRow`. Absent means Istio's defaults. */
export const meshConfigTable = defineTable<MeshConfig>("MeshConfig");
export const meshRow = "mesh";

/** What DNS says of names that the control plane resolves itself, by the name. */
export const resolvedNamesTable = defineTable<ResolvedName>("ResolvedName");

export interface ResolvedName {
  /** In order; those of the last success. */
  readonly addresses: readonly string[];
  /** Why the last attempt failed; absent after a success. */
  readonly failure?: string;
}

/** MeshNetworks: one row, `meshRow`. Absent means that all is one network. */
export const meshNetworksTable = defineTable<MeshNetworks>("MeshNetworks");

/** What the control plane knows of where it runs. */
export interface Environment {
  /** The namespace whose policies hold for the whole mesh. */
  readonly rootNamespace: string;
  /** e.g. "cluster.local". */
  readonly clusterDomain: string;
  readonly clusterId: string;
  /** The network of workloads that name none; "" when networks do not matter. */
  readonly network: string;
  /** How sidecars that can take either get the virtual hosts of their route tables. */
  readonly routeDelivery: RouteDelivery;
  /** Whether what is deployed for a Gateway of Gateway API bears the Gateway's labels and annotations where it asks for no others. */
  readonly gatewayLabels: "copied" | "left-out";
  /** Whose calls a VirtualService may route that is for a host of another namespace of the mesh. */
  readonly foreignRoutes: ForeignRoutes;
  /** Of which proxies a Gateway's selector chooses: everywhere, as in Istio, or of its own namespace alone. */
  readonly gatewaySelectors: "everywhere" | "own-namespace";
  /** Whether servers of HTTPS are served over QUIC as well, where the gateway's Service has a UDP port for it. */
  readonly quicListeners: boolean;
  /** Which of several control planes this one is: `istio.io/rev` of objects and namespaces tells them apart. */
  readonly revision: string;
}

/**
 * `own-clients`: only calls from its own namespace; the host's owner and the mesh's root namespace alone speak for everybody.
 * `all-clients`: everybody's, as in Istio: whoever may write a VirtualService anywhere can take any host over.
 */
export type ForeignRoutes = "own-clients" | "all-clients";

/**
 * `virtual-hosts`: each virtual host is a resource of its own (VHDS), so that a change costs the bytes of one.
 * `tables`: a route table is one resource, as in Istio.
 */
export type RouteDelivery = "virtual-hosts" | "tables";

export const defaultEnvironment: Environment = {
  rootNamespace: "istio-d",
  clusterDomain: "cluster.local",
  clusterId: "Kubernetes",
  network: "",
  routeDelivery: "virtual-hosts",
  gatewayLabels: "copied",
  foreignRoutes: "own-clients",
  gatewaySelectors: "everywhere",
  quicListeners: false,
  revision: "default",
};

/** One row, `environmentRow`. */
export const environmentTable = defineTable<Environment>("Environment");
export const environmentRow = "environment";

/** The table of an object's kind, for those who feed objects; undefined for kinds that the mesh does not read. */
export function tableOf({
  kind,
  apiVersion,
}: Pick<KubeObject, "kind" | "apiVersion">): Table<KubeObject> | undefined {
  const name = kind === "Gateway" && groupOf(apiVersion) === gatewayApiGroup ? "KubeGateway" : kind;
  return Object.hasOwn(tables, name)
    ? (tables[name as TableKind] as unknown as Table<KubeObject>)
    : undefined;
}

/** Whether some rule names a place to fetch keys from; the CRD admits two spellings of it. */
function fetchesKeys({ spec }: RequestAuthentication): boolean {
  return (spec?.jwtRules ?? []).some((rule) => "jwksUri" in rule || "jwks_uri" in rule);
}

/** Whether a pod is a gateway: made from the gateway's template, or by hand with the proxy as its only container. */
/** Of a Service inside of the cluster. */
export function clusterAddresses({ spec = {} }: Service): readonly string[] {
  if (spec.type === "ExternalName") return [];
  return (spec.clusterIPs ?? [spec.clusterIP ?? ""]).filter(
    (address) => address !== "" && address !== "None",
  );
}

/** `credentialName` or `credentialNames`, somewhere. */
function namesCredentials({ spec }: KubeObject<object>): boolean {
  return JSON.stringify(spec ?? {}).includes('"credentialName');
}

/** Whether a Pod is a gateway, as far as it shows. */
export function isRouter({ metadata, spec }: Pod): boolean {
  const template = metadata.annotations?.["inject.istio.io/templates"] ?? "";
  if (template.split(",").includes("gateway")) return true;
  const containers = spec?.containers ?? [];
  return containers.length === 1 && containers[0]?.name === "istio-proxy";
}

function podAddresses({ status }: Pod): readonly string[] {
  const addresses = (status?.podIPs ?? []).flatMap(({ ip }) => (ip === undefined ? [] : [ip]));
  if (addresses.length > 0) return addresses;
  return status?.podIP === undefined ? [] : [status.podIP];
}

function usesSourceLabels({ spec }: VirtualService): boolean {
  const matches = [
    ...(spec?.http ?? []).flatMap(({ match }) => match ?? []),
    ...(spec?.tls ?? []).flatMap(({ match }) => match ?? []),
    ...(spec?.tcp ?? []).flatMap(({ match }) => match ?? []),
  ];
  return matches.some(({ sourceLabels }) => sourceLabels !== undefined);
}
