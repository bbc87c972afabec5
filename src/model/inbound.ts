// The inbound side of a workload: which of its ports belong to which service, and what speaks on them.

import type { ObjectRef } from "#base";
import { defineKeyedQuery, defineQuery, sameData, type Read } from "#engine";
import {
  refOf,
  type ConnectionPoolSettings,
  type IstioIngressListener,
  type ServerTLSSettings,
  type Sidecar,
} from "#objects";
import { environmentOf } from "./mesh.ts";
import { isHttp2, listenerProtocol, parseProtocol, type Protocol } from "./protocol.ts";
import type { ProxyClass } from "./proxy.ts";
import { oldestFirst, selects, type Labels } from "./selectors.ts";
import { byAge, entryServices, kubeService, type MeshService } from "./services.ts";
import { tables } from "./tables.ts";
import { instanceAddresses, workloadText, type WorkloadKey } from "./workload.ts";

/** What decides about a workload's inbound listeners. */
export interface InboundScope extends WorkloadKey {
  /** Of proxies without a Pod only. */
  readonly addresses: readonly string[];
  readonly interception: ProxyClass["interception"];
}

/** A port of a service that ends at this workload. */
export interface InboundTarget {
  /** `namespace/host`. */
  readonly service: string;
  readonly host: string;
  readonly name: string;
  readonly namespace: string;
  readonly servicePort: number;
  readonly portName: string;
  readonly protocol: Protocol;
  /** The workload's own port. */
  readonly port: number;
  readonly object: ObjectRef;
}

/** Where a port's connections go. */
export type Upstream =
  /** To the address and port that the client asked for: the application as if there were no proxy. */
  | { readonly kind: "original" }
  /** To the workload's own address, at another port. */
  | { readonly kind: "own-address"; readonly port: number }
  | { readonly kind: "address"; readonly address: string; readonly port: number }
  | { readonly kind: "socket"; readonly path: string };

export interface InboundPort {
  readonly port: number;
  readonly servicePort: number;
  readonly portName: string;
  readonly protocol: "http" | "tcp" | "auto";
  readonly http2: boolean;
  /** gRPC streams cannot be sent again, so they are never retried. */
  readonly grpc: boolean;
  /** Every service that ends here; the first one's protocol is the port's. */
  readonly services: readonly { readonly host: string; readonly name: string; readonly namespace: string }[];
  readonly upstream: Upstream;
  /** Where a listener of its own binds, for ports that capture does not redirect. */
  readonly bind?: string;
  /** What a Sidecar says about connections to the application. */
  readonly pool?: ConnectionPoolSettings;
  /** TLS that a Sidecar asks for; holds only where mutual TLS is disabled. */
  readonly tls?: ServerTLSSettings;
  readonly origin: ObjectRef;
}

export function inboundScopeOf(proxy: ProxyClass): InboundScope {
  return {
    namespace: proxy.namespace,
    labels: proxy.labels,
    addresses: instanceAddresses(proxy),
    interception: proxy.interception,
  };
}

export function inboundScopeText(scope: InboundScope): string {
  return `${workloadText(scope)} ${scope.interception} ${scope.addresses.join()}`;
}

/** The service ports that end at a workload, the oldest service first. */
export const inboundTargetsOf = defineKeyedQuery<InboundScope, readonly InboundTarget[]>(
  "inboundTargetsOf",
  inboundScopeText,
  (read, scope) => {
    const addressed = scope.addresses.flatMap((address) =>
      read(targetsOfAddress, `${scope.namespace} ${address}`),
    );
    return [
      ...servicesEndingAt(read, scope).flatMap((service) => targetsOf(read, service, "stream")),
      ...addressed,
    ];
  },
  sameData,
);

/** The ports of UDP among them: they are nobody's but a gateway's. */
export const datagramTargetsOf = defineKeyedQuery<WorkloadKey, readonly InboundTarget[]>(
  "datagramTargetsOf",
  workloadText,
  (read, workload) =>
    servicesEndingAt(read, workload).flatMap((service) => targetsOf(read, service, "datagram")),
  sameData,
);

/** The services that select a workload, the oldest first. */
function servicesEndingAt(read: Read, workload: WorkloadKey): readonly MeshService[] {
  return [
    ...read(servicesSelecting, workload).flatMap((row) => read(kubeService, row) ?? []),
    ...read(entriesSelecting, workload).flatMap((row) => read(entryServices, row)),
  ]
    .filter(({ resolution }) => resolution !== "alias")
    .toSorted(byAge);
}

