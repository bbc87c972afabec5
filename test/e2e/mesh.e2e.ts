// The mesh as its users meet it: Bookinfo through the gateway, traffic they shape with kubectl, mutual TLS, telemetry, and
// what happens when parts of it die. One mesh serves all tests of this file, in order.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { after, before, test } from "node:test";
import { join } from "node:path";
import { deployEchoes, order, podIp, type EchoApp } from "./echoes.ts";
import { startLoad } from "./load.ts";
import { leftovers } from "./leftovers.ts";
import { command, curl, eventually, pause, root, startMesh, type Mesh } from "./mesh.ts";

const gatewayPort = 18_080;
let mesh: Mesh;

before(async () => {
  mesh = await startMesh({ name: "bookinfo-e2e", port: gatewayPort, args: ["--demo"] });
});
after(async () => {
  await mesh.down();
  assert.deepEqual(await leftovers("bookinfo-e2e"), [], "nothing of ours is left on the machine");
});

const demo = (name: string) => readFileSync(join(root, "deploy/demo/networking", name), "utf8");

/** Which versions of reviews answer `count` requests for the product page. */
async function reviewVersions(count: number, user?: string): Promise<Map<string, number>> {
  const seen = new Map<string, number>();
  for (let i = 0; i < count; i++) {
    const page = await curl([`${mesh.gatewayUrl}/productpage`, ...(user ? ["-b", `session=${user}`] : [])]);
    assert.equal(page.status, 200);
    const version = /reviews (v\d) on pod/.exec(page.body)?.[1] ?? "none";
    seen.set(version, (seen.get(version) ?? 0) + 1);
  }
  return seen;
}

test("the product page comes through the ingress gateway, with all versions of reviews", async () => {
  await eventually("v1, v2 and v3 are all seen", async () =>
    (await reviewVersions(12)).size === 3 ? true : undefined,
  );
});

test("every pod of the demo has two ready containers, and every proxy is synced", async () => {
  const pods = await mesh.kubectl(["get", "pods", "-n", "default", "--no-headers"]);
  for (const line of pods.trim().split("\n")) assert.match(line, /\s2\/2\s+Running\s/);
  const synced = await mesh.mizzen(["proxy-status", "-o", "json"]);
  assert.equal(synced.code, 0, synced.stderr);
});

test("a VirtualService sends everyone to v1, jason to v2, then half to v3", async () => {
  await mesh.kubectl(["apply", "-f", "-"], demo("destination-rule-all.yaml"));
  await mesh.kubectl(["apply", "-f", "-"], demo("virtual-service-all-v1.yaml"));
  await eventually("v1 only", async () =>
    [...(await reviewVersions(10)).keys()].join() === "v1" ? true : undefined,
  );
  await mesh.kubectl(["apply", "-f", "-"], demo("virtual-service-reviews-test-v2.yaml"));
  await eventually("jason sees v2", async () =>
    [...(await reviewVersions(5, "jason")).keys()].join() === "v2" ? true : undefined,
  );
  assert.deepEqual([...(await reviewVersions(5)).keys()], ["v1"]);
  await mesh.kubectl(["apply", "-f", "-"], demo("virtual-service-reviews-50-v3.yaml"));
  const split = await eventually("v1 and v3", async () => {
    const seen = await reviewVersions(40);
    return seen.has("v3") && seen.size === 2 ? seen : undefined;
  });
  assert.ok(
    (split.get("v1") ?? 0) >= 8 && (split.get("v3") ?? 0) >= 8,
    `40 requests: ${[...split].join(" ")}`,
  );
});

test("an injected delay and an abort reach jason alone", async () => {
  await mesh.kubectl(["apply", "-f", "-"], demo("virtual-service-reviews-test-v2.yaml"));
  await mesh.kubectl(["apply", "-f", "-"], demo("virtual-service-ratings-test-abort.yaml"));
  await eventually("jason's ratings fail", async () => {
    const page = await curl([`${mesh.gatewayUrl}/productpage`, "-b", "session=jason"]);
    return /Ratings service is currently unavailable/i.test(page.body) ? true : undefined;
  });
  const other = await curl([`${mesh.gatewayUrl}/productpage`]);
  assert.doesNotMatch(other.body, /currently unavailable/i);
  await mesh.kubectl(["apply", "-f", "-"], demo("virtual-service-all-v1.yaml"));
});

