// Endpoint truth: while a Deployment is scaled up, down to nothing and up again under load, requests go to pods that live, and
// none is lost to scaling.

import assert from "node:assert/strict";
import { after, before, test, type TestContext } from "node:test";
import { apiOf, type Api } from "./api.ts";
import type { Echo } from "./echoes.ts";
import { leftovers } from "./leftovers.ts";
import { startLoad } from "./load.ts";
import { curl, eventually, pause, startMesh, type Mesh } from "./mesh.ts";
import { httpPort, openShop, refusals, shopRoute, underLoad } from "./shop.ts";

const name = "endpoints-e2e";
const host = "shop.example.com";
/** As many pods, each with an Envoy, as two cores start in a few seconds. */
const manyPods = 8;
const requestsPerSecond = 100;
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
    60_000,
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

test(`scaling from 3 to ${manyPods} pods and down to 1 fails no request, and none reaches a pod that left`, async (t) => {
  await scaledUnderLoad(t, async () => {
    await scale(manyPods);
    await awaitReady(manyPods);
    await pause(500);
    await scale(1);
    await awaitReady(1);
    await pause(2_500);
  });
});

test("scaled to nothing the Service answers 503, and as soon as pods are back every request succeeds", async (t) => {
  await scale(0);
  await awaitReady(0);
  await eventually("no healthy upstream", async () => {
    const { status, body } = await curl([`${mesh.gatewayUrl}/`, "-H", `Host: ${host}`]);
    return status === 503 && /no healthy upstream/.test(body) ? true : undefined;
  });
  await scale(3);
  await awaitReady(3);
  const fromMs = performance.now();
  await eventually(
    "the first answer",
    async () =>
      (await curl([`${mesh.gatewayUrl}/`, "-H", `Host: ${host}`])).status === 200 ? true : undefined,
    10_000,
    20,
  );
  const tookMs = performance.now() - fromMs;
  const load = startLoad(`${mesh.gatewayUrl}/`, requestsPerSecond, { host });
  await pause(2_000);
  const report = await load.stop();
  t.diagnostic(
    `first answer ${Math.round(tookMs)} ms after the third endpoint; then ${report.failed} failed`,
  );
  assert.equal(report.failed, 0, `${report.failures.join("; ")}\n${await refusals(mesh)}`);
  assert.ok(tookMs < staleMaxMs);
});

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
