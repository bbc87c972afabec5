// Endpoint truth: while a Deployment is scaled up, down to nothing and up again under load, requests go to pods that live, and
// none is lost to scaling.

import assert from "node:assert/strict";
import { after, before, test, type TestContext } from "node:test";
import { apiOf, type Api } from "./api.ts";
import type { Echo } from "./echoes.ts";
import { leftovers } from "./leftovers.ts";
import type { LoadReport } from "./load.ts";
import { curl, eventually, pause, startMesh, type Mesh } from "./mesh.ts";
import { httpPort, openShop, refusals, shopRoute, underLoad } from "./shop.ts";

const name = "endpoints-e2e";
/** What is scaled: pods with an Envoy each, and lighter ones of which the machine carries more. */
const meshed = { app: "back", host: "shop.example.com", many: 8 };
const light = { app: "light", host: "light.example.com", many: 30 };
type Scaled = typeof meshed;
const requestsPerSecond = 50;
/** For two cores to start or end all of them. */
const scaledWithinMs = 180_000;
/** After a pod has left the endpoints no request may reach it later than this. */
const staleMaxMs = 1_000;

let mesh: Mesh;
let api: Api;

before(async () => {
  mesh = await startMesh({ name, port: 18_280 });
  api = apiOf(mesh);
  const echo = { namespace: "shop", ports: httpPort, replicas: 3 };
  const apps = [
    { ...echo, name: meshed.app },
    { ...echo, name: light.app, labels: { "sidecar.istio.io/inject": "false" } },
  ];
  const routes = [meshed, light].map(({ app, host }) =>
    shopRoute(app, host, [{ route: [{ destination: { host: app } }] }]),
  );
  await openShop(mesh, apps, routes, meshed.host);
});
after(async () => {
  api?.client.close();
  await mesh?.down();
  assert.deepEqual(await leftovers(name), [], "nothing of ours is left on the machine");
});

async function scale({ app }: Scaled, replicas: number): Promise<void> {
  await mesh.kubectl(["scale", `deployment/${app}`, "-n", "shop", `--replicas=${replicas}`]);
}

/** Names of the pods that the Service's slices call ready. */
async function readyPods({ app }: Scaled): Promise<ReadonlySet<string>> {
  const path = "/apis/discovery.k8s.io/v1/namespaces/shop/endpointslices";
  const selector = encodeURIComponent(`kubernetes.io/service-name=${app}`);
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

function awaitReady(scaled: Scaled, count: number): Promise<true> {
  return eventually(
    `${count} endpoints`,
    async () => ((await readyPods(scaled)).size === count ? true : undefined),
    scaledWithinMs,
    50,
  );
}

/** Which pods answered a load, when last, and when each left the endpoints. */
class PodWatch {
  readonly #answeredAtMs = new Map<string, number>();
  readonly #leftAtMs = new Map<string, number>();
  #fresh = new Set<string>();
  readonly #stop = new AbortController();
  readonly #listing: Promise<void>;

  constructor(scaled: Scaled) {
    this.#listing = this.#list(scaled);
  }

  /** To be told of each answer. */
  readonly answered = (body: string, sentAtMs: number): void => {
    const pod = podOf(body);
    if (pod === undefined) return;
    this.#answeredAtMs.set(pod, Math.max(sentAtMs, this.#answeredAtMs.get(pod) ?? 0));
    this.#fresh.add(pod);
  };

  get pods(): number {
    return this.#answeredAtMs.size;
  }

  /** Waits until so many pods have answered from now on: the endpoints have reached the gateway, and the pods work. */
  async allAnswer(count: number): Promise<void> {
    this.#fresh = new Set();
    await eventually(
      `${count} pods answer`,
      async () => (this.#fresh.size >= count ? true : undefined),
      60_000,
      50,
    );
  }

  /** For each pod that left, when it was last sent a request that it answered: milliseconds after it had left. */
  async end(): Promise<readonly { readonly pod: string; readonly lateMs: number }[]> {
    this.#stop.abort();
    await this.#listing;
    return [...this.#leftAtMs].map(([pod, at]) => ({
      pod,
      lateMs: (this.#answeredAtMs.get(pod) ?? 0) - at,
    }));
  }

  async #list(scaled: Scaled): Promise<void> {
    let known: ReadonlySet<string> = new Set();
    while (!this.#stop.signal.aborted) {
      const now = await readyPods(scaled);
      for (const pod of known) if (!now.has(pod)) this.#leftAtMs.set(pod, performance.now());
      for (const pod of now) this.#leftAtMs.delete(pod);
      known = now;
      await pause(50);
    }
  }
}

