import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { silentLog, type Clock } from "#base";
import { Engine } from "#engine";
import { objectChange, objectProblemsOf, wantedStatusOf, worldChanges, type ProxyClass } from "#model";
import type { KubeObject } from "#objects";
import { planOf, viewsOf } from "#plan";
import { proxyOf } from "../../../test/support/proxies.ts";
import { TestAuthority } from "../../../test/support/test-authority.ts";
import { SecretReaders } from "./secret-readers.ts";

const authority = await TestAuthority.create("ours");
const { certificate: testCertificate, key: testKey } = await authority.issue(["a.example.com"]);

function object(kind: string, name: string, spec: object, more: Partial<KubeObject> = {}): KubeObject {
  const metadata = { name, namespace: "default", ...more.metadata };
  return { apiVersion: "networking.istio.io/v1", kind, ...more, metadata, spec } as KubeObject;
}

const tls = { mode: "MUTUAL", credentialName: "client" };
const rule = object("DestinationRule", "partner", {
  host: "partner.example.com",
  workloadSelector: { matchLabels: { app: "caller" } },
  trafficPolicy: { tls },
});

function pod(app: string, serviceAccountName: string, annotations = {}): KubeObject {
  return {
    apiVersion: "v1",
    kind: "Pod",
    metadata: { name: `${app}-${serviceAccountName}`, namespace: "default", labels: { app }, annotations },
    spec: { serviceAccountName },
  };
}

function gatewayPod(serviceAccountName: string): KubeObject {
  return pod("edge", serviceAccountName, { "inject.istio.io/templates": "gateway" });
}

const caller = proxyOf({ labels: { app: "caller" } });
const edge = proxyOf({ kind: "router", labels: { app: "edge" } });

/** An API server that allows the accounts in `allowed`; the clock goes when it is told. */
function bench(objects: readonly KubeObject[], proxy: ProxyClass = caller) {
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
  engine.apply(worldChanges(objects));
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
    /** How long the answer that was asked for last holds. */
    holdsMs: () => waiting.at(-1)?.delayMs,
    secrets: (serviceAccount: string) =>
      engine
        .get(viewsOf, { ...proxy, serviceAccount })
        .flatMap((view) => engine.get(planOf, view).secret.flatMap(({ entries }) => entries))
        .map(({ name }) => name),
    /** The texts of an object's problems of a code. */
    problems: (of: string, code = "MZ0404") =>
      engine.get(objectProblemsOf, of).flatMap((problem) => (problem.code === code ? [problem.text] : [])),
  };
}

const workloads = [rule, pod("caller", "good"), pod("caller", "bad"), pod("other", "third")];
const ruleName = "DestinationRule default/partner";

describe("the key of a Secret that a rule brings to workloads", () => {
  test("goes to those whose service account may list Secrets; the CA goes to all; the rule says who is refused", async () => {
    const { settle, asked, secrets, problems } = bench(workloads);
    assert.deepEqual(secrets("good"), ["kubernetes://client-cacert"], "nobody has said yes yet");
    await settle();
    assert.deepEqual(asked, ["default/bad", "default/good"], "whom no rule selects nobody asks about");
    assert.deepEqual(secrets("good"), ["kubernetes://client", "kubernetes://client-cacert"]);
    assert.deepEqual(secrets("bad"), ["kubernetes://client-cacert"]);
    assert.match(problems(ruleName).join(), /Secrets of default \(default\/bad\)/);
  });

  test("comes once a refused service account is allowed, and goes once it no longer is", async () => {
    const { settle, pass, allowed, secrets, problems } = bench(workloads);
    await settle();
    allowed.add("default/bad");
    allowed.delete("default/good");
    await pass(60_000);
    assert.deepEqual(secrets("bad").length, 2);
    assert.deepEqual(problems(ruleName), []);
    assert.deepEqual(secrets("good").length, 2, "a yes holds for five minutes");
    await pass(300_000);
    assert.deepEqual(secrets("good").length, 1);
  });

  test("stays while the API server does not answer", async () => {
    const { settle, pass, secrets, ...api } = bench(workloads);
    await settle();
    api.break();
    await pass(300_000);
    assert.deepEqual(secrets("good").length, 2);
  });

  test("is asked for anew when the rule comes again", async () => {
    const { engine, settle, asked, secrets } = bench(workloads);
    await settle();
    engine.set(objectChange(rule)[0]!.table, "default/partner", undefined);
    await settle();
    assert.deepEqual(secrets("good"), []);
    engine.apply(objectChange(rule));
    await settle();
    assert.equal(asked.length, 4);
    assert.deepEqual(secrets("good").length, 2);
  });

  test("is doubted sooner the newer a refusal is, a minute later at most", async () => {
    const { settle, pass, holdsMs } = bench([rule, pod("caller", "bad")]);
    await settle();
    const held: (number | undefined)[] = [];
    for (let round = 0; round < 6; round++) {
      held.push(holdsMs());
      await pass(60_000);
    }
    assert.deepEqual(held, [5_000, 10_000, 20_000, 40_000, 60_000, 60_000]);
  });

  test("goes to machines outside of the cluster, too, whose group has an account that no Pod shares", async () => {
    const template = { serviceAccount: "good", labels: { app: "caller" } };
    const { settle, asked, secrets } = bench([rule, object("WorkloadGroup", "machines", { template })]);
    await settle();
    assert.deepEqual(asked, ["default/good"]);
    assert.deepEqual(secrets("good").length, 2);
  });
});

