// Gateways of a router proxy: which Gateway objects choose it, and what their servers come to when they meet on a port.
//
// Rules of meeting, as Istio has them: plain HTTP servers on one port share a route table; servers with TLS share a
// port and are told apart by server name; everything else is a conflict, in which the older object wins.

import type { ObjectRef } from "#base";
import { defineKeyedQuery, sameData, type Read } from "#engine";
import type { Gateway, GatewayServer, ServerTLSSettings, Topology } from "#objects";
import {
  gatewayRef,
  gatewayServiceAnnotation,
  generatedGateways,
  parentNamespaceAnnotation,
} from "./gateway-api/generated.ts";
import { isGenerated } from "./gateway-api/names.ts";
import { ingressGateways } from "./ingress/index.ts";
import { datagramTargetsOf, inboundTargetsOf, type InboundTarget } from "./inbound.ts";
import { environmentOf } from "./mesh.ts";
import { isHttp, parseProtocol, type Protocol } from "./protocol.ts";
import type { ProxyClass } from "./proxy.ts";
import { outboundScopeOf, scopeText, type OutboundScope } from "./scope.ts";
import { oldestFirst, selects, type Labels } from "./selectors.ts";
import { serviceOf } from "./services.ts";
import { everything, tables } from "./tables.ts";
import { instanceAddresses, workloadText, type WorkloadKey } from "./workload.ts";

/** What a router's configuration depends on. */
export interface GatewayScope extends WorkloadKey {
  readonly addresses: readonly string[];
  /** What it may see of the mesh: everything that is exported to its namespace; Sidecars are not for routers. */
  readonly outbound: OutboundScope;
  /** Where the proxy stands, if its Pod says so. */
  readonly topology?: Topology;
}

/** One server of one Gateway on one port of the proxy. */
export interface MergedServer {
  /** `namespace/name` of the Gateway. */
  readonly gateway: string;
  readonly object: ObjectRef;
  /** Position in `spec.servers`. */
  readonly at: number;
  readonly name: string;
  /** The port that the Gateway names; VirtualServices match on it. */
  readonly number: number;
  readonly portName: string;
  readonly protocol: Protocol;
  readonly bind: string;
  /** `host` or `namespace/host`. */
  readonly hosts: readonly string[];
  readonly tls?: ServerTLSSettings;
  readonly kind: ServerKind;
  /** The route table of an HTTP server; "" for others. */
  readonly routeName: string;
  /** It is served over QUIC, too. */
  readonly http3?: true;
}

export type ServerKind =
  | "http"
  | "https"
  | "passthrough"
  | "auto-passthrough"
  | "tcp"
  | "tls-terminating"
  | "udp";

export interface GatewayListener {
  readonly name: string;
  readonly bind: string;
  readonly port: number;
  readonly servers: readonly MergedServer[];
}

export interface GatewayConflict {
  readonly object: ObjectRef;
  readonly at: number;
  readonly text: string;
}

export interface MergedGateway {
  readonly listeners: readonly GatewayListener[];
  /** On the same ports of UDP: the servers of HTTPS that speak HTTP/3. */
  readonly quicListeners: readonly GatewayListener[];
  /** Ports of UDP, each with its one server: listeners of Gateway API alone ask for them. */
  readonly datagramListeners: readonly GatewayListener[];
  /** Route tables by name, with the servers whose hosts they serve. */
  readonly routes: Readonly<Record<string, readonly MergedServer[]>>;
  readonly conflicts: readonly GatewayConflict[];
}

export const gatewayScopeOf = defineKeyedQuery<ProxyClass, GatewayScope>(
  "gatewayScopeOf",
  (proxy) =>
    `${workloadText(proxy)} ${JSON.stringify([proxy.locality, proxy.network, instanceAddresses(proxy), proxy.topology])}`,
  (read, proxy) => ({
    namespace: proxy.namespace,
    labels: proxy.labels,
    addresses: instanceAddresses(proxy),
    outbound: { ...read(outboundScopeOf, proxy), sidecar: "", unintercepted: true, dns: "none" },
    ...(proxy.topology === undefined ? {} : { topology: proxy.topology }),
  }),
  sameData,
);

