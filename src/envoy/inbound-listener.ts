// The inbound side of a workload: `virtualInbound` on 15006, where capture brings every connection. A filter chain
// is chosen by the port that the client asked for, by whether TLS of the mesh is spoken, and by what is inside.

import { ports as meshPorts } from "#base";
import type { Read } from "#engine";
import { refOf, type AuthorizationPolicy } from "#objects";
import {
  inboundPortsOf,
  mtlsModesOf,
  portMode,
  readMesh,
  type InboundPort,
  type InboundScope,
  type JwtRules,
  type MtlsMode,
  type ProxyTuning,
} from "#model";
import type { InboundListenerKey, VirtualInboundKey } from "#plan";
import {
  httpConnectionManager,
  httpInspector,
  originalDestination,
  originalSource,
  tcpProxy,
  tlsInspector,
  type FilterSettings,
} from "./filters.ts";
import { durationMsOf } from "./duration.ts";
import { chainMatches, type ChainMatch } from "./inbound-match.ts";
import { readFilterSettings, readMeshTls } from "./mesh-settings.ts";
import { durationOf, wrapped, type Message } from "./proto/api.ts";
import { httpRbacFilters, tcpRbacFilters, type RbacInput } from "./rbac.ts";
import { readRbac } from "./rbac-input.ts";
import { jwtFilters, readJwt } from "./request-authentication.ts";
import { resource, type EnvoyResource, type Origin } from "./resource.ts";
import { inboundRetryPolicy, type RetrySettings } from "./retry.ts";
import { statName } from "./stat-name.ts";
import { listenerAccessLogs } from "./telemetry.ts";
import { listenerBuffer } from "./tuning.ts";
import { meshServerTls, serverTls, serverTransportSocket, type MeshTls } from "./tls.ts";

/** What every chain of a workload is built from. */
interface Workload {
  readonly settings: FilterSettings;
  readonly tls: MeshTls;
  readonly rbac: RbacInput;
  readonly jwt: JwtRules;
  readonly retries: RetrySettings | undefined;
  /** A port's name in statistics, where MeshConfig has a pattern for it. */
  readonly nameOf: (port: InboundPort) => string | undefined;
}

/** One set of chains: a service's port, or everything that no service names. */
interface Target {
  /** The destination port to match; undefined matches all. */
  readonly port: number | undefined;
  readonly cluster: string;
  readonly protocol: InboundPort["protocol"];
  readonly mode: MtlsMode;
  readonly known?: InboundPort;
}

const passthroughCluster = "InboundPassthroughCluster";

export function virtualInbound(read: Read, { scope, tuning }: VirtualInboundKey): EnvoyResource {
  const workload = readWorkload(read, scope, tuning);
  const ports = read(inboundPortsOf, scope).filter(({ bind }) => bind === undefined);
  const modes = read(mtlsModesOf, scope);
  const named = new Set(read(inboundPortsOf, scope).map(({ port }) => port));
  // Ports of a policy that no service names get passthrough chains of their own, so that the policy holds there too.
  const passthroughPorts = Object.keys(modes.byPort)
    .map(Number)
    .filter((port) => !named.has(port))
    .toSorted((a, b) => a - b);
  const targets: Target[] = [
    ...[undefined, ...passthroughPorts].map((port) => ({
      port,
      cluster: passthroughCluster,
      protocol: "auto" as const,
      mode: port === undefined ? modes.mode : portMode(modes, port),
    })),
    ...ports.map((port) => targetOf(port, portMode(modes, port.port))),
  ];
  const chains = targets.flatMap((target) => chainsOf(workload, target));
  const message: Message = {
    ...listener(read, workload.settings, "virtualInbound", "0.0.0.0", meshPorts.inbound),
    filterChains: [blackhole(workload.settings), ...chains.map(({ chain }) => chain)],
    listenerFilters: [
      originalDestination,
      ...(scope.interception === "TPROXY" ? [originalSource] : []),
      ...inspectors(targets),
    ],
    ...(scope.interception === "TPROXY" ? { transparent: wrapped(true) } : {}),
  };
  return resource("listener", "virtualInbound", message, originsOf(chains, workload, modes.policies));
}