describe("the key of a Secret that a Gateway names", () => {
  const server = (name: string, settings?: object): object => ({
    port: { number: 443, name, protocol: "HTTPS" },
    hosts: [`${name}.example.com`],
    ...(settings === undefined ? {} : { tls: settings }),
  });
  const gateway = object("Gateway", "web", {
    selector: { app: "edge" },
    servers: [server("a", { mode: "SIMPLE", credentialName: "server" }), server("m", tls)],
  });
  const all = ["kubernetes://client", "kubernetes://client-cacert", "kubernetes://server"];
  const pods = [gatewayPod("good"), gatewayPod("bad"), pod("edge", "sidecar")];

  test("goes to gateways whose service account may list Secrets; each server of the Gateway says who is refused", async () => {
    const { settle, asked, secrets, problems } = bench([gateway, ...pods], edge);
    await settle();
    assert.deepEqual(
      asked,
      ["default/bad", "default/good"],
      "who does not look like a gateway is not asked about",
    );
    assert.deepEqual(secrets("good"), all);
    assert.deepEqual(secrets("bad"), ["kubernetes://client-cacert"], "a CA is no secret");
    assert.deepEqual(secrets("sidecar"), ["kubernetes://client-cacert"], "a Pod that merely has the labels");
    assert.match(
      problems("Gateway default/web").join(),
      /their service accounts may not list .*\(default\/bad\)/,
    );
    assert.equal(problems("Gateway default/web").length, 2);
  });

  test("is asked for only where a Gateway names one that its gateways could have", async () => {
    const elsewhere = server("e", { mode: "SIMPLE", credentialName: "kubernetes://other/server" });
    const plain = object("Gateway", "plain", {
      selector: { app: "edge" },
      servers: [server("p"), elsewhere],
    });
    const others = object("Gateway", "others", {
      selector: { app: "another" },
      servers: [server("o", { mode: "SIMPLE", credentialName: "server" })],
    });
    const { engine, settle, asked } = bench([plain, others, ...pods], edge);
    await settle();
    assert.deepEqual(asked, []);
    engine.apply(objectChange(gateway));
    await settle();
    assert.deepEqual(asked, ["default/bad", "default/good"]);
  });

  test("does not go and come when the Gateway changes, or a replica", async () => {
    const { engine, settle, asked, secrets } = bench([gateway, ...pods], edge);
    await settle();
    const more = { ...gateway, metadata: { ...gateway.metadata, generation: 2, labels: { a: "b" } } };
    engine.apply(objectChange(more));
    engine.apply(
      objectChange({ ...gatewayPod("good"), metadata: { ...gatewayPod("good").metadata, name: "replica" } }),
    );
    await settle();
    assert.deepEqual([asked.length, secrets("good").length], [2, 3]);
  });

  test("goes to one that connects as a gateway though its Pod looks like another, if its account may read Secrets", async () => {
    const bare = {
      ...pod("edge", "good"),
      spec: { serviceAccountName: "good", containers: [{ name: "a" }, { name: "b" }] },
    };
    const { readers, settle, asked, secrets } = bench([gateway, bare as KubeObject], edge);
    await settle();
    assert.deepEqual([asked, secrets("good").length], [[], 1]);
    await readers.admitted("default/good");
    assert.deepEqual([asked, secrets("good")], [["default/good"], all]);
    await readers.admitted("default/good");
    assert.equal(asked.length, 1, "asked once for as long as the answer holds");
  });

  test("is waited for when a gateway connects, but not for long where the API server does not answer", async () => {
    const api = bench([gateway, ...pods], edge);
    api.break();
    await api.settle();
    let isAdmitted = false;
    const admitting = api.readers.admitted("default/good").then(() => (isAdmitted = true));
    await new Promise(setImmediate);
    assert.equal(isAdmitted, false);
    await api.pass(2_000);
    await admitting;
    assert.equal(isAdmitted, true);
  });

  test("of a DestinationRule for everybody goes to gateways that may list Secrets, and the rule says who is refused", async () => {
    const everybody = [
      object("ServiceEntry", "partner", {
        hosts: ["partner.example.com"],
        ports: [{ number: 443, name: "tls", protocol: "TLS" }],
        resolution: "DNS",
      }),
      object("DestinationRule", "partner", { host: "partner.example.com", trafficPolicy: { tls } }),
      object("Gateway", "web", {
        selector: { app: "edge" },
        servers: [{ ...server("h"), port: { number: 80, name: "h", protocol: "HTTP" } }],
      }),
      object("VirtualService", "web", {
        hosts: ["h.example.com"],
        gateways: ["web"],
        http: [{ route: [{ destination: { host: "partner.example.com" } }] }],
      }),
    ];
    const { settle, asked, secrets, problems } = bench([...everybody, ...pods, pod("aloof", "third")], edge);
    await settle();
    assert.deepEqual(asked, ["default/bad", "default/good"]);
    assert.deepEqual(secrets("good"), ["kubernetes://client", "kubernetes://client-cacert"]);
    assert.deepEqual(secrets("bad"), ["kubernetes://client-cacert"]);
    assert.match(problems(ruleName).join(), /Gateways that go by it get no key.*\(default\/bad\)/);
    assert.match(problems(ruleName, "MZ0405").join(), /sidecars that go by it have no certificates/);
  });
});

