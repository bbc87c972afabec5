// What the outbound side of a sidecar may see: its namespace, the Sidecar object that applies to it, and the few
// labels of its own that any rule asks for. Proxies of equal scope share an outbound view.

import { defineKeyedQuery, defineQuery, sameData, type Read } from "#engine";
import type { IstioEgressListener, KubeObject, Sidecar, WorkloadSelector } from "#objects";
import { fullHost, hostCovers, hostsMeet } from "./hosts.ts";
import { failoverLabels } from "./destination-rule.ts";
import { environmentOf, readMesh } from "./mesh.ts";
import { meshBalancing } from "./mesh-balancing.ts";
import { parseProtocol } from "./protocol.ts";
import { networkOfAddress, networksMatter } from "./networks.ts";
import { dnsCaptureField, proxyClassText, proxyFacts, type ProxyClass } from "./proxy.ts";
import { oldestFirst, selects } from "./selectors.ts";
import {
  isExportedTo,
  serviceNamespaces,
  serviceOf,
  servicesOfHost,
  servicesOfNamespace,
} from "./services.ts";
import { everything, tables } from "./tables.ts";
import { networkLabel, nodeLabel } from "./locality-labels.ts";
import { instanceAddresses } from "./workload.ts";

export interface OutboundScope {
  readonly namespace: string;
  /** Row key of the Sidecar that applies; "" for none. */
  readonly sidecar: string;
  /** Only the labels that some rule's source match or workload selector names. */
  readonly labels: Readonly<Record<string, string>>;
  /** region/zone/subzone, for load balancing by locality. */
  readonly locality: string;
  readonly network: string;
  /** Listeners are bound to ports, since nothing captures the traffic. */
  readonly unintercepted: boolean;
  /** Which names the proxy answers its workload for: none, or what the cluster's DNS does not know, or all. */
  readonly dns: DnsScope;
  /** Only what patches of EnvoyFilters ask for, by metadata name; absent where none asks. */
  readonly facts?: Readonly<Record<string, string>>;
}

/** A machine outside of the cluster may not reach the cluster's DNS: its proxy knows Kubernetes' Services as well. */
export type DnsScope = "none" | "entries" | "all";

/** A scope is part of most keys of the outbound side and never changes: its text is made once. */
const scopeTexts = new WeakMap<OutboundScope, string>();

export function scopeText(scope: OutboundScope): string {
  let text = scopeTexts.get(scope);
  if (text === undefined) {
    const labels = Object.entries(scope.labels).toSorted(([a], [b]) => (a < b ? -1 : 1));
    const { namespace, sidecar, locality, network, unintercepted, dns, facts } = scope;
    const parts = [namespace, sidecar, labels, locality, network, unintercepted, dns];
    text = JSON.stringify(facts === undefined ? parts : [...parts, Object.entries(facts)]);
    scopeTexts.set(scope, text);
  }
  return text;
}

/** Which hosts an egress listener lets in. */
export interface Import {
  /** A namespace or "*". */
  readonly namespace: string;
  /** A host, a wildcard or "*". */
  readonly host: string;
  readonly excluded: boolean;
}

export interface Egress {
  /** 0 is the listener for every port that no other egress listener has; of a unix socket it is below `anyOutlet`. */
  readonly port: number;
  readonly protocol: string;
  readonly bind: string;
  readonly bindToPort: boolean;
  /** Takes requests for every port of what it imports, as the Host header says it: a unix socket, or a proxy for HTTP. */
  readonly everyPort: boolean;
  readonly imports: readonly Import[];
}

const importEverything: Import = { namespace: "*", host: "*", excluded: false };
const defaultEgress: Egress = {
  port: 0,
  protocol: "",
  bind: "",
  bindToPort: false,
  everyPort: false,
  imports: [importEverything],
};