function podOf(body: string): string | undefined {
  try {
    return (JSON.parse(body) as Echo).hostname;
  } catch {
    return undefined;
  }
}

/** Works under load and follows the pods. Gives what became of the requests, having seen that no pod answered too late. */
async function scaledUnderLoad(
  scaled: Scaled,
  t: TestContext,
  work: (watch: PodWatch) => Promise<void>,
): Promise<LoadReport> {
  const watch = new PodWatch(scaled);
  const report = await underLoad(
    mesh,
    scaled.host,
    requestsPerSecond,
    () => work(watch),
    watch.answered,
  ).catch(async (error: unknown) => {
    await watch.end();
    throw error;
  });
  const stale = await watch.end();
  const latest = Math.max(0, ...stale.map(({ lateMs }) => lateMs));
  t.diagnostic(
    `${report.sent} requests, ${report.perSecond.toFixed(0)}/s, ${report.failed} failed, p99 ${report.p99Ms.toFixed(1)} ms; ${watch.pods} pods answered, the last ${Math.round(latest)} ms after it had left`,
  );
  assert.ok(latest <= staleMaxMs, JSON.stringify(stale));
  return report;
}

test(`scaling from 3 pods to ${meshed.many} and down to 1 fails no request: what leaves drains`, async (t) => {
  const report = await scaledUnderLoad(meshed, t, async (watch) => {
    await scale(meshed, meshed.many);
    await awaitReady(meshed, meshed.many);
    await watch.allAnswer(meshed.many);
    await scale(meshed, 1);
    await awaitReady(meshed, 1);
    await gone(meshed, 1);
  });
  assert.equal(report.failed, 0, `${report.failures.join("; ")}\n${await refusals(mesh)}`);
});

test(`scaling from 3 pods to ${light.many} fails no request, and to none and back to 3 only those that nobody is there for`, async (t) => {
  let emptiedAtMs = Infinity;
  let filledAtMs = 0;
  const timed = async (replicas: number): Promise<void> => {
    const fromMs = performance.now();
    await scale(light, replicas);
    await awaitReady(light, replicas);
    t.diagnostic(`${replicas} pods after ${Math.round(performance.now() - fromMs)} ms`);
  };
  const report = await scaledUnderLoad(light, t, async (watch) => {
    await timed(light.many);
    await watch.allAnswer(light.many);
    emptiedAtMs = performance.now();
    await timed(0);
    await eventually("no healthy upstream", async () => {
      const { status, body } = await curl([`${mesh.gatewayUrl}/`, "-H", `Host: ${light.host}`]);
      return status === 503 && /no healthy upstream/.test(body) ? true : undefined;
    });
    await timed(3);
    filledAtMs = performance.now();
    await watch.allAnswer(3);
  });
  const expected = report.kinds.get("status 503: no healthy upstream");
  assert.ok(expected !== undefined, "with no pod left there is nobody to answer");
  t.diagnostic(`${expected.count} requests failed for want of any pod`);
  assert.equal(report.failed, expected.count, `${report.failures.join("; ")}\n${await refusals(mesh)}`);
  assert.ok(expected.firstAtMs > emptiedAtMs, "all requests succeed until the last pods are told to go");
  assert.ok(expected.lastAtMs < filledAtMs + staleMaxMs, "all requests succeed once pods are back");
});

/** Waits until no more than so many pods exist, those that end included. */
async function gone({ app }: Scaled, left: number): Promise<void> {
  await eventually(
    `${left} pods are left`,
    async () => {
      const pods = await mesh.kubectl(["get", "pods", "-n", "shop", "-l", `app=${app}`, "-o", "name"]);
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
  const report = await underLoad(mesh, meshed.host, requestsPerSecond, () => pause(1_500));
  assert.equal(report.failed, 0, `${report.failures.join("; ")}\n${await refusals(mesh)}`);
});
