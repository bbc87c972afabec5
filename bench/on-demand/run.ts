// `bench on-demand`: an hour of churn seen by two sidecars, one with all clusters and one with clusters on demand. Both get
// the same changes and are asked the same; whatever they answer differently is counted, first requests included.
// Virtual hosts come one by one for both. Envoys and control planes start anew now and then.

import { readFileSync } from "node:fs";
import { withoutEnvoy } from "../../test/support/envoy.ts";
import { DiscoveryBench, type Answer } from "../../test/support/discovery-bench.ts";
import { pause } from "../../test/support/real-clock.ts";
import { joinTexts, routeTo, serviceText, sidecarWorld } from "../../test/support/discovery-world.ts";
import { freePorts } from "../../test/support/free-ports.ts";
import type { Table } from "../table.ts";

export interface OnDemandOptions {
  readonly minutes: number;
  readonly services: number;
  readonly log: (line: string) => void;
}

const pauseMs = 250;
const answerWaitMs = 60_000;
/** Steps after which the sidecars are new ones, so that first requests come again, and the control planes. */
const envoyStepsMax = 150;
const controlPlaneStepsMax = 65;
const samplesTotal = 30;

export async function benchOnDemand(options: OnDemandOptions): Promise<Table> {
  if (withoutEnvoy !== undefined) throw new Error("there is no Envoy: run npm run setup");
  const churn = new Churn(options);
  try {
    await churn.start();
    return await churn.run();
  } finally {
    await churn.stop();
  }
}

/** One sidecar, its control plane, and what was seen of it. */
class Side {
  readonly name: "eager" | "on-demand";
  readonly bench = new DiscoveryBench();
  port = 0;
  asked = 0;
  failed = 0;
  /** Requests that got 503 because their service went at that moment. */
  moments = 0;
  slowest = 0;

  readonly #log: (line: string) => void;

  constructor(name: "eager" | "on-demand", log: (line: string) => void) {
    this.name = name;
    this.#log = log;
  }

  #fails(host: string, { status, route }: Answer, startedMs: number): void {
    this.failed++;
    const tookMs = Math.round(performance.now() - startedMs);
    this.#log(`${this.name}: ${host} got ${status} after ${tookMs} ms ${route}`);
  }

  async start(services: number): Promise<void> {
    [this.port = 0] = await freePorts(1);
    await this.bench.start((backendPort) =>
      joinTexts(
        sidecarWorld(this.name),
        ...Array.from({ length: services }, (_, at) => serviceText(`svc${at}`, at, this.port, backendPort)),
      ),
    );
  }

  service(name: string, at: number): string {
    return serviceText(name, at, this.port, this.bench.backendPort);
  }

  /**
   * @param statuses what does not count as failed
   * @param goes the service behind the host goes at this moment
   */
  async ask(host: string, statuses: ReadonlySet<number>, goes = false): Promise<Answer> {
    const startedMs = performance.now();
    // A machine that has no time for us is not what is measured.
    const answer = await this.bench.ask(this.port, host, answerWaitMs);
    this.asked++;
    this.slowest = Math.max(this.slowest, performance.now() - startedMs);
    if (goes && answer.status === 503) this.moments++;
    else if (!statuses.has(answer.status)) this.#fails(host, answer, startedMs);
    return answer;
  }

  /** Asks until the mark is there; on the way nothing but the statuses before and after may be seen. */
  async follow(
    host: string,
    mark: string,
    statuses: ReadonlySet<number>,
    goes: boolean,
  ): Promise<Answer | undefined> {
    const untilMs = performance.now() + 120_000;
    while (performance.now() < untilMs) {
      const answer = await this.ask(host, statuses, goes);
      if (answer.route === mark) return answer;
      await pause(20);
    }
    return undefined;
  }

  async clusters(): Promise<number> {
    const text = await this.bench.envoyAdmin("/clusters?format=json");
    const { cluster_statuses = [] } = JSON.parse(text) as { cluster_statuses?: { name: string }[] };
    return cluster_statuses.filter(({ name }) => name.startsWith("outbound|")).length;
  }

  residentMb(): number {
    const status = readFileSync(`/proc/${this.bench.envoyPid}/status`, "utf8");
    return Number(/VmRSS:\s+(\d+)/.exec(status)?.[1] ?? 0) / 1024;
  }
}

