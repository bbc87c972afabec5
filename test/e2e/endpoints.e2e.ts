// Endpoint truth: while a Deployment is scaled up, down to nothing and up again under load, requests go to pods that live, and
// none is lost to scaling.

import assert from "node:assert/strict";
import { after, before, test, type TestContext } from "node:test";
import { apiOf, type Api } from "./api.ts";
import type { Echo } from "./echoes.ts";
import { leftovers } from "./leftovers.ts";
import { curl, eventually, pause, startMesh, type Mesh } from "./mesh.ts";
import { httpPort, openShop, refusals, shopRoute, underLoad } from "./shop.ts";

const name = "endpoints-e2e";
const host = "shop.example.com";
/** Each with an Envoy of its own. */
const manyPods = 30;
const requestsPerSecond = 100;
/** For two cores to start or end all of them. */
const scaledWithinMs = 180_000;
/** After a pod has left the endpoints no request may reach it later than this. */
const staleMaxMs = 1_000;

let mesh: Mesh;
let api: Api;

before(async () => {
  mesh = await startMesh({ name, port: 18_280 });
  api = apiOf(mesh);
  const app = { name: "back", namespace: "shop", ports: httpPort, replicas: 3 };
  await openShop(
    mesh,
    [app],
    [shopRoute("shop", host, [{ route: [{ destination: { host: "back" } }] }])],
    host,
  );
});
after(async () => {
  api?.client.close();
  await mesh?.down();
  assert.deepEqual(await leftovers(name), [], "nothing of ours is left on the machine");
});

async function scale(replicas: number): Promise<void> {
  await mesh.kubectl(["scale", "deployment/back", "-n", "shop", `--replicas=${replicas}`]);
}

/** Names of the pods that the Service's slices call ready. */
async function readyPods(): Promise<ReadonlySet<string>> {
  const path = "/apis/discovery.k8s.io/v1/namespaces/shop/endpointslices";
  const selector = encodeURIComponent("kubernetes.io/service-name=back");
  const { items } = await api.client.get<{
    items: { endpoints?: { conditions?: { ready?: boolean }; targetRef?: { name?: string } }[] }[];
  }>(`${path}?labelSelector=${selector}`);
  const endpoints = items.flatMap((item) => item.endpoints ?? []);
  return new Set(
    endpoints
      .filter(({ conditions }) => conditions?.ready !== false)
      .map(({ targetRef }) => targetRef?.name ?? ""),
  );
}

function awaitReady(count: number): Promise<true> {
  return eventually(
    `${count} endpoints`,
    async () => ((await readyPods()).size === count ? true : undefined),
    scaledWithinMs,
    50,
  );
}

/** Follows which pods answer, until told to stop; the last time each did, and when each left the endpoints. */
function watchPods() {
  const answeredAtMs = new Map<string, number>();
  const leftAtMs = new Map<string, number>();
  let known: ReadonlySet<string> = new Set();
  const stop = new AbortController();
  const asking = (async () => {
    while (!stop.signal.aborted) {
      const sentAtMs = performance.now();
      const { body } = await curl([`${mesh.gatewayUrl}/`, "-H", `Host: ${host}`]);
      const pod = podOf(body);
      if (pod !== undefined) answeredAtMs.set(pod, sentAtMs);
    }
  })();
  const listing = (async () => {
    while (!stop.signal.aborted) {
      const now = await readyPods();
      for (const pod of known) if (!now.has(pod)) leftAtMs.set(pod, performance.now());
      for (const pod of now) leftAtMs.delete(pod);
      known = now;
      await pause(50);
    }
  })();
  return async () => {
    stop.abort();
    await Promise.all([asking, listing]);
    const stale = [...leftAtMs].map(([pod, at]) => ({ pod, lateMs: (answeredAtMs.get(pod) ?? 0) - at }));
    return { stale, pods: answeredAtMs.size };
  };
}

function podOf(body: string): string | undefined {
  try {
    return (JSON.parse(body) as Echo).hostname;
  } catch {
    return undefined;
  }
}

async function scaledUnderLoad(t: TestContext, work: () => Promise<void>): Promise<void> {
  const stopWatching = watchPods();
  const report = await underLoad(mesh, host, requestsPerSecond, work);
  const { stale, pods } = await stopWatching();
  const latest = Math.max(0, ...stale.map(({ lateMs }) => lateMs));
  t.diagnostic(
    `${report.sent} requests, ${report.failed} failed, p99 ${report.p99Ms.toFixed(1)} ms; ${pods} pods answered, the last ${Math.round(latest)} ms after it had left`,
  );
  assert.equal(report.failed, 0, `${report.failures.join("; ")}\n${await refusals(mesh)}`);
  assert.ok(latest <= staleMaxMs, JSON.stringify(stale));
}

