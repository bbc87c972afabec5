// The first witness: the explainer follows a request from the caller's sidecar to the endpoint and through the server's
// sidecar, over the resources that the control plane would push to both.

import { isIP } from "node:net";
import { Engine } from "#engine";
import { decodeMessage, snapshotOf, type EnvoyResource } from "#envoy";
import { configurationOf, simulate, type Call, type Outcome, type ProxyConfiguration } from "#explain";
import { worldChanges, type ClusterDiscovery, type ProxyClass, type RouteDelivery } from "#model";
import type { KubeObject } from "#objects";
import {
  scenarioPorts,
  workloadText,
  type Scenario,
  type ScenarioRequest,
  type Workload,
} from "./scenario.ts";

export type Explained =
  | { readonly kind: "answered"; readonly by: ReadonlyMap<string, number> }
  | { readonly kind: "status"; readonly status: number }
  | { readonly kind: "refused"; readonly text: string };

interface Held {
  readonly configuration: ProxyConfiguration;
  readonly resources: readonly EnvoyResource[];
}

export class ExplainedWorld {
  readonly #engine = new Engine();
  readonly #workloads: readonly Workload[];
  readonly #clusters: ClusterDiscovery;
  readonly #held = new Map<string, Held>();

  constructor(
    scenario: Scenario,
    workloads: readonly Workload[],
    routeDelivery: RouteDelivery = "virtual-hosts",
    clusters: ClusterDiscovery = "eager",
  ) {
    this.#workloads = workloads;
    this.#clusters = clusters;
    const objects = [
      ...workloads.flatMap((workload, at) => podAndAccount(workload, at)),
      ...services(workloads),
      ...scenario.objects,
    ];
    this.#engine.apply(
      worldChanges(objects, { rootNamespace: "istio-d", clusterDomain: "cluster.local", routeDelivery }),
    );
  }

  /** All resources of a workload's sidecar. */
  resourcesOf(workload: Workload): readonly EnvoyResource[] {
    return this.#heldBy(workload).resources;
  }

  ask({ from, send }: ScenarioRequest): Explained {
    const caller = this.#heldBy(from);
    const port = Number(send.url.port || 80);
    const call = {
      direction: "outbound",
      address: this.#addressOf(send.url.hostname, from),
      port,
      protocol: "http",
      method: send.method,
      host: send.url.host,
      path: send.url.pathname + send.url.search,
      headers: send.headers,
    } as const;
    return this.#follow(caller, simulate(caller.configuration, call).outcome, from, call);
  }

  #follow(caller: Held, outcome: Outcome, from: Workload, call: Partial<Call>): Explained {
    if (outcome.kind === "respond" || outcome.kind === "redirect")
      return { kind: "status", status: outcome.status };
    if (outcome.kind === "refuse") return refusal(outcome.error, outcome.text);
    // A scenario has no words for answers of which only a share is forwarded.
    if (outcome.kind === "shares") return { kind: "refused", text: "shares with different answers" };
    const total = outcome.to.reduce((sum, { weight }) => sum + weight, 0);
    const by = new Map<string, number>();
    for (const { cluster, weight } of outcome.to) {
      if (weight === 0) continue;
      const endpoints = endpointsOf(caller.resources, cluster);
      if (endpoints.length === 0)
        return { kind: "status", status: cluster === "BlackHoleCluster" ? 502 : 503 };
      for (const endpoint of endpoints) {
        const there = this.#arrive(from, endpoint, call);
        if (there.kind !== "answered") return there;
        for (const name of there.by.keys()) {
          by.set(name, (by.get(name) ?? 0) + (weight / total / endpoints.length) * 100);
        }
      }
    }
    return { kind: "answered", by };
  }

  #arrive(from: Workload, endpoint: { address: string; port: number }, call: Partial<Call>): Explained {
    const at = this.#workloads.findIndex((_, index) => addressOfPod(index) === endpoint.address);
    const target = this.#workloads[at];
    if (target === undefined) return { kind: "refused", text: `${endpoint.address} is no workload` };
    const { outcome } = simulate(this.#heldBy(target).configuration, {
      ...call,
      direction: "inbound",
      address: endpoint.address,
      port: endpoint.port,
      tls: "mtls",
      principal: `spiffe://cluster.local/ns/${from.namespace}/sa/${from.name}`,
      sourceAddress: addressOfPod(
        this.#workloads.findIndex((one) => workloadText(one) === workloadText(from)),
      ),
    });
    if (outcome.kind === "refuse") return refusal(outcome.error, outcome.text);
    if (outcome.kind === "respond") return { kind: "status", status: outcome.status };
    return { kind: "answered", by: new Map([[workloadText(target), 100]]) };
  }

  #heldBy(workload: Workload): Held {
    const name = workloadText(workload);
    let held = this.#held.get(name);
    if (held === undefined) {
      const resources = Object.values(snapshotOf(this.#engine, classOf(workload, this.#clusters))).flat();
      this.#held.set(name, (held = { resources, configuration: configurationOf(resources) }));
    }
    return held;
  }

  /** What DNS gives the application: the ClusterIP of the Service of that name. */
  #addressOf(host: string, from: Workload): string {
    if (isIP(host) !== 0) return host;
    const [service = "", namespace = from.namespace] = host.split(".");
    const at = serviceNames(this.#workloads).indexOf(`${namespace}/${service}`);
    return at === -1 ? "192.0.2.1" : clusterIp(at);
  }
}

