// Values at Envoy's own bounds. Admission refuses what lies beyond, by its field: one such value would keep a whole table or all
// clusters of a proxy as they are. What lies just within is shown to the real Envoy.

import assert from "node:assert/strict";
import { test } from "node:test";
import { Engine } from "#engine";
import { snapshotOf } from "#envoy";
import { worldChanges } from "#model";
import { admissionProblems, hasErrors, type KubeObject } from "#objects";
import { envoyComplaint, withoutEnvoy } from "./support/envoy.ts";
import { proxyOf } from "./support/proxies.ts";

interface Bound {
  readonly kind: "VirtualService" | "DestinationRule" | "ServiceEntry" | "Sidecar";
  /** Where the problem is. */
  readonly at: string;
  readonly spec: (value: never) => object;
  readonly within: unknown;
  readonly beyond: unknown;
}

function bound<Value>(
  kind: Bound["kind"],
  at: string,
  within: Value,
  beyond: Value,
  spec: (value: Value) => object,
): Bound {
  return { kind, at, within, beyond, spec };
}

const host = "reviews.default.svc.cluster.local";
const to = [{ destination: { host, port: { number: 9080 } } }];
const http = (of: object) => ({ http: [{ route: to, ...of }] });
const policy = (trafficPolicy: object) => ({ trafficPolicy });
const hash = (consistentHash: object) => policy({ loadBalancer: { consistentHash } });
const headers = (count: number) =>
  Object.fromEntries(Array.from({ length: count }, (_, at) => [`h${at}`, "x"]));
const years292 = "2562047h";
const years293 = "2562048h";
const pool = "spec.trafficPolicy.connectionPool";
const hashAt = "spec.trafficPolicy.loadBalancer.consistentHash";

