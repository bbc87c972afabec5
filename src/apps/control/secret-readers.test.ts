import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { silentLog, type Clock } from "#base";
import { Engine } from "#engine";
import { objectChange, objectProblemsOf, worldChanges } from "#model";
import type { KubeObject } from "#objects";
import { planOf, viewsOf } from "#plan";
import { proxyOf } from "../../../test/support/proxies.ts";
import { SecretReaders } from "./secret-readers.ts";

const metadata = { name: "partner", namespace: "default" };
const rule: KubeObject = {
  apiVersion: "networking.istio.io/v1",
  kind: "DestinationRule",
  metadata,
  spec: {
    host: "partner.example.com",
    workloadSelector: { matchLabels: { app: "caller" } },
    trafficPolicy: { tls: { mode: "MUTUAL", credentialName: "client" } },
  },
};

function pod(app: string, serviceAccountName: string): KubeObject {
  return {
    apiVersion: "v1",
    kind: "Pod",
    metadata: { name: `${app}-${serviceAccountName}`, namespace: "default", labels: { app } },
    spec: { serviceAccountName },
  };
}

const caller = proxyOf({ labels: { app: "caller" }, serviceAccount: "good" });

/** An API server that allows the accounts in `allowed`; the clock goes when it is told. */
function bench() {
  const engine = new Engine();
  const allowed = new Set(["default/good"]);
  const asked: string[] = [];
  let isDown = false;
  let waiting: { delayMs: number; callback: () => void }[] = [];
  const clock: Clock = {
    nowMs: () => 0,
    monotonicMs: () => 0,
    after(delayMs, callback) {
      const one = { delayMs, callback };
      waiting.push(one);
      return () => void (waiting = waiting.filter((other) => other !== one));
    },
  };
  const readers = new SecretReaders({
    engine,
    clock,
    log: silentLog,
    publish: (changes) => engine.apply(changes),
    ask: (namespace, account) => {
      if (isDown) return Promise.reject(new Error("no answer"));
      asked.push(`${namespace}/${account}`);
      return Promise.resolve(allowed.has(`${namespace}/${account}`));
    },
  });
  engine.apply(worldChanges([rule, pod("caller", "good"), pod("caller", "bad"), pod("other", "third")]));
  void readers.start();
  return {
    ...{ engine, readers, allowed, asked },
    break: () => void (isDown = true),
    settle: async () => {
      readers.settled(engine.settle().changed);
      await new Promise(setImmediate);
    },
    /** All that waits at most so long. */
    pass: async (ms: number) => {
      const due = waiting.filter(({ delayMs }) => delayMs <= ms);
      waiting = waiting.filter((one) => !due.includes(one));
      for (const { callback } of due) callback();
      await new Promise(setImmediate);
    },
    secrets: (serviceAccount: string) =>
      engine
        .get(viewsOf, { ...caller, serviceAccount })
        .flatMap((view) => engine.get(planOf, view).secret.flatMap(({ entries }) => entries))
        .map(({ name }) => name),
    problems: () =>
      engine
        .get(objectProblemsOf, "DestinationRule default/partner")
        .flatMap(({ code, text }) => (code === "MZ0404" ? [text] : [])),
  };
}

describe("the key of a Secret that a rule brings to workloads", () => {
  test("goes to those whose service account may list Secrets; the CA goes to all; the rule says who is refused", async () => {
    const { settle, asked, secrets, problems } = bench();
    assert.deepEqual(secrets("good"), ["kubernetes://client-cacert"], "nobody has said yes yet");
    await settle();
    assert.deepEqual(asked, ["default/bad", "default/good"], "whom no rule selects nobody asks about");
    assert.deepEqual(secrets("good"), ["kubernetes://client", "kubernetes://client-cacert"]);
    assert.deepEqual(secrets("bad"), ["kubernetes://client-cacert"]);
    assert.match(problems().join(), /Secrets of default \(default\/bad\)/);
  });

  test("comes once a refused service account is allowed, and goes once it no longer is", async () => {
    const { settle, pass, allowed, secrets, problems } = bench();
    await settle();
    allowed.add("default/bad");
    allowed.delete("default/good");
    await pass(60_000);
    assert.deepEqual(secrets("bad").length, 2);
    assert.deepEqual(problems(), []);
    assert.deepEqual(secrets("good").length, 2, "a yes holds for five minutes");
    await pass(300_000);
    assert.deepEqual(secrets("good").length, 1);
  });

  test("stays while the API server does not answer", async () => {
    const { settle, pass, secrets, ...api } = bench();
    await settle();
    api.break();
    await pass(300_000);
    assert.deepEqual(secrets("good").length, 2);
  });

  test("is asked for anew when the rule comes again", async () => {
    const { engine, settle, asked, secrets } = bench();
    await settle();
    engine.set(objectChange(rule)[0]!.table, "default/partner", undefined);
    await settle();
    assert.deepEqual(secrets("good"), []);
    engine.apply(objectChange(rule));
    await settle();
    assert.equal(asked.length, 4);
    assert.deepEqual(secrets("good").length, 2);
  });
});
