// The same scenarios that the explainer answers, answered by real Envoys. Any two witnesses that disagree is a bug.
//
// Each caller has a twin with clusters on demand, which must get the same answers, and at its first request: once the caller
// has its answer and the twin has taken its configuration, no request may fail for want of a cluster.

import assert from "node:assert/strict";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { stringify } from "yaml";
import { layoutOf, podNetns } from "#cluster";
import {
  scenarioPorts,
  scenarios,
  workloadText,
  workloadsOf,
  type ScenarioRequest,
  type Workload,
} from "../scenarios/scenario.ts";
import { deployEchoes, echoIn, order, podIp, type EchoApp, type Result } from "./echoes.ts";
import { command, eventually, startMesh, type Mesh } from "./mesh.ts";

const all = scenarios();
const workloads = workloadsOf(all);
const splitRequests = 100;
/** So many requests that are alike get to one workload by a hash; by chance they hardly ever would. */
const alikeRequests = 20;
/** How far a share of 100 requests may be from its weight. */
const splitSlack = 15;
let mesh: Mesh;
const addresses = new Map<string, string>();
/** Those that requests come from. */
const callers = workloads.filter((workload) =>
  all.some(({ requests }) => requests.some(({ from }) => workloadText(from) === workloadText(workload))),
);
/** The addresses of the callers' twins. */
const twins = new Map<string, string>();
let istiodNetns = "";

before(async () => {
  mesh = await startMesh({ name: "scenarios", port: 18_090 });
  for (const namespace of new Set(workloads.map((workload) => workload.namespace))) {
    if (namespace !== "default") await mesh.kubectl(["create", "namespace", namespace]);
    await mesh.kubectl(["label", "namespace", namespace, "istio-injection=enabled", "--overwrite"]);
  }
  const apps: EchoApp[] = workloads.map(({ name, namespace, service, version }) => ({
    name,
    namespace,
    service,
    version,
    ports: scenarioPorts,
    labels: { mode: "eager" },
  }));
  await deployEchoes(mesh, [...apps, ...callers.map(twinOf)]);
  for (const { name, namespace, service, version } of workloads) {
    addresses.set(
      `${namespace}/${name}`,
      await podIp(mesh, namespace, `app=${service},version=${version},mode=eager`),
    );
  }
  for (const { name, namespace, service } of callers)
    twins.set(`${namespace}/${name}`, await podIp(mesh, namespace, `app=${service},mode=on-demand`));
  istiodNetns = await netnsOf("istio-d", "app=istiod");
});
after(() => mesh.down());

for (const scenario of all) {
  test(`by real Envoys: ${scenario.name}`, async () => {
    const manifest = scenario.objects.map((object) => stringify(object)).join("---\n");
    if (scenario.objects.length > 0) await mesh.kubectl(["apply", "-f", "-"], manifest);
    try {
      for (const request of scenario.requests) {
        const line = `${request.send.method} ${request.send.url.href} from ${request.from.name} (${request.because})`;
        await eventually(
          `${line}: ${JSON.stringify(request.gets)}`,
          async () => {
            const why = difference(request, await send(request, addresses));
            if (why !== undefined) throw new Error(why);
            return true;
          },
          10_000,
        );
        await settled(twins.get(workloadText(request.from)) ?? "");
        await asksAsWell(request, `with clusters on demand: ${line}: ${JSON.stringify(request.gets)}`);
      }
    } finally {
      if (scenario.objects.length > 0) await mesh.kubectl(["delete", "-f", "-"], manifest);
    }
  });
}

test("mizzen wait ends when the proxies go by an object, and its status says that it is sound and how many hold it", async () => {
  const teapot = `apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: teapot, namespace: default}
spec: {hosts: [ratings], http: [{directResponse: {status: 418}}]}
`;
  await mesh.kubectl(["apply", "-f", "-"], teapot);
  const waited = await mesh.mizzen(["wait", "--for=distribution", "vs/teapot"]);
  const [, proxies] =
    /^VirtualService default\/teapot generation 1 is held by ([1-9]\d*) of \1 proxies$/m.exec(
      waited.stdout,
    ) ?? assert.fail(waited.stdout);
  const sleep = addresses.get("default/sleep") ?? "";
  assert.equal((await order(mesh, sleep, { url: "http://ratings:9080/" }))[0]?.status, 418);
  const shown = ["get", "virtualservice", "teapot", "-o", "jsonpath={.status}"];
  await eventually("the status", async () => {
    const status = await mesh.kubectl(shown);
    const held = status.includes(`"${proxies} of ${proxies} proxies hold it"`);
    return held && /"noErrors"/.test(status) && /"observedGeneration":1/.test(status) ? true : undefined;
  });
  await mesh.kubectl(["delete", "virtualservice", "teapot"]);
});

