import assert from "node:assert/strict";
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { test, type TestContext } from "node:test";
import { silentLog, type Clock } from "#base";
import type { ReadinessProbe } from "./config.ts";
import { HealthReporter } from "./health.ts";

/** A clock whose waits end at once, a set number of them. */
function hurriedClock(waits: number): { clock: Clock; done: Promise<void> } {
  const { promise, resolve } = Promise.withResolvers<void>();
  let left = waits;
  let nowMs = 0;
  const clock: Clock = {
    nowMs: () => nowMs,
    monotonicMs: () => nowMs,
    after: (delayMs, callback) => {
      nowMs += delayMs;
      if (left-- > 0) setImmediate(callback);
      else resolve();
      return () => {};
    },
  };
  return { clock, done: promise };
}

async function saidAfter(rounds: number, probe: ReadinessProbe | undefined, ready = true) {
  const said: string[] = [];
  const { clock, done } = hurriedClock(rounds);
  const reporter = new HealthReporter({
    clock,
    log: silentLog,
    probe,
    proxyReady: () => Promise.resolve(ready),
    report: (healthy) => Promise.resolve(void said.push(String(healthy))),
  });
  reporter.start();
  await done;
  return said;
}

async function answering(context: TestContext, statuses: readonly number[]): Promise<number> {
  let at = 0;
  const server: Server = createServer((_request, response) => {
    response.writeHead(statuses[Math.min(at++, statuses.length - 1)] ?? 200).end();
  });
  await new Promise<void>((resolve) => void server.listen(0, "127.0.0.1", resolve));
  context.after(() => server.close());
  return (server.address() as AddressInfo).port;
}

test("a workload without a probe is healthy as soon as its proxy is ready", async () => {
  assert.deepEqual(await saidAfter(3, undefined), ["true"]);
  assert.deepEqual(await saidAfter(2, undefined, false), []);
});

test("one failed probe says nothing, as many as the threshold do, and one success mends it", async (context) => {
  const port = await answering(context, [200, 500, 200, 500, 500, 500, 200]);
  const probe = { periodSeconds: 1, failureThreshold: 3, httpGet: { port, path: "/ready" } };
  assert.deepEqual(await saidAfter(7, probe), ["true", "false", "true"]);
});

test("a command is healthy when it ends with 0, a port when it is open", async (context) => {
  assert.deepEqual(await saidAfter(1, { exec: { command: ["true"] } }), ["true"]);
  assert.deepEqual(await saidAfter(3, { exec: { command: ["false"] } }), ["false"]);
  const port = await answering(context, [200]);
  assert.deepEqual(await saidAfter(1, { tcpSocket: { port } }), ["true"]);
  assert.deepEqual(await saidAfter(1, { failureThreshold: 1, tcpSocket: { port: 1 } }), ["false"]);
});
