// Questions to Envoy's admin on loopback, kept short: readiness, gauges, drain.

import { Agent, get, request, type IncomingMessage } from "node:http";

const timeoutMs = 5_000;

export interface Answer {
  readonly status: number;
  readonly body: string;
}

export interface Readiness {
  readonly ready: boolean;
  readonly reason: string;
}

export class EnvoyAdmin {
  readonly #port: number;
  // Connections must not outlive Envoy's restart.
  readonly #agent = new Agent({ keepAlive: false });

  constructor(port: number) {
    this.#port = port;
  }

  /** Asks; throws when nobody answers in five seconds. */
  ask(path: string, method: "GET" | "POST" = "GET"): Promise<Answer> {
    return new Promise((resolve, reject) => {
      const options = {
        host: "127.0.0.1",
        port: this.#port,
        path,
        method,
        agent: this.#agent,
        timeout: timeoutMs,
      };
      const question = request(options, (answer) => {
        const parts: Buffer[] = [];
        answer.on("data", (part: Buffer) => parts.push(part));
        answer.on("end", () =>
          resolve({ status: answer.statusCode ?? 0, body: Buffer.concat(parts).toString() }),
        );
        answer.on("error", reject);
      });
      question.on("timeout", () => question.destroy(new Error("Envoy's admin gave no answer")));
      question.on("error", reject);
      question.end();
    });
  }

  /** Opens an answer to be read piece by piece, for those too long to be held whole. Throws as `ask` does. */
  open(path: string): Promise<AsyncIterable<Buffer>> {
    return openUrl(`http://127.0.0.1:${this.#port}${path}`);
  }

  /**
   * Ready means: Envoy is live and the control plane has answered for clusters and listeners (even if a part was
   * rejected: the rest serves). Never throws; a silent Envoy is not ready.
   */
  async readiness(): Promise<Readiness> {
    try {
      const filter =
        "server.state|cluster_manager.cds.update_(success|rejected)|listener_manager.(lds.update_(success|rejected)|workers_started)";
      const { body } = await this.ask(`/stats?filter=${encodeURIComponent(`^(${filter})$`)}`);
      return readinessOf(parseStats(body));
    } catch (error) {
      return {
        ready: false,
        reason: `Envoy does not answer: ${error instanceof Error ? error.message : String(error)}`,
      };
    }
  }

  /** Open requests and connections from downstream, without those to admin, metrics and health. */
  async activity(): Promise<{ readonly requests: number; readonly connections: number }> {
    const filter = "^(http|tcp|listener)\\..*downstream_(rq|cx)_active$";
    const { body } = await this.ask(`/stats?filter=${encodeURIComponent(filter)}`);
    return activityOf(parseStats(body));
  }
}

/** Opens a page; throws when it is not to be had in five seconds, or not with status 200. */
export async function openUrl(url: string): Promise<AsyncIterable<Buffer>> {
  const answer = await new Promise<IncomingMessage>((resolve, reject) => {
    const question = get(
      url,
      { agent: false, timeout: timeoutMs, headers: { accept: "text/plain" } },
      resolve,
    );
    question.on("timeout", () => question.destroy(new Error("no answer in time")));
    question.on("error", reject);
  });
  if (answer.statusCode === 200) return answer;
  answer.destroy();
  throw new Error(`status ${answer.statusCode ?? 0}`);
}

/** Parses `name: value` lines; histograms and texts are left out. */
export function parseStats(text: string): Map<string, number> {
  const stats = new Map<string, number>();
  for (const line of text.split("\n")) {
    const at = line.lastIndexOf(": ");
    const value = Number(line.slice(at + 2));
    if (at > 0 && Number.isFinite(value)) stats.set(line.slice(0, at), value);
  }
  return stats;
}

export function readinessOf(stats: ReadonlyMap<string, number>): Readiness {
  const of = (name: string): number => stats.get(name) ?? 0;
  const answered = (prefix: string): boolean =>
    of(`${prefix}.update_success`) + of(`${prefix}.update_rejected`) > 0;
  if (!answered("cluster_manager.cds"))
    return { ready: false, reason: "no clusters received from the control plane" };
  if (!answered("listener_manager.lds"))
    return { ready: false, reason: "no listeners received from the control plane" };
  if (stats.get("server.state") !== 0) return { ready: false, reason: "Envoy is not live" };
  if (of("listener_manager.workers_started") === 0)
    return { ready: false, reason: "Envoy's workers have not started" };
  return { ready: true, reason: "" };
}

/** The statistics of listeners that carry no application's traffic. */
const ownTraffic =
  /^(http\.(admin|envoy_prometheus|envoy_ready)\.|listener\.(admin|main_thread)\.|listener\..*\.worker_)/;

export function activityOf(stats: ReadonlyMap<string, number>): { requests: number; connections: number } {
  let requests = 0;
  let connections = 0;
  for (const [name, value] of stats) {
    if (ownTraffic.test(name)) continue;
    if (name.startsWith("http.") && name.endsWith("downstream_rq_active")) requests += value;
    if (/^(http|tcp)\..*downstream_cx_active$/.test(name)) connections += value;
  }
  return { requests, connections };
}
