// `bench soak`: the real control-plane process under churn for long, fed through the Kubernetes API, with proxies that come and
// go. Prints its memory over time: at the end it should be within a tenth of what it was once everything had been seen.

import { fork, spawn, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { connect } from "node:net";
import { join } from "node:path";
import { AdsClient } from "../../test/support/ads-client.ts";
import { deployedNodeFlags } from "../deployed.ts";
import type { Table } from "../table.ts";
import type { FromApi, ToApi } from "../xds/messages.ts";
import {
  destinationRule,
  proxyPod,
  serviceObjects,
  slice,
  virtualService,
  worldObjects,
  type Made,
} from "../xds/world.ts";

export interface SoakOptions {
  readonly minutes: number;
  readonly services: number;
  readonly proxies: number;
  readonly log: (line: string) => void;
}

interface Sample {
  readonly minute: number;
  readonly residentMiB: number;
  /** Connected in this moment. */
  readonly proxies: number;
  readonly changes: number;
  readonly connects: number;
}

const changesPerSecond = 20;
/** A proxy leaves and another comes this often. */
const reconnectEveryMs = 500;
const samplesTotal = 30;
/** After this much of the time everything has been seen once: 5 minutes of 30. */
const settledShare = 1 / 6;
const root = join(import.meta.dirname, "../..");

export async function benchSoak(options: SoakOptions): Promise<Table> {
  const soak = new Soak(options);
  try {
    await soak.start();
    const samples = await soak.run();
    const settled = samples.find(({ minute }) => minute >= options.minutes * settledShare) ?? samples[0];
    const first = settled?.residentMiB ?? 0;
    const last = samples.at(-1)?.residentMiB ?? 0;
    const growth = (((last - first) / first) * 100).toFixed(1);
    return {
      title: `soak: ${options.minutes} minutes, ${options.services} services x ${options.proxies} proxies: ${first} MiB after ${settled?.minute.toFixed(1)} minutes, ${last} MiB at the end (${growth} %)`,
      columns: ["minute", "MiB resident", "proxies", "changes", "connects"],
      rows: samples.map(({ minute, residentMiB, proxies, changes, connects }) => [
        minute.toFixed(1),
        String(residentMiB),
        String(proxies),
        String(changes),
        String(connects),
      ]),
    };
  } finally {
    soak.stop();
  }
}

class Soak {
  readonly #options: SoakOptions;
  readonly #api: ChildProcess;
  #control: ChildProcess | undefined;
  #port = 0;
  readonly #clients: AdsClient[] = [];
  /** Services beyond the world's own that are there at present. */
  readonly #extras = new Set<number>();
  #changes = 0;
  #connects = 0;

  constructor(options: SoakOptions) {
    this.#options = options;
    this.#api = fork(join(import.meta.dirname, "../xds/api-process.ts"), {
      stdio: ["ignore", "inherit", "inherit", "ipc"],
      serialization: "advanced",
    });
  }

  async start(): Promise<void> {
    const { services, proxies, log } = this.#options;
    const ready = (await this.#heard()) as FromApi & { readonly kubeconfig?: string };
    log(`loading ${services} services`);
    await this.#tell({ kind: "load", objects: worldObjects({ services, proxies }) });
    this.#port = 30_000 + (process.pid % 2_000);
    const ports = ["--xds-port", "0", "--monitoring-port", "0", "--webhook-port", "0"];
    const args = ["discovery", "--kubeconfig", ready.kubeconfig ?? "", "--host", "127.0.0.1", ...ports];
    const plain = ["--plaintext", `127.0.0.1:${this.#port}`, "--log-level", "error"];
    this.#control = spawn(
      process.execPath,
      [...deployedNodeFlags(), join(root, "dist/control.mjs"), ...args, ...plain],
      {
        stdio: ["ignore", "inherit", "inherit"],
      },
    );
    while (!(await listens(this.#port))) {
      if (this.#control.exitCode !== null) throw new Error("the control plane did not start");
      await pause(100);
    }
    for (let at = 0; at < proxies; at++) this.#connect();
  }

  async run(): Promise<readonly Sample[]> {
    const { minutes, log } = this.#options;
    const totalMs = minutes * 60_000;
    const fromMs = performance.now();
    const samples: Sample[] = [];
    let reconnectedAtMs = fromMs;
    for (let nowMs = fromMs; nowMs - fromMs < totalMs; nowMs = performance.now()) {
      await this.#change();
      if (nowMs - reconnectedAtMs >= reconnectEveryMs) {
        reconnectedAtMs = nowMs;
        this.#clients.shift()?.close();
        this.#connect();
      }
      if (nowMs - fromMs >= (samples.length * totalMs) / samplesTotal) {
        samples.push(this.#sample((nowMs - fromMs) / 60_000));
        log(`${samples.at(-1)?.minute.toFixed(1)} min: ${samples.at(-1)?.residentMiB} MiB`);
      }
      await pause(Math.max(0, 1_000 / changesPerSecond - (performance.now() - nowMs)));
    }
    samples.push(this.#sample(minutes));
    return samples;
  }

  stop(): void {
    for (const client of this.#clients) client.close();
    this.#control?.kill("SIGKILL");
    if (this.#api.connected) this.#api.disconnect();
  }

  /** One change of a kind in turn: endpoints, a route, a rule, a service that comes and goes. */
  async #change(): Promise<void> {
    const round = this.#changes++;
    const { services } = this.#options;
    const at = (round * 7) % services;
    const fifth = at - (at % 5);
    const extra = services + 1 + (round % 50);
    if (round % 4 === 0) await this.#put(slice(at, round));
    else if (round % 4 === 1) await this.#put(virtualService(fifth, `${(round % 60) + 1}s`));
    else if (round % 4 === 2) await this.#put(destinationRule(fifth, 100 + (round % 1_000)));
    else if (this.#extras.delete(extra))
      for (const made of serviceObjects(extra)) await this.#tell({ kind: "remove", made });
    else {
      this.#extras.add(extra);
      for (const made of serviceObjects(extra)) await this.#put(made);
    }
  }

  #connect(): void {
    const { services, proxies } = this.#options;
    const { namespace, name } = proxyPod(this.#connects++ % proxies, { services, proxies });
    this.#clients.push(new AdsClient({ port: this.#port, pod: `${name}.${namespace}` }));
  }

  #sample(minute: number): Sample {
    const status = readFileSync(`/proc/${this.#control?.pid}/status`, "utf8");
    const residentMiB = Math.round(Number(/VmRSS:\s+(\d+)/.exec(status)?.[1] ?? 0) / 1024);
    const proxies = this.#clients.filter(({ closed }) => !closed).length;
    return { minute, residentMiB, proxies, changes: this.#changes, connects: this.#connects };
  }

  #put(made: Made): Promise<unknown> {
    return this.#tell({ kind: "put", made });
  }

  async #tell(message: ToApi): Promise<unknown> {
    this.#api.send(message);
    return this.#heard();
  }

  async #heard(): Promise<unknown> {
    return ((await once(this.#api, "message")) as unknown[])[0];
  }
}

function listens(port: number): Promise<boolean> {
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