/** The ports of a workload, in order. One chain a port: of several services the oldest decides about the protocol. */
export const inboundPortsOf = defineKeyedQuery<InboundScope, readonly InboundPort[]>(
  "inboundPortsOf",
  inboundScopeText,
  (read, scope) => {
    const sidecar = read(ingressSidecarOf, scope);
    const pool = read(inboundPoolOf, scope);
    const ports =
      sidecar === undefined
        ? // Without capture a listener of ours would take the application's own port.
          scope.interception === "NONE"
          ? []
          : portsOfTargets(read(inboundTargetsOf, scope))
        : portsOfSidecar(sidecar, scope);
    return ports
      .map((port) => (port.pool === undefined && pool !== undefined ? { ...port, pool } : port))
      .toSorted((a, b) => a.port - b.port);
  },
  sameData,
);

/** The Sidecar whose ingress listeners stand in place of the services' ports, if there is one. */
export const ingressSidecarOf = defineKeyedQuery<WorkloadKey, Sidecar | undefined>(
  "ingressSidecarOf",
  workloadText,
  (read, workload) => {
    const chosen = chooseSidecar(read(tables.Sidecar.by.namespace, workload.namespace), workload);
    return (chosen?.spec?.ingress ?? []).length > 0 ? chosen : undefined;
  },
);

/** `inboundConnectionPool` of the Sidecar that holds for a workload, the root namespace's included. */
const inboundPoolOf = defineKeyedQuery<WorkloadKey, ConnectionPoolSettings | undefined>(
  "inboundPoolOf",
  workloadText,
  (read, workload) => {
    const { rootNamespace } = read(environmentOf, "");
    const own = chooseSidecar(read(tables.Sidecar.by.namespace, workload.namespace), workload);
    const chosen = own ?? chooseSidecar(read(tables.Sidecar.by.namespace, rootNamespace), undefined);
    return chosen?.spec?.inboundConnectionPool;
  },
  sameData,
);

/** The oldest that selects the workload, or else the oldest without a selector. */
function chooseSidecar(all: readonly Sidecar[], workload: WorkloadKey | undefined): Sidecar | undefined {
  const rows = all.toSorted(oldestFirst);
  const own = rows.find(
    ({ spec }) =>
      workload !== undefined &&
      hasLabels(spec?.workloadSelector?.labels) &&
      selects(spec?.workloadSelector?.labels, workload.labels),
  );
  return own ?? rows.find(({ spec }) => !hasLabels(spec?.workloadSelector?.labels));
}

/** Row keys of the Services that select a workload. */
const servicesSelecting = defineKeyedQuery<WorkloadKey, readonly string[]>(
  "servicesSelecting",
  workloadText,
  (read, { namespace, labels }) =>
    read(tables.Service.by.namespace.members, namespace).filter((row) => {
      const selector = read(serviceSelector, row);
      return hasLabels(selector) && selects(selector, labels);
    }),
  sameData,
);

const serviceSelector = defineQuery<Labels>(
  "serviceSelector",
  (read, row) => read(tables.Service, row)?.spec?.selector ?? {},
  sameData,
);

const entriesSelecting = defineKeyedQuery<WorkloadKey, readonly string[]>(
  "entriesSelecting",
  workloadText,
  (read, { namespace, labels }) =>
    read(tables.ServiceEntry.by.namespace.members, namespace).filter((row) => {
      const selector = read(tables.ServiceEntry, row)?.spec?.workloadSelector?.labels;
      return hasLabels(selector) && selects(selector, labels);
    }),
  sameData,
);

/** What ends at an address that a ServiceEntry or a hand-made EndpointSlice names: key `namespace address`. */
const targetsOfAddress = defineQuery<readonly InboundTarget[]>(
  "targetsOfAddress",
  (read, key) => {
    const [namespace = "", address = ""] = key.split(" ");
    const entries = read(tables.ServiceEntry.by.namespace, namespace).flatMap((row) => {
      const endpoint = row.spec?.endpoints?.find((one) => one.address === address);
      if (endpoint === undefined) return [];
      const services = read(entryServices, `${namespace}/${row.metadata.name}`);
      return services.flatMap((service) => targetsOf(read, service, "stream", endpoint.ports));
    });
    const rows = read(tables.EndpointSlice.by.address, address).flatMap(
      (slice) => `${slice.metadata.namespace}/${slice.metadata.labels?.["kubernetes.io/service-name"]}`,
    );
    const kube = [...new Set(rows)].flatMap((row) => read(kubeService, row) ?? []);
    return [...kube.flatMap((service) => targetsOf(read, service, "stream")), ...entries];
  },
  sameData,
);

/** The number behind a named target port, as the endpoint slices have resolved it: key `namespace/name port`. */
const namedTargetPort = defineQuery<number | undefined>("namedTargetPort", (read, key) => {
  const [service = "", portName = ""] = key.split(" ");
  const ports = read(tables.EndpointSlice.by.service, service).flatMap((slice) => slice.ports ?? []);
  const numbers = ports.filter(({ name }) => (name ?? "") === portName).flatMap(({ port }) => port ?? []);
  return numbers.toSorted((a, b) => a - b)[0];
});

