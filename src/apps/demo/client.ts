// `demo client`: asks one URL at a steady rate and counts what it gets. Tests use it to show that nothing was lost.

import { Agent, request } from "node:http";

export interface ClientOptions {
  readonly url: string;
  readonly perSecond: number;
  readonly seconds: number;
  readonly headers: Readonly<Record<string, string>>;
  readonly timeoutMs: number;
}

export interface ClientReport {
  readonly sent: number;
  readonly failed: number;
  /** How often each status, or each kind of failure (`ECONNRESET`, `timeout`), was met. */
  readonly outcomes: Readonly<Record<string, number>>;
  readonly p50Ms: number;
  readonly p99Ms: number;
  /** The first failures, with when they were, in milliseconds from the start. */
  readonly failures: readonly { readonly atMs: number; readonly outcome: string }[];
}

const failuresMax = 20; // beyond it they are only counted
const ticksPerSecondMax = 50;

/** Sends at the rate whatever the answers take. Anything but 2xx and 3xx is a failure. Ends early, with its report, when aborted. */
export async function runClient(options: ClientOptions, signal: AbortSignal): Promise<ClientReport> {
  const agent = new Agent({ keepAlive: true, maxSockets: 256 });
  const outcomes: Record<string, number> = {};
  const failures: { atMs: number; outcome: string }[] = [];
  const tookMs: number[] = [];
  const open = new Set<Promise<void>>();
  const startMs = performance.now();
  let sent = 0;

  const one = async (): Promise<void> => {
    const fromMs = performance.now();
    const outcome = await ask(options, agent);
    tookMs.push(performance.now() - fromMs);
    outcomes[outcome] = (outcomes[outcome] ?? 0) + 1;
    if (!/^[23]\d\d$/.test(outcome) && failures.length < failuresMax)
      failures.push({ atMs: Math.round(fromMs - startMs), outcome });
  };

  const total = Math.round(options.perSecond * options.seconds);
  while (sent < total && !signal.aborted) {
    const due = Math.min(total, Math.ceil(((performance.now() - startMs) / 1_000) * options.perSecond));
    for (; sent < due; sent += 1) {
      const asked = one().finally(() => open.delete(asked));
      open.add(asked);
    }
    await new Promise((resolve) =>
      setTimeout(resolve, 1_000 / Math.min(ticksPerSecondMax, options.perSecond)),
    );
  }
  await Promise.all(open);
  agent.destroy();
  const failed = Object.entries(outcomes).reduce(
    (sum, [outcome, count]) => (/^[23]\d\d$/.test(outcome) ? sum : sum + count),
    0,
  );
  tookMs.sort((a, b) => a - b);
  const quantile = (share: number) => Math.round((tookMs[Math.floor(tookMs.length * share)] ?? 0) * 10) / 10;
  return { sent, failed, outcomes, p50Ms: quantile(0.5), p99Ms: quantile(0.99), failures };
}

function ask({ url, headers, timeoutMs }: ClientOptions, agent: Agent): Promise<string> {
  return new Promise((resolve) => {
    const outgoing = request(url, { headers, agent, timeout: timeoutMs }, (response) => {
      response.resume();
      response.on("end", () => resolve(String(response.statusCode)));
      response.on("error", (error: NodeJS.ErrnoException) => resolve(error.code ?? "broken"));
    });
    outgoing.on("timeout", () => outgoing.destroy(Object.assign(new Error("timeout"), { code: "timeout" })));
    outgoing.on("error", (error: NodeJS.ErrnoException) => resolve(error.code ?? error.message));
    outgoing.end();
  });
}