test(`scaling from 3 to ${manyPods} pods fails no request, down to none only those that nobody is left for, and none reaches a pod that left`, async (t) => {
  const stopWatching = watchPods();
  let emptiedAtMs = Infinity;
  let filledAtMs = 0;
  const took: string[] = [];
  const timed = async (replicas: number): Promise<void> => {
    const fromMs = performance.now();
    await scale(replicas);
    await awaitReady(replicas);
    took.push(`${replicas} after ${Math.round(performance.now() - fromMs)} ms`);
  };
  const report = await underLoad(mesh, host, requestsPerSecond, async () => {
    await timed(manyPods);
    await allAnswer(manyPods);
    emptiedAtMs = performance.now();
    await timed(0);
    await eventually("no healthy upstream", async () => {
      const { status, body } = await curl([`${mesh.gatewayUrl}/`, "-H", `Host: ${host}`]);
      return status === 503 && /no healthy upstream/.test(body) ? true : undefined;
    });
    await timed(3);
    filledAtMs = performance.now();
    await allAnswer(3);
  });
  const { stale, pods } = await stopWatching();
  const latest = Math.max(0, ...stale.map(({ lateMs }) => lateMs));
  const expected = report.kinds.get("status 503: no healthy upstream");
  t.diagnostic(
    `${report.sent} requests, ${report.failed} failed, ${expected?.count ?? 0} of them for want of any pod; p99 ${report.p99Ms.toFixed(1)} ms`,
  );
  t.diagnostic(
    `${took.join(", ")}; ${pods} pods answered, the last ${Math.round(latest)} ms after it had left`,
  );
  assert.ok(expected !== undefined, "with no pod left there is nobody to answer");
  assert.equal(report.failed, expected.count, `${report.failures.join("; ")}\n${await refusals(mesh)}`);
  assert.ok(expected.firstAtMs > emptiedAtMs, "all requests succeed until the last pods are told to go");
  assert.ok(expected.lastAtMs < filledAtMs + staleMaxMs, "all requests succeed once pods are back");
  assert.ok(pods > manyPods, `${pods} pods have answered`);
  assert.ok(latest <= staleMaxMs, JSON.stringify(stale));
});

test("scaling down to 1 pod fails no request: what leaves drains", async (t) => {
  await scaledUnderLoad(t, async () => {
    await scale(1);
    await awaitReady(1);
    await gone(1);
  });
});

/** Waits until so many pods have answered since now: the endpoints have reached the gateway, and the pods work. */
async function allAnswer(count: number): Promise<void> {
  const seen = new Set<string>();
  await eventually(
    `${count} pods answer`,
    async () => {
      const pod = podOf((await curl([`${mesh.gatewayUrl}/`, "-H", `Host: ${host}`])).body);
      if (pod !== undefined) seen.add(pod);
      return seen.size >= count ? true : undefined;
    },
    30_000,
    0,
  );
}

/** Waits until no more than so many pods exist, those that end included. */
async function gone(left: number): Promise<void> {
  await eventually(
    `${left} pods are left`,
    async () => {
      const pods = await mesh.kubectl(["get", "pods", "-n", "shop", "-l", "app=back", "-o", "name"]);
      return pods.trim().split("\n").length <= left ? true : undefined;
    },
    scaledWithinMs,
  );
}

test("a slice without endpoints and one without ports disturb nobody", async () => {
  const slice = (own: string, fields: object) => ({
    apiVersion: "discovery.k8s.io/v1",
    kind: "EndpointSlice",
    metadata: { name: own, namespace: "shop", labels: { "kubernetes.io/service-name": "back" } },
    addressType: "IPv4",
    ...fields,
  });
  await api.create(
    "EndpointSlice",
    "shop",
    slice("back-empty", { endpoints: [], ports: [{ name: "http", port: 8080 }] }),
  );
  await api.create("EndpointSlice", "shop", slice("back-bare", { endpoints: [] }));
  const report = await underLoad(mesh, host, requestsPerSecond, () => pause(1_500));
  assert.equal(report.failed, 0, `${report.failures.join("; ")}\n${await refusals(mesh)}`);
});