test("an EnvoyFilter that touches nothing says so in its status, for each patch", async () => {
  const idle = `apiVersion: networking.istio.io/v1alpha3
kind: EnvoyFilter
metadata: {name: idle, namespace: default}
spec:
  workloadSelector: {labels: {app: sleep}}
  configPatches:
  - applyTo: CLUSTER
    match: {context: SIDECAR_OUTBOUND, cluster: {service: ratings.default.svc.cluster.local}}
    patch: {operation: MERGE, value: {connect_timeout: 7s}}
  - applyTo: CLUSTER
    match: {context: SIDECAR_OUTBOUND, cluster: {service: no.such.service}}
    patch: {operation: MERGE, value: {connect_timeout: 7s}}
`;
  await mesh.kubectl(["apply", "-f", "-"], idle);
  const shown = ["get", "envoyfilter", "idle", "-o", "jsonpath={.status.conditions}"];
  await eventually("the status", async () => {
    const conditions = await mesh.kubectl(shown);
    if (/configPatches\[0\]/.test(conditions)) throw new Error(conditions);
    return /configPatches\[1\]: The patch changes nothing/.test(conditions) ? true : undefined;
  });
  const shownAs = await mesh.mizzen([
    "pc",
    "clusters",
    "sleep.default",
    "--fqdn",
    "ratings.default",
    "-o",
    "yaml",
  ]);
  assert.match(shownAs.stdout, /^ *# from EnvoyFilter default\/idle spec\.configPatches\[0\]$/m);
  await mesh.kubectl(["delete", "envoyfilter", "idle"]);
});

test("a BOOTSTRAP patch is in the bootstrap of the pods that are made after it", async () => {
  const filter = `apiVersion: networking.istio.io/v1alpha3
kind: EnvoyFilter
metadata: {name: bootstrap, namespace: default}
spec:
  workloadSelector: {labels: {app: patched}}
  configPatches:
  - applyTo: BOOTSTRAP
    patch: {operation: MERGE, value: {stats_config: {stats_tags: [{tag_name: own_tag, fixed_value: mine}]}}}
`;
  await mesh.kubectl(["apply", "-f", "-"], filter);
  await deployEchoes(mesh, [{ name: "patched", namespace: "default", ports: scenarioPorts }]);
  const shown = await mesh.mizzen(["pc", "bootstrap", "deployment/patched.default", "-o", "json"]);
  assert.match(shown.stdout, /own_tag/, shown.stderr);
  const other = await mesh.mizzen(["pc", "bootstrap", "deployment/ratings.default", "-o", "json"]);
  assert.doesNotMatch(other.stdout, /own_tag/);
  await mesh.kubectl(["delete", "envoyfilter", "bootstrap"]);
  await mesh.kubectl(["delete", "deployment,service", "patched"]);
});

test("every operation of an EnvoyFilter on every list is held by the real Envoy, and what it does is seen", async () => {
  const manifest = join(import.meta.dirname, "manifests/envoy-filter.yaml");
  const before = await heldByEnvoy("default", "app=sleep,mode=eager");
  await mesh.kubectl(["apply", "-f", manifest]);
  const sleep = addresses.get("default/sleep") ?? "";
  const asked = async (url: string, headers: Readonly<Record<string, string>> = {}) => {
    const [result] = await order(mesh, sleep, { url, headers, timeoutMs: 3_000 });
    return result ?? assert.fail(url);
  };
  try {
    await eventually("the marks of all patches that are about answers", async () => {
      const { status, headers } = await asked("http://ratings:9080/");
      const { server, "x-filter": filters, ...others } = headers;
      // Answers pass the filters from the last to the first.
      assert.deepEqual(
        [status, server, filters, others["x-table"], others["x-host"], others["x-route"]],
        [200, "patched", "discovered, replaced, first", "merged", "merged", "merged"],
      );
      assert.equal((await asked("http://ratings:9080/first")).status, 421);
      assert.equal((await asked("http://ratings:9080/before")).status, 422);
      assert.equal((await asked("http://ratings:9080/never")).status, 200);
      assert.equal((await asked("http://ratings:9080/", { host: "own.example.com:9080" })).status, 418);
      assert.equal((await asked("http://reviews:9080/")).status, 502, "its virtual host is gone");
      return true;
    });
    // The listener closes as soon as it has spoken, which echo takes for an error.
    assert.match((await asked("tcp://127.0.0.1:7777")).error ?? "", /hello of the patch/);
    const held = await heldByEnvoy("default", "app=sleep,mode=eager");
    const inspector = "envoy.filters.listener.http_inspector";
    assert.deepEqual(held.listenerFilters, ["first", "before", inspector, "replaced"]);
    const [manager = ""] = before.networkFilters;
    assert.deepEqual(held.networkFilters, ["first", "replaced", manager]);
    const known = before.httpFilters.filter((name) => name !== "envoy.filters.http.cors");
    assert.ok(known.length < before.httpFilters.length);
    assert.deepEqual(held.httpFilters, [
      "first",
      "replaced",
      ...known.slice(0, -1),
      "discovered",
      ...known.slice(-1),
    ]);
    assert.deepEqual(held.chains, { ...before.chains, own: "7s" });
    assert.deepEqual([before.bufferBytes, held.bufferBytes], [undefined, 12_345]);
    assert.deepEqual([before.clusters["ratings 9080"], held.clusters["ratings 9080"]], ["10s", "7s"]);
    assert.deepEqual([before.clusters["ratings 9000"], held.clusters["ratings 9000"]], ["10s", undefined]);
    assert.equal(held.clusters["own-cluster"], "1s");
  } finally {
    await mesh.kubectl(["delete", "-f", manifest]);
  }
  await eventually("all of it is gone", async () => {
    assert.deepEqual(await heldByEnvoy("default", "app=sleep,mode=eager"), before);
    assert.equal((await asked("http://reviews:9080/")).status, 200);
    return true;
  });
});

interface DumpedChain {
  readonly name?: string;
  readonly transport_socket_connect_timeout?: string;
  readonly filters: readonly {
    readonly name: string;
    readonly typed_config?: { readonly http_filters?: readonly { readonly name: string }[] };
  }[];
}

interface DumpedListener {
  readonly name: string;
  readonly listener_filters?: readonly { readonly name: string }[];
  readonly filter_chains?: readonly DumpedChain[];
  readonly default_filter_chain?: DumpedChain;
  readonly per_connection_buffer_limit_bytes?: number;
}

/** What an Envoy says that it holds of the listener for HTTP calls of port 9080, and of its clusters. */
async function heldByEnvoy(namespace: string, selector: string) {
  const netns = `--net=/run/netns/${await netnsOf(namespace, selector)}`;
  const dumped = await command("nsenter", [netns, "--", "curl", "-sS", "http://127.0.0.1:15000/config_dump"]);
  const { configs } = JSON.parse(dumped.stdout) as {
    readonly configs: readonly {
      readonly dynamic_listeners?: readonly {
        readonly active_state?: { readonly listener: DumpedListener };
      }[];
      readonly dynamic_active_clusters?: readonly {
        readonly cluster: { readonly name: string; readonly connect_timeout: string };
      }[];
    }[];
  };
  const listener =
    configs
      .flatMap(({ dynamic_listeners: listeners = [] }) => listeners)
      .flatMap(({ active_state: state }) => state?.listener ?? [])
      .find(({ name }) => name === "0.0.0.0_9080") ?? assert.fail("no listener for port 9080");
  const chains = listener.filter_chains ?? [];
  const http = chains.find(({ filters }) =>
    filters.some((one) => one.typed_config?.http_filters !== undefined),
  );
  const clusters = configs
    .flatMap(({ dynamic_active_clusters: active = [] }) => active)
    .map(({ cluster }) => {
      const [, port, , host] = cluster.name.split("|");
      const shown = host === undefined ? cluster.name : `${host.split(".")[0]} ${port}`;
      return [shown, cluster.connect_timeout] as const;
    });
  return {
    listenerFilters: (listener.listener_filters ?? []).map(({ name }) => name),
    networkFilters: http?.filters.map(({ name }) => name) ?? [],
    httpFilters:
      http?.filters.flatMap((one) => one.typed_config?.http_filters ?? []).map(({ name }) => name) ?? [],
    chains: Object.fromEntries(
      chains.map((chain) => [chain.name ?? "", chain.transport_socket_connect_timeout]),
    ),
    bufferBytes: listener.per_connection_buffer_limit_bytes,
    clusters: Object.fromEntries(clusters),
  };
}

test("there are scenarios", () => assert.ok(all.length > 5));

test("a twin holds the clusters that it has called, and no others", async () => {
  const held = await clustersOf("sleep-on-demand");
  const all = await clustersOf("sleep");
  assert.ok(held.length > 0 && held.length < all.length, `${held.length} of ${all.length}`);
  assert.deepEqual(
    held.filter((name) => name.startsWith("outbound|9000|")),
    [],
    "no scenario calls the TCP port",
  );
});

test("TCP, headless, external and blocked destinations are answered on demand as eagerly, at the first connection", async () => {
  await mesh.kubectl(["apply", "-f", "-"], otherDestinations);
  try {
    for (const { url, headers, answers } of [
      { url: "tcp://ratings:9000", answers: "hello" },
      { url: "http://headless:8080/", answers: "200 ratings" },
      { url: "tcp://headless:9001", answers: "hello" },
      {
        url: "http://240.240.7.7:9082/",
        headers: { host: "external.example.com:9082" },
        answers: "200 ratings",
      },
      { url: "tcp://240.240.7.8:9083", answers: "hello" },
      { url: "http://reviews:9080/", headers: { host: "unknown.example.com" }, answers: "502" },
    ]) {
      const what = {
        url,
        ...(headers === undefined ? {} : { headers }),
        message: "hello\n",
        timeoutMs: 4_000,
      };
      const asked = async (address: string): Promise<string> => {
        const [result] = await order(mesh, address, what);
        const shown = `${result?.status} ${echoIn(result)?.service ?? ""}`.trim();
        return url.startsWith("tcp:") ? (result?.body.includes("hello") === true ? "hello" : shown) : shown;
      };
      await eventually(`eagerly: ${url} gets ${answers}`, async () => {
        const got = await asked(addresses.get("default/sleep") ?? "");
        if (got !== answers) throw new Error(got);
        return true;
      });
      const twin = twins.get("default/sleep") ?? "";
      await settled(twin);
      assert.equal(await asked(twin), answers, `on demand: ${url}`);
    }
  } finally {
    await mesh.kubectl(["delete", "-f", "-"], otherDestinations);
  }
});

const otherDestinations = `
apiVersion: v1
kind: Service
metadata: { name: headless, namespace: default }
spec:
  clusterIP: None
  selector: { app: ratings }
  ports:
    - { name: http, port: 8080 }
    - { name: tcp-raw, port: 9001 }
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: { name: external, namespace: default }
spec:
  hosts: [external.example.com]
  addresses: [240.240.7.7]
  resolution: STATIC
  location: MESH_INTERNAL
  ports: [{ number: 9082, name: http, protocol: HTTP, targetPort: 8080 }]
  workloadSelector: { labels: { app: ratings } }
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: { name: external-tcp, namespace: default }
spec:
  hosts: [external-tcp.example.com]
  addresses: [240.240.7.8]
  resolution: STATIC
  location: MESH_INTERNAL
  ports: [{ number: 9083, name: tcp, protocol: TCP, targetPort: 9001 }]
  workloadSelector: { labels: { app: ratings } }
---
apiVersion: networking.istio.io/v1
kind: Sidecar
metadata: { name: registry-only, namespace: default }
spec:
  outboundTrafficPolicy: { mode: REGISTRY_ONLY }
  egress: [{ hosts: ["*/*"] }]
`;

/** The names of the outbound clusters that a Deployment's Envoy holds. */
async function clustersOf(deployment: string): Promise<string[]> {
  const words = ["proxy-config", "clusters", `deployment/${deployment}.default`, "-o", "json"];
  const ran = await mesh.mizzen(words);
  assert.equal(ran.code, 0, ran.stderr);
  const clusters = JSON.parse(ran.stdout) as readonly { readonly name: string }[];
  return clusters.flatMap(({ name }) => (name.startsWith("outbound|") ? [name] : []));
}

async function send(
  { from, send: sent, gets }: ScenarioRequest,
  senders: ReadonlyMap<string, string>,
): Promise<readonly Result[]> {
  const several = gets.kind === "one-of" ? alikeRequests : splitRequests;
  const count = gets.kind === "one-of" || (gets.kind === "answered" && gets.by.size > 1) ? several : 1;
  return order(mesh, senders.get(workloadText(from)) ?? "", {
    url: sent.url.href,
    method: sent.method,
    headers: sent.headers,
    count,
    concurrency: 4,
    timeoutMs: 3_000,
  });
}

/**
 * A connection that the server has not drained yet may still answer by its policies of before, as to any caller. What a
 * missing cluster looks like (503, or nothing) is never tried twice.
 */
async function asksAsWell(request: ScenarioRequest, line: string): Promise<void> {
  let failure: string | undefined;
  await eventually(line, async () => {
    const results = await send(request, twins);
    const why = difference(request, results);
    if (why === undefined) return true;
    if (results.every(({ status }) => status !== 503 && status !== 0)) throw new Error(why);
    failure = why;
    return true;
  });
  assert.equal(failure, undefined, line);
}

function twinOf({ name, namespace, service, version }: Workload): EchoApp {
  return {
    name: `${name}-on-demand`,
    account: name,
    namespace,
    service,
    version,
    ports: scenarioPorts,
    labels: { mode: "on-demand" },
    annotations: { "mizzen.io/cluster-discovery": "on-demand" },
  };
}

interface SyncedProxy {
  readonly proxy: string;
  readonly types: readonly { readonly type: string; readonly state: string; readonly held: number }[];
}

/** Waits until the control plane has no change under way to the proxy at an address. */
function settled(address: string): Promise<SyncedProxy> {
  return eventually(`the proxy at ${address} has all changes`, async () => {
    const ran = await command("nsenter", [
      `--net=/run/netns/${istiodNetns}`,
      ...["--", "curl", "-sS", "--max-time", "5", "http://127.0.0.1:15014/debug/syncz"],
    ]);
    const proxies = JSON.parse(ran.stdout) as readonly SyncedProxy[];
    const found = proxies.find(({ proxy }) => proxy.split("~")[1] === address);
    return found?.types.every(({ state }) => state !== "STALE") === true ? found : undefined;
  });
}

async function netnsOf(namespace: string, selector: string): Promise<string> {
  const [uid = ""] = (
    await mesh.kubectl([
      ...["get", "pods", "-n", namespace, "-l", selector],
      ...["--field-selector=status.phase=Running", "-o", "jsonpath={.items[*].metadata.uid}"],
    ])
  ).split(" ");
  return podNetns(layoutOf(mesh.name), uid);
}

/** Why the results are not what the request should get. */
function difference(request: ScenarioRequest, results: readonly Result[]): string | undefined {
  return unequalAnswer(request, results) ?? unequalParts(request, results[0]);
}

function unequalAnswer({ gets }: ScenarioRequest, results: readonly Result[]): string | undefined {
  const [first] = results;
  if (gets.kind === "refused") return first?.status === 0 ? undefined : `status ${first?.status}`;
  if (gets.kind === "status")
    return first?.status === gets.status ? undefined : `status ${first?.status} ${first?.error ?? ""}`;
  const names = gets.kind === "one-of" ? gets.names : [...gets.by.keys()];
  const hits = new Map<string, number>();
  for (const result of results) {
    if (result.status !== 200) return `status ${result.status} ${result.error ?? ""}`;
    const echo = echoIn(result);
    const name =
      names.find((key) => answers(key, echo?.service ?? "", echo?.version ?? "")) ??
      `${echo?.service} ${echo?.version}`;
    hits.set(name, (hits.get(name) ?? 0) + 1);
  }
  if (gets.kind === "one-of") {
    const [name = ""] = hits.keys();
    return hits.size === 1 && names.includes(name) ? undefined : `answers of ${[...hits.keys()].join(", ")}`;
  }
  for (const [name, weight] of gets.by) {
    const share = ((hits.get(name) ?? 0) / results.length) * 100;
    if (Math.abs(share - weight) > (results.length > 1 ? splitSlack : 0))
      return `${name} got ${share} %, expected ${weight}`;
  }
  return undefined;
}

/** Why one result is not as `seen` and `answer` want it. */
function unequalParts({ seen = {}, answer = {} }: ScenarioRequest, result: Result | undefined) {
  const echo = echoIn(result);
  const parts = [
    ...(["url", "host", "method"] as const).map((name) => [name, seen[name], echo?.[name]] as const),
    ...Object.entries(seen.headers ?? {}).map(([name, value]) => [name, value, echo?.headers[name]] as const),
    ...Object.entries(answer.headers ?? {}).map(
      ([name, value]) => [name, value, result?.headers[name]] as const,
    ),
    ["body", answer.body, result?.body] as const,
  ];
  const wrong = parts.find(([, wanted, got]) => wanted !== undefined && (wanted ?? undefined) !== got);
  return wrong === undefined ? undefined : `${wrong[0]} is '${wrong[2]}', expected '${wrong[1]}'`;
}

function answers(name: string, service: string, version: string): boolean {
  return workloads.some(
    (workload) =>
      workloadText(workload) === name && workload.service === service && workload.version === version,
  );
}
