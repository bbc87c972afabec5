// The cluster's one process, inside the node's network namespace: API server, controllers, node, DNS, service rules, and the inner
// ends of published ports.

import { existsSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { cpus, release, totalmem } from "node:os";
import { join } from "node:path";
import type { Clock, Logger } from "#base";
import { startApiServer, type ClusterStore, type LogAsk } from "../api/index.ts";
import { startControllers } from "../controllers/start.ts";
import { startNodeObject } from "../controllers/node-object.ts";
import { reasonOf } from "../controllers/loop.ts";
import type { ImageEntry } from "../images/image.ts";
import { builtInImages, parseImageTable, type PackagePaths } from "../images/table.ts";
import { clusterDomain, type NodeContext } from "../node/context.ts";
import { dnsViewOf, startDnsServer } from "../node/dns/server.ts";
import { EventRecorder } from "../node/events.ts";
import { NodeAgent } from "../node/kubelet.ts";
import type { ClusterLayout } from "../node/names.ts";
import { AddressPool, planNetwork, type NetworkPlan } from "../node/network.ts";
import { startServiceProxy } from "../node/service-proxy.ts";
import { publicationSocket } from "./launch.ts";
import { apiUrlMark } from "./messages.ts";
import { listenInCluster, type Publication } from "./publish.ts";

export interface ClusterProcessOptions {
  readonly layout: ClusterLayout;
  readonly podCidr?: string;
  readonly serviceCidr?: string;
  readonly publish: readonly Publication[];
  readonly paths: PackagePaths;
  readonly imagesFile?: string;
  readonly hostPathsAllowed: readonly string[];
  readonly clock: Clock;
  readonly log: Logger;
}

export interface ClusterProcess {
  /** An administrator's kubeconfig whose server is `apiUrlMark`. */
  readonly kubeconfigTemplate: string;
  /** Ends everything that runs in the cluster; what is stored stays. */
  stop(): Promise<void>;
}

const nodeName = "mizzen";
const zone = "local";
const apiPort = 6_443;
const dnsPort = 53;
const stopGraceMs = 2_500; // what containers get when the whole cluster ends

/** Starts the cluster. Throws when a part cannot start; the host side then removes what is there. */
export async function runCluster(options: ClusterProcessOptions): Promise<ClusterProcess> {
  const { layout, log, clock } = options;
  const plan = planNetwork(options.podCidr, options.serviceCidr);
  const images = await loadImages(options);
  let agent: NodeAgent | undefined;
  const api = await startApiServer({
    dataDir: join(layout.stateDir, "data"),
    listen: [
      { host: plan.nodeIp, port: apiPort },
      { host: "127.0.0.1", port: apiPort },
      { path: layout.apiSocket },
    ],
    clock,
    log: log.child({ part: "api" }),
    serviceCidr: plan.serviceCidr,
    logs: (ask) => agent?.logs(logRequest(ask), ask.signal),
    exec: (ask) => {
      if (agent === undefined) throw new Error("the node has not started yet");
      return agent.exec(ask);
    },
  });
  const store = api.store;
  await ensureOwnServices(store, plan);
  const stops: (() => void)[] = [startServiceProxy(store, plan.nodeIp, log.child({ part: "services" }))];
  const context = nodeContext(options, plan, store, images);
  agent = new NodeAgent(context);
  const dns = await startDnsServer(dnsViewOf(store), {
    address: plan.dnsIp,
    port: dnsPort,
    domain: clusterDomain,
    log: log.child({ part: "dns" }),
  });
  const facts = {
    name: nodeName,
    ip: plan.nodeIp,
    podCidr: plan.podCidr,
    cpus: context.cpus,
    memoryBytes: context.memoryBytes,
  };
  stops.push(await startNodeObject(store, { ...facts, kernel: release(), zone }, log));
  const published = new Set(options.publish.map(({ service }) => service));
  stops.push(startControllers(store, { nodeName, zone, published }, log.child({ part: "controllers" })));
  agent.start();
  const closers = await Promise.all(
    options.publish.map((publication) =>
      listenInCluster(store, publication, publicationSocket(layout, publication), log),
    ),
  );
  const running = agent;
  return {
    kubeconfigTemplate: api.adminKubeconfig(apiUrlMark),
    async stop() {
      for (const stop of stops) stop();
      await running.stop(stopGraceMs);
      await Promise.all([...closers.map((close) => close()), dns.close()]);
      await api.close();
    },
  };
}

async function loadImages(options: ClusterProcessOptions): Promise<ImageEntry[]> {
  const file = options.imagesFile ?? join(options.layout.stateDir, "images.yaml");
  const own = existsSync(file) ? parseImageTable(await readFile(file, "utf8")) : [];
  return [...own, ...builtInImages(options.paths)];
}

function nodeContext(
  options: ClusterProcessOptions,
  plan: NetworkPlan,
  store: ClusterStore,
  images: readonly ImageEntry[],
): NodeContext {
  const log = options.log.child({ part: "node" });
  return {
    layout: options.layout,
    plan,
    nodeName,
    store,
    images,
    addresses: new AddressPool(plan.podCidr),
    events: new EventRecorder(store, "kubelet", nodeName, log),
    log,
    cpus: cpus().length,
    memoryBytes: totalmem(),
    hostPathsAllowed: options.hostPathsAllowed,
  };
}

function logRequest(ask: LogAsk) {
  const sinceMs =
    ask.sinceSeconds !== undefined
      ? Date.now() - ask.sinceSeconds * 1_000
      : ask.sinceTime && Date.parse(ask.sinceTime);
  return { ...ask, ...(typeof sinceMs === "number" ? { sinceMs } : { sinceMs: undefined }) };
}

/** The API server's endpoint, and the DNS Service, which holds its address and is known to clients by its usual name. */
async function ensureOwnServices(store: ClusterStore, plan: NetworkPlan): Promise<void> {
  await replace(store, "endpointslices.discovery.k8s.io", {
    apiVersion: "discovery.k8s.io/v1",
    kind: "EndpointSlice",
    metadata: {
      name: "kubernetes",
      namespace: "default",
      labels: { "kubernetes.io/service-name": "kubernetes" },
    },
    addressType: "IPv4",
    endpoints: [{ addresses: [plan.nodeIp], conditions: { ready: true, serving: true, terminating: false } }],
    ports: [{ name: "https", protocol: "TCP", port: apiPort }],
  });
  if (store.get("services", "kube-system", "kube-dns") !== undefined) return;
  await store.create("services", {
    apiVersion: "v1",
    kind: "Service",
    metadata: { name: "kube-dns", namespace: "kube-system", labels: { "k8s-app": "kube-dns" } },
    spec: {
      clusterIP: plan.dnsIp,
      ports: [
        { name: "dns", protocol: "UDP", port: dnsPort },
        { name: "dns-tcp", protocol: "TCP", port: dnsPort },
      ],
    },
  });
}

async function replace(
  store: ClusterStore,
  resource: string,
  object: Parameters<ClusterStore["create"]>[1],
): Promise<void> {
  const { namespace = "", name = "" } = object.metadata;
  await store.delete(resource, namespace, name).catch((error: unknown) => {
    if (reasonOf(error) !== "NotFound") throw error;
  });
  await store.create(resource, object);
}
