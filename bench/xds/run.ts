// `bench xds`: the real control-plane process, fed through the Kubernetes API, and simulated sidecars; each in processes of
// their own. Scenarios as in the baseline. Prints times, the control plane's CPU, what it sent, and how many proxies it woke.

import { fork, spawn, type ChildProcess } from "node:child_process";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { deployedNodeFlags } from "../deployed.ts";
import type { Table } from "../table.ts";
import {
  sharedNowMs,
  type FromApi,
  type FromProxies,
  type ProxiesReport,
  type ToApi,
  type ToProxies,
} from "./messages.ts";
import {
  destinationRule,
  hostOf,
  policy,
  serviceObjects,
  servicePort,
  slice,
  unusedRoute,
  virtualService,
  worldObjects,
  type Made,
  type WorldSize,
} from "./world.ts";

export interface XdsOptions extends WorldSize {
  /** How often each single change is measured. */
  readonly rounds: number;
  readonly churnSeconds: number;
  readonly idleSeconds: number;
  /** The scenarios besides "connect", without which there is nothing to measure; all of them if undefined. */
  readonly only: ReadonlySet<string> | undefined;
  /** The folder that V8's CPU profile of each control-plane process goes to; undefined for none. */
  readonly profiles: string | undefined;
  readonly log: (line: string) => void;
}

interface Row {
  readonly scenario: string;
  readonly p50Ms: number;
  readonly p99Ms: number;
  readonly lastMs: number;
  readonly cpuSeconds: number;
  readonly responses: number;
  readonly resources: number;
  readonly bytes: number;
  readonly woken: number;
}

const root = join(import.meta.dirname, "../..");
/** No receipt for this long: a change has arrived everywhere. */
const quietMs = 400;
const changesPerSecond = 50;
const unusedChanges = 200;
/** So long with next to no work, and what the control plane writes after its start is written. */
const startWorkMs = 5_000;
/** So long without work is rest. */
const restMs = 800;
const restWaitMaxMs = 90_000;

export async function benchXds(options: XdsOptions): Promise<Table> {
  const bench = await Bench.start(options);
  try {
    const rows = await bench.all();
    const memory = `${bench.residentMiB()} MiB resident`;
    return {
      title: `xds: ${options.services} services x ${options.proxies} proxies (${memory}; generator ${(await bench.generatorCpuSeconds()).toFixed(1)} CPU s)`,
      columns: ["scenario", "p50 ms", "p99 ms", "last ms", "CPU s", "responses", "resources", "KiB", "woken"],
      rows: rows.map((row) => [
        row.scenario,
        row.p50Ms.toFixed(1),
        row.p99Ms.toFixed(1),
        row.lastMs.toFixed(1),
        row.cpuSeconds.toFixed(3),
        String(Math.round(row.responses)),
        String(Math.round(row.resources)),
        (row.bytes / 1024).toFixed(1),
        String(Math.round(row.woken)),
      ]),
    };
  } finally {
    await bench.stop();
  }
}

class Bench {
  readonly #options: XdsOptions;
  readonly #api: Peer<ToApi, FromApi>;
  readonly #proxies: Peer<ToProxies, FromProxies>;
  readonly #kubeconfig: string;
  #control: ChildProcess | undefined;
  #address = "";

  private constructor(options: XdsOptions, api: Peer<ToApi, FromApi>, kubeconfig: string) {
    this.#options = options;
    this.#api = api;
    this.#kubeconfig = kubeconfig;
    this.#proxies = new Peer(join(import.meta.dirname, "proxies-process.ts"), profileFlags(options));
  }

  static async start(options: XdsOptions): Promise<Bench> {
    const api = new Peer<ToApi, FromApi>(join(import.meta.dirname, "api-process.ts"));
    const ready = await api.next();
    if (ready.kind !== "ready") throw new Error("the API server did not start");
    const bench = new Bench(options, api, ready.kubeconfig);
    options.log(`loading ${options.services} services`);
    await bench.#tell({ kind: "load", objects: worldObjects(options) });
    return bench;
  }

