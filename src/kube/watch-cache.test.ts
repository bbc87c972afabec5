import assert from "node:assert/strict";
import http from "node:http";
import type { AddressInfo } from "node:net";
import { test, type TestContext } from "node:test";
import { silentLog, type Clock, type Logger } from "#base";
import type { KubeObject } from "#objects";
import { KubeClient } from "./client.ts";
import { KubeError } from "./kube-error.ts";
import { Outage } from "./outage.ts";
import { slim } from "./slim.ts";
import { WatchCache } from "./watch-cache.ts";

/** Pauses pass a hundred times as fast. */
const clock: Clock = {
  nowMs: () => Date.now(),
  monotonicMs: () => performance.now(),
  after(delayMs, callback) {
    const timer = setTimeout(callback, delayMs / 100);
    return () => clearTimeout(timer);
  },
};

const service = (name: string, version: number): KubeObject => ({
  apiVersion: "v1",
  kind: "Service",
  metadata: { name, namespace: "default", resourceVersion: String(version) },
});

interface Script {
  /** Each list's answer: objects, or a status. The last one repeats. */
  readonly lists: (readonly KubeObject[] | number)[];
  /** Each watch's events, or a status, or a connection that breaks; then it ends. The last one stays open. */
  readonly watches: (readonly object[] | number | "cut")[];
}

/** An API server that says what a script says, and a cache that follows it. */
async function follow(context: TestContext, script: Script, log: Logger = silentLog) {
  const asked: string[] = [];
  const server = http.createServer((request, response) => {
    const query = new URL(request.url ?? "", "http://api").searchParams;
    const isWatch = query.get("watch") === "true";
    asked.push(isWatch ? `watch ${query.get("resourceVersion")}` : "list");
    const steps = isWatch ? script.watches : script.lists;
    const step = (steps.length > 1 ? steps.shift() : steps[0]) ?? [];
    if (typeof step === "number") {
      response.writeHead(step).end(JSON.stringify({ reason: "Scripted", message: `status ${step}` }));
    } else if (step === "cut") {
      response.flushHeaders();
      // After the headers have arrived: before that it would be no answer at all.
      setTimeout(() => response.socket?.destroy(), 20);
    } else if (!isWatch) {
      response.end(JSON.stringify({ metadata: { resourceVersion: "10" }, items: step }));
    } else {
      response.flushHeaders();
      response.write(step.map((event) => `${JSON.stringify(event)}\n`).join(""));
      if (steps.length > 0 && steps[0] !== step) response.end();
    }
  });
  await new Promise<void>((listening) => server.listen(0, "127.0.0.1", listening));
  const client = new KubeClient({ server: `http://127.0.0.1:${(server.address() as AddressInfo).port}` });
  const changes: string[] = [];
  let synced = 0;
  const cache = new WatchCache({
    client,
    source: { kind: "Service", apiVersion: "v1", path: "/api/v1/services" },
    clock,
    random: () => 0.5,
    log,
    slim,
    changed: (set, removed) => {
      for (const { metadata } of set) changes.push(`+${metadata.name}${metadata.resourceVersion}`);
      for (const { metadata } of removed) changes.push(`-${metadata.name}`);
    },
    synced: () => synced++,
  });
  void cache.run();
  context.after(() => {
    cache.stop();
    client.close();
    server.close();
    server.closeAllConnections();
  });
  const until = async (holds: () => boolean): Promise<void> => {
    const untilMs = performance.now() + 5_000;
    while (!holds()) {
      assert.ok(performance.now() < untilMs, JSON.stringify({ asked, changes }));
      await new Promise((resolve) => setTimeout(resolve, 5));
    }
  };
  return { cache, changes, asked, until, syncedCount: () => synced };
}