export function gatewayScopeText(scope: GatewayScope): string {
  const topology = scope.topology === undefined ? "" : JSON.stringify(scope.topology);
  return `${workloadText(scope)} ${scope.addresses.join()} ${scopeText(scope.outbound)}${topology}`;
}

/** On a Service: Gateways name the proxy's own ports, not this Service's. */
const noTranslationLabel = "experimental.istio.io/disable-gateway-port-translation";

/** The merged servers of the Gateways that choose a proxy. */
export const mergedGatewayOf = defineKeyedQuery<GatewayScope, MergedGateway>(
  "mergedGatewayOf",
  gatewayScopeText,
  (read, scope) => {
    const targets = read(inboundTargetsOf, { ...scope, interception: "NONE" }).filter(
      ({ service }) => read(serviceOf, service)?.labels[noTranslationLabel] === undefined,
    );
    const gateways = [
      ...(read(environmentOf, "").gatewaySelectors === "own-namespace"
        ? read(tables.Gateway.by.namespace, scope.namespace)
        : read(tables.Gateway.by.all, everything)),
      ...read(generatedGateways, ""),
      ...read(ingressGateways, ""),
    ].toSorted(oldestFirst);
    const datagrams = gateways.some(takesDatagrams) ? read(datagramTargetsOf, scope) : [];
    const chosen = gateways.flatMap((gateway) => portsFor(gateway, scope.labels, targets, datagrams));
    return merge(chosen, read(environmentOf, "").quicListeners ? udpPorts(read, targets) : noUdpPorts);
  },
  sameData,
);

/** `443>8443`: the UDP ports of the Services in front of the proxy, with the proxy's own for each. */
function udpPorts(read: Read, targets: readonly InboundTarget[]): ReadonlySet<string> {
  const services = new Set(targets.map(({ service }) => service));
  return new Set(
    [...services].flatMap((service) =>
      (read(serviceOf, service)?.ports ?? [])
        .filter(({ protocol }) => protocol === "udp")
        .map(({ port, targetPort }) => `${port}>${targetPort}`),
    ),
  );
}

const noUdpPorts: ReadonlySet<string> = new Set();

interface ChosenGateway {
  readonly gateway: Gateway;
  readonly portsOf: (server: GatewayServer) => readonly number[];
}

function takesDatagrams({ metadata, spec }: Gateway): boolean {
  return isGenerated(metadata.name) && (spec?.servers ?? []).some(isDatagram);
}

function isDatagram({ port }: GatewayServer): boolean {
  return parseProtocol(port.protocol) === "udp";
}

/** Chosen by its selector, or by naming the Service in front of the proxy; with the proxy's ports for its own. */
function portsFor(
  gateway: Gateway,
  labels: Labels,
  targets: readonly InboundTarget[],
  datagrams: readonly InboundTarget[],
): ChosenGateway[] {
  const services = gateway.metadata.annotations?.[gatewayServiceAnnotation];
  if (services !== undefined) {
    const hosts = services.split(",");
    const place = gateway.metadata.annotations?.[parentNamespaceAnnotation] ?? gateway.metadata.namespace;
    const isOwn = ({ host, namespace }: InboundTarget): boolean =>
      hosts.includes(host) && namespace === place;
    // A Service port is named in such a Gateway; its target port is what the proxy listens on.
    const portsOf = (server: GatewayServer): number[] => {
      const own = (isDatagram(server) ? datagrams : targets).filter(isOwn);
      const meant = own.filter(({ servicePort }) => servicePort === server.port.number);
      return [...new Set(meant.map(({ port }) => port))];
    };
    return targets.some(isOwn) || datagrams.some(isOwn) ? [{ gateway, portsOf }] : [];
  }
  if (!selects(gateway.spec?.selector, labels)) return [];
  const portsOf = ({ port: { number } }: GatewayServer): number[] => [
    targets.find(({ servicePort }) => servicePort === number)?.port ?? number,
  ];
  return [{ gateway, portsOf }];
}

