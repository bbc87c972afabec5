// A steady stream of requests from this process, counted: for "no request fails while ...".

import { Agent, request } from "node:http";

export interface Load {
  /** Ends the stream, waits for what is open, and says what happened. */
  stop(): Promise<LoadReport>;
}

export interface LoadReport {
  readonly sent: number;
  /** The rate that was reached: on a machine that cannot answer as fast it is lower than what was asked for. */
  readonly perSecond: number;
  readonly failed: number;
  /** A few of the failures, each with the time since the start. */
  readonly failures: readonly string[];
  /** All failures by what was answered, with the times (`performance.now()`) of the sending of the first and the last. */
  readonly kinds: ReadonlyMap<string, FailureKind>;
  readonly p99Ms: number;
}

export interface FailureKind {
  readonly count: number;
  readonly firstAtMs: number;
  readonly lastAtMs: number;
}

const failuresShown = 10;
/** Longer than Envoy waits for a connection: what is sent into the void fails as 503, and a busy machine is no failure. */
const requestTimeoutMs = 15_000;
/** Requests under way at a time; while there are so many, none is added: a busy machine gets slower, not buried. */
const openMax = 64;
const failureKindsMax = 50;
/** Of the answer to a request that failed. */
const bodyCharactersShown = 80;
/** Of any answer; the rest is read and forgotten. */
const bodyCharactersMax = 10_000;

/**
 * Sends `perSecond` GETs to `url` until stopped. A failure is anything but 200 within `timeoutMs`.
 * @param answered told of each good answer, with the time (`performance.now()`) at which it was asked for
 */
export function startLoad(
  url: string,
  perSecond: number,
  headers: Record<string, string> = {},
  timeoutMs = requestTimeoutMs,
  answered: (body: string, sentAtMs: number) => void = () => {},
): Load {
  const agent = new Agent({ keepAlive: true, maxSockets: openMax });
  const from = performance.now();
  const durations: number[] = [];
  const failures: string[] = [];
  const kinds = new Map<string, FailureKind>();
  let offered = 0;
  let sent = 0;
  let failed = 0;
  const open = new Set<Promise<void>>();

  function once(): void {
    sent++;
    const at = performance.now();
    const done = get(url, agent, headers, timeoutMs).then(
      ({ status, body }) => {
        durations.push(performance.now() - at);
        if (status === 200) answered(body, at);
        else fail(at, `status ${status}: ${body.slice(0, bodyCharactersShown)}`);
      },
      (error: Error) => fail(at, error.message),
    );
    open.add(done);
    void done.finally(() => open.delete(done));
  }
  function fail(atMs: number, why: string): void {
    failed++;
    const before = kinds.get(why);
    if (before !== undefined || kinds.size < failureKindsMax)
      kinds.set(why, {
        count: (before?.count ?? 0) + 1,
        firstAtMs: Math.min(before?.firstAtMs ?? atMs, atMs),
        lastAtMs: Math.max(before?.lastAtMs ?? atMs, atMs),
      });
    if (failures.length < failuresShown) failures.push(`${Math.round(performance.now() - from)} ms: ${why}`);
  }

  const tickMs = 20;
  const timer = setInterval(() => {
    // What is due by now, so that a late tick does not lower the rate.
    const due = Math.floor(((performance.now() - from) / 1000) * perSecond);
    for (; offered < due; offered++) if (open.size < openMax) once();
  }, tickMs);
  return {
    stop: async () => {
      clearInterval(timer);
      const reached = sent / ((performance.now() - from) / 1_000);
      await Promise.allSettled(open);
      agent.destroy();
      durations.sort((a, b) => a - b);
      const p99Ms = durations[Math.floor(durations.length * 0.99)] ?? 0;
      return { sent, perSecond: reached, failed, failures, kinds, p99Ms };
    },
  };
}

interface Answer {
  readonly status: number;
  readonly body: string;
}

function get(url: string, agent: Agent, headers: Record<string, string>, timeoutMs: number): Promise<Answer> {
  const { promise, resolve, reject } = Promise.withResolvers<Answer>();
  const sent = request(url, { agent, headers, signal: AbortSignal.timeout(timeoutMs) }, (response) => {
    const status = response.statusCode ?? 0;
    let body = "";
    response.on("data", (chunk: Buffer) => {
      if (body.length < bodyCharactersMax) body += chunk.toString();
    });
    response.on("end", () => resolve({ status, body }));
    response.on("error", reject);
  });
  sent.on("error", reject);
  sent.end();
  return promise;
}