/** Labels that sources are matched by, anywhere in the mesh. */
const labelsAskedFor = defineQuery<readonly string[]>(
  "labelsAskedFor",
  (read) => {
    const byRoutes = read(tables.VirtualService.by.sourceLabels, everything).flatMap(({ spec }) =>
      [...(spec?.http ?? []), ...(spec?.tls ?? []), ...(spec?.tcp ?? [])].flatMap(({ match }) =>
        (match ?? []).flatMap(({ sourceLabels }) => Object.keys(sourceLabels ?? {})),
      ),
    );
    const byRules = read(tables.DestinationRule.by.selecting, everything).flatMap(({ spec }) =>
      Object.keys(spec?.workloadSelector?.matchLabels ?? {}),
    );
    const byFilters = read(tables.EnvoyFilter.by.selecting, everything).flatMap(({ spec }) =>
      Object.keys(spec?.workloadSelector?.labels ?? {}),
    );
    const bySelectors = [tables.Telemetry, tables.TrafficExtension, tables.WasmPlugin].flatMap((table) =>
      (
        read(table.by.selecting, everything) as readonly KubeObject<{
          readonly selector?: WorkloadSelector;
        }>[]
      ).flatMap(({ spec }) => Object.keys(spec?.selector?.matchLabels ?? {})),
    );
    const byFailover = [...read(failoverLabels, ""), ...read(meshBalancing, "").labels];
    const byNode =
      read(tables.Service.by.ownNode, everything).length > 0 ||
      read(tables.ServiceEntry.by.ownNode, everything).length > 0;
    return [
      ...new Set([
        ...byRoutes,
        ...byRules,
        ...byFilters,
        ...bySelectors,
        ...byFailover,
        ...(byNode ? [nodeLabel] : []),
      ]),
    ].toSorted();
  },
  sameData,
);

/** Whether it matters to anyone's routes or clusters on which node a client runs. */
export const nodesMatter = defineQuery<boolean>(
  "nodesMatter",
  (read) => read(labelsAskedFor, "").includes(nodeLabel),
  Object.is,
);

/** The names of metadata that patches of EnvoyFilters match, in order. */
const factsAskedFor = defineQuery<readonly string[]>(
  "factsAskedFor",
  (read) => {
    const patches = read(tables.EnvoyFilter.by.facts, everything).flatMap(
      ({ spec }) => spec?.configPatches ?? [],
    );
    return [...new Set(patches.flatMap(({ match }) => Object.keys(match?.proxy?.metadata ?? {})))].toSorted();
  },
  sameData,
);

export const outboundScopeOf = defineKeyedQuery<ProxyClass, OutboundScope>(
  "outboundScope",
  proxyClassText,
  (read, proxy) => {
    const { rootNamespace } = read(environmentOf, "");
    const own = read(tables.Sidecar.by.namespace, proxy.namespace);
    const ofRoot = proxy.namespace === rootNamespace ? [] : read(tables.Sidecar.by.namespace, rootNamespace);
    const chosen = chooseSidecar(own, proxy) ?? ofRoot.filter(isDefault).toSorted(oldestFirst)[0];
    const network = networkFor(read, proxy);
    const labelOf = (name: string): string | undefined =>
      name === nodeLabel ? proxy.node : name === networkLabel ? network : proxy.labels[name];
    const asked = read(labelsAskedFor, "").flatMap((name) => {
      const value = labelOf(name);
      return value === undefined ? [] : [[name, value] as const];
    });
    return {
      namespace: proxy.namespace,
      sidecar:
        chosen === undefined ? "" : `${chosen.metadata.namespace ?? "default"}/${chosen.metadata.name}`,
      labels: Object.fromEntries(asked),
      locality: proxy.locality,
      network,
      unintercepted: proxy.interception === "NONE",
      dns: dnsScopeOf(proxy),
      ...factsFor(read(factsAskedFor, ""), proxy),
    };
  },
  sameData,
);

function factsFor(asked: readonly string[], proxy: ProxyClass): Pick<OutboundScope, "facts"> {
  if (asked.length === 0) return {};
  const facts = proxyFacts(proxy);
  const known = asked.flatMap((name) => (facts[name] === undefined ? [] : [[name, facts[name]] as const]));
  return known.length === 0 ? {} : { facts: Object.fromEntries(known) };
}

/** "" where networks make no difference, so that clients of all share a view. */
function networkFor(read: Read, proxy: ProxyClass): string {
  if (!read(networksMatter, "")) return "";
  // Of MeshNetworks' ranges only the registry's counts here: replicas with different addresses are one class.
  return proxy.network === "" ? read(networkOfAddress, "") : proxy.network;
}

function dnsScopeOf(proxy: ProxyClass): DnsScope {
  if (proxy.metadata[dnsCaptureField] !== "true") return "none";
  return instanceAddresses(proxy).length > 0 ? "all" : "entries";
}

/** The egress listeners of a scope, those with a port first. */
export const egressOf = defineKeyedQuery<OutboundScope, readonly Egress[]>(
  "egress",
  scopeText,
  (read, scope) => {
    const given = scope.sidecar === "" ? undefined : read(tables.Sidecar, scope.sidecar)?.spec?.egress;
    if (given === undefined || given.length === 0) return [defaultEgress];
    const listeners = given.map((listener, at) => egressListener(listener, at, scope.namespace));
    return listeners.toSorted((a, b) => Number(a.port === 0) - Number(b.port === 0));
  },
  sameData,
);