/** A port of a Sidecar's ingress that is not captured: a listener of its own. */
export function inboundListener(
  read: Read,
  { scope, port: number, tuning }: InboundListenerKey,
): EnvoyResource | undefined {
  const port = read(inboundPortsOf, scope).find((one) => one.port === number);
  if (port?.bind === undefined) return undefined;
  const workload = readWorkload(read, scope, tuning);
  const modes = read(mtlsModesOf, scope);
  const target = { ...targetOf(port, portMode(modes, number)), port: undefined };
  const chains = chainsOf(workload, target);
  const name = `${port.bind}_${number}`;
  const message: Message = {
    ...listener(read, workload.settings, name, port.bind, number),
    filterChains: chains.map(({ chain }) => chain),
    listenerFilters: inspectors([target]),
  };
  return resource("listener", name, message, originsOf(chains, workload, modes.policies));
}

function readWorkload(read: Read, scope: InboundScope, tuning: ProxyTuning | undefined): Workload {
  return {
    settings: readFilterSettings(read, tuning),
    tls: readMeshTls(read),
    rbac: readRbac(read, scope),
    jwt: readJwt(read, scope),
    retries: readMesh(read, "defaultInboundHttpRetryPolicy"),
    nameOf: ({ port: targetPort, servicePort: port = 0, services: [first] }) =>
      first && statName(read, "inbound", { service: `${first.namespace}/${first.host}`, port, targetPort }),
  };
}

function targetOf(port: InboundPort, mode: MtlsMode): Target {
  return { port: port.port, cluster: `inbound|${port.port}||`, protocol: port.protocol, mode, known: port };
}

function listener(
  read: Read,
  settings: FilterSettings,
  name: string,
  address: string,
  port: number,
): Message {
  return {
    name,
    address: { socketAddress: { address, portValue: port } },
    trafficDirection: "INBOUND",
    ...listenerBuffer(settings.tuning?.connectionSettings),
    listenerFiltersTimeout: durationOf(durationMsOf(readMesh(read, "protocolDetectionTimeout"))),
    // A server that speaks first never sends what the inspectors wait for; after the time-out it is TCP.
    continueOnListenerFiltersTimeout: true,
    // One by one, so that a burst is spread over the workers.
    maxConnectionsToAcceptPerSocketEvent: wrapped(1),
    accessLog: listenerAccessLogs(settings),
  };
}

interface BuiltChain {
  readonly chain: Message;
  readonly target: Target;
}

function chainsOf(workload: Workload, target: Target): BuiltChain[] {
  return matchesOf(target).map((match) => ({ chain: chainOf(workload, target, match), target }));
}

function matchesOf({ known, mode, protocol }: Target): readonly ChainMatch[] {
  if (known?.tls !== undefined && mode === "DISABLE") {
    return [{ transport: "tls", alpn: [], protocol: protocol === "http" ? "http" : "tcp", tls: true }];
  }
  return chainMatches(mode, protocol);
}

function chainOf(workload: Workload, target: Target, match: ChainMatch): Message {
  return {
    name: chainName(target, match.protocol),
    filterChainMatch: {
      transportProtocol: match.transport,
      ...(match.alpn.length === 0 ? {} : { applicationProtocols: match.alpn }),
      ...(target.port === undefined ? {} : { destinationPort: wrapped(target.port) }),
    },
    filters:
      match.protocol === "http" ? httpFilters(workload, target) : tcpFilters(workload, target, match.tls),
    ...(match.tls ? { transportSocket: serverTransportSocket(tlsContext(workload, target, match)) } : {}),
    transportSocketConnectTimeout: durationOf(15_000),
  };
}

function tlsContext({ tls }: Workload, { known, mode }: Target, match: ChainMatch): Message {
  if (known?.tls !== undefined && mode === "DISABLE")
    return serverTls(known.tls, tls, match.protocol === "tcp");
  return meshServerTls(tls, match.protocol);
}

/** Names as Istio's: by address and port, fixed ones where no service is known. */
function chainName({ known }: Target, protocol: "http" | "tcp"): string {
  if (known !== undefined) return `${known.bind ?? "0.0.0.0"}_${known.port}`;
  return protocol === "http" ? "virtualInbound-catchall-http" : "virtualInbound";
}