const bounds: readonly Bound[] = [
  bound("DestinationRule", `${hashAt}.ringHash.minimumRingSize`, 8_388_608, 8_388_609, (minimumRingSize) =>
    hash({ httpHeaderName: "x-user", ringHash: { minimumRingSize } }),
  ),
  bound("DestinationRule", `${hashAt}.minimumRingSize`, 8_388_608, 9_000_000, (minimumRingSize) =>
    hash({ useSourceIp: true, minimumRingSize }),
  ),
  bound("DestinationRule", `${hashAt}.httpHeaderName`, "x-user", "x\nuser", (httpHeaderName) =>
    hash({ httpHeaderName }),
  ),
  bound("DestinationRule", "spec.trafficPolicy.outlierDetection.interval", years292, years293, (interval) =>
    policy({ outlierDetection: { interval } }),
  ),
  bound("DestinationRule", `${pool}.tcp.connectTimeout`, years292, years293, (connectTimeout) =>
    policy({ connectionPool: { tcp: { connectTimeout } } }),
  ),
  bound("DestinationRule", `${pool}.tcp.maxConnectionDuration`, years292, years293, (maxConnectionDuration) =>
    policy({ connectionPool: { tcp: { maxConnectionDuration } } }),
  ),
  bound(
    "DestinationRule",
    `${pool}.http.maxConcurrentStreams`,
    2_147_483_647,
    2_147_483_648,
    (maxConcurrentStreams) =>
      policy({ connectionPool: { http: { maxConcurrentStreams, h2UpgradePolicy: "UPGRADE" } } }),
  ),
  bound("DestinationRule", "spec.trafficPolicy.tls.sni", "x".repeat(255), "x".repeat(256), (sni) =>
    policy({ tls: { mode: "SIMPLE", sni } }),
  ),
  bound("VirtualService", "spec.http[0].timeout", years292, years293, (timeout) => http({ timeout })),
  bound("VirtualService", "spec.http[0].retries.backoff", years292, years293, (backoff) =>
    http({ retries: { attempts: 1, backoff } }),
  ),
  bound("VirtualService", "spec.http[0].fault.abort.httpStatus", 599, 600, (httpStatus) =>
    http({ fault: { abort: { percentage: { value: 1 }, httpStatus } } }),
  ),
  bound("VirtualService", "spec.http[0].directResponse.status", 599, 600, (status) => ({
    http: [{ directResponse: { status } }],
  })),
  bound("VirtualService", "spec.http[0].headers.request.set.h", "x".repeat(16_384), "x".repeat(16_385), (h) =>
    http({ headers: { request: { set: { h } } } }),
  ),
  bound("VirtualService", "spec.http[0].headers.request", headers(1_000), headers(1_001), (set) =>
    http({ headers: { request: { set } } }),
  ),
  bound("VirtualService", "spec.http[0].route", 2_147_483_647, 4_294_967_295, (weight) => ({
    http: [{ route: [...to, ...to].map((one) => ({ ...one, weight })) }],
  })),
  bound("VirtualService", "spec.http[0].redirect.uri", "/x", "/\nx", (uri) => ({
    http: [{ redirect: { uri } }],
  })),
  bound("VirtualService", "spec.http[0].redirect.authority", "x", "x\r\nx: y", (authority) => ({
    http: [{ redirect: { authority } }],
  })),
  bound("VirtualService", "spec.http[0].rewrite.uri", "/x", "/\u0000", (uri) => http({ rewrite: { uri } })),
  bound("VirtualService", "spec.http[0].rewrite.authority", "x", "x\n", (authority) =>
    http({ rewrite: { authority } }),
  ),
  bound("VirtualService", "spec.http[0].rewrite.uriRegexRewrite.rewrite", "/", "/\n", (rewrite) =>
    http({ rewrite: { uriRegexRewrite: { match: "/a", rewrite } } }),
  ),
  bound(
    "VirtualService",
    `spec.http[0].match[0].queryParams.${"q".repeat(1_025)}`,
    "q".repeat(1_024),
    "q".repeat(1_025),
    (name) => http({ match: [{ queryParams: { [name]: { exact: "x" } } }] }),
  ),
  bound("ServiceEntry", "spec.endpoints[0].address", "x".repeat(106), "x".repeat(107), (name) => ({
    resolution: "STATIC",
    ports: [{ number: 80, name: "http", protocol: "HTTP" }],
    endpoints: [{ address: `unix:///${name}` }],
  })),
  bound("Sidecar", "spec.egress[0].bind", "x".repeat(106), "x".repeat(107), (name) => ({
    egress: [
      { port: { number: 0, protocol: "HTTP", name: "http" }, bind: `unix:///${name}`, hosts: ["*/*"] },
    ],
  })),
];

const service: KubeObject = {
  apiVersion: "v1",
  kind: "Service",
  metadata: { name: "reviews", namespace: "default" },
  spec: { clusterIP: "10.0.0.1", selector: { app: "reviews" }, ports: [{ name: "http", port: 9080 }] },
};

function objectOf({ kind, spec }: Bound, value: unknown): KubeObject {
  const named = {
    VirtualService: { hosts: [host] },
    DestinationRule: { host },
    ServiceEntry: { hosts: ["a.example.com"] },
    Sidecar: {},
  };
  const metadata = { name: "own", namespace: "default" };
  return {
    apiVersion: "networking.istio.io/v1",
    kind,
    metadata,
    spec: { ...named[kind], ...spec(value as never) },
  };
}

test("what lies beyond one of Envoy's bounds is refused by its field", () => {
  for (const one of bounds) {
    const problems = admissionProblems(objectOf(one, one.beyond)).filter(
      ({ severity }) => severity === "error",
    );
    assert.deepEqual(
      problems.map(({ at }) => at.path),
      [one.at],
      JSON.stringify(problems).slice(0, 500),
    );
  }
});

test("what lies within them is taken by admission and by Envoy", { skip: withoutEnvoy }, () => {
  for (const one of bounds) {
    const object = objectOf(one, one.within);
    const problems = admissionProblems(object);
    assert.ok(!hasErrors(problems), `${one.at}: ${JSON.stringify(problems).slice(0, 500)}`);
    const engine = new Engine();
    engine.apply(worldChanges([service, object]));
    const resources = Object.values(snapshotOf(engine, proxyOf({ labels: { app: "reviews" } }))).flat();
    assert.equal(envoyComplaint(resources), "", one.at);
  }
});
