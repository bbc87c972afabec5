import assert from "node:assert/strict";
import { describe, test } from "node:test";
import type { VirtualServiceHttpRoute } from "#objects";
import { httpRoutes, type RouteContext } from "./http-route.ts";
import type { Message } from "./proto/api.ts";
import { retryPolicy } from "./retry.ts";
import { routeMatch, takesEverything } from "./route-match.ts";
import { balancerFields, outlierFields, policyFor, poolFields } from "./traffic-policy.ts";

const context: RouteContext = {
  virtualService: "a/reviews",
  port: 9080,
  terminatesTls: false,
  isSource: () => true,
  clusterOf: ({ host, subset, port }) => `${port?.number ?? 9080}/${subset ?? ""}/${host}`,
  hashOf: () => undefined,
  isDynamic: () => false,
};

const to = (host: string, more: object = {}): object => ({ destination: { host }, ...more });

function built(route: object, more: Partial<RouteContext> = {}): Message {
  const [first] = httpRoutes([route as VirtualServiceHttpRoute], { ...context, ...more });
  assert.ok(first);
  return first;
}

describe("routes of a VirtualService", () => {
  test("what stands after a route that takes everything is left out", () => {
    const routes = httpRoutes(
      [
        { match: [{ uri: { exact: "/a" } }, { uri: { prefix: "/" } }], route: [to("x")] },
        { route: [to("y")] },
      ] as VirtualServiceHttpRoute[],
      context,
    );
    assert.equal(routes.length, 2);
  });

  test("a match for another port or source is left out", () => {
    const other = { match: [{ port: 80 }], route: [to("x")] } as VirtualServiceHttpRoute;
    assert.deepEqual(httpRoutes([other], context), []);
    const own = { match: [{ port: 9080 }], route: [to("x")] } as VirtualServiceHttpRoute;
    assert.deepEqual(httpRoutes([own], { ...context, isSource: () => false }), []);
  });

  test("weights of zero get nothing, and one destination needs no weights", () => {
    const { route } = built({ route: [to("x", { weight: 0 }), to("y", { weight: 7 })] });
    assert.equal((route as Message)["cluster"], "9080//y");
  });

  test("an authority among the headers rewrites the host, the route's own word first", () => {
    const headers = (host: string): object => ({ headers: { request: { set: { Host: host } } } });
    const both = built({ ...headers("route"), route: [{ ...to("x"), ...headers("destination") }] });
    assert.equal((both["route"] as Message)["hostRewriteLiteral"], "route");
    assert.equal(both["requestHeadersToAdd"], undefined);
    const one = built({ route: [{ ...to("x"), ...headers("destination") }] });
    assert.equal((one["route"] as Message)["hostRewriteLiteral"], "destination");
  });

  test("a redirect leaves out a port that its scheme implies", () => {
    const port = (redirect: object): unknown => (built({ redirect })["redirect"] as Message)["portRedirect"];
    assert.equal(port({ port: 443, scheme: "https" }), undefined);
    assert.equal(port({ port: 8443, scheme: "https" }), 8443);
    assert.equal(port({ derivePort: "FROM_REQUEST_PORT" }), 9080);
    assert.equal(built({ redirect: {} })["metadata"] === undefined, false);
  });

  test("a mirror of zero percent is none", () => {
    const route = (mirrorPercentage: object): unknown =>
      (built({ route: [to("x")], mirror: { host: "m" }, mirrorPercentage })["route"] as Message)[
        "requestMirrorPolicies"
      ];
    assert.equal(route({ value: 0 }), undefined);
    assert.equal((route({ value: 50 }) as unknown[]).length, 1);
  });

  test("a fault without a percentage hits nobody", () => {
    const filters = built({ route: [to("x")], fault: { abort: { httpStatus: 500 } } })[
      "typedPerFilterConfig"
    ] as Readonly<
      Record<string, { readonly abort: { readonly percentage: { readonly numerator: number } } }>
    >;
    assert.equal(filters["envoy.filters.http.fault"]?.abort.percentage.numerator, 0);
  });
});

