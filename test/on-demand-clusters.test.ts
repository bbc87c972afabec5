// Clusters on demand with a real Envoy: what a client sees at first requests, when services come and go, and when the
// control plane restarts. Virtual hosts come one by one beside them.

import assert from "node:assert/strict";
import net from "node:net";
import { after, before, describe, test } from "node:test";
import { withoutEnvoy } from "./support/envoy.ts";
import { freePorts } from "./support/free-ports.ts";
import { DiscoveryBench, type Answer } from "./support/discovery-bench.ts";
import { joinTexts, routeTo, serviceText, sidecarWorld } from "./support/discovery-world.ts";
import { pause } from "./support/real-clock.ts";

const servicesTotal = 300;

describe("clusters on demand", { skip: withoutEnvoy }, () => {
  const bench = new DiscoveryBench();
  let port = 0;
  let tcpPort = 0;

  before(async () => {
    [port = 0, tcpPort = 0] = await freePorts(2);
    await bench.start((backendPort) =>
      joinTexts(
        sidecarWorld("on-demand"),
        ...Array.from({ length: servicesTotal }, (_, at) => serviceText(`svc${at}`, at, port, backendPort)),
        serviceText("raw", 400, tcpPort, backendPort, "tcp"),
      ),
    );
  });
  after(() => bench.close());

  test("very first requests are answered, and five services called are five clusters held of 300", async (context) => {
    assert.equal((await bench.firstAnswer(port, "svc0.default")).status, 200);
    for (const at of [1, 2, 3, 4]) {
      const startedMs = performance.now();
      assert.equal((await bench.ask(port, `svc${at}.default`)).status, 200, `svc${at}`);
      context.diagnostic(
        `the first request to svc${at} took ${(performance.now() - startedMs).toFixed(1)} ms`,
      );
    }
    assert.deepEqual(
      (await outboundClusters(bench)).map(hostOf),
      [0, 1, 2, 3, 4].map((at) => `svc${at}.default.svc.cluster.local`),
    );
  });

  test("first requests in parallel, with bodies, and by TCP are answered", async () => {
    const answers = await Promise.all(
      Array.from({ length: 40 }, (_, at) => bench.ask(port, `svc${10 + (at % 20)}.default`)),
    );
    assert.deepEqual(new Set(answers.map(({ status }) => status)), new Set([200]));
    assert.equal(await rawStatus(tcpPort), "HTTP/1.1 200 OK");
  });

  test("a route to a service that is not there gets 503 at once, every time, and is served from the moment the service comes", async () => {
    bench.write("rule.yaml", routeTo("svc30", "nowhere", "[{ destination: { host: later } }]"));
    await until("the rule is in force", async () => (await bench.ask(port, "svc30.default")).status === 503);
    for (let count = 0; count < 3; count++) {
      const startedMs = performance.now();
      assert.equal((await bench.ask(port, "svc30.default")).status, 503);
      const tookMs = performance.now() - startedMs;
      assert.ok(tookMs < 1_500, `${tookMs.toFixed(0)} ms: it waited for a time-out`);
    }
    bench.write("later.yaml", serviceText("later", 401, port, bench.backendPort));
    await until(
      "the service is reached",
      async () => (await bench.ask(port, "svc30.default")).status === 200,
    );
  });

  test("a request without a route gets its 404 at once", async () => {
    bench.write(
      "narrow.yaml",
      routeTo("svc33", "narrow", "[{ destination: { host: svc33 } }]").replace(
        "    - headers:",
        "    - match: [{ uri: { prefix: /there } }]\n      headers:",
      ),
    );
    await until("the rule is in force", async () => (await bench.ask(port, "svc33.default")).status === 404);
    const startedMs = performance.now();
    assert.equal((await bench.ask(port, "svc33.default")).status, 404);
    assert.ok(performance.now() - startedMs < 1_500);
  });

  test("weights over clusters that nobody has asked for are held from the first request on", async () => {
    const destinations = `[${[40, 41, 42, 43]
      .map((at) => `{ destination: { host: svc${at} }, weight: 25 }`)
      .join(", ")}]`;
    bench.write("weights.yaml", routeTo("svc31", "weighted", destinations));
    await until(
      "the rule is in force",
      async () => (await bench.ask(port, "svc31.default")).route === "weighted",
    );
    const answers = await Promise.all(Array.from({ length: 60 }, () => bench.ask(port, "svc31.default")));
    assert.deepEqual(new Set(answers.map(({ status }) => status)), new Set([200]));
    const held = (await outboundClusters(bench)).map(hostOf);
    for (const at of [40, 41, 42, 43])
      assert.ok(held.includes(`svc${at}.default.svc.cluster.local`), `svc${at}`);
  });

  test("connections split by weight reach clusters that nobody has asked for", async () => {
    bench.write("raw.yaml", splitTcp("raw", [80, 81], port));
    const wanted = [80, 81].map((at) => `svc${at}.default.svc.cluster.local`);
    await until("both are used", async () => {
      assert.equal(await rawStatus(tcpPort), "HTTP/1.1 200 OK");
      const held = (await outboundClusters(bench)).map(hostOf);
      return wanted.every((host) => held.includes(host));
    });
  });

  test("what is mirrored to and what EnvoyFilters name is there before any request", async () => {
    bench.write(
      "mirror.yaml",
      routeTo("svc32", "mirrored", "[{ destination: { host: svc32 } }]").replace(
        "route: [",
        "mirror: { host: svc50 }\n      route: [",
      ),
    );
    bench.write("named.yaml", filterNaming(`outbound|${port}||svc51.default.svc.cluster.local`));
    await until("both are held", async () => {
      const held = (await outboundClusters(bench)).map(hostOf);
      return [50, 51].every((at) => held.includes(`svc${at}.default.svc.cluster.local`));
    });
  });

  test("routes move between services under load while others are called for the first time: no request fails", async () => {
    const load = new Load(() => bench.ask(port, "svc60.default"), 4);
    const first: Answer[] = [];
    for (let round = 0; round < 8; round++) {
      const mark = `round${round}`;
      bench.write("moving.yaml", routeTo("svc60", mark, `[{ destination: { host: svc${100 + round} } }]`));
      first.push(await bench.ask(port, `svc${150 + round}.default`));
      await bench.untilRoute(port, "svc60.default", mark);
    }
    const answers = await load.stop();
    assert.deepEqual(new Set(first.map(({ status }) => status)), new Set([200]), "first requests");
    assert.deepEqual(new Set(answers.map(({ status }) => status)), new Set([200]), `of ${answers.length}`);
  });

  test("a service that comes and goes with the rule that names it, under load, fails no request", async () => {
    const load = new Load(() => bench.ask(port, "svc61.default"), 4);
    for (let round = 0; round < 3; round++) {
      bench.write(
        "going.yaml",
        joinTexts(
          serviceText("going", 402, port, bench.backendPort),
          routeTo("svc61", `to${round}`, "[{ destination: { host: going } }]"),
        ),
      );
      await bench.untilRoute(port, "svc61.default", `to${round}`);
      bench.write("going.yaml", routeTo("svc61", `back${round}`, "[{ destination: { host: svc61 } }]"));
      await bench.untilRoute(port, "svc61.default", `back${round}`);
    }
    const answers = await load.stop();
    assert.deepEqual(new Set(answers.map(({ status }) => status)), new Set([200]), `of ${answers.length}`);
    assert.equal(await bench.metric("pilot_total_xds_rejects"), 0);
  });

  test("a cluster that Envoy rejects takes none of the others with it, has a stand-in, and flows once it is mended", async () => {
    bench.write(
      "bad.yaml",
      joinTexts(breaking("svc70"), routeTo("svc71", "broken", "[{ destination: { host: svc71 } }]")),
    );
    await bench.untilRoute(port, "svc71.default", "broken");
    for (const [at, status] of [
      [72, 200],
      [70, 503],
      [70, 503],
      [73, 200],
    ] as const) {
      const startedMs = performance.now();
      assert.equal((await bench.ask(port, `svc${at}.default`)).status, status, `svc${at}`);
      assert.ok(performance.now() - startedMs < 2_500, "without waiting for the time-out");
    }
    type Rejections = readonly { readonly name: string; readonly origins: { object: { kind: string } }[] }[];
    let rejections: Rejections = [];
    await until("the rejection is known", async () => {
      rejections = await bench.debug<Rejections>("/debug/rejectz");
      return rejections.length > 0;
    });
    assert.deepEqual(
      rejections.map(({ name }) => name),
      [`outbound|${port}||svc70.default.svc.cluster.local`],
    );
    assert.ok(rejections[0]?.origins.some(({ object }) => object.kind === "EnvoyFilter"));
    bench.write("bad.yaml", "");
    await until("it is mended", async () => (await bench.ask(port, "svc70.default")).status === 200);
  });

  test("after a restart of the control plane what was held is held, and nothing is sent again", async () => {
    const held = await outboundClusters(bench);
    await bench.stopControlPlane();
    assert.equal((await bench.ask(port, "svc0.default")).status, 200);
    await bench.startControlPlane();
    await until("Envoy is connected", async () => (await bench.debug<unknown[]>("/debug/syncz")).length > 0);
    assert.equal((await bench.ask(port, "svc290.default")).status, 200);
    const added = (await outboundClusters(bench)).filter((name) => !held.includes(name));
    assert.deepEqual(added.map(hostOf), ["svc290.default.svc.cluster.local"]);
    assert.equal(await bench.metric("pilot_xds_resources_sent", 'type="cds"'), 1, "the new one alone");
  });
});

