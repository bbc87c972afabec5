import assert from "node:assert/strict";
import { test } from "node:test";
import { silentLog, type Clock } from "#base";
import { drain } from "./drain.ts";
import { activityOf, parseStats, readinessOf } from "./admin.ts";
import { Rotator, type WorkloadCertificate } from "./rotator.ts";

/** A clock whose time passes by command; timers run when their time has come. */
function manualClock(): Clock & { advance(ms: number): Promise<void> } {
  let now = 1_000_000;
  let timers: { at: number; run: () => void }[] = [];
  return {
    nowMs: () => now,
    monotonicMs: () => now,
    after: (delayMs, run) => {
      const timer = { at: now + delayMs, run };
      timers.push(timer);
      return () => void (timers = timers.filter((other) => other !== timer));
    },
    advance: async (ms) => {
      const end = now + ms;
      for (;;) {
        // Promises that a timer's callback waits for are settled before the next one runs.
        await new Promise<void>((resolve) => void setImmediate(resolve));
        const next = timers.toSorted((one, other) => one.at - other.at)[0];
        if (next === undefined || next.at > end) break;
        timers = timers.filter((other) => other !== next);
        now = next.at;
        next.run();
      }
      now = end;
    },
  };
}

const lifeMs = 86_400_000;

test("a certificate is renewed between half and three quarters of its life", async () => {
  const clock = manualClock();
  const fetchedAt: number[] = [];
  const rotator = new Rotator({
    clock,
    log: silentLog,
    random: () => 0.5,
    fetch: () => {
      fetchedAt.push(clock.nowMs());
      return Promise.resolve(certificateUntil(clock.nowMs() + lifeMs));
    },
    onCertificate: () => {},
  });
  rotator.start();
  await clock.advance(lifeMs);
  assert.equal(fetchedAt.length, 2);
  assert.equal((fetchedAt[1] ?? 0) - (fetchedAt[0] ?? 0), lifeMs * 0.625);
  assert.equal(rotator.rotations, 1);
  rotator.stop();
});

test("a change of the root brings the next renewal forward, never back", async () => {
  const clock = manualClock();
  let asked = 0;
  const rotator = new Rotator({
    clock,
    log: silentLog,
    random: () => 0.5,
    fetch: () => {
      asked += 1;
      return Promise.resolve(certificateUntil(clock.nowMs() + 10_000));
    },
    onCertificate: () => {},
  });
  rotator.start();
  await clock.advance(0);
  rotator.renewWithin(60_000);
  await clock.advance(6_250);
  assert.equal(asked, 2, "at its own time");
  rotator.renewWithin(2_000);
  await clock.advance(1_000);
  assert.equal(asked, 3, "earlier");
  rotator.stop();
});

test("a CA that is away is asked again, ever more slowly, and the old certificate serves on", async () => {
  const clock = manualClock();
  let asked = 0;
  let away = false;
  const rotator = new Rotator({
    clock,
    log: silentLog,
    random: () => 0.5,
    fetch: () => {
      asked += 1;
      if (away) return Promise.reject(new Error("no route"));
      return Promise.resolve(certificateUntil(clock.nowMs() + lifeMs));
    },
    onCertificate: () => {},
  });
  rotator.start();
  await clock.advance(0);
  away = true;
  const first = rotator.current;
  await clock.advance(lifeMs * 0.625 + 60_000);
  assert.ok(asked > 5 && asked < 20, `${asked} questions in a minute`);
  assert.equal(rotator.current, first);
  away = false;
  await clock.advance(60_000);
  assert.notEqual(rotator.current, first);
  rotator.stop();
});

function certificateUntil(notAfterMs: number): WorkloadCertificate {
  return { keyPem: "k", chainPem: "c", rootPem: "", notBeforeMs: 0, notAfterMs };
}

test("draining ends when everything is quiet, but not before the least time", async () => {
  const clock = manualClock();
  let open = 1;
  const asked: string[] = [];
  const config = {
    role: "sidecar" as const,
    minimumDrainMs: 2_000,
    terminationDrainMs: 5_000,
    exitOnZeroActiveConnections: false,
  };
  const admin = {
    ask: (path: string) => {
      asked.push(path);
      return Promise.resolve({ status: 200, body: "" });
    },
    activity: () => Promise.resolve({ requests: 0, connections: open }),
  };
  let ended: number | undefined;
  const startMs = clock.nowMs();
  void drain({ clock, log: silentLog, admin, config }).then(() => (ended = clock.nowMs() - startMs));
  await clock.advance(3_000);
  assert.equal(ended, undefined);
  open = 0;
  await clock.advance(500);
  assert.ok(ended !== undefined && ended >= 3_000 && ended < 3_500, `${ended}`);
  assert.deepEqual(asked, ["/drain_listeners?graceful&skip_exit&inboundonly", "/healthcheck/fail"]);
  open = 1;
  ended = undefined;
  void drain({ clock, log: silentLog, admin, config }).then(() => (ended = 1));
  await clock.advance(6_000);
  assert.equal(ended, 1, "the drain time is the limit");
});

test("readiness asks for clusters, listeners, a live server and its workers", () => {
  const stats = parseStats(
    "cluster_manager.cds.update_success: 1\nlistener_manager.lds.update_rejected: 1\nlistener_manager.workers_started: 1\nserver.state: 0\n",
  );
  assert.deepEqual(readinessOf(stats), { ready: true, reason: "" });
  assert.match(readinessOf(new Map()).reason, /no clusters/);
  assert.match(readinessOf(new Map([...stats, ["server.state", 2]])).reason, /not live/);
});

test("the proxy's own listeners do not count as activity", () => {
  const stats = parseStats(
    "http.admin.downstream_cx_active: 1\nhttp.envoy_ready.downstream_rq_active: 1\nhttp.inbound_0.0.0.0_80.downstream_rq_active: 2\nhttp.inbound_0.0.0.0_80.downstream_cx_active: 3\n",
  );
  assert.deepEqual(activityOf(stats), { requests: 2, connections: 3 });
});