/** What becomes of traffic to hosts that the mesh does not know. */
export type UnknownTraffic =
  | { readonly kind: "pass" }
  | { readonly kind: "block" }
  /** HTTP goes to what its Host is looked up to, other traffic where it was sent. */
  | { readonly kind: "look-up" }
  /** An egress proxy takes it all; its host is full. */
  | { readonly kind: "proxy"; readonly host: string; readonly port: number; readonly subset: string };

/** The Sidecar's word goes before MeshConfig's. */
export const unknownTrafficOf = defineKeyedQuery<OutboundScope, UnknownTraffic>(
  "unknownTraffic",
  scopeText,
  (read, scope) => {
    const own =
      scope.sidecar === "" ? undefined : read(tables.Sidecar, scope.sidecar)?.spec?.outboundTrafficPolicy;
    if (own === undefined) {
      const { mode } = readMesh(read, "outboundTrafficPolicy");
      if (mode === "ALLOW_ANY_DYNAMIC_DNS") return { kind: "look-up" };
      return mode === "REGISTRY_ONLY" ? { kind: "block" } : { kind: "pass" };
    }
    if (own.mode !== "ALLOW_ANY") return { kind: "block" };
    const proxy = own.egressProxy;
    if (proxy === undefined) return { kind: "pass" };
    const { clusterDomain } = read(environmentOf, "");
    return {
      kind: "proxy",
      host: fullHost(proxy.host, scope.namespace, clusterDomain),
      port: proxy.port?.number ?? 0,
      subset: proxy.subset ?? "",
    };
  },
  sameData,
);

/** One egress listener of a scope: what most lookups are relative to. */
export interface Outlet {
  readonly scope: OutboundScope;
  /** The port of the egress listener; 0 for the one that takes every other port; `anyOutlet` for all together; less for unix sockets. */
  readonly port: number;
}

/** The port of an outlet that lets in what any egress listener of the scope lets in. */
export const anyOutlet = -1;

/** Whether an outlet is an egress listener of its own, at a port or a unix socket, and not the one for all other ports. */
export function isOwnOutlet({ port }: Outlet): boolean {
  return port !== 0 && port !== anyOutlet;
}

export function outletText({ scope, port }: Outlet): string {
  return `${port} ${scopeText(scope)}`;
}

/**
 * The scope in whose place any client without a Sidecar may ask where its namespace makes no difference. A thousand
 * services seen from twenty namespaces are a thousand answers then, and not twenty thousand.
 */
export const anyClient: OutboundScope = {
  namespace: "",
  sidecar: "",
  labels: {},
  locality: "",
  network: "",
  unintercepted: false,
  dns: "none",
};

const anyClientOutlet: Outlet = { scope: anyClient, port: 0 };

/** Whether an outlet lets in everything that is exported to its namespace. */
export function importsAll({ scope, port }: Outlet): boolean {
  return scope.sidecar === "" && (port === 0 || port === anyOutlet);
}

/** Whether a host means the same service to clients of every namespace. */
const isPublicHost = defineQuery<boolean>("isPublicHost", (read, host) => {
  const [key, ...others] = read(servicesOfHost, host);
  if (key === undefined) return true;
  const exportTo = read(serviceOf, key)?.exportTo ?? [];
  return others.length === 0 && exportTo.includes("*") && !exportTo.includes("~");
});

/** Whether clients of every namespace see the same services of this one. */
export const isPublicNamespace = defineQuery<boolean>("isPublicNamespace", (read, namespace) =>
  read(servicesOfNamespace, namespace).every((key) => read(isPublicHost, key.slice(namespace.length + 1))),
);

/** Whether clients of every namespace see the same services. */
export const isPublicMesh = defineQuery<boolean>("isPublicMesh", (read) =>
  read(serviceNamespaces, "").every((namespace) => read(isPublicNamespace, namespace)),
);

export const egressAt = defineKeyedQuery<Outlet, Egress | undefined>(
  "egressAt",
  outletText,
  (read, { scope, port }) => {
    const listeners = read(egressOf, scope);
    if (port !== anyOutlet) return listeners.find((egress) => egress.port === port);
    return { ...defaultEgress, imports: listeners.flatMap(({ imports }) => imports) };
  },
  sameData,
);

/** The service that a host means to this outlet, as `namespace/host`; undefined when it may not see any. */
export const visibleService = defineKeyedQuery<
  { readonly outlet: Outlet; readonly host: string },
  string | undefined
