import assert from "node:assert/strict";
import { describe, test } from "node:test";

import { parseDurationMs, parseDurationNs, renderDuration } from "./duration.ts";
import {
  compareHosts,
  hostMatches,
  hostSubsetOf,
  mostSpecificHost,
  resolveGatewayName,
  resolveShortName,
} from "./host.ts";
import { labelProblems, labelsSubsetOf, selectorMatches, serviceSelects } from "./label-match.ts";
import { parseProtocol, protocolOfPort } from "./protocol.ts";

describe("host names", () => {
  test("a wildcard means every name with its suffix, and the relation is symmetric", () => {
    assert.equal(hostMatches("*.com", "a.com"), true);
    assert.equal(hostMatches("a.com", "*.com"), true);
    assert.equal(hostMatches("*.a.com", "*.com"), true);
    assert.equal(hostMatches("*.com", "com"), false);
  });

  test("a wildcard is a subset of a wider one only", () => {
    assert.equal(hostSubsetOf("*.a.com", "*.com"), true);
    assert.equal(hostSubsetOf("*.com", "*.a.com"), false);
    assert.equal(hostSubsetOf("*.com", "a.com"), false);
  });

  test("plain names come before wildcards and longer names before shorter ones", () => {
    const hosts = ["*", "a.com", "*.com", "b.a.com", "*.a.com"];
    assert.deepEqual(hosts.toSorted(compareHosts), ["b.a.com", "a.com", "*.a.com", "*.com", "*"]);
    assert.equal(mostSpecificHost("b.a.com", ["*", "*.com", "*.a.com"]), "*.a.com");
  });

  test("short names are those of the namespace; names of Gateways have four forms", () => {
    assert.equal(
      resolveShortName("reviews", "default", "cluster.local"),
      "reviews.default.svc.cluster.local",
    );
    assert.equal(resolveShortName("reviews.prod", "default", "cluster.local"), "reviews.prod");
    const gateways = ["gw", "./gw", "infra/gw", "gw.infra.svc.cluster.local"];
    assert.deepEqual(
      gateways.map((name) => resolveGatewayName(name, "default")),
      ["default/gw", "default/gw", "infra/gw", "infra/gw"],
    );
  });
});

describe("durations", () => {
  test("protobuf's and Go's forms are read", () => {
    assert.equal(parseDurationMs("1.5s"), 1500);
    assert.equal(parseDurationMs("1h1m1s"), 3_661_000);
    assert.equal(parseDurationNs("2.000000042s"), 2_000_000_042n);
    assert.equal(parseDurationMs("-5ms"), -5);
    for (const text of ["", "5", "s", "1d", "1 s"]) assert.equal(parseDurationNs(text), undefined, text);
  });

  test("a duration is written in seconds", () => {
    assert.equal(renderDuration(1_500_000_000n), "1.5s");
    assert.equal(renderDuration(-1_000_000n), "-0.001s");
  });
});

describe("labels", () => {
  test("an empty selector of a Service selects nothing, an empty subset is in everything", () => {
    assert.equal(serviceSelects({}, { app: "a" }), false);
    assert.equal(labelsSubsetOf({}, { app: "a" }), true);
  });

  test("expressions select by presence and by value", () => {
    const matches = (operator: "In" | "NotIn" | "Exists" | "DoesNotExist", labels: Record<string, string>) =>
      selectorMatches({ matchExpressions: [{ key: "app", operator, values: ["a"] }] }, labels);
    assert.deepEqual([matches("In", { app: "a" }), matches("In", {})], [true, false]);
    assert.deepEqual([matches("NotIn", { app: "a" }), matches("NotIn", {})], [false, true]);
    assert.deepEqual([matches("Exists", { app: "b" }), matches("DoesNotExist", { app: "b" })], [true, false]);
  });

  test("a key has one prefix at most, and a value 63 characters", () => {
    assert.deepEqual(labelProblems({ "example.com/app": "a" }), []);
    assert.equal(labelProblems({ "a/b/c": "a" }).length, 1);
    assert.equal(labelProblems({ app: "a".repeat(64) }).length, 1);
  });
});

describe("protocols", () => {
  test("appProtocol prevails over the port's name, and that over its number", () => {
    assert.equal(protocolOfPort({ port: 80, name: "tcp-a", appProtocol: "http" }), "HTTP");
    assert.equal(protocolOfPort({ port: 80, name: "grpc-web-a" }), "GRPC-Web");
    assert.equal(protocolOfPort({ port: 3306, name: "db" }), "TCP");
    assert.equal(protocolOfPort({ port: 80, name: "web" }), "UnsupportedProtocol");
  });

  test("words of JavaScript are no protocols", () => {
    assert.equal(parseProtocol("constructor"), "UnsupportedProtocol");
    assert.equal(parseProtocol("Http2"), "HTTP2");
  });
});