function targetsOf(
  read: Read,
  service: MeshService,
  transport: "stream" | "datagram",
  portOverrides: Readonly<Record<string, number>> = {},
): InboundTarget[] {
  return service.ports.flatMap((port) => {
    const target =
      portOverrides[port.name] ??
      (typeof port.targetPort === "number"
        ? port.targetPort
        : read(namedTargetPort, `${service.namespace}/${service.name} ${port.name}`));
    const object = service.objects[0];
    if (target === undefined || object === undefined) return [];
    if ((port.protocol === "udp") !== (transport === "datagram")) return [];
    return [
      {
        service: service.key,
        host: service.host,
        name: service.name,
        namespace: service.namespace,
        servicePort: port.port,
        portName: port.name,
        protocol: port.protocol,
        port: target,
        object,
      },
    ];
  });
}

function portsOfTargets(targets: readonly InboundTarget[]): InboundPort[] {
  const byPort = Map.groupBy(targets, ({ port }) => port);
  return [...byPort.values()].flatMap((group) => {
    const first = group[0];
    if (first === undefined) return [];
    return [
      {
        port: first.port,
        servicePort: first.servicePort,
        portName: first.portName,
        ...protocolFields(first.protocol),
        services: uniqueServices(group),
        upstream: { kind: "original" } as const,
        origin: first.object,
      },
    ];
  });
}

function uniqueServices(group: readonly InboundTarget[]): InboundPort["services"] {
  const services = new Map(
    group.map(({ service, host, name, namespace }) => [service, { host, name, namespace }]),
  );
  return [...services.values()];
}

function portsOfSidecar(sidecar: Sidecar, scope: InboundScope): InboundPort[] {
  const name = sidecar.metadata.name;
  const namespace = sidecar.metadata.namespace ?? "";
  const ports = (sidecar.spec?.ingress ?? []).flatMap((listener) => {
    const number = listener.port.number;
    const upstream = upstreamOf(listener);
    if (number === undefined || upstream === undefined) return [];
    const binds =
      listener.captureMode === "NONE" ||
      (scope.interception === "NONE" && (listener.captureMode ?? "DEFAULT") === "DEFAULT");
    return [
      {
        port: number,
        servicePort: number,
        portName: listener.port.name ?? "",
        ...protocolFields(protocolOf(listener)),
        // A Sidecar has no host of its own; Istio makes one of its name.
        services: [{ host: `${name}.${namespace}`, name, namespace }],
        upstream,
        ...(binds ? { bind: listener.bind ?? "0.0.0.0" } : {}),
        ...(listener.tls === undefined ? {} : { tls: listener.tls }),
        ...(listener.connectionPool === undefined ? {} : { pool: listener.connectionPool }),
        origin: refOf(sidecar),
      },
    ];
  });
  return [...new Map(ports.toReversed().map((port) => [port.port, port])).values()];
}

function protocolOf({ port, tls }: IstioIngressListener): Protocol {
  const protocol = parseProtocol(port.protocol);
  if (tls === undefined) return protocol;
  // The proxy ends the TLS, so what is inside counts.
  return protocol === "https" ? "http" : protocol === "tls" ? "tcp" : protocol;
}

function protocolFields(protocol: Protocol): Pick<InboundPort, "protocol" | "http2" | "grpc"> {
  const kind = listenerProtocol(protocol);
  return {
    protocol: kind === "none" ? "tcp" : kind,
    http2: isHttp2(protocol),
    grpc: protocol === "grpc" || protocol === "grpc-web",
  };
}

/** `127.0.0.1:8080`, `0.0.0.0:8080` (the pod's own address), `unix:///path`, or nothing. Undefined if malformed. */
function upstreamOf({ defaultEndpoint, port }: IstioIngressListener): Upstream | undefined {
  if (defaultEndpoint === undefined || defaultEndpoint === "") return { kind: "original" };
  if (defaultEndpoint.startsWith("unix://"))
    return { kind: "socket", path: defaultEndpoint.slice("unix://".length) };
  const parts = /^\[?([^\]]*)\]?:(\d+)$/.exec(defaultEndpoint);
  const [, address = "", number = ""] = parts ?? [];
  if (parts === null) return undefined;
  if (address !== "0.0.0.0" && address !== "::") return { kind: "address", address, port: Number(number) };
  return Number(number) === port.number
    ? { kind: "original" }
    : { kind: "own-address", port: Number(number) };
}

function hasLabels(labels: Labels | undefined): boolean {
  return Object.keys(labels ?? {}).length > 0;
}
