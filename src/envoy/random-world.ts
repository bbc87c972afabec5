// Random objects of every kind for property tests: the same for the same seed, and so few names that they clash.

import type { ProxyClass } from "#model";
import type { KubeObject } from "#objects";

/** A sidecar of each of two kinds, and a gateway. */
export function proxyClasses(): ProxyClass[] {
  const base: ProxyClass = {
    kind: "sidecar",
    namespace: "a",
    labels: { app: "s0", version: "v1" },
    serviceAccount: "s0",
    network: "",
    locality: "r1/z1",
    clusterId: "Kubernetes",
    dnsDomain: "a.svc.cluster.local",
    interception: "REDIRECT",
    envoyVersion: "1.40.0",
    metadata: {},
  };
  return [
    base,
    { ...base, namespace: "b", labels: { app: "s1" }, locality: "" },
    {
      ...base,
      kind: "router",
      namespace: "istio-d",
      labels: { istio: "ingressgateway" },
      interception: "NONE",
    },
  ];
}

export type Random = (below: number) => number;

/** A linear congruential generator: the same changes in every run. */
export function seeded(seed: number): Random {
  let state = seed;
  return (below) => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return Math.floor((state / 2 ** 32) * below);
  };
}

/** An object of any kind: names, hosts and ages are few, so that objects meet. */
export function randomObject(random: Random): KubeObject {
  const pick = <T>(list: readonly T[]): T => list[random(list.length)] as T;
  const namespace = pick(["a", "b", "istio-d"]);
  const name = `s${random(3)}`;
  const host = pick([
    name,
    `${name}.${pick(["a", "b"])}.svc.cluster.local`,
    "ext.example.com",
    "*.example.com",
  ]);
  const make = pick<() => KubeObject>([
    () => randomService(random, namespace, name),
    () => randomService(random, namespace, name),
    () => randomSlice(random, namespace, name),
    () => randomSlice(random, namespace, name),
    () => randomPod(random, namespace, name),
    () => randomVirtualService(random, namespace, name, host),
    () => randomDestinationRule(random, namespace, name, host),
    () => randomServiceEntry(random, namespace, name, host),
    () => randomPolicy(random, namespace, name),
    () => randomGateway(random, namespace, name),
  ]);
  return make();
}

function made(kind: string, namespace: string, name: string, random: Random, spec: object): KubeObject {
  // Few distinct ages, so that ties must be broken.
  const creationTimestamp = `2026-01-01T00:00:0${random(3)}Z`;
  return { apiVersion: "v1", kind, metadata: { name, namespace, creationTimestamp }, spec };
}

function randomService(random: Random, namespace: string, name: string): KubeObject {
  const kind = random(8);
  const ports = [
    { name: "http", port: 80, targetPort: 8080 },
    { name: "tcp", port: 81 + random(2) },
    { name: "auto", port: 83 },
    { name: "https-web", port: 443 },
  ].slice(0, 1 + random(4));
  return made("Service", namespace, name, random, {
    clusterIP: kind === 0 ? "None" : `10.96.${random(2)}.${random(4)}`,
    ...(kind === 1 ? { type: "ExternalName", externalName: `s${random(4)}.a.svc.cluster.local` } : {}),
    selector: { app: name },
    ports,
  });
}

function randomSlice(random: Random, namespace: string, name: string): KubeObject {
  const base = made("EndpointSlice", namespace, `${name}-${random(2)}`, random, {});
  return {
    ...base,
    metadata: { ...base.metadata, labels: { "kubernetes.io/service-name": name } },
    addressType: "IPv4",
    endpoints: Array.from({ length: random(4) }, () => ({
      addresses: [`10.244.0.${random(6)}`],
      conditions: { ready: random(5) > 0 },
    })),
    ports: [
      { name: "http", port: 8080 },
      { name: "tcp", port: 9000 },
      { name: "auto", port: 9001 },
    ],
  } as KubeObject;
}

function randomPod(random: Random, namespace: string, name: string): KubeObject {
  const base = made("Pod", namespace, `${name}-${random(2)}`, random, { serviceAccountName: name });
  const labels: Record<string, string> = { app: name, version: `v${random(3)}` };
  if (random(2) === 0) labels["security.istio.io/tlsMode"] = "istio";
  if (random(3) === 0) labels["istio-locality"] = `r${random(2)}.z1`;
  return {
    ...base,
    metadata: { ...base.metadata, labels },
    status: { podIP: `10.244.0.${random(6)}`, phase: "Running" },
  };
}

