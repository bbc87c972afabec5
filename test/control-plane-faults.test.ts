// The control plane behind a connection to the API server that fails in every way: it recovers, says so once, and no proxy loses
// anything. And a clock that jumps. No root needed.

import assert from "node:assert/strict";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import http from "node:http";
import https from "node:https";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { after, before, describe, test } from "node:test";
import { fileURLToPath } from "node:url";
import { parseAllDocuments, stringify } from "yaml";
import { silentLog, type Clock, type Logger } from "#base";
import { startApiServer, type ApiObject, type ApiServer, type NewObject } from "#cluster";
import { accessFromKubeconfig, type KubeAccess } from "#kube";
import { ControlPlane } from "../src/apps/control/control-plane.ts";
import { parseSettings } from "../src/apps/control/settings.ts";
import { AdsClient } from "./support/ads-client.ts";

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const recoveryMs = 15_000;

/** What the connection does to each request. */
type Fault =
  | { readonly kind: "none" }
  | { readonly kind: "slow"; readonly ms: number }
  | { readonly kind: "status"; readonly status: number; readonly watchesOnly?: boolean }
  | { readonly kind: "refused" };

/** Stands between the control plane and the API server. */
class FaultyConnection {
  readonly #server: http.Server;
  readonly #access: KubeAccess;
  readonly #watches = new Set<http.ServerResponse>();
  fault: Fault = { kind: "none" };

  constructor(access: KubeAccess) {
    this.#access = access;
    this.#server = http.createServer((request, response) => this.#serve(request, response));
  }