test("a list and a watch bring what is there and what changes, and a cut watch goes on where it ended", async (context) => {
  const { changes, asked, until, syncedCount } = await follow(context, {
    lists: [[service("a", 1)]],
    watches: [
      [
        { type: "ADDED", object: service("b", 11) },
        { type: "DELETED", object: service("a", 12) },
        { type: "BOOKMARK", object: { metadata: { resourceVersion: "20" } } },
      ],
      [{ type: "MODIFIED", object: service("b", 21) }],
    ],
  });
  await until(() => changes.length === 4);
  assert.deepEqual(changes, ["+a1", "+b11", "-a", "+b21"]);
  assert.deepEqual(asked, ["list", "watch 10", "watch 20"]);
  assert.equal(syncedCount(), 1);
});

test("when the server no longer remembers (410), a new list brings only what differs", async (context) => {
  for (const gone of [410, [{ type: "ERROR", object: { code: 410, reason: "Expired" } }]] as const) {
    const { changes, until } = await follow(context, {
      lists: [
        [service("a", 1), service("b", 2)],
        [service("b", 2), service("c", 9)],
      ],
      watches: [gone, []],
    });
    await until(() => changes.length === 4);
    assert.deepEqual(changes, ["+a1", "+b2", "+c9", "-a"]);
  }
});

test("a failing server is said once, what is known stays, and recovery is said too", async (context) => {
  const lines: string[] = [];
  const log: Logger = {
    ...silentLog,
    warn: (_fields, message) => lines.push(message),
    info: (_fields, message) => lines.push(message),
  };
  const { cache, until, asked } = await follow(
    context,
    { lists: [[service("a", 1)]], watches: [500, 429, 500, []] },
    log,
  );
  await until(() => asked.length === 5 && lines.length === 2);
  assert.equal(cache.size, 1);
  assert.deepEqual(lines, [
    "the API server fails; trying again, what is known stays and is served",
    "the API server answers again",
  ]);
});

test("a kind that is not installed counts as empty, and is found once it is", async (context) => {
  const { changes, until, syncedCount } = await follow(context, {
    lists: [404, 404, [service("a", 1)]],
    watches: [[]],
  });
  await until(() => changes.length === 1);
  assert.equal(syncedCount(), 1);
});

test("what a watch brought before it broke is not brought again, and a cut alone is not worth a line", async (context) => {
  const lines: string[] = [];
  const log: Logger = {
    ...silentLog,
    warn: (_fields, message) => lines.push(message),
    info: (_fields, message) => lines.push(message),
  };
  const { changes, asked, until } = await follow(
    context,
    {
      lists: [[service("a", 1)]],
      watches: [
        [{ type: "MODIFIED", object: service("a", 11) }],
        "cut",
        [{ type: "MODIFIED", object: service("a", 12) }],
        [],
      ],
    },
    log,
  );
  await until(() => changes.length === 3);
  assert.deepEqual(changes, ["+a1", "+a11", "+a12"]);
  assert.deepEqual(asked.slice(0, 4), ["list", "watch 10", "watch 11", "watch 11"]);
  assert.deepEqual(lines, []);
});

test("an API server that is away is said once for all kinds, and once that it is back", () => {
  const lines: string[] = [];
  const note = (_fields: object, message: string): number => lines.push(message);
  const log: Logger = { ...silentLog, warn: note, info: note };
  const outage = new Outage();
  const followers = Array.from({ length: 23 }, () => ({}));
  const gone = new KubeError(0, "Unreachable", "does not answer");
  for (let round = 0; round < 3; round++)
    for (const one of followers) outage.failed(one, "Service", gone, log);
  assert.equal(lines.length, 1);
  for (const one of followers) outage.succeeded(one, log);
  assert.deepEqual(lines.slice(1), ["the API server answers again"]);
  outage.failed(followers[0]!, "Service", gone, log);
  outage.failed(followers[1]!, "Secret", new KubeError(403, "Forbidden", "may not list secrets"), log);
  assert.equal(lines.length, 4, "what concerns one kind alone is said besides");
});