const ports = [{ name: "http", servicePort: 80, workloadPort: 8080, flag: "http" }] as const;
const echoes: EchoApp[] = [
  { name: "front", namespace: "shop", ports },
  { name: "back", namespace: "shop", ports },
  { name: "stranger", namespace: "outside", ports },
];

test("under STRICT a plaintext caller is refused and a caller of the mesh is not", async () => {
  for (const namespace of ["shop", "outside"]) await mesh.kubectl(["create", "namespace", namespace]);
  await mesh.kubectl(["label", "namespace", "shop", "istio-injection=enabled"]);
  await deployEchoes(mesh, echoes);
  const strict =
    "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {name: default, namespace: shop}\nspec: {mtls: {mode: STRICT}}\n";
  await mesh.kubectl(["apply", "-f", "-"], strict);
  const front = await podIp(mesh, "shop", "app=front");
  const stranger = await podIp(mesh, "outside", "app=stranger");
  const url = "http://back.shop/";
  await eventually("the stranger is refused", async () => {
    const [result] = await order(mesh, stranger, { url });
    return result?.status === 0 ? true : undefined;
  });
  const [inside] = await order(mesh, front, { url });
  assert.equal(inside?.status, 200, inside?.error ?? "");
  assert.match(
    inside?.body ?? "",
    /URI=spiffe:\/\/cluster\.local\/ns\/shop\/sa\/front/,
    "the server sees the caller's identity",
  );
});

test("an AuthorizationPolicy that denies answers 403 to that caller and nobody else", async () => {
  const policy = (principal: string) => `apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: only, namespace: shop}
spec:
  selector: {matchLabels: {app: back}}
  action: ALLOW
  rules: [{from: [{source: {principals: ["${principal}"]}}], to: [{operation: {methods: [GET], paths: ["/open*"]}}]}]
`;
  const front = await podIp(mesh, "shop", "app=front");
  const statusOf = async (path: string) =>
    (await order(mesh, front, { url: `http://back.shop${path}` }))[0]?.status;
  await mesh.kubectl(["apply", "-f", "-"], policy("cluster.local/ns/shop/sa/front"));
  await eventually("/closed is denied", async () => ((await statusOf("/closed")) === 403 ? true : undefined));
  assert.equal(await statusOf("/open/x"), 200);
  await mesh.kubectl(["apply", "-f", "-"], policy("cluster.local/ns/shop/sa/other"));
  await eventually("/open is denied too", async () =>
    (await statusOf("/open/x")) === 403 ? true : undefined,
  );
  await mesh.kubectl(["delete", "authorizationpolicy", "only", "-n", "shop"]);
  await eventually("/closed is open again", async () =>
    (await statusOf("/closed")) === 200 ? true : undefined,
  );
});

