// `bench data-plane`: what two sidecars with mutual TLS between them add to a request, against two plain Envoys with a
// configuration that is written by hand, and against no proxy. Taken in turns, so that the machine's moods hit all alike.

import { setTimeout as sleep } from "node:timers/promises";
import type { ProxyClass } from "#model";
import type { KubeObject } from "#objects";
import { agentBootstrap, MeasuredEnvoy, Rig } from "../envoy/rig.ts";
import { freePorts } from "../../test/support/free-ports.ts";
import type { Table } from "../table.ts";
import { load, startBackend, type LoadResult } from "./load.ts";
import { plainBootstrap } from "./plain.ts";

export interface DataPlaneOptions {
  readonly rounds: number;
  readonly connections: number;
  readonly roundMs: number;
  readonly log: (line: string) => void;
}

interface Path {
  readonly title: string;
  readonly port: number;
  readonly envoys: readonly MeasuredEnvoy[];
  readonly results: (LoadResult & { readonly cpuMs: number })[];
  readonly stop: () => Promise<void>;
}

const host = "server.default.svc.cluster.local";
const serverAddress = "127.0.0.2";
/** Workers of each Envoy, on both sides of the comparison. */
const workers = 2;
const warmUpMs = 1_000;

export async function benchDataPlane({
  rounds,
  connections,
  roundMs,
  log,
}: DataPlaneOptions): Promise<Table> {
  const [backendPort = 0] = await freePorts(1);
  const backend = await startBackend(backendPort);
  const paths: Path[] = [];
  try {
    paths.push({ title: "no proxy", port: backendPort, envoys: [], results: [], stop: async () => {} });
    paths.push(await plainPath(backendPort));
    paths.push(await meshPath("two sidecars, without telemetry", backendPort, [telemetryOff]));
    paths.push(await meshPath("two sidecars, everything on", backendPort, []));
    for (let round = -1; round < rounds; round++) {
      for (const path of paths) {
        if (round >= 0) log(`${path.title} ${round + 1}/${rounds}`);
        const cpuBefore = cpuOf(path);
        const forMs = round < 0 ? warmUpMs : roundMs;
        const result = await load({ port: path.port, host, connections, forMs });
        if (round >= 0) path.results.push({ ...result, cpuMs: cpuOf(path) - cpuBefore });
      }
    }
    return tableOf(paths, connections, roundMs);
  } finally {
    for (const { stop } of paths) await stop();
    backend.close();
  }
}

function cpuOf({ envoys }: Path): number {
  return envoys.reduce((sum, envoy) => sum + envoy.cpuMs, 0);
}

function tableOf(paths: readonly Path[], connections: number, roundMs: number): Table {
  const perThousand = (path: Path): number => {
    const requests = path.results.reduce((sum, one) => sum + one.requests, 0);
    return path.results.reduce((sum, { cpuMs }) => sum + cpuMs, 0) / (requests / 1_000);
  };
  const plain = paths[1] === undefined ? 1 : perThousand(paths[1]);
  const rows = paths.map((path) => {
    const middle = (of: (result: LoadResult) => number): number =>
      path.results.map(of).toSorted((a, b) => a - b)[Math.floor(path.results.length / 2)] ?? 0;
    const cpu = path.envoys.length === 0 ? undefined : perThousand(path);
    return [
      path.title,
      middle(({ requestsPerSecond }) => requestsPerSecond).toFixed(0),
      middle(({ p50Ms }) => p50Ms).toFixed(2),
      middle(({ p99Ms }) => p99Ms).toFixed(2),
      cpu === undefined ? "-" : cpu.toFixed(1),
      cpu === undefined ? "-" : (cpu / plain).toFixed(2),
      String(path.results.reduce((sum, { failures }) => sum + failures, 0)),
    ];
  });
  return {
    title: `data-plane: ${connections} connections in a closed loop, rounds of ${roundMs / 1_000} s in turns`,
    columns: ["path", "requests/s", "p50 ms", "p99 ms", "CPU ms / 1,000 requests", "to plain", "failures"],
    rows,
  };
}

async function plainPath(backendPort: number): Promise<Path> {
  const rig = new Rig({ objects: [], classOf: () => proxyClass("none") });
  await rig.start();
  const [port = 0, between = 0] = await freePorts(2);
  const start = (name: string, bootstrap: (adminPort: number) => object): Promise<MeasuredEnvoy> =>
    MeasuredEnvoy.start({ folder: rig.folder, name, concurrency: workers, bootstrap });
  const { folder } = rig;
  const middle = { address: serverAddress, port: between };
  const client = await start("client", (adminPort) =>
    plainBootstrap({
      adminPort,
      folder,
      listen: { address: "127.0.0.1", port },
      to: middle,
      tls: "cluster",
    }),
  );
  const server = await start("server", (adminPort) =>
    plainBootstrap({
      adminPort,
      folder,
      listen: middle,
      to: { address: "127.0.0.1", port: backendPort },
      tls: "listener",
    }),
  );
  return pathOf("two plain Envoys, mutual TLS by hand", port, [client, server], rig);
}

