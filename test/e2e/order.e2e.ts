// Make before break: while traffic is moved to something new and back, again and again, nobody is sent where nothing is yet or
// where nothing is any more.

import assert from "node:assert/strict";
import { after, before, test, type TestContext } from "node:test";
import { apiOf, metricOf, replicasOf, type Api } from "./api.ts";
import { podIp } from "./echoes.ts";
import { leftovers } from "./leftovers.ts";
import { eventually, pause, startMesh, type Mesh } from "./mesh.ts";
import {
  httpPort,
  openShop,
  refusals,
  shopRoute,
  underLoad,
  whileCalling,
  type CallsReport,
} from "./shop.ts";

const name = "order-e2e";
const host = "shop.example.com";
/** What callers inside of the mesh ask for: a Service whose traffic is moved. */
const inside = "entry.shop.svc.cluster.local";
/** To a new subset and back so many times, and so many times to a new service and back. */
const movesOfEach = 50;
/** Changes come faster than proxies can settle after each. */
const movePauseMs = 40;
const requestsPerSecond = 50;

let mesh: Mesh;
let api: Api;
let caller: string;

before(async () => {
  mesh = await startMesh({ name, port: 18_180 });
  api = apiOf(mesh);
  const apps = ["v1", "v2"].map((version) => ({
    name: `back-${version}`,
    namespace: "shop",
    service: "back",
    version,
    ports: httpPort,
  }));
  const front = { name: "front", namespace: "shop", ports: httpPort };
  const entry = { selector: { app: "back" }, ports: [{ name: "http", port: 80, targetPort: 8080 }] };
  const route = shopRoute("shop", host, [{ route: [{ destination: { host: "back" } }] }]) as {
    readonly spec: object;
  };
  const both = { ...route, spec: { ...route.spec, hosts: [host, inside], gateways: ["shop", "mesh"] } };
  await openShop(
    mesh,
    [...apps, front],
    [{ ...meta("Service", "", "entry"), apiVersion: "v1", spec: entry }, both],
    host,
  );
  caller = await podIp(mesh, "shop", "app=front");
});
after(async () => {
  api?.client.close();
  await mesh?.down();
  assert.deepEqual(await leftovers(name), [], "nothing of ours is left on the machine");
});

const meta = (kind: string, group: string, own: string) => ({
  apiVersion: `${group}/v1`,
  kind,
  metadata: { name: own, namespace: "shop" },
});
const routeTo = (destination: object) => ({ spec: { http: [{ route: [{ destination }] }] } });

async function remove(kind: string, path: string): Promise<void> {
  await api.client.request(path, { method: "DELETE" }).catch((error: unknown) => {
    throw new Error(`${kind} is not removed`, { cause: error });
  });
}

/** The number of addresses of a Service; undefined if it has none yet. */
async function endpointsOf(service: string): Promise<number | undefined> {
  const path = "/apis/discovery.k8s.io/v1/namespaces/shop/endpointslices";
  const selector = encodeURIComponent(`kubernetes.io/service-name=${service}`);
  const { items } = await api.client.get<{ items: { endpoints?: unknown[] }[] }>(
    `${path}?labelSelector=${selector}`,
  );
  return items.flatMap(({ endpoints }) => endpoints ?? []).length || undefined;
}

/** Moves traffic under load through the gateway and from a sidecar, and sees that no request of either fails. */
async function movesUnderLoad(t: TestContext, moves: () => Promise<void>): Promise<void> {
  const [replica] = await replicasOf(mesh);
  const hostPushes = async (): Promise<number> =>
    (await metricOf(mesh, replica?.address ?? "", "pilot_xds_pushes", 'type="vhds"')) ?? 0;
  const outOfOrder = async (): Promise<number | undefined> =>
    metricOf(mesh, replica?.address ?? "", "pilot_limits_reached", 'limit="orderWait"');
  const pushesBefore = await hostPushes();
  let calls: CallsReport | undefined;
  const report = await underLoad(mesh, host, requestsPerSecond, async () => {
    calls = await whileCalling(mesh, caller, `http://${inside}/`, moves);
  });
  const pushes = (await hostPushes()) - pushesBefore;
  t.diagnostic(
    `through the gateway ${report.sent} requests, ${report.perSecond.toFixed(0)}/s, ${report.failed} failed, p99 ${report.p99Ms.toFixed(1)} ms; from a sidecar ${calls?.sent} requests, ${calls?.failures.length} failed; ${pushes} responses with virtual hosts, ${await outOfOrder()} that did not wait for clusters any longer`,
  );
  assert.equal(report.failed, 0, `${report.failures.join("; ")}\n${await refusals(mesh)}`);
  assert.deepEqual(calls?.failures, []);
  assert.ok(pushes >= movesOfEach, "sidecars get single virtual hosts");
}

test(`traffic moves to a new subset and back ${movesOfEach} times, and no request fails`, async (t) => {
  const rules = "/apis/networking.istio.io/v1/namespaces/shop/destinationrules";
  await movesUnderLoad(t, async () => {
    for (let move = 0; move < movesOfEach; move++) {
      // The subset comes with the route to it, in either order, and goes with the route away from it.
      const subsets = [{ name: `s${move}`, labels: { version: move % 2 === 0 ? "v1" : "v2" } }];
      const rule = {
        ...meta("DestinationRule", "networking.istio.io", "back"),
        spec: { host: "back", subsets },
      };
      await api.client.request(rules, { method: "POST", body: rule });
      await api.patch("VirtualService", "shop", "shop", routeTo({ host: "back", subset: `s${move}` }));
      await pause(movePauseMs);
      await api.patch("VirtualService", "shop", "shop", routeTo({ host: "back" }));
      await remove("DestinationRule", `${rules}/back`);
      await pause(movePauseMs);
    }
  });
});

test(`traffic moves to a new service and back ${movesOfEach} times, and no request fails`, async (t) => {
  await movesUnderLoad(t, async () => {
    for (let move = 0; move < movesOfEach; move++) {
      const own = `new-${move}`;
      const spec = { selector: { app: "back" }, ports: [{ name: "http", port: 80, targetPort: 8080 }] };
      await api.create("Service", "shop", { ...meta("Service", "", own), apiVersion: "v1", spec });
      await eventually(`${own} has endpoints`, () => endpointsOf(own), 5_000, 20);
      await api.patch("VirtualService", "shop", "shop", routeTo({ host: own }));
      await pause(movePauseMs);
      await api.patch("VirtualService", "shop", "shop", routeTo({ host: "back" }));
      await remove("Service", `/api/v1/namespaces/shop/services/${own}`);
      await pause(movePauseMs);
    }
  });
});