function splitTcp(host: string, services: readonly number[], port: number): string {
  const routes = services.map(
    (at) =>
      `{ destination: { host: svc${at}, port: { number: ${port} } }, weight: ${100 / services.length} }`,
  );
  return `
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: { name: ${host}, namespace: default }
spec:
  hosts: [${host}]
  tcp: [{ route: [${routes.join(", ")}] }]
`;
}

function filterNaming(cluster: string): string {
  return `
apiVersion: networking.istio.io/v1alpha3
kind: EnvoyFilter
metadata: { name: named, namespace: default }
spec:
  configPatches:
    - applyTo: CLUSTER
      match: { context: SIDECAR_OUTBOUND }
      patch:
        operation: ADD
        value:
          name: names-another
          type: STATIC
          connect_timeout: 1s
          metadata: { filter_metadata: { test: { cluster: ${JSON.stringify(cluster)} } } }
`;
}

/** A patch that Envoy alone can see is wrong. */
function breaking(name: string): string {
  return `
apiVersion: networking.istio.io/v1alpha3
kind: EnvoyFilter
metadata: { name: breaking, namespace: default }
spec:
  configPatches:
    - applyTo: CLUSTER
      match: { context: SIDECAR_OUTBOUND, cluster: { service: ${name}.default.svc.cluster.local } }
      patch:
        operation: MERGE
        value:
          transport_socket:
            name: envoy.transport_sockets.tls
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext
              common_tls_context: { tls_params: { cipher_suites: [nonsense] } }
`;
}