async function meshPath(title: string, backendPort: number, more: readonly KubeObject[]): Promise<Path> {
  const [port = 0, inbound = 0] = await freePorts(2);
  const rig = new Rig({
    objects: [...world(port, inbound, backendPort), ...more],
    classOf: (id) => proxyClass(id.includes("~server.") ? "server" : "client"),
  });
  await rig.start();
  const start = (podName: string, address: string): Promise<MeasuredEnvoy> =>
    MeasuredEnvoy.start({
      folder: rig.folder,
      name: podName,
      concurrency: workers,
      bootstrap: (adminPort) => agentBootstrap({ rig, adminPort, podName, namespace: "default", address }),
    });
  const envoys = [await start("client", "127.0.0.1"), await start("server", serverAddress)];
  return pathOf(title, port, envoys, rig);
}

async function pathOf(title: string, port: number, envoys: MeasuredEnvoy[], rig: Rig): Promise<Path> {
  const stop = async (): Promise<void> => {
    for (const envoy of envoys) await envoy.stop();
    await rig.stop();
  };
  try {
    for (const envoy of envoys) await envoy.ready();
    await sleep(200);
    const { failures, requests } = await load({ port, host, connections: 1, forMs: 100 });
    if (failures > 0 || requests === 0) throw new Error(`${title}: the path does not carry requests`);
  } catch (error) {
    await stop();
    throw error;
  }
  return { title, port, envoys, results: [], stop };
}

function proxyClass(app: string): ProxyClass {
  return {
    kind: "sidecar",
    namespace: "default",
    labels: { app },
    serviceAccount: "default",
    network: "",
    locality: "",
    clusterId: "Kubernetes",
    dnsDomain: "default.svc.cluster.local",
    interception: "NONE",
    envoyVersion: "1.40.0",
    metadata: {},
  };
}

function world(port: number, inbound: number, backendPort: number): KubeObject[] {
  const pod = (name: string, podIP: string): object => ({
    apiVersion: "v1",
    kind: "Pod",
    metadata: { name, namespace: "default", labels: { app: name, "security.istio.io/tlsMode": "istio" } },
    spec: { serviceAccountName: "default", containers: [{ name: "app", image: "app" }] },
    status: {
      phase: "Running",
      podIP,
      podIPs: [{ ip: podIP }],
      conditions: [{ type: "Ready", status: "True" }],
    },
  });
  return [
    pod("client", "127.0.0.1"),
    pod("server", serverAddress),
    {
      apiVersion: "v1",
      kind: "Service",
      metadata: { name: "server", namespace: "default" },
      spec: {
        clusterIP: "10.96.0.5",
        selector: { app: "server" },
        ports: [{ name: "http", port, targetPort: inbound, protocol: "TCP" }],
      },
    },
    {
      apiVersion: "discovery.k8s.io/v1",
      kind: "EndpointSlice",
      metadata: {
        name: "server-1",
        namespace: "default",
        labels: { "kubernetes.io/service-name": "server" },
      },
      addressType: "IPv4",
      ports: [{ name: "http", port: inbound, protocol: "TCP" }],
      endpoints: [
        {
          addresses: [serverAddress],
          conditions: { ready: true },
          targetRef: { kind: "Pod", name: "server", namespace: "default" },
        },
      ],
    },
    {
      apiVersion: "networking.istio.io/v1",
      kind: "Sidecar",
      metadata: { name: "server", namespace: "default" },
      spec: {
        workloadSelector: { labels: { app: "server" } },
        ingress: [
          {
            port: { number: inbound, protocol: "HTTP", name: "http" },
            bind: serverAddress,
            defaultEndpoint: `127.0.0.1:${backendPort}`,
          },
        ],
        egress: [{ hosts: ["none/*"] }],
      },
    },
    {
      apiVersion: "security.istio.io/v1",
      kind: "PeerAuthentication",
      metadata: { name: "default", namespace: "istio-d" },
      spec: { mtls: { mode: "STRICT" } },
    },
  ] as unknown as KubeObject[];
}

const telemetryOff = {
  apiVersion: "telemetry.istio.io/v1",
  kind: "Telemetry",
  metadata: { name: "off", namespace: "istio-d" },
  spec: {
    metrics: [{ providers: [{ name: "prometheus" }], overrides: [{ disabled: true }] }],
    accessLogging: [{ disabled: true }],
    tracing: [{ disableSpanReporting: true }],
  },
} as unknown as KubeObject;
