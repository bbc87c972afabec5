// The control plane fails, and traffic does not notice: what a proxy rejects reaches one proxy, and of three replicas any may be
// killed at any time. One mesh serves all tests of this file, in order.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { after, before, test } from "node:test";
import { apiOf, metricOf, replicasOf, type Api, type Replica } from "./api.ts";
import { leftovers } from "./leftovers.ts";
import { curl, eventually, pause, startMesh, type Mesh } from "./mesh.ts";
import { httpPort, openShop, refusals, shopRoute, underLoad } from "./shop.ts";

const name = "replicas-e2e";
const host = "shop.example.com";
const replicasTotal = 3;
const requestsPerSecond = 200;
const changesPerSecond = 20;
/** Objects that are changed in turn: what is late for one does not hold up the others. */
const routesTotal = 40;
const backPods = 4;

let mesh: Mesh;
let api: Api;

before(async () => {
  mesh = await startMesh({ name, port: 18_380 });
  api = apiOf(mesh);
  const app = { name: "back", namespace: "shop", ports: httpPort, replicas: backPods };
  const to = [{ route: [{ destination: { host: "back" } }] }];
  const changed = Array.from({ length: routesTotal }, (_, at) =>
    shopRoute(`r${at}`, `r${at}.example.com`, to),
  );
  await openShop(mesh, [app], [shopRoute("shop", host, to), ...changed], host);
});
after(async () => {
  api?.client.close();
  await mesh?.down();
  assert.deepEqual(await leftovers(name), [], "nothing of ours is left on the machine");
});

const filter = (own: string, patch: object) => ({
  apiVersion: "networking.istio.io/v1alpha3",
  kind: "EnvoyFilter",
  metadata: { name: own, namespace: "shop" },
  spec: { configPatches: [patch] },
});
const clusterOfBack = {
  context: "SIDECAR_OUTBOUND",
  cluster: { service: "back.shop.svc.cluster.local" },
};

/** Mistakes that only Envoy finds. */
const mistakes = [
  {
    claim: "an unknown cipher",
    own: "cipher",
    type: "cds",
    stat: "envoy_cluster_manager_cds_update_rejected",
    patch: {
      applyTo: "CLUSTER",
      match: clusterOfBack,
      patch: {
        operation: "MERGE",
        value: {
          transport_socket: {
            name: "envoy.transport_sockets.tls",
            typed_config: {
              "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
              common_tls_context: { tls_params: { cipher_suites: ["NO-SUCH-CIPHER"] } },
            },
          },
        },
      },
    },
  },
  {
    claim: "a wrong type of a filter's configuration",
    own: "type",
    type: "lds",
    stat: "envoy_listener_manager_lds_update_rejected",
    patch: {
      applyTo: "HTTP_FILTER",
      match: {
        context: "SIDECAR_INBOUND",
        listener: { filterChain: { filter: { name: "envoy.filters.network.http_connection_manager" } } },
      },
      patch: {
        operation: "INSERT_FIRST",
        value: {
          name: "wrong",
          typed_config: {
            "@type": "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
            stat_prefix: "x",
            cluster: "x",
          },
        },
      },
    },
  },
];

async function backAddresses(): Promise<readonly string[]> {
  const out = await mesh.kubectl([
    ...["get", "pods", "-n", "shop", "-l", "app=back", "-o", "jsonpath={.items[*].status.podIP}"],
  ]);
  return out.trim().split(" ");
}

/** How often each pod's Envoy has rejected an update. */
async function rejectionsBy(stat: string): Promise<readonly number[]> {
  const counts = (await backAddresses()).map((address) =>
    metricOf(mesh, address, stat, "", ":15090/stats/prometheus"),
  );
  return (await Promise.all(counts)).map((count) => count ?? 0);
}