/** The names of the clusters of the outbound side that Envoy holds. */
async function outboundClusters(bench: DiscoveryBench): Promise<string[]> {
  const text = await bench.envoyAdmin("/clusters?format=json");
  const { cluster_statuses = [] } = JSON.parse(text) as { cluster_statuses?: { name: string }[] };
  return cluster_statuses.flatMap(({ name }) => (name.startsWith("outbound|") ? [name] : [])).toSorted();
}

function hostOf(cluster: string): string {
  return cluster.slice(cluster.lastIndexOf("|") + 1);
}

/** The status line of a request over a bare connection. */
function rawStatus(port: number): Promise<string> {
  return new Promise((resolve, reject) => {
    const socket = net.connect(port, "127.0.0.1");
    let text = "";
    socket.setTimeout(5_000, () => socket.destroy(new Error("no answer in 5 s")));
    socket.on("data", (bytes: Buffer) => (text += bytes.toString()));
    socket.on("error", reject);
    socket.on("close", () => resolve(text.split("\r\n")[0] ?? ""));
    socket.write("GET / HTTP/1.1\r\nhost: raw\r\nconnection: close\r\n\r\n");
  });
}

async function until(what: string, ask: () => Promise<boolean>): Promise<void> {
  const untilMs = performance.now() + 20_000;
  while (performance.now() < untilMs) {
    if (await ask()) return;
    await pause(10);
  }
  throw new Error(`not within 20 s: ${what}`);
}

/** The same request again and again by some callers. */
class Load {
  readonly #answers: Answer[] = [];
  readonly #callers: Promise<void>[];
  #stopped = false;

  constructor(ask: () => Promise<Answer>, callers: number) {
    this.#callers = Array.from({ length: callers }, async () => {
      while (!this.#stopped) {
        this.#answers.push(await ask());
        await pause(5);
      }
    });
  }

  async stop(): Promise<readonly Answer[]> {
    this.#stopped = true;
    await Promise.all(this.#callers);
    return this.#answers;
  }
}
