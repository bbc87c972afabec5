import assert from "node:assert/strict";
import { test } from "node:test";
import { Engine } from "#engine";
import type { KubeObject } from "#objects";
import { objectChange, removalChange, worldChanges, type ProxyClass } from "#model";
import { planOf, viewsOf, viewText, keyText, type ResourceType, type View } from "#plan";
import type { EnvoyResource } from "./resource.ts";
import { resourceOf } from "./resources.ts";
import { snapshotOf } from "./snapshot.ts";

const changesTotal = 100_000;
/** The first changes come in small bursts, the rest in larger ones: what costs time is settling, about 10 ms. */
const smallBurstsUntil = 4_000;
/** A world from scratch costs some ten milliseconds, so not every change is compared. */
const compareEvery = (step: number): number => (step <= smallBurstsUntil ? 200 : 2_000);

test(`${changesTotal} random changes: what is computed step by step is what is computed at once, byte for byte`, () => {
  const random = seeded(20_260_101);
  const engine = new Engine();
  engine.apply(worldChanges([]));
  const proxies = proxyClasses();
  const watcher = new Watcher(engine, proxies);
  const world = new Map<string, KubeObject>();
  for (let step = 1; step <= changesTotal; step++) {
    const object = randomObject(random);
    const key = `${object.kind} ${object.metadata.namespace}/${object.metadata.name}`;
    if (random(4) === 0) {
      world.delete(key);
      engine.apply(removalChange(object));
    } else {
      world.set(key, object);
      engine.apply(objectChange(object));
    }
    // Changes come one by one and in bursts.
    const compares = step % compareEvery(step) === 0;
    if (compares || random(step <= smallBurstsUntil ? 8 : 150) === 0) watcher.settle();
    if (compares) compare(watcher, [...world.values()], proxies, step);
  }
});

test("the order of objects changes no byte", () => {
  const random = seeded(7);
  const byKey = new Map<string, KubeObject>();
  for (let at = 0; at < 120; at++) {
    const object = randomObject(random);
    byKey.set(`${object.kind} ${object.metadata.namespace}/${object.metadata.name}`, object);
  }
  const objects = [...byKey.values()];
  const proxies = proxyClasses();
  const first = versionsOf(objects, proxies);
  for (let round = 0; round < 5; round++) {
    const shuffled = objects
      .map((object) => ({ object, at: random(1_000_000) }))
      .toSorted((a, b) => a.at - b.at)
      .map(({ object }) => object);
    assert.deepEqual(versionsOf(shuffled, proxies), first);
  }
});

function compare(
  watcher: Watcher,
  objects: readonly KubeObject[],
  proxies: readonly ProxyClass[],
  step: number,
): void {
  const expected = versionsOf(objects, proxies);
  const actual = proxies.map((proxy) => watcher.versions(proxy));
  assert.deepEqual(actual, expected, `after change ${step}`);
}

/** For each proxy: type and name to the version, which is a hash of the bytes. */
function versionsOf(
  objects: readonly KubeObject[],
  proxies: readonly ProxyClass[],
): Readonly<Record<string, string>>[] {
  const engine = new Engine();
  engine.apply(worldChanges(objects));
  const worlds = proxies.map((proxy) => {
    const snapshot = snapshotOf(engine, proxy);
    const all = Object.values(snapshot).flat();
    return sorted(all.map(({ type, name, version }) => [`${type} ${name}`, version]));
  });
  assert.deepEqual(engine.settle().failures, []);
  return worlds;
}

/** Follows views, plans and resources as the xDS server does: watches what is planned, and nothing else. */
class Watcher {
  readonly #engine: Engine;
  readonly #views = new Map<string, View>();
  readonly #keys = new Map<string, { type: ResourceType; key: unknown }>();
  readonly #proxies: readonly ProxyClass[];

  constructor(engine: Engine, proxies: readonly ProxyClass[]) {
    this.#engine = engine;
    this.#proxies = proxies;
    for (const proxy of proxies) engine.watch(viewsOf, proxy);
    this.#follow();
  }

  settle(): void {
    const { changed, failures } = this.#engine.settle();
    assert.deepEqual(failures, []);
    const plans = changed.some(({ query }) => query.name === viewsOf.name || query.name === planOf.name);
    if (plans) this.#follow();
  }

  /** Watches what is wanted now, and lets go of the rest. */
  #follow(): void {
    const views = this.#proxies.flatMap((proxy) => this.#engine.get(viewsOf, proxy));
    const wantedViews = new Map(views.map((view) => [viewText(view), view]));
    for (const [text, view] of wantedViews) {
      if (!this.#views.has(text)) this.#engine.watch(planOf, view);
    }
    for (const [text, view] of this.#views) {
      if (!wantedViews.has(text)) this.#engine.unwatch(planOf, view);
    }
    this.#views.clear();
    for (const [text, view] of wantedViews) this.#views.set(text, view);
    const wanted = new Map<string, { type: ResourceType; key: unknown }>();
    for (const view of wantedViews.values()) {
      for (const [name, chunks] of Object.entries(this.#engine.get(planOf, view))) {
        const type = name as ResourceType;
        for (const { key } of chunks.flatMap(({ entries }) => entries))
          wanted.set(keyText(type, key), { type, key });
      }
    }
    for (const [text, { type, key }] of wanted) {
      if (!this.#keys.has(text)) this.#engine.watch(resourceOf[type], key as never);
    }
    for (const [text, { type, key }] of this.#keys) {
      if (!wanted.has(text)) this.#engine.unwatch(resourceOf[type], key as never);
    }
    this.#keys.clear();
    for (const [text, entry] of wanted) this.#keys.set(text, entry);
  }

  versions(proxy: ProxyClass): Readonly<Record<string, string>> {
    const found = new Map<string, string>();
    for (const view of this.#engine.get(viewsOf, proxy)) {
      for (const [name, chunks] of Object.entries(this.#engine.get(planOf, view))) {
        const type = name as ResourceType;
        for (const { key } of chunks.flatMap(({ entries }) => entries)) {
          const built: EnvoyResource | undefined = this.#engine.get(resourceOf[type], key as never);
          const text = built === undefined ? "" : `${type} ${built.name}`;
          if (built !== undefined && !found.has(text)) found.set(text, built.version);
        }
      }
    }
    return sorted([...found]);
  }
}

function sorted(entries: readonly (readonly [string, string])[]): Readonly<Record<string, string>> {
  return Object.fromEntries(entries.toSorted(([a], [b]) => (a < b ? -1 : 1)));
}

function proxyClasses(): ProxyClass[] {
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

type Random = (below: number) => number;

/** A linear congruential generator: the same changes in every run. */
function seeded(seed: number): Random {
  let state = seed;
  return (below) => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return Math.floor((state / 2 ** 32) * below);
  };
}

function randomObject(random: Random): KubeObject {
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
