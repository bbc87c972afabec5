// The control plane behind a connection to the API server that fails in every way: it recovers, says so once, and no proxy loses
// anything. And a clock that jumps. No root needed.

import assert from "node:assert/strict";
import { execFileSync, spawn, type ChildProcess } from "node:child_process";
import { rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { silentLog, type Logger } from "#base";
import type { NewObject } from "#cluster";
import { accessFromKubeconfig, KubeClient } from "#kube";
import type { ControlPlane } from "../src/apps/control/control-plane.ts";
import { AdsClient } from "./support/ads-client.ts";
import { ClusterBench, metricOf } from "./support/cluster-bench.ts";
import { FaultyConnection } from "./support/faulty-connection.ts";
import { pause, until } from "./support/real-clock.ts";

const recoveryMs = 15_000;

const service = (name: string): NewObject => ({
  apiVersion: "v1",
  kind: "Service",
  metadata: { name, namespace: "default" },
  spec: { selector: { app: name }, ports: [{ name: "http", port: 80, targetPort: 8080 }] },
});

const clusterOf = (name: string): string => `outbound|80||${name}.default.svc.cluster.local`;

class Bench {
  readonly cluster = new ClusterBench();
  readonly lines: string[] = [];
  connection!: FaultyConnection;
  controlPlane!: ControlPlane;
  proxy!: AdsClient;
  kubeconfig = "";
  #made = 0;

  async start(): Promise<void> {
    await this.cluster.start();
    await this.cluster.makePod("sleep-1", "sleep");
    this.connection = new FaultyConnection(accessFromKubeconfig(this.cluster.kubeconfig));
    this.kubeconfig = join(this.cluster.directory, "faulty.kubeconfig");
    writeFileSync(this.kubeconfig, await this.connection.listen());
    const note = (_fields: object, message: string): number => this.lines.push(message);
    const log: Logger = { ...silentLog, warn: note, info: note, error: note };
    this.controlPlane = this.cluster.controlPlane(this.kubeconfig, { log });
    await this.controlPlane.start();
    await this.until("it leads, of which it says so", () => this.lines.includes("leading"));
    this.proxy = new AdsClient({ port: this.controlPlane.ports.plaintext ?? 0, pod: "sleep-1.default" });
    await this.#arrives(await this.make());
  }

  /** Makes another Service, past the faulty connection; gives its cluster's name. */
  async make(): Promise<string> {
    const name = `svc${++this.#made}`;
    await this.cluster.api.store.create("services", service(name));
    return clusterOf(name);
  }

  /** A change made now arrives, and the proxy has lost nothing on the way. */
  async recovers(): Promise<void> {
    await this.#arrives(await this.make());
    assert.deepEqual(this.proxy.removed, []);
    assert.equal(this.proxy.closed, false, "its stream never broke");
  }

  async #arrives(cluster: string): Promise<void> {
    await this.until(`${cluster} arrives`, () => this.proxy.held.cluster.has(cluster));
  }

  async until(claim: string, holds: () => boolean): Promise<void> {
    await until(claim, holds, recoveryMs).catch((error: unknown) => {
      throw new Error(`said: ${this.lines.slice(-5).join("; ")}`, { cause: error });
    });
  }

  async close(): Promise<void> {
    this.proxy?.close();
    await this.cluster.stopControlPlanes();
    this.connection?.close();
    await this.cluster.close();
  }
}

const failing = "the API server fails; trying again, what is known stays and is served";
const well = "the API server answers again";

describe("the control plane when the API server is not well", () => {
  const bench = new Bench();
  before(() => bench.start());
  after(() => bench.close());

  for (const [claim, fault] of [
    ["is away", { kind: "refused" }],
    ["answers 500", { kind: "status", status: 500 }],
    ["answers 429", { kind: "status", status: 429 }],
  ] as const) {
    test(`the API server ${claim}: it is said once, and once that it is over`, async () => {
      bench.lines.length = 0;
      bench.connection.fault = fault;
      bench.connection.cutWatches();
      const missed = await bench.make();
      await pause(1_500);
      bench.connection.fault = { kind: "none" };
      await bench.until("what was missed arrives", () => bench.proxy.held.cluster.has(missed));
      await bench.until("all kinds are followed again", () => bench.lines.includes(well));
      await bench.recovers();
      assert.deepEqual(
        bench.lines.filter((line) => line === failing || line === well),
        [failing, well],
      );
    });
  }

  test("the API server answers 410: everything is listed anew, nothing is said and nothing lost", async () => {
    bench.lines.length = 0;
    bench.connection.fault = { kind: "status", status: 410, watchesOnly: true };
    bench.connection.cutWatches();
    await pause(800);
    bench.connection.fault = { kind: "none" };
    await bench.recovers();
    assert.deepEqual(bench.lines, []);
  });

  test("every watch is cut every second: changes arrive all the same, and nothing is said", async () => {
    bench.lines.length = 0;
    const cutting = setInterval(() => bench.connection.cutWatches(), 1_000);
    const fromMs = performance.now();
    while (performance.now() - fromMs < 6_000) {
      await bench.recovers();
      await pause(150);
    }
    clearInterval(cutting);
    assert.deepEqual(bench.lines, []);
  });

  test("the API server takes 5 s for each answer: changes arrive late, but arrive", async () => {
    bench.lines.length = 0;
    bench.connection.fault = { kind: "slow", ms: 5_000 };
    bench.connection.cutWatches();
    await bench.recovers();
    bench.connection.fault = { kind: "none" };
    assert.deepEqual(bench.lines, []);
  });

  test("the wall clock jumps a day ahead and two back: changes arrive as ever", async () => {
    for (const jumpMs of [86_400_000, -2 * 86_400_000]) {
      bench.cluster.clock.offsetMs += jumpMs;
      await bench.recovers();
    }
    bench.cluster.clock.offsetMs = 0;
  });

  test("a replica that comes up takes no proxy and is not ready before it knows every object", async () => {
    bench.connection.heldBack = "/api/v1/services";
    const late = bench.cluster.controlPlane(bench.kubeconfig, { pod: "istiod-2" });
    const started = late.start();
    await until("its monitoring answers", async () => (await readiness(late)) !== undefined);
    // All the other kinds are in long since.
    await pause(1_000);
    assert.equal(await readiness(late), 503);
    assert.equal(late.ports.plaintext, undefined, "nobody can connect");
    bench.connection.letGo();
    await until("it is ready", async () => (await readiness(late)) === 200);
    assert.equal(await metricOf(late, "pilot_pending_changes"), 0);
    await started;
    const proxy = new AdsClient({ port: late.ports.plaintext ?? 0, pod: "sleep-1.default" });
    await until("the first answer", () => proxy.responses > 0);
    assert.deepEqual(
      [...proxy.held.cluster.keys()].toSorted(),
      [...bench.proxy.held.cluster.keys()].toSorted(),
    );
    proxy.close();
  });
});