test("both sides count the request under Istio's name and labels", async () => {
  const front = await podIp(mesh, "shop", "app=front");
  const back = await podIp(mesh, "shop", "app=back");
  await order(mesh, front, { url: "http://back.shop/counted", count: 3 });
  const scrape = async (address: string) =>
    (await mesh.inNode(["curl", "-s", `http://${address}:15020/stats/prometheus`])).stdout;
  const labels = [
    'source_workload="front"',
    'destination_workload="back"',
    'destination_service="back.shop.svc.cluster.local"',
    'response_code="200"',
    'request_protocol="http"',
  ];
  for (const [address, reporter] of [
    [front, "source"],
    [back, "destination"],
  ] as const) {
    await eventually(`${reporter} reports`, async () => {
      const lines = (await scrape(address))
        .split("\n")
        .filter((line) => line.startsWith("istio_requests_total{"));
      return lines.some((line) =>
        [...labels, `reporter="${reporter}"`].every((label) => line.includes(label)),
      )
        ? true
        : undefined;
    });
  }
  assert.match(await scrape(back), /connection_security_policy="mutual_tls"/);
  assert.match(await scrape(back), /istio_request_duration_milliseconds_bucket\{/);
});

const shopGateway = `apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: shop, namespace: shop}
spec:
  hosts: ["shop.example.com"]
  gateways: ["default/bookinfo-gateway"]
  http: [{route: [{destination: {host: back, port: {number: 80}}}]}]
`;

test("the control plane is killed and away for 30 s under 200 requests/s, and no request fails", async (t) => {
  await mesh.kubectl(["apply", "-f", "-"], shopGateway);
  const shop = { host: "shop.example.com" };
  await eventually("the shop answers", async () =>
    (await curl([`${mesh.gatewayUrl}/`, "-H", "Host: shop.example.com"])).status === 200 ? true : undefined,
  );
  const load = startLoad(`${mesh.gatewayUrl}/`, 200, shop);
  await pause(2_000);
  await killContainer("istio-d", "app=istiod", "discovery");
  await mesh.kubectl(["scale", "deployment/istiod", "-n", "istio-d", "--replicas=0"]);
  await pause(30_000);
  await mesh.kubectl(["scale", "deployment/istiod", "-n", "istio-d", "--replicas=1"]);
  await mesh.kubectl(["rollout", "status", "deployment/istiod", "-n", "istio-d", "--timeout=60s"]);
  await pause(3_000);
  const report = await load.stop();
  t.diagnostic(`${report.sent} requests, ${report.failed} failed, p99 ${report.p99Ms.toFixed(1)} ms`);
  assert.equal(report.failed, 0, report.failures.join("; "));
  assert.ok(report.sent > 5_000);
  // The new process has sent what differs, its own endpoint, and nothing that the proxies hold already.
  const { stdout } = await mesh.inNode(["curl", "-s", `http://${await istiodIp()}:15014/metrics`]);
  assert.match(stdout, /^pilot_xds\{[^}]*\} [1-9]/m);
  for (const type of ["cds", "lds", "rds", "vhds", "sds"]) {
    const sent =
      new RegExp(`^pilot_xds_resources_sent\\{type="${type}"\\} (\\d+)`, "m").exec(stdout)?.[1] ?? "0";
    assert.equal(sent, "0", `${type}: ${sent} resources were sent again`);
  }
});

/** The address of the one istiod that is there to stay. */
function istiodIp(): Promise<string> {
  return eventually("one istiod", async () => {
    const shown = [
      "get",
      "pods",
      "-n",
      "istio-d",
      "-l",
      "app=istiod",
      "-o",
      "jsonpath={.items[*].status.podIP}",
    ];
    const addresses = (await mesh.kubectl(shown)).trim().split(" ");
    return addresses.length === 1 ? addresses[0] : undefined;
  });
}

test("Envoy is killed and is back within 2 s with the same configuration", async (t) => {
  const front = await podIp(mesh, "shop", "app=front");
  const ask = async () =>
    (await order(mesh, front, { url: "http://back.shop/", timeoutMs: 1_000 }))[0]?.status;
  assert.equal(await ask(), 200);
  await killEnvoy("shop", "app=front");
  const from = performance.now();
  await eventually(
    "the call goes through again",
    async () => ((await ask()) === 200 ? true : undefined),
    10_000,
    50,
  );
  const tookMs = performance.now() - from;
  t.diagnostic(`back after ${Math.round(tookMs)} ms`);
  assert.ok(tookMs < 2_000, `${tookMs} ms`);
});

test("an application that crashes again and again is reported and disturbs nobody", async () => {
  const crash = `apiVersion: v1
kind: Pod
metadata: {name: crash, namespace: shop}
spec: {containers: [{name: crash, image: busybox, command: [sh, -c, "exit 3"]}]}
`;
  await mesh.kubectl(["apply", "-f", "-"], crash);
  await eventually("CrashLoopBackOff", async () =>
    /CrashLoopBackOff/.test(await mesh.kubectl(["get", "pod", "crash", "-n", "shop", "--no-headers"]))
      ? true
      : undefined,
  );
  const front = await podIp(mesh, "shop", "app=front");
  assert.equal((await order(mesh, front, { url: "http://back.shop/" }))[0]?.status, 200);
  await mesh.kubectl(["delete", "pod", "crash", "-n", "shop", "--grace-period=1"]);
});