function refusal(error: string, text: string): Explained {
  if (error === "Unauthenticated") return { kind: "status", status: 401 };
  if (error === "Denied") return { kind: "status", status: 403 };
  if (error === "NoRoute" || error === "NoVirtualHost") return { kind: "status", status: 404 };
  return { kind: "refused", text: `${error}: ${text}` };
}

/** The addresses behind a cluster, in its own resource or its endpoints. */
function endpointsOf(
  resources: readonly EnvoyResource[],
  cluster: string,
): { address: string; port: number }[] {
  const found = resources.find(({ type, name }) => type === "endpoint" && name === cluster);
  if (found === undefined) return [];
  const message = decodeMessage("envoy.config.endpoint.v3.ClusterLoadAssignment", found.bytes) as unknown as {
    endpoints?: {
      lbEndpoints?: {
        endpoint?: { address?: { socketAddress?: { address?: string; portValue?: number } } };
      }[];
    }[];
  };
  return (message.endpoints ?? [])
    .flatMap((locality) => locality.lbEndpoints ?? [])
    .map(({ endpoint }) => endpoint?.address?.socketAddress)
    .map((socket) => ({ address: socket?.address ?? "", port: socket?.portValue ?? 0 }));
}

const labelsOf = ({ service, version }: Workload) => ({
  app: service,
  version,
  "security.istio.io/tlsMode": "istio",
});
const addressOfPod = (at: number) => `10.244.1.${at + 1}`;
const clusterIp = (at: number) => `10.96.1.${at + 1}`;
const createdAt = "2026-01-01T00:00:00Z";

function classOf(workload: Workload, clusterDiscovery: ClusterDiscovery): ProxyClass {
  return {
    kind: "sidecar",
    namespace: workload.namespace,
    labels: labelsOf(workload),
    serviceAccount: workload.name,
    network: "",
    locality: "",
    clusterId: "Kubernetes",
    dnsDomain: `${workload.namespace}.svc.cluster.local`,
    interception: "REDIRECT",
    clusterDiscovery,
    envoyVersion: "1.40.0",
    metadata: {},
  };
}

function podAndAccount(workload: Workload, at: number): KubeObject[] {
  const { name, namespace } = workload;
  return [
    {
      apiVersion: "v1",
      kind: "Pod",
      metadata: { name, namespace, labels: labelsOf(workload), creationTimestamp: createdAt },
      spec: { serviceAccountName: name, containers: [{ name: "echo", image: "echo" }] },
      status: {
        phase: "Running",
        podIP: addressOfPod(at),
        podIPs: [{ ip: addressOfPod(at) }],
        conditions: [{ type: "Ready", status: "True" }],
      },
    },
  ];
}

function serviceNames(workloads: readonly Workload[]): readonly string[] {
  return [...new Set(workloads.map(({ namespace, service }) => `${namespace}/${service}`))].toSorted();
}

function services(workloads: readonly Workload[]): KubeObject[] {
  return serviceNames(workloads).flatMap((text, index) => {
    const [namespace = "", name = ""] = text.split("/");
    const pods = workloads.flatMap((workload, at) =>
      workload.namespace === namespace && workload.service === name ? [{ workload, at }] : [],
    );
    const ports = scenarioPorts.map((port) => ({
      name: port.name,
      port: port.servicePort,
      targetPort: port.workloadPort,
      protocol: "TCP",
    }));
    return [
      {
        apiVersion: "v1",
        kind: "Service",
        metadata: { name, namespace, creationTimestamp: createdAt },
        spec: {
          clusterIP: clusterIp(index),
          clusterIPs: [clusterIp(index)],
          type: "ClusterIP",
          selector: { app: name },
          ports,
        },
      },
      {
        apiVersion: "discovery.k8s.io/v1",
        kind: "EndpointSlice",
        metadata: { name: `${name}-1`, namespace, labels: { "kubernetes.io/service-name": name } },
        addressType: "IPv4",
        ports: scenarioPorts.map((port) => ({ name: port.name, port: port.workloadPort, protocol: "TCP" })),
        endpoints: pods.map(({ workload, at }) => ({
          addresses: [addressOfPod(at)],
          conditions: { ready: true, serving: true, terminating: false },
          targetRef: { kind: "Pod", name: workload.name, namespace },
        })),
      } as KubeObject,
    ];
  });
}