>(
  "visibleService",
  ({ outlet, host }) => `${host} ${outletText(outlet)}`,
  (read, { outlet, host }) => {
    const imports = read(egressAt, outlet)?.imports ?? [];
    const client = outlet.scope.namespace;
    const candidates = read(servicesOfHost, host).flatMap((key) => {
      const service = read(serviceOf, key);
      return service !== undefined &&
        isExportedTo(service.exportTo, service.namespace, client) &&
        isImported(imports, service.namespace, service.host)
        ? [service]
        : [];
    });
    return (candidates.find(({ namespace }) => namespace === client) ?? candidates[0])?.key;
  },
  Object.is,
  (read, key) =>
    importsAll(key.outlet) && read(isPublicHost, key.host) ? { ...key, outlet: anyClientOutlet } : key,
);

/** Services of one namespace that an outlet sees, oldest first. */
export const visibleServices = defineKeyedQuery<
  { readonly outlet: Outlet; readonly namespace: string },
  readonly string[]
>(
  "visibleServices",
  ({ outlet, namespace }) => `${namespace} ${outletText(outlet)}`,
  (read, { outlet, namespace }) => {
    const imports = read(egressAt, outlet)?.imports ?? [];
    if (!imports.some((one) => !one.excluded && (one.namespace === "*" || one.namespace === namespace)))
      return [];
    return read(servicesOfNamespace, namespace).filter(
      (key) => read(visibleService, { outlet, host: key.slice(namespace.length + 1) }) === key,
    );
  },
  sameData,
  (read, key) =>
    importsAll(key.outlet) && read(isPublicNamespace, key.namespace)
      ? { ...key, outlet: anyClientOutlet }
      : key,
);

/** Namespaces that an outlet may see services of. A Sidecar that names them keeps the others' changes away. */
export const visibleNamespaces = defineKeyedQuery<Outlet, readonly string[]>(
  "visibleNamespaces",
  outletText,
  (read, outlet) => {
    const imports = (read(egressAt, outlet)?.imports ?? []).filter(({ excluded }) => !excluded);
    if (imports.some(({ namespace }) => namespace === "*")) return read(serviceNamespaces, "");
    return [...new Set(imports.map(({ namespace }) => namespace))].toSorted();
  },
  sameData,
);

/** Does an egress listener import this host of this namespace? */
export function isImported(imports: readonly Import[], namespace: string, host: string): boolean {
  const here = imports.filter((one) => one.namespace === "*" || one.namespace === namespace);
  return (
    here.some((one) => !one.excluded && hostCovers(one.host, host)) &&
    !here.some((one) => one.excluded && hostCovers(one.host, host))
  );
}

/** Does it import a rule for this host, which may be a wildcard that is wider than what was imported? */
export function isRuleImported(imports: readonly Import[], namespace: string, host: string): boolean {
  const here = imports.filter((one) => one.namespace === "*" || one.namespace === namespace);
  return (
    here.some((one) => !one.excluded && hostsMeet(one.host, host)) &&
    !here.some((one) => one.excluded && hostCovers(one.host, host))
  );
}

function isDefault({ spec }: Sidecar): boolean {
  return Object.keys(spec?.workloadSelector?.labels ?? {}).length === 0;
}

function chooseSidecar(own: readonly Sidecar[], proxy: ProxyClass): Sidecar | undefined {
  const byOwnAge = own.toSorted(oldestFirst);
  return (
    byOwnAge.find(
      (sidecar) => !isDefault(sidecar) && selects(sidecar.spec?.workloadSelector?.labels, proxy.labels),
    ) ?? byOwnAge.find(isDefault)
  );
}

/** @param at where it stands among the others: egress listeners at unix sockets have no other number */
function egressListener(listener: IstioEgressListener, at: number, ownNamespace: string): Egress {
  const isSocket = listener.bind?.startsWith("unix://") === true;
  const port = isSocket ? anyOutlet - 1 - at : (listener.port?.number ?? 0);
  return {
    port,
    protocol: listener.port?.protocol ?? "",
    bind: listener.bind ?? "",
    bindToPort: isSocket || listener.captureMode === "NONE",
    everyPort: isSocket || parseProtocol(listener.port?.protocol) === "http-proxy",
    imports: listener.hosts.flatMap((text) => {
      const [namespace = "", host] = text.split("/");
      if (host === undefined || namespace === "~") return [];
      const excluded = namespace.startsWith("~");
      const named = excluded ? namespace.slice(1) : namespace;
      return [{ namespace: named === "." ? ownNamespace : named, host, excluded }];
    }),
  };
}