  async listen(): Promise<string> {
    await new Promise<void>((listening) => this.#server.listen(0, "127.0.0.1", listening));
    return `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
  }

  close(): void {
    this.#server.close();
    this.#server.closeAllConnections();
  }

  /** Breaks every watch off in the middle. */
  cutWatches(): void {
    for (const response of this.#watches) response.socket?.destroy();
    this.#watches.clear();
  }

  #serve(request: http.IncomingMessage, response: http.ServerResponse): void {
    const { fault } = this;
    const isWatch = (request.url ?? "").includes("watch=true");
    if (fault.kind === "refused") request.socket.destroy();
    else if (fault.kind === "status" && (isWatch || fault.watchesOnly !== true))
      response
        .writeHead(fault.status)
        .end(JSON.stringify({ reason: "Scripted", message: "as the test wants" }));
    else if (fault.kind === "slow") setTimeout(() => this.#forward(request, response, isWatch), fault.ms);
    else this.#forward(request, response, isWatch);
  }

  #forward(request: http.IncomingMessage, response: http.ServerResponse, isWatch: boolean): void {
    const { server, ca, clientCertificate, clientKey } = this.#access;
    const options = { method: request.method, ca, cert: clientCertificate, key: clientKey };
    const headers = { accept: "application/json", "content-type": request.headers["content-type"] };
    const sent = https.request(
      new URL(request.url ?? "/", server),
      { ...options, headers: headers["content-type"] === undefined ? { accept: headers.accept } : headers },
      (answer) => {
        response.writeHead(answer.statusCode ?? 500, answer.headers);
        // A watch may be silent for long after its head.
        response.flushHeaders();
        answer.pipe(response);
        answer.on("error", () => response.destroy());
      },
    );
    sent.on("error", () => response.destroy());
    if (isWatch) this.#watches.add(response);
    response.on("close", () => {
      this.#watches.delete(response);
      sent.destroy();
    });
    request.pipe(sent);
  }
}

/** Real time, and a wall clock that a test may set. */
class TestClock implements Clock {
  offsetMs = 0;
  readonly nowMs = (): number => Date.now() + this.offsetMs;
  readonly monotonicMs = (): number => performance.now();
  readonly after = (delayMs: number, callback: () => void): (() => void) => {
    const timer = setTimeout(callback, delayMs).unref();
    return () => clearTimeout(timer);
  };
}

const service = (name: string): NewObject => ({
  apiVersion: "v1",
  kind: "Service",
  metadata: { name, namespace: "default" },
  spec: { selector: { app: name }, ports: [{ name: "http", port: 80, targetPort: 8080 }] },
});
const pod: NewObject = {
  apiVersion: "v1",
  kind: "Pod",
  metadata: { name: "sleep-1", namespace: "default", labels: { app: "sleep" } },
  spec: { automountServiceAccountToken: false, containers: [{ name: "app", image: "sleep" }] },
};

class Bench {
  readonly directory = mkdtempSync(join(tmpdir(), "mizzen-faults-"));
  readonly clock = new TestClock();
  readonly lines: string[] = [];
  api!: ApiServer;
  connection!: FaultyConnection;
  controlPlane!: ControlPlane;
  proxy!: AdsClient;
  #made = 0;

  async start(): Promise<void> {
    this.api = await startApiServer({
      dataDir: join(this.directory, "data"),
      listen: [{ host: "127.0.0.1", port: 0 }],
      clock: this.clock,
      log: silentLog,
      controllers: false,
    });
    await this.#install();
    const direct = join(this.directory, "direct");
    writeFileSync(direct, this.api.adminKubeconfig(this.api.urls[0] ?? ""));
    this.connection = new FaultyConnection(accessFromKubeconfig(direct));
    const kubeconfig = join(this.directory, "kubeconfig");
    writeFileSync(kubeconfig, kubeconfigFor(await this.connection.listen()));
    const note = (_fields: object, message: string): number => this.lines.push(message);
    const log: Logger = { ...silentLog, warn: note, info: note, error: note };
    const flags = ["--kubeconfig", kubeconfig, "--host", "127.0.0.1", "--drain-ms", "0"];
    const ports = ["--monitoring-port", "0", "--webhook-port", "0", "--xds-port", "0"];
    this.controlPlane = new ControlPlane({
      settings: parseSettings([...flags, ...ports, "--plaintext", "127.0.0.1:0"], { POD_NAME: "istiod-1" }),
      version: "test",
      clock: this.clock,
      random: () => 0.5,
      log,
    });
    await this.controlPlane.start();
    this.proxy = new AdsClient({ port: this.controlPlane.ports.plaintext ?? 0, pod: "sleep-1.default" });
    await this.#arrives(await this.make());
  }

  async #install(): Promise<void> {
    for (const name of ["istio-d", "default"]) {
      if (this.api.store.get("namespaces", "", name) === undefined)
        await this.api.store.create("namespaces", {
          apiVersion: "v1",
          kind: "Namespace",
          metadata: { name },
        });
    }
    const crds = readFileSync(join(root, "deploy/crds/istio.yaml"), "utf8");
    for (const document of parseAllDocuments(crds)) {
      const crd = document.toJS() as NewObject | null;
      if (crd !== null) await this.api.store.create("customresourcedefinitions.apiextensions.k8s.io", crd);
    }
    const account = {
      apiVersion: "v1",
      kind: "ServiceAccount",
      metadata: { name: "default", namespace: "default" },
    };
    await this.api.store.create("serviceaccounts", account);
    const created = await this.api.store.create("pods", pod);
    const status = { phase: "Running", podIP: "127.0.0.1", podIPs: [{ ip: "127.0.0.1" }] };
    await this.api.store.updateStatus("pods", { ...created, status } as ApiObject);
  }

  /** Makes another Service, past the faulty connection; gives its cluster's name. */
  async make(): Promise<string> {
    const name = `svc${++this.#made}`;
    await this.api.store.create("services", service(name));
    return `outbound|80||${name}.default.svc.cluster.local`;
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
    const untilMs = performance.now() + recoveryMs;
    while (!holds()) {
      assert.ok(performance.now() < untilMs, `${claim}; said: ${this.lines.slice(-5).join("; ")}`);
      await pause(20);
    }
  }

  async close(): Promise<void> {
    this.proxy?.close();
    await this.controlPlane?.stop();
    this.connection?.close();
    await this.api?.close();
    rmSync(this.directory, { recursive: true, force: true });
  }
}

function kubeconfigFor(server: string): string {
  return stringify({
    apiVersion: "v1",
    kind: "Config",
    "current-context": "test",
    clusters: [{ name: "test", cluster: { server } }],
    users: [{ name: "test", user: {} }],
    contexts: [{ name: "test", context: { cluster: "test", user: "test" } }],
  });
}

function pause(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
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

  test("watches are cut again and again: changes arrive between the cuts, and nothing is said", async () => {
    bench.lines.length = 0;
    for (let round = 0; round < 4; round++) {
      bench.connection.cutWatches();
      await bench.recovers();
      await pause(500);
    }
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
      bench.clock.offsetMs += jumpMs;
      await bench.recovers();
    }
    bench.clock.offsetMs = 0;
  });
});