function httpFilters({ settings, rbac, jwt, retries }: Workload, target: Target): Message[] {
  const { known, cluster } = target;
  const prefix = known === undefined ? cluster : `inbound_${chainName(target, "http")}`;
  return [
    httpConnectionManager(settings, {
      side: "server",
      statPrefix: `${prefix};`,
      routes: { kind: "inline", table: routeTable(cluster, known, retries) },
      policyFilters: [...jwtFilters(jwt, false), ...httpRbacFilters(rbac)],
    }),
  ];
}

function tcpFilters({ settings, rbac, nameOf }: Workload, target: Target, tls: boolean): Message[] {
  const { cluster, known } = target;
  return [
    ...tcpRbacFilters(rbac),
    tcpProxy(settings, {
      side: "server",
      statPrefix: (known && nameOf(known)) ?? cluster,
      to: { kind: "cluster", name: cluster },
      afterHandshake: tls,
    }),
  ];
}

/** One route to the application; time-outs are the caller's proxy's business. */
function routeTable(
  cluster: string,
  port: InboundPort | undefined,
  retries: RetrySettings | undefined,
): Message {
  const servicePort = port?.servicePort ?? 0;
  const noLimit = durationOf(0);
  return {
    name: cluster,
    validateClusters: wrapped(false),
    virtualHosts: [
      {
        name: `inbound|http|${servicePort}`,
        domains: ["*"],
        routes: [
          {
            name: "default",
            match: { prefix: "/" },
            decorator: { operation: `${port?.services[0]?.host ?? ""}:${servicePort}/*` },
            route: {
              cluster,
              timeout: noLimit,
              maxStreamDuration: { maxStreamDuration: noLimit, grpcTimeoutHeaderMax: noLimit },
              ...(port?.grpc === true ? {} : inboundRetryPolicy(retries)),
            },
          },
        ],
      },
    ],
  };
}

/** Connections to 15006 itself would come back for ever. */
function blackhole(settings: FilterSettings): Message {
  return {
    name: "virtualInbound-blackhole",
    filterChainMatch: { destinationPort: wrapped(meshPorts.inbound) },
    filters: [
      tcpProxy(settings, {
        side: "server",
        statPrefix: "BlackHoleCluster",
        to: { kind: "cluster", name: "BlackHoleCluster" },
      }),
    ],
  };
}

/** Only where a chain needs the answer: the HTTP inspector holds up protocols whose server speaks first. */
function inspectors(targets: readonly Target[]): Message[] {
  const needs = targets.map((target) => {
    const matches = matchesOf(target);
    return {
      port: target.port,
      tls: matches.some(({ transport }) => transport === "tls"),
      http: matches.some(({ alpn }) => alpn.includes("http/1.1")),
    };
  });
  const withPort = needs.flatMap(({ port, ...need }) => (port === undefined ? [] : [{ port, ...need }]));
  const everywhere = needs.some(({ port, tls }) => port === undefined && tls);
  const tlsPorts = everywhere
    ? { not: withPort.filter(({ tls }) => !tls).map(({ port }) => port) }
    : { only: withPort.filter(({ tls }) => tls).map(({ port }) => port) };
  const notHttp = withPort.filter(({ http }) => !http).map(({ port }) => port);
  return [
    ...(needs.some(({ tls }) => tls) ? [tlsInspector(tlsPorts)] : []),
    // The connection to 15006 itself goes to the black hole at once.
    ...(needs.some(({ http }) => http) ? [httpInspector([meshPorts.inbound, ...notHttp])] : []),
  ];
}

function originsOf(
  chains: readonly BuiltChain[],
  { rbac, jwt }: Workload,
  peerAuthentications: readonly string[],
): readonly Origin[] {
  const ofPorts = chains.flatMap(({ target }, at) =>
    target.known === undefined ? [] : [{ at: `filter_chains[${at + 1}]`, object: target.known.origin }],
  );
  const ofPolicies = rbac.policies.map((policy: AuthorizationPolicy) => ({ at: "", object: refOf(policy) }));
  const ofModes = peerAuthentications.map((key) => {
    const [namespace = "", name = ""] = key.split("/");
    return { at: "", object: { kind: "PeerAuthentication", namespace, name } };
  });
  const ofTokens = jwt.objects.map((object) => ({ at: "", object }));
  return [...ofPolicies, ...ofTokens, ...ofModes, ...ofPorts];
}