class Churn {
  readonly #options: OnDemandOptions;
  readonly #sides: readonly [Side, Side];
  #differences = 0;
  #firsts = 0;
  #steps = 0;
  #restarts = 0;
  /** Services beyond the world's own that are there at present. */
  readonly #there = new Set<string>();
  #random = 20_261;

  constructor(options: OnDemandOptions) {
    this.#options = options;
    const log = (line: string): void => options.log(`step ${this.#steps}: ${line}`);
    this.#sides = [new Side("eager", log), new Side("on-demand", log)];
  }

  async start(): Promise<void> {
    for (const side of this.#sides) await side.start(this.#options.services);
    for (const { bench, port } of this.#sides) await bench.firstAnswer(port, "svc0.default");
  }

  async stop(): Promise<void> {
    for (const { bench } of this.#sides) await bench.close();
  }

  async run(): Promise<Table> {
    const startedMs = performance.now();
    const endMs = startedMs + this.#options.minutes * 60_000;
    const rows: string[][] = [];
    while (performance.now() < endMs) {
      await this.#step();
      const minute = (performance.now() - startedMs) / 60_000;
      if (minute < (rows.length * this.#options.minutes) / samplesTotal) continue;
      rows.push(await this.#sample(minute));
      this.#options.log(rows.at(-1)?.join(" | ") ?? "");
    }
    rows.push(await this.#sample((performance.now() - startedMs) / 60_000));
    const [eager, onDemand] = this.#sides;
    return {
      title:
        `on demand: ${this.#options.minutes} minutes of churn, ${this.#options.services} services: ${this.#steps} changes, ` +
        `${this.#firsts} services asked at random, ${this.#restarts} restarts; ${this.#differences} different answers; ` +
        `failed ${eager.failed} of ${eager.asked} eager, ${onDemand.failed} of ${onDemand.asked} on demand`,
      columns: [
        "minute",
        "changes",
        "differences",
        ...["requests", "failed", "503 as the service goes", "clusters", "MB", "slowest ms"].map(
          (one) => `${one}: eager, on demand`,
        ),
      ],
      rows,
    };
  }

  async #sample(minute: number): Promise<string[]> {
    const both = (of: (side: Side) => number): string => this.#sides.map((side) => of(side)).join(", ");
    const clusters = [await this.#sides[0].clusters(), await this.#sides[1].clusters()];
    return [
      minute.toFixed(1),
      String(this.#steps),
      String(this.#differences),
      both(({ asked }) => asked),
      both(({ failed }) => failed),
      both(({ moments }) => moments),
      clusters.join(", "),
      both((side) => Math.round(side.residentMb())),
      both(({ slowest }) => Math.round(slowest)),
    ];
  }

  #below(limit: number): number {
    this.#random = (Math.imul(this.#random, 1_103_515_245) + 12_345) >>> 0;
    return Math.floor((this.#random / 4_294_967_296) * limit);
  }

  async #step(): Promise<void> {
    this.#steps++;
    await this.#restart();
    await this.#change();
    // Most of these are the first that a sidecar of the mode has to do with the service.
    for (let count = 0; count < 3; count++) {
      const host = `svc${this.#below(this.#options.services)}.default`;
      this.#firsts++;
      await this.#compare(host, 200);
    }
    await pause(pauseMs);
  }

  async #restart(): Promise<void> {
    if (this.#steps % envoyStepsMax === 0) {
      this.#restarts++;
      for (const { bench, port } of this.#sides) {
        await bench.stopEnvoy();
        bench.startEnvoy();
        await bench.firstAnswer(port, "svc0.default");
      }
    } else if (this.#steps % controlPlaneStepsMax === 0) {
      this.#restarts++;
      for (const { bench } of this.#sides) {
        await bench.stopControlPlane();
        await bench.startControlPlane();
        const untilMs = performance.now() + 30_000;
        while (performance.now() < untilMs && (await bench.debug<unknown[]>("/debug/syncz")).length === 0)
          await pause(50);
      }
    }
  }

  /** A rule changes; a service comes or goes, by itself or in one batch with a rule that names it; a rule names nothing. */
  async #change(): Promise<void> {
    const mark = `step${this.#steps}`;
    const dice = this.#below(10);
    if (dice < 4) await this.#moveTraffic(`svc${this.#below(8)}`, mark);
    else if (dice < 6) await this.#toggleService(this.#below(20), mark);
    else if (dice < 9) await this.#togglePair(this.#below(8), mark);
    else await this.#routeNowhere(mark);
  }

  async #moveTraffic(host: string, mark: string): Promise<void> {
    const to = Array.from({ length: 1 + this.#below(3) }, () => this.#below(this.#options.services));
    const weightOf = (at: number): number => (at === 0 ? 100 - 10 * (to.length - 1) : 10);
    const destinations = to.map(
      (service, at) => `{ destination: { host: svc${service} }, weight: ${weightOf(at)} }`,
    );
    this.#write(`${host}.yaml`, () => routeTo(host, mark, `[${destinations.join(", ")}]`));
    await this.#both(`${host}.default`, mark, new Set([200]));
  }

  async #toggleService(extra: number, mark: string): Promise<void> {
    const name = `extra${extra}`;
    if (this.#there.delete(name)) {
      this.#write(`${name}.yaml`, () => "");
      // Before it is gone it answers as ever, and no host means nothing: 502.
      for (const side of this.#sides) await this.#until(side, `${name}.default`, 502, new Set([200, 502]));
      return;
    }
    this.#there.add(name);
    this.#write(`${name}.yaml`, (side) =>
      joinTexts(
        side.service(name, 1_000 + extra),
        routeTo(name, mark, `[{ destination: { host: ${name} } }]`),
      ),
    );
    await this.#both(`${name}.default`, mark, new Set([200, 502]));
  }

  async #togglePair(pair: number, mark: string): Promise<void> {
    const host = `svc${10 + pair}`;
    const name = `pair${pair}`;
    const goes = this.#there.delete(name);
    if (!goes) this.#there.add(name);
    this.#write(`${name}.yaml`, (side) =>
      goes
        ? routeTo(host, mark, `[{ destination: { host: ${host} } }]`)
        : joinTexts(
            side.service(name, 1_100 + pair),
            routeTo(host, mark, `[{ destination: { host: ${name} } }]`),
          ),
    );
    await this.#both(`${host}.default`, mark, new Set([200]), goes);
  }

  async #routeNowhere(mark: string): Promise<void> {
    const statuses = new Set([200, 503]);
    this.#write("nothing.yaml", () =>
      routeTo("svc9", mark, `[{ destination: { host: nobody${this.#steps} } }]`),
    );
    for (const side of this.#sides) await this.#until(side, "svc9.default", 503, statuses);
    await this.#compare("svc9.default", 503);
    const back = `${mark}back`;
    this.#write("nothing.yaml", () => routeTo("svc9", back, "[{ destination: { host: svc9 } }]"));
    await this.#both("svc9.default", back, statuses);
  }

  #write(file: string, text: (side: Side) => string): void {
    for (const side of this.#sides) side.bench.write(file, text(side));
  }

  async #both(host: string, mark: string, statuses: ReadonlySet<number>, goes = false): Promise<void> {
    const answers = await Promise.all(this.#sides.map((side) => side.follow(host, mark, statuses, goes)));
    if (JSON.stringify(answers[0]) !== JSON.stringify(answers[1])) this.#differs(host, answers);
  }

  async #until(side: Side, host: string, status: number, statuses: ReadonlySet<number>): Promise<void> {
    const untilMs = performance.now() + 30_000;
    while (performance.now() < untilMs) {
      const answer = await side.ask(host, statuses, status === 502);
      if (answer.status === status) return;
      await pause(20);
    }
    this.#differs(host, [undefined]);
  }

  async #compare(host: string, expected: number): Promise<void> {
    const answers = await Promise.all(this.#sides.map((side) => side.ask(host, new Set([expected]))));
    // The mark of a rule may be on its way to one of them still.
    if (answers[0]?.status !== answers[1]?.status) this.#differs(host, answers);
  }

  #differs(host: string, answers: readonly (Answer | undefined)[]): void {
    this.#differences++;
    this.#options.log(`step ${this.#steps}: ${host} differs: ${JSON.stringify(answers)}`);
  }
}
