// A control plane fed from files and a real Envoy without capture on loopback: what a client sees while the
// configuration changes. No root needed.

import { spawn, type ChildProcess } from "node:child_process";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import http from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { silentLog } from "#base";
import { ControlPlane } from "../../src/apps/control/control-plane.ts";
import { parseSettings } from "../../src/apps/control/settings.ts";
import { discoveringBootstrap } from "./discovering-envoy.ts";
import { envoyPath } from "./envoy.ts";
import { freePorts } from "./free-ports.ts";
import { pause, RealClock } from "./real-clock.ts";

const clock = new RealClock();

export { pause };

export interface Answer {
  /** 0 when nobody listens or the connection broke. */
  readonly status: number;
  /** The header `x-route` that routes of the test set. */
  readonly route: string;
}

export class DiscoveryBench {
  readonly directory = mkdtempSync(join(tmpdir(), "mizzen-discovery-"));
  readonly #objects = join(this.directory, "objects");
  readonly #environment: Readonly<Record<string, string>>;
  readonly #api: "DELTA_GRPC" | "GRPC";
  #adminPort = 0;
  #xdsPort = 0;
  #controlPlane: ControlPlane | undefined;
  #envoy: ChildProcess | undefined;
  #backend: http.Server | undefined;
  backendPort = 0;

  constructor(environment: Readonly<Record<string, string>> = {}, api: "DELTA_GRPC" | "GRPC" = "DELTA_GRPC") {
    this.#api = api;
    this.#environment = environment;
    mkdirSync(this.#objects);
  }

  /** @param objects the world, once the backend's port is known */
  async start(objects: (backendPort: number) => string): Promise<void> {
    [this.#adminPort = 0, this.#xdsPort = 0, this.backendPort = 0] = await freePorts(3);
    const backend = http.createServer((_request, response) => response.end("ok"));
    // A connection that it closes just as Envoy takes it again would be a 503 of ours.
    backend.keepAliveTimeout = 3_600_000;
    this.#backend = backend;
    await new Promise<void>((resolve) => backend.listen(this.backendPort, "127.0.0.1", resolve));
    this.write("world.yaml", objects(this.backendPort));
    await this.startControlPlane();
    this.startEnvoy();
  }

  write(file: string, text: string): void {
    writeFileSync(join(this.#objects, file), text);
  }

  async startControlPlane(): Promise<void> {
    const settings = parseSettings(
      [
        ...[
          "--config-dir",
          this.#objects,
          "--host",
          "127.0.0.1",
          "--plaintext",
          `127.0.0.1:${this.#xdsPort}`,
        ],
        ...["--monitoring-port", "0", "--webhook-port", "0", "--xds-port", "0", "--drain-ms", "0"],
      ],
      this.#environment,
    );
    this.#controlPlane = new ControlPlane({
      settings,
      version: "test",
      clock,
      random: () => 0.5,
      log: silentLog,
    });
    await this.#controlPlane.start();
  }

  async stopControlPlane(): Promise<void> {
    await this.#controlPlane?.stop();
    this.#controlPlane = undefined;
  }

  startEnvoy(): void {
    const file = join(this.directory, "bootstrap.json");
    writeFileSync(
      file,
      JSON.stringify(discoveringBootstrap(this.#xdsPort, this.#adminPort, "sleep-1.default", this.#api)),
    );
    const flags = ["--disable-hot-restart", "--concurrency", "1", "--log-level", "off"];
    this.#envoy = spawn(envoyPath, ["-c", file, ...flags], { stdio: "ignore" });
  }

  get envoyPid(): number {
    return this.#envoy?.pid ?? 0;
  }

  async stopEnvoy(): Promise<void> {
    const envoy = this.#envoy;
    if (envoy === undefined || envoy.exitCode !== null) return;
    const gone = new Promise((resolve) => envoy.once("exit", resolve));
    envoy.kill("SIGKILL");
    await gone;
  }

  async close(): Promise<void> {
    await this.stopEnvoy();
    await this.stopControlPlane();
    this.#backend?.closeAllConnections();
    this.#backend?.close();
    rmSync(this.directory, { recursive: true, force: true });
  }

  /** One request to the sidecar's listener of a port. */
  ask(port: number, host: string, timeoutMs = 5_000): Promise<Answer> {
    return new Promise((resolve) => {
      const options = { host: "127.0.0.1", port, headers: { host }, agent: false, timeout: timeoutMs };
      const request = http.get(options, (response) => {
        response.resume();
        response.on("end", () =>
          resolve({ status: response.statusCode ?? 0, route: String(response.headers["x-route"] ?? "") }),
        );
      });
      request.on("timeout", () => request.destroy());
      request.on("error", () => resolve({ status: 0, route: "" }));
    });
  }

  /** Asks until somebody listens: the very first answer. */
  async firstAnswer(port: number, host: string): Promise<Answer> {
    const untilMs = performance.now() + 20_000;
    for (;;) {
      const answer = await this.ask(port, host);
      if (answer.status !== 0 || performance.now() > untilMs) return answer;
      await pause(2);
    }
  }

  /** Asks until the answer comes by this route; returns the milliseconds that it took, and throws when it never does. */
  async untilRoute(port: number, host: string, route: string): Promise<number> {
    const startedMs = performance.now();
    let answer: Answer = { status: 0, route: "" };
    while (performance.now() - startedMs < 20_000) {
      answer = await this.ask(port, host);
      if (answer.route === route) return performance.now() - startedMs;
      await pause(2);
    }
    throw new Error(`${host} at ${port} is never served by route '${route}', but ${JSON.stringify(answer)}`);
  }

  debug<T>(path: string): Promise<T> {
    const url = `http://127.0.0.1:${this.#controlPlane?.ports.monitoring}${path}`;
    return fetch(url).then((answer) => answer.json() as Promise<T>);
  }

  /** Sums a metric of the control plane over the label sets whose text holds `labels`. */
  async metric(name: string, labels = ""): Promise<number> {
    const url = `http://127.0.0.1:${this.#controlPlane?.ports.monitoring}/metrics`;
    const text = await (await fetch(url)).text();
    return text
      .split("\n")
      .filter((line) => (line.startsWith(`${name}{`) || line.startsWith(`${name} `)) && line.includes(labels))
      .reduce((sum, line) => sum + Number(line.slice(line.lastIndexOf(" "))), 0);
  }

  /** A page of Envoy's admin interface. */
  async envoyAdmin(path: string): Promise<string> {
    return (await fetch(`http://127.0.0.1:${this.#adminPort}${path}`)).text();
  }

  /** One counter or gauge of Envoy. */
  async envoyStat(name: string): Promise<number> {
    const answer = await fetch(`http://127.0.0.1:${this.#adminPort}/stats?filter=^${name}$`);
    return Number((await answer.text()).split(": ")[1] ?? 0);
  }

  /** Bytes that the control plane has sent to Envoy. */
  receivedBytes(): Promise<number> {
    return this.envoyStat("cluster.xds-grpc.upstream_cx_rx_bytes_total");
  }
}