test("a resource that Envoy rejects leaves the last good one in place and names the object", async () => {
  const filter = `apiVersion: networking.istio.io/v1alpha3
kind: EnvoyFilter
metadata: {name: broken, namespace: shop}
spec:
  workloadSelector: {labels: {app: front}}
  configPatches:
  - applyTo: CLUSTER
    match: {context: SIDECAR_OUTBOUND, cluster: {service: back.shop.svc.cluster.local}}
    patch: {operation: MERGE, value: {lb_policy: RING_HASH, ring_hash_lb_config: {minimum_ring_size: 9000000}}}
`;
  await mesh.kubectl(["apply", "-f", "-"], filter);
  await eventually("mizzen ps names the EnvoyFilter", async () => {
    const status = await mesh.mizzen(["proxy-status"]);
    return /broken/.test(status.stdout) ? true : undefined;
  });
  const shown = ["get", "envoyfilter", "broken", "-n", "shop", "-o", "jsonpath={.status.conditions}"];
  await eventually("the object's status says so", async () =>
    /"status":"False"/.test(await mesh.kubectl(shown)) ? true : undefined,
  );
  await eventually("an event says so", async () =>
    /EnvoyFilter\/broken|envoyfilter\/broken/.test(await mesh.kubectl(["get", "events", "-n", "shop"]))
      ? true
      : undefined,
  );
  const { stdout: metrics } = await mesh.inNode(["curl", "-s", `http://${await istiodIp()}:15014/metrics`]);
  assert.match(metrics, /^pilot_total_xds_rejects\{type="cds"\} [1-9]/m);
  assert.match(metrics, /^pilot_rejected_objects\{[^}]*name="broken"[^}]*\} 1/m);
  const front = await podIp(mesh, "shop", "app=front");
  assert.equal((await order(mesh, front, { url: "http://back.shop/" }))[0]?.status, 200);
  await mesh.kubectl(["delete", "envoyfilter", "broken", "-n", "shop"]);
  await eventually("ps is clean again", async () =>
    /broken/.test((await mesh.mizzen(["proxy-status"])).stdout) ? undefined : true,
  );
});

test("a wrong object is refused with the field's path, and wrong YAML with its line", async () => {
  const wrong =
    "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: w, namespace: shop}\nspec: {hosts: [a], http: [{route: [{destination: {host: back}, weight: -1}]}]}\n";
  await assert.rejects(mesh.kubectl(["apply", "-f", "-"], wrong), /spec\.http\[0\]\.route\[0\]\.weight/);
  const checked = await command(join(root, "bin/mizzen"), [
    "validate",
    "-f",
    "test/e2e/manifests/broken.yaml",
  ]);
  assert.equal(checked.code, 1);
  assert.match(checked.stdout + checked.stderr, /broken\.yaml:\d+:\d+/);
});

/** kill -9 of a container's first process, as the kernel's OOM killer would. */
async function killContainer(namespace: string, selector: string, word: string): Promise<void> {
  const pids = await pidsOf(namespace, selector, word);
  assert.ok(pids.length > 0, `a process of ${selector} matching ${word}`);
  for (const pid of pids) process.kill(pid, "SIGKILL");
}

async function killEnvoy(namespace: string, selector: string): Promise<void> {
  await killContainer(namespace, selector, "bin/envoy");
}

/** The host's process ids in the pod's network namespace whose command line has the word. */
async function pidsOf(namespace: string, selector: string, word: string): Promise<readonly number[]> {
  const address = await podIp(mesh, namespace, selector);
  const namespaces = await mesh.inNode(["ip", "netns", "list"]);
  const found: number[] = [];
  for (const line of namespaces.stdout.split("\n")) {
    const name = line.split(" ")[0] ?? "";
    if (!name.includes(mesh.name)) continue;
    const addresses = await mesh.inNode(["ip", "netns", "exec", name, "ip", "-o", "addr"]);
    if (!addresses.stdout.includes(` ${address}/`)) continue;
    const pids = (await mesh.inNode(["ip", "netns", "pids", name])).stdout
      .split("\n")
      .filter((pid) => pid !== "");
    for (const pid of pids) {
      if (readFileSync(`/proc/${pid}/cmdline`, "utf8").includes(word)) found.push(Number(pid));
    }
  }
  return found;
}
