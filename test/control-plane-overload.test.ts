// The control plane under more than it was made for: a thousand proxies at once, proxies that never answer or never read, and a
// huge object. It stays responsive to everyone else, and its memory bounded. No root needed.

import assert from "node:assert/strict";
import { spawn, type ChildProcess } from "node:child_process";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { after, before, describe, test } from "node:test";
import { fileURLToPath } from "node:url";
import { accessFromKubeconfig } from "#kube";
import { AdsClient, type AdsClientOptions } from "./support/ads-client.ts";
import { ClusterBench, metricOf } from "./support/cluster-bench.ts";
import { FaultyConnection } from "./support/faulty-connection.ts";
import { freePorts } from "./support/free-ports.ts";
import { pause, until } from "./support/real-clock.ts";

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const proxiesTotal = 1_000;
/** Proxies that misbehave, and what they may cost together: a first answer each that nobody fetches, and some garbage. */
const badTotal = 20;
const badMaxMiB = 150;
const stormTotal = 10_000;
const stormObjects = 200;
const servicesTotal = 200;
const hugeEndpoints = 5_000;
/** Room for one process of Node with a small mesh, a thousand streams and what a storm leaves behind. */
const residentMaxMiB = 600;
/** How long a change may take to reach a well-behaved proxy while others misbehave. */
const undisturbedMs = 10_000;

const service = (name: string, port = 80, label = "") => `
apiVersion: v1
kind: Service
metadata: { name: ${name}, namespace: default, labels: { round: "${label}" } }
spec: { clusterIP: 10.96.0.5, selector: { app: ${name} }, ports: [{ name: http, port: ${port}, protocol: TCP }] }
`;
const pods = `
apiVersion: v1
kind: Namespace
metadata: { name: default }
---
apiVersion: v1
kind: Pod
metadata: { name: sleep-1, namespace: default, labels: { app: sleep } }
spec: { serviceAccountName: sleep, containers: [{ name: app }] }
status: { phase: Running, podIP: 127.0.0.1 }
`;

/** The program in a process of its own, so that its memory is its own. */
class Bench {
  readonly directory = mkdtempSync(join(tmpdir(), "mizzen-overload-"));
  readonly #objects = join(this.directory, "objects");
  readonly clients: AdsClient[] = [];
  #process: ChildProcess | undefined;
  port = 0;
  monitoring = 0;
  #made = 0;

