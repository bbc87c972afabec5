// Virtual hosts as resources of their own, with a real Envoy: what a client sees when tables come, change and go.

import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { withoutEnvoy } from "./support/envoy.ts";
import { freePorts } from "./support/free-ports.ts";
import { DiscoveryBench } from "./support/discovery-bench.ts";
import { pause } from "./support/real-clock.ts";

const servicesTotal = 200;

const base = `
apiVersion: v1
kind: ConfigMap
metadata: { name: istio, namespace: istio-d }
data: { mesh: "enableAutoMtls: false" }
---
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: { name: default, namespace: istio-d }
spec: { mtls: { mode: DISABLE } }
---
apiVersion: v1
kind: Pod
metadata:
  name: sleep-1
  namespace: default
  labels: { app: sleep }
  annotations: { sidecar.istio.io/interceptionMode: NONE }
spec: { serviceAccountName: sleep, containers: [{ name: app }] }
status: { phase: Running, podIP: 127.0.0.1 }
`;

const service = (name: string, clusterIp: string, port: number, backendPort: number) => `
apiVersion: v1
kind: Service
metadata: { name: ${name}, namespace: default }
spec: { clusterIP: ${clusterIp}, selector: { app: ${name} }, ports: [{ name: http, port: ${port}, protocol: TCP }] }
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: { name: ${name}-1, namespace: default, labels: { kubernetes.io/service-name: ${name} } }
addressType: IPv4
ports: [{ name: http, port: ${backendPort}, protocol: TCP }]
endpoints: [{ addresses: [127.0.0.1], conditions: { ready: true } }]
`;

/** A VirtualService whose answers tell the route that they came by. */
const route = (name: string, mark: string, header = "end-user") => `
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: { name: ${name}, namespace: default }
spec:
  hosts: [${name}]
  http:
    - match: [{ headers: { ${JSON.stringify(header)}: { exact: nobody } } }]
      route: [{ destination: { host: ${name} } }]
    - headers: { response: { set: { x-route: ${mark} } } }
      route: [{ destination: { host: ${name} } }]
`;

/** Takes a service's virtual host away, so that its table has none. */
const withoutHost = (port: number) => `
apiVersion: networking.istio.io/v1alpha3
kind: EnvoyFilter
metadata: { name: none-${port}, namespace: default }
spec:
  configPatches:
    - applyTo: VIRTUAL_HOST
      match:
        context: SIDECAR_OUTBOUND
        routeConfiguration: { name: "${port}", vhost: { name: "lonely.default.svc.cluster.local:${port}" } }
      patch: { operation: REMOVE }
`;

const join = (...texts: readonly string[]): string => texts.join("\n---\n");

