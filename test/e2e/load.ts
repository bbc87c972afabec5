// A steady stream of requests from this process, counted: for "no request fails while ...".

import { Agent, request } from "node:http";

export interface Load {
  /** Ends the stream, waits for what is open, and says what happened. */
  stop(): Promise<LoadReport>;
}

export interface LoadReport {
  readonly sent: number;
  readonly failed: number;
  /** A few of the failures, each with the time since the start. */
  readonly failures: readonly string[];
  readonly p99Ms: number;
}

const failuresShown = 10;

/** Sends `perSecond` GETs to `url` until stopped. A failure is anything but 200 within `timeoutMs`. */
export function startLoad(
  url: string,
  perSecond: number,
  headers: Record<string, string> = {},
  timeoutMs = 5_000,
): Load {
  const agent = new Agent({ keepAlive: true, maxSockets: 64 });
  const from = performance.now();
  const durations: number[] = [];
  const failures: string[] = [];
  let sent = 0;
  let failed = 0;
  const open = new Set<Promise<void>>();

  function once(): void {
    sent++;
    const at = performance.now();
    const done = get(url, agent, headers, timeoutMs).then(
      (status) => {
        durations.push(performance.now() - at);
        if (status !== 200) fail(`status ${status}`);
      },
      (error: Error) => fail(error.message),
    );
    open.add(done);
    void done.finally(() => open.delete(done));
  }
  function fail(why: string): void {
    failed++;
    if (failures.length < failuresShown) failures.push(`${Math.round(performance.now() - from)} ms: ${why}`);
  }

  const tickMs = 20;
  const timer = setInterval(() => {
    // What is due by now, so that a late tick does not lower the rate.
    const due = Math.floor(((performance.now() - from) / 1000) * perSecond);
    while (sent < due) once();
  }, tickMs);
  return {
    stop: async () => {
      clearInterval(timer);
      await Promise.allSettled(open);
      agent.destroy();
      durations.sort((a, b) => a - b);
      return { sent, failed, failures, p99Ms: durations[Math.floor(durations.length * 0.99)] ?? 0 };
    },
  };
}

function get(url: string, agent: Agent, headers: Record<string, string>, timeoutMs: number): Promise<number> {
  const { promise, resolve, reject } = Promise.withResolvers<number>();
  const sent = request(url, { agent, headers, signal: AbortSignal.timeout(timeoutMs) }, (response) => {
    response.resume();
    response.on("end", () => resolve(response.statusCode ?? 0));
    response.on("error", reject);
  });
  sent.on("error", reject);
  sent.end();
  return promise;
}