  async start(): Promise<void> {
    mkdirSync(this.#objects);
    const services = Array.from({ length: servicesTotal }, (_, at) => service(`svc${at}`));
    writeFileSync(join(this.#objects, "world.yaml"), [pods, ...services].join("---\n"));
    [this.port = 0, this.monitoring = 0] = await freePorts(2);
    const flags = [
      ...["discovery", "--config-dir", this.#objects, "--host", "127.0.0.1", "--log-level", "error"],
      ...["--plaintext", `127.0.0.1:${this.port}`, "--monitoring-port", String(this.monitoring)],
      ...["--webhook-port", "0", "--xds-port", "0", "--drain-ms", "0"],
    ];
    const program = join(root, "src/apps/control/main.ts");
    this.#process = spawn(process.execPath, [program, ...flags], { stdio: ["ignore", "inherit", "inherit"] });
    await this.until("it is ready", async () => {
      const answer = await fetch(`http://127.0.0.1:${this.monitoring}/ready`).catch(() => undefined);
      return answer?.status === 200;
    });
  }

  connect(options: Omit<AdsClientOptions, "port" | "pod"> = {}): AdsClient {
    const client = new AdsClient({ port: this.port, pod: "sleep-1.default", ...options });
    this.clients.push(client);
    return client;
  }

  /** Makes a Service and waits until a proxy has its cluster; gives the milliseconds that this took. */
  async changeReaches(client: AdsClient): Promise<number> {
    const name = `new${++this.#made}`;
    const fromMs = performance.now();
    this.write(`${name}.yaml`, service(name));
    const cluster = `outbound|80||${name}.default.svc.cluster.local`;
    await this.until(`${cluster} arrives`, () => client.held.cluster.has(cluster));
    return performance.now() - fromMs;
  }

  write(file: string, text: string): void {
    writeFileSync(join(this.#objects, file), text);
  }

  get residentMiB(): number {
    const status = readFileSync(`/proc/${this.#process?.pid}/status`, "utf8");
    return Math.round(Number(/VmRSS:\s+(\d+)/.exec(status)?.[1] ?? 0) / 1024);
  }

  async metric(name: string, labels = ""): Promise<number> {
    const text = await (await fetch(`http://127.0.0.1:${this.monitoring}/metrics`)).text();
    return text
      .split("\n")
      .filter((line) => (line.startsWith(`${name}{`) || line.startsWith(`${name} `)) && line.includes(labels))
      .reduce((sum, line) => sum + Number(line.slice(line.lastIndexOf(" "))), 0);
  }

  async until(claim: string, holds: () => boolean | Promise<boolean>, limitMs = 30_000): Promise<void> {
    const untilMs = performance.now() + limitMs;
    while (!(await holds())) {
      assert.ok(performance.now() < untilMs, claim);
      await pause(20);
    }
  }

  async close(): Promise<void> {
    for (const client of this.clients) client.close();
    const gone = new Promise((resolve) => this.#process?.once("exit", resolve) ?? resolve(undefined));
    this.#process?.kill("SIGKILL");
    await gone;
    rmSync(this.directory, { recursive: true, force: true });
  }
}

describe("the control plane under overload", () => {
  const bench = new Bench();
  let good: AdsClient;
  before(async () => {
    await bench.start();
    good = bench.connect();
    await bench.until("it has all clusters", () => good.held.cluster.size >= servicesTotal);
  });
  after(() => bench.close());

  const waits = async (): Promise<number> =>
    (await bench.metric("pilot_limits_reached", 'limit="canaryWait"')) +
    (await bench.metric("pilot_limits_reached", 'limit="canaryTries"'));

  for (const [claim, behaviour] of [
    ["never acknowledge", { neverAcknowledges: true }],
    ["never read", { neverReads: true }],
    ["read one byte a second", { bytesPerSecond: 1 }],
  ] as const) {
    test(`${badTotal} proxies that ${claim} cost a bounded memory, and keep no change from the others`, async (t) => {
      const before = await bench.metric("pilot_xds");
      const residentBefore = bench.residentMiB;
      const bad = Array.from({ length: badTotal }, () => bench.connect(behaviour));
      await bench.until(
        "all are connected",
        async () => (await bench.metric("pilot_xds")) >= before + badTotal,
      );
      const waitsBefore = await waits();
      let worstMs = 0;
      for (let round = 0; round < 20; round++) worstMs = Math.max(worstMs, await bench.changeReaches(good));
      // For one that does not answer nothing more is put together, however much changes.
      for (const { responses } of bad) assert.ok(responses <= 3, `${responses} responses`);
      // Each may be the first to be asked about a change, and is waited for in vain, once.
      const waited = (await waits()) - waitsBefore;
      assert.ok(waited <= badTotal, `${waited} times`);
      const grownMiB = bench.residentMiB - residentBefore;
      t.diagnostic(
        `20 changes, the slowest after ${Math.round(worstMs)} ms, ${waited} waits for a silent canary; ${bench.residentMiB} MiB, ${grownMiB} more than before`,
      );
      assert.ok(worstMs < undisturbedMs, `${worstMs} ms`);
      assert.ok(grownMiB < badMaxMiB, `${grownMiB} MiB`);
      for (const client of bad) client.close();
      await bench.until("they are gone", async () => (await bench.metric("pilot_xds")) === before);
    });
  }

  test(`an object with ${hugeEndpoints} endpoints arrives, and smaller changes with it`, async (t) => {
    const addresses = Array.from(
      { length: hugeEndpoints },
      (_, at) => `{ address: 10.${at >> 16}.${(at >> 8) & 255}.${at & 255} }`,
    );
    bench.write(
      "huge.yaml",
      `apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: { name: huge, namespace: default }
spec:
  hosts: [huge.example.com]
  resolution: STATIC
  ports: [{ number: 80, name: http, protocol: HTTP }]
  endpoints: [${addresses.join(", ")}]
`,
    );
    const huge = "outbound|80||huge.example.com";
    await bench.until("the huge one arrives", () => good.held.endpoint.has(huge));
    const tookMs = await bench.changeReaches(good);
    t.diagnostic(`${Math.round(tookMs)} ms, ${bench.residentMiB} MiB`);
    assert.ok(tookMs < undisturbedMs, `${tookMs} ms`);
    rmSync(join(bench.directory, "objects", "huge.yaml"));
    await bench.until("it is gone", () => !good.held.cluster.has(huge));
  });

  test(`${proxiesTotal} proxies that connect at once are all served in the end, and refused ones are counted`, async (t) => {
    const fromMs = performance.now();
    let waiting = Array.from({ length: proxiesTotal }, () => bench.connect());
    const connectedMs = performance.now() - fromMs;
    const lost = new Set<AdsClient>();
    await bench.until(
      "all have all clusters",
      () => {
        waiting = waiting.flatMap((client) => {
          if (client.held.cluster.size >= servicesTotal) return [];
          if (!client.closed) return [client];
          // As Envoy does: it comes again.
          lost.add(client);
          return [bench.connect()];
        });
        return waiting.length === 0;
      },
      120_000,
    );
    const tookMs = performance.now() - fromMs;
    const refused = await bench.metric("pilot_xds_refused");
    t.diagnostic(
      `asked for in ${Math.round(connectedMs)} ms, all served after ${Math.round(tookMs)} ms, ${refused} refused and come again, ${bench.residentMiB} MiB`,
    );
    assert.ok(refused >= lost.size, "each refusal is counted");
    const struck = await bench.metric("pilot_limits_reached", 'limit="admissions"');
    assert.equal(struck, refused, "and so is the limit that it came from");
    assert.ok(bench.residentMiB < residentMaxMiB, `${bench.residentMiB} MiB`);
    assert.ok((await bench.changeReaches(good)) < undisturbedMs);
  });
});

describe("the control plane in a storm of changes", () => {
  const cluster = new ClusterBench();
  const clients: AdsClient[] = [];
  let connection: FaultyConnection;
  after(async () => {
    for (const client of clients) client.close();
    await cluster.stopControlPlanes();
    connection?.close();
    await cluster.close();
  });

  test(`${stormTotal} changes in a second: few batches, the last state is with everyone soon, and a proxy that connects meanwhile is served`, async (t) => {
    await cluster.start();
    await cluster.makePod("sleep-1", "sleep");
    connection = new FaultyConnection(accessFromKubeconfig(cluster.kubeconfig));
    const kubeconfig = join(cluster.directory, "storm.kubeconfig");
    writeFileSync(kubeconfig, await connection.listen());
    const controlPlane = cluster.controlPlane(kubeconfig);
    await controlPlane.start();
    const connect = (): AdsClient => {
      const client = new AdsClient({ port: controlPlane.ports.plaintext ?? 0, pod: "sleep-1.default" });
      clients.push(client);
      return client;
    };
    connect();
    connect();
    const services = "/api/v1/services";
    /** Each change moves a port: the cluster's name tells which of them a proxy has. */
    const stormed = (at: number, round: number): object => ({
      metadata: {
        name: `s${at}`,
        namespace: "default",
        uid: `u${at}`,
        resourceVersion: String(1_000_000 + round * stormObjects + at),
      },
      spec: { selector: { app: "s" }, ports: [{ name: "http", port: 1_000 + round, targetPort: 8080 }] },
    });
    const names = Array.from({ length: stormObjects }, (_, at) => at);
    const rounds = stormTotal / stormObjects;
    connection.inject(
      services,
      names.map((at) => stormed(at, 0)),
    );
    const has = (client: AdsClient, round: number): boolean =>
      names.every((at) =>
        client.held.cluster.has(`outbound|${1_000 + round}||s${at}.default.svc.cluster.local`),
      );
    await until("all objects are known", () => clients.every((client) => has(client, 0)));
    const [pushesBefore, eventsBefore] = [
      await metricOf(controlPlane, "pilot_xds_push_time_count"),
      await metricOf(controlPlane, "pilot_k8s_reg_events"),
    ];
    const fromMs = performance.now();
    for (let round = 1; round <= rounds; round++) {
      connection.inject(
        services,
        names.map((at) => stormed(at, round)),
      );
      if (round === rounds / 2) connect();
      await pause(1_000 / rounds);
    }
    const injectedMs = performance.now() - fromMs;
    await until(
      "the last state is everywhere",
      () => clients.every((client) => has(client, rounds)),
      120_000,
    );
    const tookMs = performance.now() - fromMs;
    const batches = (await metricOf(controlPlane, "pilot_xds_push_time_count")) - pushesBefore;
    const events = (await metricOf(controlPlane, "pilot_k8s_reg_events")) - eventsBefore;
    t.diagnostic(
      `${events} changes in ${Math.round(injectedMs)} ms, ${batches} batches, all with everyone after ${Math.round(tookMs)} ms`,
    );
    assert.ok(events >= stormTotal, `${events} changes came`);
    const isClean = (client: AdsClient): boolean => client.held.cluster.size < stormObjects * 1.5;
    await until("and nothing of what was before", () => clients.every(isClean), 60_000);
    // A batch at a time, and after each a pause as long.
    assert.ok(batches < stormTotal / 50, `${batches} batches`);
  });
});