async function readiness({ ports }: ControlPlane): Promise<number | undefined> {
  if (ports.monitoring === 0) return undefined;
  return (await fetch(`http://127.0.0.1:${ports.monitoring}/ready`)).status;
}

/** The standalone API server in a process of its own, whose files may be forbidden to grow. */
class StoreProcess {
  readonly #directory: string;
  readonly lines: string[] = [];
  #process: ChildProcess | undefined;
  kubeconfig = "";

  constructor(directory: string) {
    this.#directory = directory;
  }

  async start(): Promise<void> {
    const own = (path: string): string => JSON.stringify(new URL(path, import.meta.url).href);
    const program = `
      import { ClusterBench } from ${own("./support/cluster-bench.ts")};
      const bench = new ClusterBench();
      const say = (message) => console.log(JSON.stringify(message));
      const note = (_fields, line) => say({ line });
      await bench.start({ debug() {}, info: note, warn: note, error: note, fatal: note });
      await bench.makePod("sleep-1", "sleep");
      say({ kubeconfig: bench.kubeconfig, directory: bench.directory });
      process.stdin.on("end", () => void bench.close().then(() => process.exit(0))).resume();`;
    // The signal for a file that may not grow is ignored, so that the write fails as on a full disk.
    const script = 'trap "" XFSZ; exec "$0" --input-type=module -e "$1"';
    const child = spawn("sh", ["-c", script, process.execPath, program], {
      cwd: this.#directory,
      stdio: ["pipe", "pipe", "inherit"],
    });
    this.#process = child;
    let rest = "";
    child.stdout.on("data", (chunk: Buffer) => {
      const parts = `${rest}${chunk.toString()}`.split("\n");
      rest = parts.pop() ?? "";
      for (const part of parts) this.#heard(JSON.parse(part) as { line?: string; kubeconfig?: string });
    });
    await until("the API server is up", () => this.kubeconfig !== "");
  }

  /** From now on no file of its may grow, or may again. */
  diskFull(full: boolean): void {
    const limit = full ? "4096:unlimited" : "unlimited:unlimited";
    execFileSync("prlimit", ["--pid", String(this.#process?.pid), `--fsize=${limit}`]);
  }

  async close(): Promise<void> {
    const child = this.#process;
    if (child === undefined) return;
    const gone = new Promise((resolve) => child.once("exit", resolve));
    child.stdin?.end();
    await gone;
  }

  #heard({ line, kubeconfig }: { readonly line?: string; readonly kubeconfig?: string }): void {
    if (line !== undefined) this.lines.push(line);
    if (kubeconfig !== undefined) this.kubeconfig = kubeconfig;
  }
}

describe("the control plane when the disk under the standalone API server is full", () => {
  const bench = new ClusterBench();
  const store = new StoreProcess(bench.directory);
  let client: KubeClient;
  let proxy: AdsClient;
  before(async () => {
    await store.start();
    client = new KubeClient(accessFromKubeconfig(store.kubeconfig));
    const controlPlane = bench.controlPlane(store.kubeconfig);
    await controlPlane.start();
    proxy = new AdsClient({ port: controlPlane.ports.plaintext ?? 0, pod: "sleep-1.default" });
  });
  after(async () => {
    proxy?.close();
    client?.close();
    await bench.close();
    await store.close();
    rmSync(bench.directory, { recursive: true, force: true });
  });

  const make = (name: string): Promise<unknown> =>
    client.request("/api/v1/namespaces/default/services", { method: "POST", body: service(name) });

  test("writes are refused, which is said once and once that it is over, and no proxy loses anything", async () => {
    await make("before");
    await until("it arrives", () => proxy.held.cluster.has(clusterOf("before")));
    store.lines.length = 0;
    store.diskFull(true);
    for (let at = 0; at < 5; at++) await assert.rejects(make(`refused${at}`), /could not be stored/);
    const known = await client.get<{ items: unknown[] }>("/api/v1/namespaces/default/services");
    assert.ok(known.items.length > 0, "what is there can be read");
    assert.equal(proxy.closed, false);
    store.diskFull(false);
    await make("after");
    await until("what is written afterwards arrives", () => proxy.held.cluster.has(clusterOf("after")));
    assert.ok(proxy.held.cluster.has(clusterOf("before")));
    assert.deepEqual(proxy.removed, []);
    assert.equal(proxy.closed, false, "its stream never broke");
    assert.deepEqual(
      store.lines.filter((line) => line.startsWith("objects can")),
      ["objects cannot be stored; what is there is served", "objects can be stored again"],
    );
  });
});