  async all(): Promise<Row[]> {
    const { log, rounds, services, only } = this.#options;
    const rows: Row[] = [];
    const run = async (scenario: string, measure: () => Promise<Row>): Promise<void> => {
      if (scenario !== "connect" && only?.has(scenario) === false) return;
      log(scenario);
      rows.push(await measure());
    };
    this.#address = `127.0.0.1:${await this.#startControl()}`;
    await run("connect", () => this.#connect());
    await run("reconnect", () => this.#reconnect());
    // The leader writes the status of each object once after the start, some a second: that is no scenario's work.
    await this.#rest(startWorkMs, 0.06);
    const single = async (scenario: string, make: (round: number) => Made) =>
      run(scenario, () => this.#change(scenario, rounds, (round) => this.#put(make(round))));
    await single("route", (round) => virtualService(5, `${round + 2}s`));
    await run("unused route", () => this.#unusedRoutes());
    await single("endpoint", (round) => slice(7, round + 1));
    await single("policy", (round) => policy("ns3", `/b${round}`));
    await single("DestinationRule", (round) => destinationRule(10, 200 + round));
    await run("service added", () =>
      this.#change(
        "service added",
        rounds,
        async (round) => {
          const made = serviceObjects(services + 1 + round * 5);
          const atMs = await this.#putAll(made.filter((one) => !isPod(one)));
          // The cluster, its endpoints and the virtual host.
          await this.#until(({ responses }) => responses >= 3 * this.#options.proxies);
          return atMs;
        },
        // As in a rollout: the Pods run before a Service selects them.
        (round) => this.#putAll(serviceObjects(services + 1 + round * 5).filter(isPod)),
      ),
    );
    await run("service removed", () =>
      this.#change("service removed", rounds, (round) => this.#removeService(services + 1 + round * 5)),
    );
    await run("churn", () => this.#churn());
    await run("idle", () => this.#idle());
    return rows;
  }

  async generatorCpuSeconds(): Promise<number> {
    return (await this.#report()).cpuSeconds;
  }

  residentMiB(): number {
    const status = readFileSync(`/proc/${this.#control?.pid}/status`, "utf8");
    return Math.round(Number(/VmRSS:\s+(\d+)/.exec(status)?.[1] ?? 0) / 1024);
  }

  async stop(): Promise<void> {
    await this.#endControl();
    this.#proxies.end();
    this.#api.end();
  }

  /** Starts the control plane and waits until it listens; gives the port. */
  async #startControl(port = 0): Promise<number> {
    const wanted = port === 0 ? 20_000 + (process.pid % 10_000) : port;
    const args = [
      "discovery",
      "--kubeconfig",
      this.#kubeconfig,
      "--plaintext",
      `127.0.0.1:${wanted}`,
      "--host",
      "127.0.0.1",
    ];
    const zero = ["--xds-port", "0", "--monitoring-port", "0", "--webhook-port", "0", "--log-level", "error"];
    const flags = [...deployedNodeFlags(), ...profileFlags(this.#options)];
    const control = spawn(process.execPath, [...flags, join(root, "dist/control.mjs"), ...args, ...zero], {
      stdio: ["ignore", "inherit", "inherit"],
    });
    this.#control = control;
    for (let waited = 0; waited < 60_000; waited += 50) {
      if (await listens(wanted)) return wanted;
      if (control.exitCode !== null) break;
      await pause(50);
    }
    throw new Error("the control plane did not start");
  }

  /** As a crash would; only one that is profiled is asked to, since it writes its profile last. */
  async #endControl(): Promise<void> {
    const control = this.#control;
    if (control === undefined || control.exitCode !== null) return;
    const ended = new Promise((resolve) => control.once("exit", resolve));
    control.kill(this.#options.profiles === undefined ? "SIGKILL" : "SIGTERM");
    await ended;
  }

  async #connect(): Promise<Row> {
    const { proxies } = this.#options;
    const size = { services: this.#options.services, proxies };
    const cpu = this.#cpuSeconds();
    const fromMs = sharedNowMs();
    await this.#ask({ kind: "connect", address: this.#address, size, first: 0, count: proxies });
    await this.#until((now) => now.complete === proxies);
    await this.#rest();
    const report = await this.#report(true);
    const row = this.#rowOf("connect", report, fromMs, cpu);
    return { ...row, p50Ms: 0, p99Ms: 0, lastMs: report.completedAtMs - fromMs };
  }

  async #reconnect(): Promise<Row> {
    await this.#ask({ kind: "mark" });
    await this.#endControl();
    const fromMs = sharedNowMs();
    await this.#startControl(Number(this.#address.split(":")[1]));
    const report = await this.#until(
      (now) => now.connected === this.#options.proxies && now.lastConnectAtMs > fromMs,
    );
    // Where nothing is sent, only the control plane's rest says that it has compared everything.
    const settledAtMs = Math.max(await this.#rest(), report.lastConnectAtMs);
    const row = this.#rowOf("reconnect", await this.#report(true), fromMs, 0);
    return { ...row, p50Ms: 0, p99Ms: 0, lastMs: settledAtMs - fromMs };
  }

  /** @param prepare what is not measured of each round */
  async #change(
    scenario: string,
    rounds: number,
    change: (round: number) => Promise<number>,
    prepare?: (round: number) => Promise<unknown>,
  ): Promise<Row> {
    const rows: Row[] = [];
    for (let round = 0; round < rounds; round++) {
      if (prepare !== undefined) {
        await prepare(round);
        await this.#quiet();
      }
      await this.#ask({ kind: "mark" });
      const cpu = this.#cpuSeconds();
      const atMs = await change(round);
      rows.push(this.#rowOf(scenario, await this.#quiet(), atMs, cpu));
    }
    return medianRow(scenario, rows);
  }

  /** The slope: what a change costs that concerns no proxy. Many in a row, since one is too cheap to be measured. */
  async #unusedRoutes(): Promise<Row> {
    await this.#ask({ kind: "mark" });
    const cpu = this.#cpuSeconds();
    const from = sharedNowMs();
    for (let at = 0; at < unusedChanges; at++) {
      await this.#put(unusedRoute(`${at + 1}s`));
      await pause(1000 / changesPerSecond);
    }
    const row = this.#rowOf("unused route", await this.#quiet(), from, cpu);
    return { ...row, cpuSeconds: row.cpuSeconds / unusedChanges };
  }

  async #churn(): Promise<Row> {
    const { churnSeconds, services } = this.#options;
    await this.#ask({ kind: "mark" });
    const cpu = this.#cpuSeconds();
    const sentAtMs = new Map<string, number>();
    const from = sharedNowMs();
    const changes = Math.min(churnSeconds * changesPerSecond, services);
    for (let at = 0; at < changes; at++) {
      const dueMs = from + (at * 1000) / changesPerSecond;
      await pause(Math.max(0, dueMs - sharedNowMs()));
      sentAtMs.set(`outbound|${servicePort}||${hostOf(at)}`, await this.#put(slice(at, 100)));
    }
    const report = await this.#quiet();
    const latencies = report.receipts
      .filter(({ type }) => type === "endpoint")
      .flatMap(({ names, atMs }) =>
        names.flatMap((name) => (sentAtMs.has(name) ? [atMs - (sentAtMs.get(name) ?? 0)] : [])),
      )
      .toSorted((a, b) => a - b);
    const row = this.#rowOf("churn", report, from, cpu);
    return {
      ...row,
      p50Ms: quantile(latencies, 0.5),
      p99Ms: quantile(latencies, 0.99),
      lastMs: latencies.at(-1) ?? 0,
    };
  }

  async #idle(): Promise<Row> {
    await this.#ask({ kind: "mark" });
    const cpu = this.#cpuSeconds();
    const from = sharedNowMs();
    await pause(this.#options.idleSeconds * 1000);
    return this.#rowOf("idle", await this.#report(true), from, cpu);
  }

  #rowOf(scenario: string, report: ProxiesReport, fromMs: number, cpuBefore: number): Row {
    const lastOf = new Map<number, number>();
    for (const { proxy, atMs } of report.receipts) lastOf.set(proxy, atMs - fromMs);
    const times = [...lastOf.values()].toSorted((a, b) => a - b);
    return {
      scenario,
      p50Ms: quantile(times, 0.5),
      p99Ms: quantile(times, 0.99),
      lastMs: times.at(-1) ?? 0,
      cpuSeconds: this.#cpuSeconds() - cpuBefore,
      responses: report.responses,
      resources: report.resources,
      bytes: report.bytes,
      woken: lastOf.size,
    };
  }

  /** Waits until the control plane does next to nothing any more; gives the time at which it began to rest. */
  async #rest(forMs = restMs, share = 0.25): Promise<number> {
    const startedMs = sharedNowMs();
    let restsSinceMs = startedMs;
    let before = this.#cpuSeconds();
    while (sharedNowMs() - restsSinceMs < forMs && sharedNowMs() - startedMs < restWaitMaxMs) {
      await pause(restMs / 4);
      const now = this.#cpuSeconds();
      // Its clocks tick even at rest: a quarter of one processor is work, where nothing else is said.
      if (now - before > (restMs / 4 / 1000) * share) restsSinceMs = sharedNowMs();
      before = now;
    }
    return restsSinceMs;
  }

  async #quiet(): Promise<ProxiesReport> {
    const from = sharedNowMs();
    for (;;) {
      await pause(100);
      const last = (await this.#report()).lastReceiptAtMs ?? from;
      const now = sharedNowMs();
      if (now - last > quietMs && now - from > quietMs) break;
    }
    await this.#rest(restMs / 2);
    return this.#report(true);
  }

  async #until(holds: (report: ProxiesReport) => boolean): Promise<ProxiesReport> {
    for (let tries = 0; tries < 2_400; tries++) {
      const report = await this.#report();
      if (holds(report)) return report;
      await pause(50);
    }
    throw new Error("the proxies did not get there in two minutes");
  }

  async #report(withReceipts = false): Promise<ProxiesReport> {
    const report = await this.#ask({ kind: "report", withReceipts });
    if (report.kind !== "report") throw new Error(`${report.kind} instead of a report`);
    return report;
  }

  #ask(message: ToProxies): Promise<FromProxies> {
    this.#proxies.send(message);
    return this.#proxies.next();
  }