for (const { claim, own, type, stat, patch } of mistakes) {
  test(`${claim} reaches one of ${backPods} Envoys, and is said in status, event, metric and mizzen ps`, async (t) => {
    const countsBefore = await rejectionsBy(stat);
    const [replica] = await replicasOf(mesh);
    const rejectsMetric = async () =>
      (await metricOf(mesh, replica?.address ?? "", "pilot_total_xds_rejects", `type="${type}"`)) ?? 0;
    const rejectsBefore = await rejectsMetric();
    const atMs = performance.now();
    await api.create("EnvoyFilter", "shop", filter(own, patch));
    const said = await eventually("mizzen ps names it", async () => {
      const { stdout } = await mesh.mizzen(["proxy-status"]);
      return stdout.includes(`EnvoyFilter shop/${own}`) ? stdout : undefined;
    });
    const tookMs = performance.now() - atMs;
    const condition = await eventually("the status", async () => {
      const found = await api.get<{
        status?: { conditions?: { type: string; status: string; message: string }[] };
      }>(...(["EnvoyFilter", "shop", own] as const));
      return found.status?.conditions?.find(
        ({ type: is, status }) => is === "Programmed" && status === "False",
      );
    });
    await eventually("the event", async () => {
      const events = await mesh.kubectl(["get", "events", "-n", "shop", "-o", "json"]);
      return events.includes("RejectedByProxy") && events.includes(`"name": "${own}"`) ? true : undefined;
    });
    // Long enough for the others to get it, if they were to.
    await pause(1_500);
    const now = await rejectionsBy(stat);
    const hit = now.filter((count, at) => count > (countsBefore[at] ?? 0)).length;
    t.diagnostic(
      `named after ${Math.round(tookMs)} ms; rejected by ${hit} of ${now.length}: ${condition.message}`,
    );
    assert.equal(hit, 1, `${now.join(" ")} after ${countsBefore.join(" ")}`);
    assert.ok((await rejectsMetric()) > rejectsBefore);
    assert.match(said, new RegExp(own));
    assert.equal((await curl([`${mesh.gatewayUrl}/`, "-H", `Host: ${host}`])).status, 200);
    const deletedMs = performance.now();
    await mesh.kubectl(["delete", "envoyfilter", own, "-n", "shop"]);
    await eventually("ps is clean", async () => {
      const { stdout } = await mesh.mizzen(["proxy-status"]);
      return stdout.includes(own) ? undefined : true;
    });
    t.diagnostic(`clean ${Math.round(performance.now() - deletedMs)} ms after it was deleted`);
  });
}

test(`${replicasTotal} replicas are killed one by one under ${requestsPerSecond} requests/s and ${changesPerSecond} changes/s: no request fails, every change arrives`, async (t) => {
  await mesh.kubectl(["scale", "deployment/istiod", "-n", "istio-d", `--replicas=${replicasTotal}`]);
  await allReady();
  const proxies = backPods + 2;
  const changes = startChanges();
  const report = await underLoad(mesh, host, requestsPerSecond, async () => {
    await pause(1_000);
    for (const victim of await replicasOf(mesh)) {
      const others = (await replicasOf(mesh)).filter(({ pod }) => pod !== victim.pod);
      await killControlPlane(victim);
      const spread = await eventually("all proxies are with the survivors", async () => {
        const counts = await connectionsOf(others);
        return counts.reduce((sum, count) => sum + count, 0) >= proxies ? counts : undefined;
      });
      const virtualServices = await eventually(
        "the killed one is back",
        () => firstReady(victim),
        30_000,
        20,
      );
      t.diagnostic(
        `${victim.pod} killed; survivors have ${spread.join(" and ")} proxies; back with all objects`,
      );
      assert.ok(virtualServices >= routesTotal + 1, `ready with ${virtualServices} VirtualServices`);
      await allReady();
    }
  });
  const made = await changes.stop();
  t.diagnostic(
    `${report.sent} requests, ${report.perSecond.toFixed(0)}/s, ${report.failed} failed, p99 ${report.p99Ms.toFixed(1)} ms; ${made.changes} changes, ${made.duePerSecond.toFixed(1)}/s asked for and ${made.perSecond.toFixed(1)}/s written, the latest ${Math.round(made.latestMs)} ms after its time; ${made.refused} writes tried again`,
  );
  assert.ok(made.duePerSecond > changesPerSecond * 0.95, "changes are asked for in time");
  assert.equal(report.failed, 0, `${report.failures.join("; ")}\n${await refusals(mesh)}`);
  for (const [at, revision] of made.last) {
    await eventually(`r${at} is at its last revision`, async () => {
      const { body } = await curl(["-i", `${mesh.gatewayUrl}/`, "-H", `Host: r${at}.example.com`]);
      return body.includes(`x-revision: ${revision}\r`) ? true : undefined;
    });
  }
});

