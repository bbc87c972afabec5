// The control plane under more than it was made for: a thousand proxies at once, proxies that never answer or never read, and a
// huge object. It stays responsive to everyone else, and its memory bounded. No root needed.

import assert from "node:assert/strict";
import { spawn, type ChildProcess } from "node:child_process";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createServer, type AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { after, before, describe, test } from "node:test";
import { fileURLToPath } from "node:url";
import { AdsClient } from "./support/ads-client.ts";

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const proxiesTotal = 1_000;
const servicesTotal = 200;
const hugeEndpoints = 5_000;
/** Room for one process of Node with a small mesh, a thousand streams and what a storm leaves behind. */
const residentMaxMiB = 600;
/** How long a change may take to reach a well-behaved proxy while others misbehave. */
const undisturbedMs = 3_000;

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
    [this.port, this.monitoring] = [await freePort(), await freePort()];
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

  connect(options: { neverAcknowledges?: boolean; neverReads?: boolean } = {}): AdsClient {
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

  async metric(name: string): Promise<number> {
    const text = await (await fetch(`http://127.0.0.1:${this.monitoring}/metrics`)).text();
    return text
      .split("\n")
      .filter((line) => line.startsWith(`${name}{`) || line.startsWith(`${name} `))
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

async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((listening) => server.listen(0, "127.0.0.1", listening));
  const { port } = server.address() as AddressInfo;
  await new Promise((closed) => server.close(closed));
  return port;
}

function pause(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
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

  test("proxies that never acknowledge or never read do not keep a change from the others", async (t) => {
    for (let at = 0; at < 10; at++)
      bench.connect(at % 2 === 0 ? { neverAcknowledges: true } : { neverReads: true });
    await bench.until("all are connected", async () => (await bench.metric("pilot_xds")) >= 11);
    const tookMs = await bench.changeReaches(good);
    t.diagnostic(`${Math.round(tookMs)} ms, ${bench.residentMiB} MiB`);
    assert.ok(tookMs < undisturbedMs, `${tookMs} ms`);
  });

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
    await bench.until("all have all clusters", () => {
      waiting = waiting.flatMap((client) => {
        if (client.held.cluster.size >= servicesTotal) return [];
        if (!client.closed) return [client];
        // As Envoy does: it comes again.
        lost.add(client);
        return [bench.connect()];
      });
      return waiting.length === 0;
    });
    const tookMs = performance.now() - fromMs;
    const refused = await bench.metric("pilot_xds_refused");
    t.diagnostic(
      `asked for in ${Math.round(connectedMs)} ms, all served after ${Math.round(tookMs)} ms, ${refused} refused and come again, ${bench.residentMiB} MiB`,
    );
    assert.ok(refused >= lost.size, "each refusal is counted");
    assert.ok(bench.residentMiB < residentMaxMiB, `${bench.residentMiB} MiB`);
    assert.ok((await bench.changeReaches(good)) < undisturbedMs);
  });
});