describe("virtual hosts as resources", { skip: withoutEnvoy }, () => {
  const bench = new DiscoveryBench({ ROUTE_DELIVERY: "virtual-hosts" });
  let ports: readonly number[] = [];
  const world = (backendPort: number): string =>
    join(
      base,
      ...Array.from({ length: servicesTotal }, (_, at) =>
        service(`svc${at}`, `10.96.1.${at + 1}`, ports[0] ?? 0, backendPort),
      ),
    );

  before(async () => {
    ports = await freePorts(4);
    bench.write("svc7.yaml", route("svc7", "first"));
    await bench.start(world);
  });
  after(() => bench.close());

  test("the very first request meets a whole table", async () => {
    const [port = 0] = ports;
    const first = await bench.firstAnswer(port, "svc7.default");
    assert.deepEqual(first, { status: 200, route: "first" });
    assert.equal((await bench.ask(port, "svc199.default.svc.cluster.local")).status, 200);
    const held = await bench.debug<{ types: { type: string; held: number }[] }[]>("/debug/syncz");
    assert.equal(held[0]?.types.find(({ type }) => type === "virtualHost")?.held, servicesTotal);
  });

  test("a change of a route costs the bytes of one virtual host", async (context) => {
    const [port = 0] = ports;
    const bytesBefore = await bench.receivedBytes();
    bench.write("svc7.yaml", route("svc7", "second"));
    const tookMs = await bench.untilRoute(port, "svc7.default", "second");
    const bytes = (await bench.receivedBytes()) - bytesBefore;
    context.diagnostic(`${bytes} bytes, ${tookMs.toFixed(0)} ms from the file to the first answer`);
    assert.ok(bytes < 4_096, `${bytes} bytes`);
  });

  test("a table that appears later answers its first request right", async () => {
    const [, port = 0] = ports;
    bench.write(
      "late.yaml",
      join(service("late", "10.96.2.1", port, bench.backendPort), route("late", "late")),
    );
    assert.deepEqual(await bench.firstAnswer(port, "late"), { status: 200, route: "late" });
  });

  test("a table that goes and comes again answers from its first request on", async () => {
    const [, port = 0] = ports;
    bench.write("late.yaml", "");
    const untilMs = performance.now() + 20_000;
    while ((await bench.ask(port, "late")).status !== 0 && performance.now() < untilMs) await pause(20);
    bench.write(
      "late.yaml",
      join(service("late", "10.96.2.1", port, bench.backendPort), route("late", "again")),
    );
    // Envoy keeps a table while its old listener drains: the first answers may still be by its old routes.
    assert.equal((await bench.firstAnswer(port, "late")).status, 200);
    await bench.untilRoute(port, "late", "again");
  });

  test("a new table without any virtual host is served at once, and so is the first that comes", async () => {
    const [, , port = 0] = ports;
    bench.write("none.yaml", withoutHost(port));
    bench.write("lonely.yaml", service("lonely", "10.96.3.1", port, bench.backendPort));
    const startedMs = performance.now();
    const answer = await bench.firstAnswer(port, "lonely");
    assert.ok(performance.now() - startedMs < 5_000, "the listener does not wait");
    assert.equal(answer.route, "");
    bench.write("none.yaml", "");
    bench.write(
      "lonely.yaml",
      join(service("lonely", "10.96.3.1", port, bench.backendPort), route("lonely", "one")),
    );
    await bench.untilRoute(port, "lonely", "one");
    // And gone again: the last virtual host of a table that stays.
    bench.write("none.yaml", withoutHost(port));
    await bench.untilRoute(port, "lonely", "");
  });

  test("a service that takes another's address over is reached at once", async () => {
    const [port = 0] = ports;
    const named = (name: string): string =>
      join(service(name, "10.96.4.1", port, bench.backendPort), route(name, name));
    bench.write("renamed.yaml", named("older"));
    await bench.untilRoute(port, "10.96.4.1", "older");
    bench.write("renamed.yaml", named("newer"));
    await bench.untilRoute(port, "10.96.4.1", "newer");
    assert.equal(await bench.metric("pilot_total_xds_rejects"), 0);
  });

  test("of a batch with one bad virtual host the good ones arrive, and the bad one stays as it was", async () => {
    const [port = 0] = ports;
    bench.write("svc9.yaml", route("svc9", "good"));
    await bench.untilRoute(port, "svc9.default", "good");
    bench.write("svc8.yaml", route("svc8", "old"));
    await bench.untilRoute(port, "svc8.default", "old");
    const good = [10, 11, 12, 13].map((at) => route(`svc${at}`, `batch${at}`));
    bench.write("batch.yaml", join(...good));
    bench.write("svc8.yaml", route("svc8", "bad", "no\nheader"));
    for (const at of [10, 11, 12, 13]) await bench.untilRoute(port, `svc${at}.default`, `batch${at}`);
    assert.deepEqual(await bench.ask(port, "svc8.default"), { status: 200, route: "old" });
    const rejections =
      await bench.debug<{ name: string; origins: { object: { name: string } }[] }[]>("/debug/rejectz");
    assert.deepEqual(
      rejections.map(({ name }) => name),
      [`${port}/svc8.default.svc.cluster.local:${port}`],
    );
    bench.write("svc8.yaml", route("svc8", "new"));
    await bench.untilRoute(port, "svc8.default", "new");
  });

  test("after a restart of the control plane only what changed meanwhile is sent", async (context) => {
    const [port = 0] = ports;
    await bench.stopControlPlane();
    bench.write("svc7.yaml", route("svc7", "third"));
    assert.equal((await bench.ask(port, "svc7.default")).status, 200);
    const bytesBefore = await bench.receivedBytes();
    await bench.startControlPlane();
    await bench.untilRoute(port, "svc7.default", "third");
    await pause(500);
    const bytes = (await bench.receivedBytes()) - bytesBefore;
    context.diagnostic(`${bytes} bytes after the restart`);
    assert.equal(await bench.metric("pilot_xds_resources_sent"), 1);
    assert.ok(bytes < 8_192, `${bytes} bytes`);
    const [late = 0] = ports.slice(1);
    assert.deepEqual(await bench.ask(late, "late"), { status: 200, route: "again" });
  });
});
