// The Node object and its Lease, so that clients see a cluster with one healthy node.

import type { Logger } from "#base";
import type { ClusterStore, NewObject } from "../api/index.ts";
import { isoSeconds } from "../node/context.ts";
import { reasonOf } from "./loop.ts";

export interface NodeFacts {
  readonly name: string;
  readonly ip: string;
  readonly podCidr: string;
  readonly cpus: number;
  readonly memoryBytes: number;
  readonly kernel: string;
  readonly zone: string;
}

const leaseSeconds = 40;
const renewMs = 10_000;
const podsMax = 250;
const leaseNamespace = "kube-node-lease";

/** Writes both, keeps the Lease current, and returns the function that ends it. */
export async function startNodeObject(
  store: ClusterStore,
  facts: NodeFacts,
  log: Logger,
): Promise<() => void> {
  await ensure(store, "namespaces", {
    apiVersion: "v1",
    kind: "Namespace",
    metadata: { name: leaseNamespace },
  });
  await ensure(store, "nodes", {
    apiVersion: "v1",
    kind: "Node",
    metadata: { name: facts.name, labels: labelsOf(facts) },
    spec: { podCIDR: facts.podCidr, podCIDRs: [facts.podCidr] },
  });
  const node = store.get("nodes", "", facts.name);
  if (node !== undefined) await store.updateStatus("nodes", { ...node, status: statusOf(facts) });
  const renew = () => {
    renewLease(store, facts.name).catch((error: unknown) =>
      log.debug({ error: String(error) }, "the node's lease was not renewed"),
    );
  };
  renew();
  const timer = setInterval(renew, renewMs);
  return () => clearInterval(timer);
}

async function ensure(store: ClusterStore, resource: string, object: NewObject): Promise<void> {
  await store.create(resource, object).catch((error: unknown) => {
    if (reasonOf(error) !== "AlreadyExists") throw error;
  });
}

async function renewLease(store: ClusterStore, name: string): Promise<void> {
  const renewTime = new Date().toISOString().replace("Z", "000Z");
  if (store.get("leases.coordination.k8s.io", leaseNamespace, name) === undefined) {
    await ensure(store, "leases.coordination.k8s.io", {
      apiVersion: "coordination.k8s.io/v1",
      kind: "Lease",
      metadata: { name, namespace: leaseNamespace },
      spec: { holderIdentity: name, leaseDurationSeconds: leaseSeconds, renewTime },
    });
    return;
  }
  await store.patch(
    "leases.coordination.k8s.io",
    leaseNamespace,
    name,
    { spec: { renewTime } },
    { type: "merge" },
  );
}

function labelsOf(facts: NodeFacts): Record<string, string> {
  return {
    "kubernetes.io/hostname": facts.name,
    "kubernetes.io/os": "linux",
    "kubernetes.io/arch": process.arch === "x64" ? "amd64" : process.arch,
    "topology.kubernetes.io/region": "local",
    "topology.kubernetes.io/zone": facts.zone,
  };
}

function statusOf(facts: NodeFacts): object {
  const now = isoSeconds(Date.now());
  const resources = {
    cpu: String(facts.cpus),
    memory: `${Math.floor(facts.memoryBytes / 1_024)}Ki`,
    pods: String(podsMax),
  };
  return {
    capacity: resources,
    allocatable: resources,
    addresses: [
      { type: "InternalIP", address: facts.ip },
      { type: "Hostname", address: facts.name },
    ],
    conditions: [
      {
        type: "Ready",
        status: "True",
        reason: "KubeletReady",
        message: "the node runs Pods",
        lastHeartbeatTime: now,
        lastTransitionTime: now,
      },
    ],
    nodeInfo: {
      kernelVersion: facts.kernel,
      osImage: "Linux",
      containerRuntimeVersion: "runc://1",
      kubeletVersion: "v1.37.0",
      kubeProxyVersion: "v1.37.0",
      operatingSystem: "linux",
      architecture: process.arch === "x64" ? "amd64" : process.arch,
      machineID: facts.name,
      systemUUID: facts.name,
      bootID: facts.name,
    },
  };
}