/** The state of merging: what each port of the proxy has got so far. */
interface Ports {
  readonly listeners: Map<string, { bind: string; port: number; servers: MergedServer[]; plain: boolean }>;
  readonly datagrams: Map<string, GatewayListener>;
  readonly routes: Map<string, MergedServer[]>;
  /** By port and bind: the server names that TLS chains are told apart by. */
  readonly serverNames: Map<string, Set<string>>;
  readonly conflicts: GatewayConflict[];
}

function merge(gateways: readonly ChosenGateway[], udp: ReadonlySet<string>): MergedGateway {
  const ports: Ports = {
    listeners: new Map(),
    datagrams: new Map(),
    routes: new Map(),
    serverNames: new Map(),
    conflicts: [],
  };
  for (const { gateway, portsOf } of gateways) {
    (gateway.spec?.servers ?? []).forEach((server, at) => {
      for (const port of portsOf(server))
        add(ports, overQuic(mergedServer(gateway, server, at, port), udp, port), port);
    });
  }
  const listeners = [...ports.listeners.values()].map(({ bind, port, servers }) => ({
    name: `${bind}_${port}`,
    bind,
    port,
    servers,
  }));
  const quicListeners = listeners
    .map((listener) => ({
      ...listener,
      name: datagramName(listener.name),
      servers: listener.servers.filter(({ http3 }) => http3 === true),
    }))
    // HTTPS is served over TCP all the same where somebody asks for the port of UDP itself.
    .filter(({ name, servers }) => servers.length > 0 && !ports.datagrams.has(name));
  return {
    listeners: listeners.toSorted((a, b) => (a.name < b.name ? -1 : 1)),
    quicListeners: quicListeners.toSorted((a, b) => (a.name < b.name ? -1 : 1)),
    datagramListeners: [...ports.datagrams.values()].toSorted((a, b) => (a.name < b.name ? -1 : 1)),
    routes: Object.fromEntries(ports.routes),
    conflicts: ports.conflicts,
  };
}

function datagramName(listener: string): string {
  return `udp_${listener}`;
}

function mergedServer(gateway: Gateway, server: GatewayServer, at: number, port: number): MergedServer {
  const namespace = gateway.metadata.namespace ?? "default";
  const protocol = parseProtocol(server.port.protocol);
  const datagrams = isDatagram(server) && isGenerated(gateway.metadata.name);
  const kind = datagrams ? "udp" : kindOf(protocol, server.tls);
  const bind = server.bind ?? "";
  const suffix = bind === "" ? "" : `.${bind}`;
  const routeName =
    kind === "http"
      ? `http.${port}${suffix}`
      : kind === "https"
        ? `https.${server.port.number}.${server.port.name}.${gateway.metadata.name}.${namespace}${suffix}`
        : "";
  return {
    gateway: `${namespace}/${gateway.metadata.name}`,
    object: gatewayRef(`${namespace}/${gateway.metadata.name}`),
    at,
    name: server.name ?? "",
    number: server.port.number,
    portName: server.port.name,
    protocol,
    bind,
    hosts: server.hosts.map((host) => qualifiedHost(host.toLowerCase(), namespace)),
    ...(server.tls === undefined ? {} : { tls: server.tls }),
    kind,
    routeName,
  };
}

/**
 * Only where nothing is asked of clients' certificates: Envoy asks for none over QUIC (envoyproxy/envoy#23809), so that a server that
 * demands them would be open to everybody.
 */
function overQuic(server: MergedServer, udp: ReadonlySet<string>, port: number): MergedServer {
  const isFit =
    server.kind === "https" && server.tls?.mode === "SIMPLE" && udp.has(`${server.number}>${port}`);
  return isFit ? { ...server, http3: true } : server;
}