describe("the key of a Secret that a Gateway of Gateway API names", () => {
  const api = { apiVersion: "gateway.networking.k8s.io/v1" };
  const listeners = [
    {
      name: "https",
      port: 443,
      protocol: "HTTPS",
      tls: { mode: "Terminate", certificateRefs: [{ name: "pair" }] },
    },
  ];
  const pair = {
    ...object("Secret", "pair", {}, { apiVersion: "v1" }),
    stringData: { "tls.crt": testCertificate, "tls.key": testKey },
  } as KubeObject;
  const labels = { "gateway.networking.k8s.io/gateway-name": "web" };
  const service = (name: string) =>
    object(
      "Service",
      name,
      { clusterIP: "10.0.0.9", selector: labels, ports: [{ name: "https", port: 443 }] },
      { apiVersion: "v1" },
    );
  const proxy = proxyOf({ kind: "router", labels });
  const ofAccount = (name: string): KubeObject => {
    const made = gatewayPod(name);
    return { ...made, metadata: { ...made.metadata, labels } };
  };
  const named = ["kubernetes-gateway://default/pair"];

  test("goes unasked to the account that its proxies are deployed with, and to no other that passes for them", async () => {
    const mine = object("Gateway", "web", { gatewayClassName: "istio", listeners }, api);
    const { settle, asked, secrets } = bench(
      [mine, pair, service("web-istio"), ofAccount("web-istio"), ofAccount("bad")],
      proxy,
    );
    await settle();
    assert.deepEqual(secrets("web-istio"), named);
    assert.deepEqual(secrets("bad"), []);
    assert.deepEqual(asked, ["default/bad"]);
  });

  test("goes to proxies that somebody else runs where these may list Secrets, and the listener says who may not", async () => {
    const addresses = [{ type: "Hostname", value: "front" }];
    const mine = object("Gateway", "web", { gatewayClassName: "istio", listeners, addresses }, api);
    const { engine, settle, asked, secrets } = bench(
      [mine, pair, service("front"), ofAccount("good"), ofAccount("bad")],
      proxy,
    );
    await settle();
    assert.deepEqual(asked, ["default/bad", "default/good"]);
    assert.deepEqual([secrets("good"), secrets("bad")], [named, []]);
    const status = JSON.stringify(engine.get(wantedStatusOf, { kind: "KubeGateway", key: "default/web" }));
    assert.match(status, /its gateways get no key: [^"]*\(default\/bad\)/);
  });
});