test("of the replicas one leads, and another does when its pod is gone", async (t) => {
  const holder = async () =>
    (
      await api.client.get<{ spec: { holderIdentity: string } }>(
        "/apis/coordination.k8s.io/v1/namespaces/istio-d/leases/istio-leader",
      )
    ).spec.holderIdentity;
  const first = await holder();
  assert.ok((await replicasOf(mesh)).some(({ pod }) => pod === first));
  const fromMs = performance.now();
  await mesh.kubectl(["delete", "pod", first, "-n", "istio-d", "--wait=false"]);
  const second = await eventually("another leads", async () => {
    const now = await holder();
    return now !== first && now !== "" ? now : undefined;
  });
  t.diagnostic(`${second} leads ${Math.round(performance.now() - fromMs)} ms after ${first} was told to go`);
  assert.ok((await replicasOf(mesh)).some(({ pod }) => pod === second));
});

function allReady(): Promise<true> {
  return eventually(
    `${replicasTotal} ready replicas`,
    async () =>
      (await replicasOf(mesh)).filter(({ ready }) => ready).length === replicasTotal ? true : undefined,
    60_000,
  );
}

async function connectionsOf(replicas: readonly Replica[]): Promise<readonly number[]> {
  const counts = replicas.map(({ address }) => metricOf(mesh, address, "pilot_xds"));
  return (await Promise.all(counts)).map((count) => count ?? 0);
}

/** How many VirtualServices a replica knows in the moment in which it says that it is ready. */
async function firstReady({ address }: Replica): Promise<number | undefined> {
  const { code } = await mesh.inNode(["curl", "-sf", "--max-time", "1", `http://${address}:15014/ready`]);
  return code === 0 ? metricOf(mesh, address, "pilot_virt_services") : undefined;
}

/** Changes one VirtualService after the other, each to its next revision, every change at its time. */
function startChanges() {
  const made = new Map<number, number>();
  let refused = 0;
  let latestMs = 0;
  const write = async (at: number, revision: number, dueMs: number): Promise<void> => {
    const route = { route: [{ destination: { host: "back" } }] };
    const headers = { response: { set: { "x-revision": String(revision) } } };
    const body = { spec: { http: [{ ...route, headers }] } };
    for (;;) {
      try {
        await api.patch("VirtualService", "shop", `r${at}`, body);
        made.set(at, revision);
        latestMs = Math.max(latestMs, performance.now() - dueMs);
        return;
      } catch {
        // The webhook of a replica that is just being killed: whoever writes tries again.
        refused++;
        await pause(100);
      }
    }
  };
  // Writes of one object follow one another, those of different ones go side by side.
  const last = Array.from({ length: routesTotal }, () => Promise.resolve());
  const fromMs = performance.now();
  let due = 0;
  const timer = setInterval(() => {
    const nowMs = performance.now();
    for (; due < ((nowMs - fromMs) / 1_000) * changesPerSecond; due++) {
      const at = due % routesTotal;
      const revision = Math.floor(due / routesTotal) + 1;
      const before = last[at] ?? Promise.resolve();
      last[at] = before.then(() => write(at, revision, nowMs));
    }
  }, 20);
  return {
    stop: async () => {
      clearInterval(timer);
      const dueSeconds = (performance.now() - fromMs) / 1_000;
      await Promise.all(last);
      const seconds = (performance.now() - fromMs) / 1_000;
      return {
        last: made,
        changes: due,
        refused,
        latestMs,
        duePerSecond: due / dueSeconds,
        perSecond: due / seconds,
      };
    },
  };
}

/** kill -9 of the program in a replica's pod, as the kernel's OOM killer would. */
async function killControlPlane({ address }: Replica): Promise<void> {
  const namespaces = (await mesh.inNode(["ip", "netns", "list"])).stdout.split("\n");
  for (const line of namespaces.filter((one) => one.includes(mesh.name))) {
    const netns = line.split(" ")[0] ?? "";
    const addresses = await mesh.inNode(["ip", "netns", "exec", netns, "ip", "-o", "addr"]);
    if (!addresses.stdout.includes(` ${address}/`)) continue;
    const pids = (await mesh.inNode(["ip", "netns", "pids", netns])).stdout.trim().split("\n");
    const ours = pids.filter((pid) => readFileSync(`/proc/${pid}/cmdline`, "utf8").includes("discovery"));
    assert.ok(ours.length > 0, `the control plane of ${address} runs`);
    for (const pid of ours) process.kill(Number(pid), "SIGKILL");
  }
}
