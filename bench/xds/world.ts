// The mesh that the xDS benchmark runs against, as the baseline describes it: 20 namespaces, 5 endpoints a service, for every
// fifth service a VirtualService and a DestinationRule with two subsets, STRICT mutual TLS, one AuthorizationPolicy a namespace.

export interface WorldSize {
  readonly services: number;
  readonly proxies: number;
}

/** An object as a creator hands it in. */
export interface Made {
  readonly resource: string;
  readonly object: {
    readonly apiVersion: string;
    readonly kind: string;
    readonly metadata: {
      readonly name: string;
      readonly namespace?: string;
      readonly labels?: Record<string, string>;
    };
    readonly [field: string]: unknown;
  };
}

const namespaces = 20;
const endpointsPerService = 5;
export const servicePort = 80;

export const namespaceOf = (service: number): string => `ns${service % namespaces}`;
export const hostOf = (service: number): string => `svc${service}.${namespaceOf(service)}.svc.cluster.local`;

export function worldObjects({ services }: WorldSize): Made[] {
  const made: Made[] = [
    peerAuthentication(),
    ...Array.from({ length: namespaces }, (_, at) => namespaceObject(`ns${at}`)),
    namespaceObject(unusedNamespace),
    ...Array.from({ length: namespaces }, (_, at) => serviceAccount(`ns${at}`)),
    ...Array.from({ length: namespaces }, (_, at) => policy(`ns${at}`, "/a")),
  ];
  for (let at = 0; at < services; at++) made.push(...serviceObjects(at));
  return made;
}

/** A service with its slice and pods, and every fifth with its traffic rules. */
export function serviceObjects(at: number): Made[] {
  const objects = [
    service(at),
    slice(at, 0),
    ...Array.from({ length: endpointsPerService }, (_, pod) => podObject(at, pod)),
  ];
  return at % 5 === 0 ? [...objects, destinationRule(at, 100), virtualService(at, "1s")] : objects;
}

/** The pod that the simulated sidecar number `at` stands for. */
export function proxyPod(
  at: number,
  size: WorldSize,
): { readonly namespace: string; readonly name: string; readonly address: string } {
  const of = at % size.services;
  const pod = Math.floor(at / size.services) % endpointsPerService;
  return { namespace: namespaceOf(of), name: `svc${of}-${pod}`, address: addressOf(of, pod) };
}

function namespaceObject(name: string): Made {
  return { resource: "namespaces", object: { apiVersion: "v1", kind: "Namespace", metadata: { name } } };
}

function serviceAccount(namespace: string): Made {
  const object = { apiVersion: "v1", kind: "ServiceAccount", metadata: { name: "default", namespace } };
  return { resource: "serviceaccounts", object };
}

function service(at: number): Made {
  const metadata = { name: `svc${at}`, namespace: namespaceOf(at) };
  const spec = {
    selector: { app: `svc${at}` },
    ports: [{ name: "http", port: servicePort, targetPort: 8080 }],
  };
  return { resource: "services", object: { apiVersion: "v1", kind: "Service", metadata, spec } };
}

/** @param round changes the last endpoint's address, so that each round is another slice */
export function slice(at: number, round: number): Made {
  const endpoints = Array.from({ length: endpointsPerService }, (_, pod) => ({
    addresses: [
      pod === endpointsPerService - 1 && round > 0
        ? `10.250.${at % 250}.${(round % 250) + 1}`
        : addressOf(at, pod),
    ],
    conditions: { ready: true, serving: true, terminating: false },
    targetRef: { kind: "Pod", name: `svc${at}-${pod}`, namespace: namespaceOf(at) },
  }));
  const metadata = {
    name: `svc${at}-a`,
    namespace: namespaceOf(at),
    labels: { "kubernetes.io/service-name": `svc${at}` },
  };
  const ports = [{ name: "http", port: 8080, protocol: "TCP" }];
  const object = {
    apiVersion: "discovery.k8s.io/v1",
    kind: "EndpointSlice",
    metadata,
    addressType: "IPv4",
    ports,
    endpoints,
  };
  return { resource: "endpointslices.discovery.k8s.io", object };
}

function podObject(at: number, pod: number): Made {
  const labels = {
    app: `svc${at}`,
    version: pod % 2 === 0 ? "v1" : "v2",
    "security.istio.io/tlsMode": "istio",
  };
  const metadata = { name: `svc${at}-${pod}`, namespace: namespaceOf(at), labels };
  const containers = [{ name: "app", image: "app" }];
  const spec = {
    serviceAccountName: "default",
    automountServiceAccountToken: false,
    nodeName: "bench",
    containers,
  };
  const podIP = addressOf(at, pod);
  const conditions = [{ type: "Ready", status: "True" }];
  const status = { phase: "Running", podIP, podIPs: [{ ip: podIP }], conditions };
  return { resource: "pods", object: { apiVersion: "v1", kind: "Pod", metadata, spec, status } };
}

export function destinationRule(at: number, connections: number): Made {
  const subsets = ["v1", "v2"].map((name) => ({ name, labels: { version: name } }));
  const spec = {
    host: `svc${at}`,
    trafficPolicy: { connectionPool: { tcp: { maxConnections: connections } } },
    subsets,
  };
  const metadata = { name: `svc${at}`, namespace: namespaceOf(at) };
  const object = { apiVersion: "networking.istio.io/v1", kind: "DestinationRule", metadata, spec };
  return { resource: "destinationrules.networking.istio.io", object };
}

export function virtualService(at: number, timeout: string): Made {
  const to = (subset: string, weight: number) => ({ destination: { host: `svc${at}`, subset }, weight });
  const spec = { hosts: [`svc${at}`], http: [{ timeout, route: [to("v1", 80), to("v2", 20)] }] };
  const metadata = { name: `svc${at}`, namespace: namespaceOf(at) };
  const object = { apiVersion: "networking.istio.io/v1", kind: "VirtualService", metadata, spec };
  return { resource: "virtualservices.networking.istio.io", object };
}

/** In a namespace without proxies, for that namespace alone: no proxy uses it. */
export function unusedRoute(timeout: string): Made {
  const { resource, object } = virtualService(0, timeout);
  const spec = { ...(object["spec"] as object), hosts: ["nobody"], exportTo: ["."] };
  return { resource, object: { ...object, metadata: { name: "nobody", namespace: unusedNamespace }, spec } };
}

const unusedNamespace = "aside";

export function policy(namespace: string, path: string): Made {
  const spec = { action: "DENY", rules: [{ to: [{ operation: { paths: [path] } }] }] };
  const object = {
    apiVersion: "security.istio.io/v1",
    kind: "AuthorizationPolicy",
    metadata: { name: "deny", namespace },
    spec,
  };
  return { resource: "authorizationpolicies.security.istio.io", object };
}

function peerAuthentication(): Made {
  const metadata = { name: "default", namespace: "istio-d" };
  const object = {
    apiVersion: "security.istio.io/v1",
    kind: "PeerAuthentication",
    metadata,
    spec: { mtls: { mode: "STRICT" } },
  };
  return { resource: "peerauthentications.security.istio.io", object };
}

function addressOf(service: number, pod: number): string {
  const number = service * endpointsPerService + pod + 1;
  return `10.${128 + Math.floor(number / 65_536)}.${Math.floor(number / 256) % 256}.${number % 256}`;
}
