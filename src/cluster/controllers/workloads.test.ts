import assert from "node:assert/strict";
import { test, type TestContext } from "node:test";
import { silentLog } from "#base";
import type { ApiObject, ClusterStore } from "../api/index.ts";
import { memoryStore } from "../node/memory-store.ts";
import type { EndpointSlice, Pod } from "../types.ts";
import { startControllers } from "./start.ts";

const template = {
  metadata: { labels: { app: "a" } },
  spec: { containers: [{ name: "a", image: "busybox" }] },
};
const selector = { matchLabels: { app: "a" } };

/** A store with all controllers, and a node that makes every bound Pod ready at once and lets deleted ones go. */
async function world(context: TestContext): Promise<ClusterStore> {
  const store = memoryStore();
  await store.create("nodes", { apiVersion: "v1", kind: "Node", metadata: { name: "n" } });
  context.after(startControllers(store, { nodeName: "n", zone: "z", published: new Set() }, silentLog));
  let address = 1;
  const node = store.watch("pods", {}, (event) => {
    const pod = event.object as Pod;
    const { namespace = "", name, deletionTimestamp } = pod.metadata;
    if (event.type === "DELETED" || pod.spec.nodeName === undefined) return;
    if (deletionTimestamp !== undefined)
      void store.delete("pods", namespace, name, { gracePeriodSeconds: 0 }).catch(() => {});
    else if (pod.status?.phase === undefined) {
      const conditions = [{ type: "Ready", status: "True", lastTransitionTime: new Date().toISOString() }];
      const status = { phase: "Running", podIP: `10.244.0.${++address}`, conditions };
      void store.patch("pods", namespace, name, { status }).catch(() => {});
    }
  });
  context.after(node);
  return store;
}

async function until(what: string, check: () => boolean): Promise<void> {
  const endMs = performance.now() + 5_000;
  while (!check()) {
    if (performance.now() > endMs) throw new Error(`${what} did not come about`);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}

function statusOf(store: ClusterStore, resource: string, name: string): Record<string, unknown> {
  return (store.get(resource, "default", name)?.["status"] ?? {}) as Record<string, unknown>;
}

async function deploy(store: ClusterStore): Promise<ApiObject> {
  return store.create("deployments.apps", {
    apiVersion: "apps/v1",
    kind: "Deployment",
    metadata: { name: "d", namespace: "default" },
    spec: { replicas: 3, selector, template },
  });
}

test("a Deployment comes up with a revision, and a new template replaces every Pod", async (context) => {
  const store = await world(context);
  await deploy(store);
  await until("three Pods", () => statusOf(store, "deployments.apps", "d")["availableReplicas"] === 3);
  const first = store.list("pods").items.map((pod) => pod.metadata.uid);
  const changed = { spec: { template: { metadata: { annotations: { changed: "yes" } } } } };
  await store.patch("deployments.apps", "default", "d", changed);
  await until(
    "a second revision",
    () =>
      store.get("deployments.apps", "default", "d")?.metadata.annotations?.[
        "deployment.kubernetes.io/revision"
      ] === "2",
  );
  await until("new Pods alone", () => {
    const pods = store.list("pods").items;
    return pods.length === 3 && pods.every((pod) => !first.includes(pod.metadata.uid));
  });
});

test("a template that comes back finds its ReplicaSet again, as the newest revision", async (context) => {
  const store = await world(context);
  await deploy(store);
  await until("three Pods", () => statusOf(store, "deployments.apps", "d")["availableReplicas"] === 3);
  for (const value of ["yes", null]) {
    const patch = {
      spec: { template: { metadata: { annotations: value === null ? null : { changed: value } } } },
    };
    await store.patch("deployments.apps", "default", "d", patch);
    await new Promise((resolve) => setTimeout(resolve, 150));
  }
  await until(
    "revision 3",
    () =>
      store.get("deployments.apps", "default", "d")?.metadata.annotations?.[
        "deployment.kubernetes.io/revision"
      ] === "3",
  );
  assert.equal(store.list("replicasets.apps").items.length, 2);
});

test("a StatefulSet makes its Pods in order, each after the one before is ready", async (context) => {
  const store = await world(context);
  const order: string[] = [];
  context.after(
    store.watch("pods", {}, (event) => event.type === "ADDED" && order.push(event.object.metadata.name)),
  );
  await store.create("statefulsets.apps", {
    apiVersion: "apps/v1",
    kind: "StatefulSet",
    metadata: { name: "s", namespace: "default" },
    spec: { replicas: 3, serviceName: "s", selector, template },
  });
  await until("three Pods", () => statusOf(store, "statefulsets.apps", "s")["readyReplicas"] === 3);
  assert.deepEqual(order, ["s-0", "s-1", "s-2"]);
  assert.equal((store.get("pods", "default", "s-1") as Pod).spec.subdomain, "s");
});

test("a Service's slice lists its ready Pods, and a Pod that ends is not ready", async (context) => {
  const store = await world(context);
  await store.create("services", {
    apiVersion: "v1",
    kind: "Service",
    metadata: { name: "a", namespace: "default" },
    spec: {
      selector: { app: "a" },
      ports: [{ name: "http", port: 80, targetPort: 8080 }],
      clusterIP: "10.96.0.9",
    },
  });
  await deploy(store);
  const endpoints = () =>
    (store.list("endpointslices.discovery.k8s.io").items as EndpointSlice[]).flatMap(
      (slice) => slice.endpoints ?? [],
    );
  await until(
    "three endpoints",
    () => endpoints().filter((one) => one.conditions?.ready === true).length === 3,
  );
  await store.patch("deployments.apps", "default", "d", { spec: { replicas: 1 } });
  await until("one endpoint", () => endpoints().length === 1);
});

test("a Job is complete once its Pods succeeded", async (context) => {
  const store = await world(context);
  await store.create("jobs.batch", {
    apiVersion: "batch/v1",
    kind: "Job",
    metadata: { name: "j", namespace: "default" },
    spec: { template },
  });
  await until("a Pod", () => store.list("pods").items.length === 1);
  const pod = store.list("pods").items[0];
  await until("running", () => (store.list("pods").items[0] as Pod).status?.phase === "Running");
  await store.patch("pods", "default", pod?.metadata.name ?? "", { status: { phase: "Succeeded" } });
  await until("completion", () =>
    JSON.stringify(statusOf(store, "jobs.batch", "j")["conditions"] ?? []).includes("Complete"),
  );
});