function randomVirtualService(random: Random, namespace: string, name: string, host: string): KubeObject {
  const destination = { host: `s${random(4)}`, ...(random(2) === 0 ? { subset: `v${random(3)}` } : {}) };
  return made("VirtualService", namespace, name, random, {
    hosts: random(6) === 0 ? [] : [host],
    ...(random(4) === 0 ? { gateways: [`${namespace}/s${random(4)}`, "mesh"] } : {}),
    ...(random(4) === 0 ? { exportTo: ["."] } : {}),
    http: [
      {
        match: [
          { uri: { prefix: `/${random(3)}` }, sourceLabels: random(3) === 0 ? { app: "s0" } : undefined },
        ],
        ...(random(3) === 0
          ? { delegate: { name: `s${random(4)}`, namespace } }
          : { route: [{ destination }], timeout: `${random(5)}s` }),
      },
      {
        route: [
          { destination: { host: "s0" }, weight: 50 },
          { destination, weight: 50 },
        ],
      },
    ].slice(random(2)),
    ...(random(3) === 0
      ? { tcp: [{ match: [{ port: 81 }], route: [{ destination: { host: "s1", port: { number: 81 } } }] }] }
      : {}),
  });
}

function randomDestinationRule(random: Random, namespace: string, name: string, host: string): KubeObject {
  const modes = ["DISABLE", "ISTIO_MUTUAL", "SIMPLE"];
  return made("DestinationRule", namespace, name, random, {
    host,
    ...(random(4) === 0 ? { exportTo: ["."] } : {}),
    ...(random(6) === 0 ? { workloadSelector: { matchLabels: { app: "s0" } } } : {}),
    trafficPolicy: {
      ...(random(2) === 0 ? { tls: { mode: modes[random(3)] } } : {}),
      ...(random(2) === 0 ? { outlierDetection: { consecutive5xxErrors: random(5) } } : {}),
      ...(random(3) === 0 ? { loadBalancer: { consistentHash: { httpHeaderName: "x-user" } } } : {}),
    },
    subsets: Array.from({ length: random(3) }, (_, at) => ({
      name: `v${at}`,
      labels: { version: `v${at}` },
    })),
  });
}

function randomServiceEntry(random: Random, namespace: string, name: string, host: string): KubeObject {
  const full = host.includes(".") ? host : `${host}.example.com`;
  return made("ServiceEntry", namespace, name, random, {
    hosts: [full],
    ...(random(2) === 0 ? { addresses: [`192.0.2.${random(3)}`] } : {}),
    resolution: ["STATIC", "DNS", "NONE"][random(3)],
    location: random(2) === 0 ? "MESH_INTERNAL" : "MESH_EXTERNAL",
    ports: [
      { number: 80 + random(4), name: "http", protocol: "HTTP" },
      { number: 443, name: "tls", protocol: "TLS" },
    ],
    ...(random(2) === 0
      ? { workloadSelector: { labels: { app: `s${random(4)}` } } }
      : { endpoints: [{ address: `192.0.2.1${random(3)}` }] }),
  });
}

function randomPolicy(random: Random, namespace: string, name: string): KubeObject {
  if (random(2) === 0) {
    return made("PeerAuthentication", namespace, name, random, {
      ...(random(2) === 0 ? { selector: { matchLabels: { app: name } } } : {}),
      mtls: { mode: ["STRICT", "PERMISSIVE", "DISABLE"][random(3)] },
    });
  }
  return made("Sidecar", namespace, name, random, {
    ...(random(2) === 0 ? { workloadSelector: { labels: { app: name } } } : {}),
    egress: [
      ...(random(3) === 0 ? [{ port: { number: 80, protocol: "HTTP", name: "http" }, hosts: ["./*"] }] : []),
      { hosts: [["./*", "*/*", "a/*", "*/s1.b.svc.cluster.local"][random(4)], "istio-d/*"] },
    ],
    ...(random(3) === 0 ? { outboundTrafficPolicy: { mode: "REGISTRY_ONLY" } } : {}),
  });
}

function randomGateway(random: Random, namespace: string, name: string): KubeObject {
  return made("Gateway", namespace, name, random, {
    selector: { istio: "ingressgateway" },
    servers: [
      { port: { number: 80, name: "http", protocol: "HTTP" }, hosts: [["*", "*.example.com"][random(2)]] },
    ],
  });
}