function kindOf(protocol: Protocol, tls: ServerTLSSettings | undefined): ServerKind {
  if (isHttp(protocol)) return "http";
  const mode = tls?.mode ?? "PASSTHROUGH";
  if (tls === undefined) return "tcp";
  // Without a mode Istio's default is PASSTHROUGH, whose number is zero.
  if (mode === "PASSTHROUGH") return "passthrough";
  if (mode === "AUTO_PASSTHROUGH") return "auto-passthrough";
  return protocol === "https" ? "https" : "tls-terminating";
}

function add(ports: Ports, server: MergedServer, port: number): void {
  const bind = server.bind === "" ? "0.0.0.0" : server.bind;
  const key = `${bind}_${port}`;
  if (server.kind === "udp") {
    addDatagrams(ports, server, { name: datagramName(key), bind, port, servers: [server] });
    return;
  }
  const tls = server.tls !== undefined && server.kind !== "http";
  if (server.tls !== undefined && !claimServerNames(ports, key, server)) return;
  const listener = ports.listeners.get(key);
  if (listener === undefined) {
    ports.listeners.set(key, { bind, port, servers: [server], plain: !tls });
    addRoute(ports, server);
    return;
  }
  if (listener.plain || !tls) {
    const bothHttp = server.kind === "http" && listener.servers.every(({ kind }) => kind === "http");
    if (!bothHttp) {
      const other = listener.servers[0];
      conflict(ports, server, `port ${port} is already taken by ${other?.protocol} of ${other?.gateway}`);
      return;
    }
  }
  if (server.kind === "https" && ports.routes.has(server.routeName)) {
    conflict(ports, server, `another HTTPS server has the port name "${server.portName}"`);
    return;
  }
  listener.servers.push(server);
  addRoute(ports, server);
}

function addDatagrams(ports: Ports, server: MergedServer, listener: GatewayListener): void {
  const other = ports.datagrams.get(listener.name)?.servers[0];
  if (other === undefined) ports.datagrams.set(listener.name, listener);
  else conflict(ports, server, `port ${listener.port} of UDP is already taken by ${other.gateway}`);
}

/** Two filter chains with one server name would be rejected as a whole: the older server keeps it. */
function claimServerNames(ports: Ports, key: string, server: MergedServer): boolean {
  const known = ports.serverNames.get(key) ?? new Set<string>();
  ports.serverNames.set(key, known);
  // Server names know no namespaces; the hosts of a plain server that redirects to HTTPS do.
  const hosts =
    server.kind === "http" ? server.hosts : server.hosts.map((host) => host.slice(host.indexOf("/") + 1));
  const taken = hosts.filter((host) => known.has(host));
  if (taken.length > 0) {
    conflict(ports, server, `host ${taken.join(", ")} is already served on this port`);
    return false;
  }
  for (const host of hosts) known.add(host);
  return true;
}

function addRoute(ports: Ports, server: MergedServer): void {
  if (server.routeName === "") return;
  ports.routes.set(server.routeName, [...(ports.routes.get(server.routeName) ?? []), server]);
}

function conflict(ports: Ports, { object, at }: MergedServer, text: string): void {
  ports.conflicts.push({ object, at, text });
}

/** `./host` is the Gateway's own namespace, `*` as a namespace is all of them. */
function qualifiedHost(host: string, namespace: string): string {
  const [before = "", after] = host.split("/");
  if (after === undefined) return host;
  if (before === "*") return after;
  return before === "." ? `${namespace}/${after}` : host;
}

/** The hosts of a server that a VirtualService of this namespace may be bound to, without their namespaces. */
export function hostsForNamespace(hosts: readonly string[], namespace: string): readonly string[] {
  return hosts.flatMap((host) => {
    const [before = "", after] = host.split("/");
    if (after === undefined) return [host];
    return before === namespace ? [after] : [];
  });
}