describe("matches", () => {
  test("no condition takes everything, any condition does not", () => {
    assert.ok(takesEverything(routeMatch(undefined)));
    assert.ok(takesEverything(routeMatch({ uri: { prefix: "/" } })));
    assert.ok(!takesEverything(routeMatch({ uri: { prefix: "/" }, method: { exact: "GET" } })));
    assert.ok(!takesEverything(routeMatch({ queryParams: { a: { exact: "b" } } })));
  });

  test("a header without a value, or with the regex *, must be there", () => {
    const headers = (value: object): unknown => routeMatch({ headers: { "x-a": value } })["headers"];
    assert.deepEqual(headers({}), [{ name: "x-a", presentMatch: true }]);
    assert.deepEqual(headers({ regex: "*" }), [{ name: "x-a", presentMatch: true }]);
    assert.deepEqual(headers({ exact: "" }), [{ name: "x-a", stringMatch: { exact: "" } }]);
  });

  test("a header that must not have a value may be missing", () => {
    assert.deepEqual(routeMatch({ withoutHeaders: { "x-a": { exact: "b" } } })["headers"], [
      { name: "x-a", stringMatch: { exact: "b" }, invertMatch: true, treatMissingHeaderAsEmpty: true },
    ]);
  });
});

describe("retries", () => {
  const policy = (settings: Parameters<typeof retryPolicy>[0]): Message =>
    (retryPolicy(settings, false)["retryPolicy"] ?? {}) as Message;

  test("two by default, on another host", () => {
    assert.deepEqual(policy(undefined)["numRetries"], { value: 2 });
    assert.equal((policy(undefined)["retryHostPredicate"] as unknown[]).length, 1);
  });

  test("no attempts are no retries", () => {
    assert.deepEqual(retryPolicy({ attempts: 0 }, false), {});
  });

  test("status codes among the conditions bring the condition that reads them", () => {
    const { retryOn, retriableStatusCodes } = policy({ attempts: 1, retryOn: "5xx, 503,gateway-error" });
    assert.equal(retryOn, "5xx,gateway-error,retriable-status-codes");
    assert.deepEqual(retriableStatusCodes, [503]);
  });

  test("hashed requests stay on their host", () => {
    const pinned = retryPolicy(undefined, true)["retryPolicy"] as Message;
    assert.equal(pinned["retryHostPredicate"], undefined);
  });
});

describe("traffic policies", () => {
  const rule = {
    trafficPolicy: {
      tls: { mode: "ISTIO_MUTUAL" },
      loadBalancer: { simple: "RANDOM" },
      portLevelSettings: [{ port: { number: 81 }, loadBalancer: { simple: "ROUND_ROBIN" } }],
    },
    subsets: [{ name: "v1", trafficPolicy: { tls: { mode: "DISABLE" } } }],
  } as const;

  test("a subset lies over the rule block by block", () => {
    const policy = policyFor(rule, "v1", 80);
    assert.equal(policy.tls?.mode, "DISABLE");
    assert.equal(policy.loadBalancer?.simple, "RANDOM");
  });

  test("a port's settings inherit nothing", () => {
    const policy = policyFor(rule, "", 81);
    assert.equal(policy.loadBalancer?.simple, "ROUND_ROBIN");
    assert.equal(policy.tls, undefined);
  });

  test("limits are lifted unless they are set", () => {
    const defaults = { connectTimeout: "10s", h2Upgrade: false };
    const limits = (fields: Message): Message =>
      (fields["circuitBreakers"] as { readonly thresholds: readonly Message[] }).thresholds[0] ?? {};
    assert.deepEqual(limits(poolFields({}, defaults))["maxConnections"], { value: 4_294_967_295 });
    const policy = { connectionPool: { tcp: { maxConnections: 3 } } };
    assert.deepEqual(limits(poolFields(policy, defaults))["maxConnections"], { value: 3 });
  });

  test("ejection by consecutive errors is enforced, and switched off by zero", () => {
    const errors = (consecutive5xxErrors: number): unknown =>
      (outlierFields({ consecutive5xxErrors })["outlierDetection"] as Message)["enforcingConsecutive_5xx"];
    assert.deepEqual(errors(5), { value: 100 });
    assert.deepEqual(errors(0), { value: 0 });
  });

  test("consistent hashing takes a ring of 1,024 unless told otherwise", () => {
    assert.deepEqual(balancerFields({ consistentHash: { useSourceIp: true } }), {
      lbPolicy: "RING_HASH",
      ringHashLbConfig: { minimumRingSize: { value: 1024 } },
    });
    assert.equal(balancerFields({ consistentHash: { maglev: {} } })["lbPolicy"], "MAGLEV");
    assert.equal(balancerFields(undefined)["lbPolicy"], "LEAST_REQUEST");
  });
});
