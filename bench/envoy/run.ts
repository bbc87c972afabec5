// `bench envoy`: what our configuration costs one real Envoy: time and CPU until it serves, memory, and the main
// thread's time, bytes and delay of a changed route; by the way in which routes travel and by bootstrap options.

import { setTimeout as sleep } from "node:timers/promises";
import type { ProxyClass, RouteDelivery } from "#model";
import type { KubeObject, MeshConfig } from "#objects";
import type { Table } from "../table.ts";
import { hostOf, namespaceOf, servicePort, virtualService, worldObjects } from "../xds/world.ts";
import { agentBootstrap, MeasuredEnvoy, Rig } from "./rig.ts";

export interface EnvoyBenchOptions {
  readonly services: number;
  readonly rounds: number;
  /** Only the configurations whose title holds it. */
  readonly only?: string | undefined;
  readonly log: (line: string) => void;
}

/** How often an Envoy is started; the middle of its times counts. */
const startsTotal = 5;

type Json = Record<string, unknown>;

interface Variant {
  readonly title: string;
  readonly delivery: RouteDelivery;
  readonly change: (bootstrap: Json) => void;
  /** Clusters on demand, of which so many services' are held. */
  readonly called?: number;
}

const bare = (bootstrap: Json): void => {
  delete bootstrap["stats_config"];
  delete bootstrap["deferred_stat_options"];
  delete bootstrap["cluster_manager"];
};
const deferredClusters = (bootstrap: Json): void => {
  bootstrap["cluster_manager"] = { enable_deferred_cluster_creation: true };
};

const variants: readonly Variant[] = [
  { title: "tables, no options", delivery: "tables", change: bare },
  { title: "virtual hosts, no options", delivery: "virtual-hosts", change: bare },
  {
    title: "virtual hosts, stats matcher alone",
    delivery: "virtual-hosts",
    change: (bootstrap) => {
      delete bootstrap["deferred_stat_options"];
      delete bootstrap["cluster_manager"];
    },
  },
  {
    title: "virtual hosts, matcher and deferred stats",
    delivery: "virtual-hosts",
    change: (bootstrap) => void delete bootstrap["cluster_manager"],
  },
  {
    title: "virtual hosts, matcher, deferred stats and clusters",
    delivery: "virtual-hosts",
    change: deferredClusters,
  },
  { title: "tables, the agent's bootstrap", delivery: "tables", change: () => {} },
  { title: "virtual hosts, the agent's bootstrap (default)", delivery: "virtual-hosts", change: () => {} },
  ...[0, 5, 50].map((called) => ({
    title: `virtual hosts, the agent's bootstrap, clusters on demand, ${called} services in use`,
    delivery: "virtual-hosts" as const,
    change: () => {},
    called,
  })),
];

export async function benchEnvoy({ services, rounds, only = "", log }: EnvoyBenchOptions): Promise<Table> {
  const rows: (readonly string[])[] = [];
  const objects = worldObjects({ services, proxies: 1 }).map(({ object }) => object as unknown as KubeObject);
  for (const variant of variants.filter(({ title }) => title.includes(only))) {
    log(variant.title);
    rows.push(await measure(variant, objects, rounds));
  }
  return {
    title: `envoy: what ${services} services cost one sidecar, mutual TLS on`,
    columns: [
      "configuration",
      "ready ms",
      "CPU ms",
      "received KiB",
      "resident MiB",
      "route: main thread ms",
      "route: bytes",
    ],
    rows,
  };
}

async function measure(
  { title, delivery, change, called }: Variant,
  objects: readonly KubeObject[],
  rounds: number,
): Promise<readonly string[]> {
  const onDemand = called === undefined ? {} : { clusterDiscovery: "on-demand" };
  const rig = new Rig({
    objects,
    mesh: { extensionProviders: providersAt(called ?? 0) },
    routeDelivery: delivery,
    classOf: () => ({ ...sidecarClass, ...onDemand }),
  });
  await rig.start();
  const starts: { readyMs: number; cpuMs: number }[] = [];
  let envoy = await startOne(rig, change);
  try {
    // The translation itself is measured elsewhere: all proxies but the first find everything ready.
    await envoy.ready();
    let before = rig.sentBytes;
    for (let start = 0; start < startsTotal; start++) {
      await envoy.stop();
      before = rig.sentBytes;
      const startedMs = performance.now();
      envoy = await startOne(rig, change);
      await envoy.ready();
      starts.push({ readyMs: performance.now() - startedMs, cpuMs: envoy.cpuMs });
    }
    const receivedKib = (rig.sentBytes - before) / 1024;
    await sleep(3_000);
    const residentMib = envoy.residentMiB;
    const idleMs = await mainThreadDuring(envoy, rounds, () => {});
    const sentBefore = rig.sentBytes;
    const busyMs = await mainThreadDuring(envoy, rounds, (round) =>
      rig.put(virtualService(5, `${round + 2}s`).object as unknown as KubeObject),
    );
    const bytes = (rig.sentBytes - sentBefore) / rounds;
    return [
      title,
      middle(starts.map(({ readyMs }) => readyMs)).toFixed(0),
      middle(starts.map(({ cpuMs }) => cpuMs)).toFixed(0),
      receivedKib.toFixed(0),
      residentMib.toFixed(0),
      ((busyMs - idleMs) / rounds).toFixed(2),
      bytes.toFixed(0),
    ];
  } finally {
    await envoy.stop();
    await rig.stop();
  }
}

/**
 * Nothing brings requests here, so services stand for called ones that are held from the beginning: those behind the
 * mesh's extension providers.
 */
function providersAt(services: number): MeshConfig["extensionProviders"] {
  return Array.from({ length: services }, (_, at) => ({
    name: `provider${at}`,
    envoyExtAuthzGrpc: { service: hostOf(at), port: servicePort },
  }));
}

function middle(values: readonly number[]): number {
  return values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)] ?? 0;
}

function startOne(rig: Rig, change: (bootstrap: Json) => void): Promise<MeasuredEnvoy> {
  return MeasuredEnvoy.start({
    folder: rig.folder,
    name: "envoy",
    concurrency: 2,
    bootstrap: (adminPort) => {
      const bootstrap = agentBootstrap({
        rig,
        adminPort,
        podName: "svc0-0",
        namespace: namespaceOf(0),
        address: "127.0.0.1",
      });
      change(bootstrap);
      return bootstrap;
    },
  });
}

const pauseMs = 200;

/** Main-thread time over some rounds of something. */
async function mainThreadDuring(
  envoy: MeasuredEnvoy,
  rounds: number,
  act: (round: number) => void,
): Promise<number> {
  const before = envoy.mainThreadMs;
  for (let round = 0; round < rounds; round++) {
    act(round);
    await sleep(pauseMs);
  }
  return envoy.mainThreadMs - before;
}

const sidecarClass: ProxyClass = {
  kind: "sidecar",
  namespace: namespaceOf(0),
  labels: { app: "svc0" },
  serviceAccount: "default",
  network: "",
  locality: "",
  clusterId: "Kubernetes",
  dnsDomain: `${namespaceOf(0)}.svc.cluster.local`,
  // No capture here: the listeners for it would need it, and the world's services listen at one port.
  interception: "REDIRECT",
  envoyVersion: "1.40.0",
  metadata: {},
};