  async #tell(message: ToApi): Promise<number> {
    this.#api.send(message);
    const done = await this.#api.next();
    return done.kind === "done" ? done.atMs : 0;
  }

  #put(made: Made): Promise<number> {
    return this.#tell({ kind: "put", made });
  }

  #putAll(objects: readonly Made[]): Promise<number> {
    return this.#tell({ kind: "putAll", objects });
  }

  async #removeService(at: number): Promise<number> {
    let atMs = 0;
    for (const made of serviceObjects(at)) atMs ||= await this.#tell({ kind: "remove", made });
    return atMs;
  }

  /** User and system time of the control plane, in seconds. */
  #cpuSeconds(): number {
    const fields = readFileSync(`/proc/${this.#control?.pid}/stat`, "utf8").split(") ")[1]?.split(" ") ?? [];
    const ticksPerSecond = 100;
    return (Number(fields[11]) + Number(fields[12])) / ticksPerSecond;
  }
}

/** A forked process and what it says, in order. */
class Peer<To extends object, From> {
  readonly #child: ChildProcess;
  readonly #said: From[] = [];
  #waiting: ((message: From) => void) | undefined;

  constructor(file: string, execArgv: readonly string[] = []) {
    this.#child = fork(file, {
      stdio: ["ignore", "inherit", "inherit", "ipc"],
      serialization: "advanced",
      execArgv: [...execArgv],
    });
    this.#child.on("message", (message) => {
      const waiting = this.#waiting;
      this.#waiting = undefined;
      if (waiting === undefined) this.#said.push(message as From);
      else waiting(message as From);
    });
  }

  send(message: To): void {
    this.#child.send(message);
  }

  next(): Promise<From> {
    const said = this.#said.shift();
    if (said !== undefined) return Promise.resolve(said);
    return new Promise((resolve) => (this.#waiting = resolve));
  }

  end(): void {
    this.#child.disconnect();
  }
}

function profileFlags({ profiles }: XdsOptions): string[] {
  return profiles === undefined ? [] : ["--cpu-prof", `--cpu-prof-dir=${profiles}`];
}

function medianRow(scenario: string, rows: readonly Row[]): Row {
  const median = (of: (row: Row) => number) =>
    quantile(
      rows.map(of).toSorted((a, b) => a - b),
      0.5,
    );
  return {
    scenario,
    p50Ms: median((row) => row.p50Ms),
    p99Ms: median((row) => row.p99Ms),
    lastMs: median((row) => row.lastMs),
    cpuSeconds: rows.reduce((sum, row) => sum + row.cpuSeconds, 0) / rows.length,
    responses: median((row) => row.responses),
    resources: median((row) => row.resources),
    bytes: median((row) => row.bytes),
    woken: median((row) => row.woken),
  };
}

function quantile(sorted: readonly number[], share: number): number {
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? 0;
}

function isPod({ resource }: Made): boolean {
  return resource === "pods";
}

async function listens(port: number): Promise<boolean> {
  const { connect } = await import("node:net");
  return new Promise((resolve) => {
    const socket = connect(port, "127.0.0.1", () => {
      socket.destroy();
      resolve(true);
    });
    socket.on("error", () => resolve(false));
  });
}

function pause(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}
