import assert from "node:assert/strict";
import { test } from "node:test";
import {
  expandPrincipalAliases,
  expandTrustDomains,
  matchesAny,
  parseSpiffeId,
  renderSpiffeId,
  replaceTrustDomain,
  trustDomainOfPrincipal,
} from "./index.ts";

test("an id is parsed and rendered back", () => {
  const id = { trustDomain: "td.with.dots", namespace: "ns", serviceAccount: "sa" };
  assert.deepEqual(parseSpiffeId("spiffe://td.with.dots/ns/ns/sa/sa"), id);
  assert.equal(renderSpiffeId(id), "spiffe://td.with.dots/ns/ns/sa/sa");
});

test("texts of another shape are no ids", () => {
  for (const text of [
    "spiffe://td/ns/ns/sa",
    "spiffe://td/ns/ns/sa/sa/",
    "spiffe://td/x/ns/sa/sa",
    "td/ns/a/sa/b",
  ]) {
    assert.equal(parseSpiffeId(text), undefined, text);
  }
});

test("an id without namespace or account is not rendered", () => {
  assert.throws(() => renderSpiffeId({ trustDomain: "td", namespace: "", serviceAccount: "sa" }));
  assert.throws(() => renderSpiffeId({ trustDomain: "td", namespace: "ns", serviceAccount: "" }));
});

test("ids expand to every trust domain, others stay", () => {
  assert.deepEqual(expandTrustDomains(["spiffe://cluster.local/ns/d/sa/d", "testdns.com"], ["foo"]), [
    "spiffe://cluster.local/ns/d/sa/d",
    "spiffe://foo/ns/d/sa/d",
    "testdns.com",
  ]);
});

test("a principal of the mesh gets a twin for each alias, wildcards are kept", () => {
  const domains = { trustDomain: "td2", aliases: ["foo-td1", "cluster.local"] };
  assert.deepEqual(expandPrincipalAliases(["*-td1/ns/foo/sa/bar"], domains), [
    "td2/ns/foo/sa/bar",
    "*-td1/ns/foo/sa/bar",
    "cluster.local/ns/foo/sa/bar",
  ]);
  assert.deepEqual(expandPrincipalAliases(["*/ns/foo/sa/bar", "*sa/zzz", "*", "/ns/a/sa/b"], domains), [
    "*/ns/foo/sa/bar",
    "*sa/zzz",
    "*",
    "/ns/a/sa/b",
  ]);
});

test("a principal's trust domain is read and replaced only where the shape is right", () => {
  assert.equal(trustDomainOfPrincipal("cluster.local/ns/foo/sa/bar"), "cluster.local");
  assert.equal(trustDomainOfPrincipal("spiffe://cluster.local/ns/foo/sa/bar"), "");
  assert.equal(replaceTrustDomain("abc", "xyz/ns/foo/sa/bar"), "abc/ns/foo/sa/bar");
  assert.equal(replaceTrustDomain("abc", "sa/test-sa/ns/default"), undefined);
});

test("patterns match by prefix, suffix, exactly or all; an empty one matches nothing", () => {
  assert.ok(matchesAny("yo*", ["yolo"]));
  assert.ok(matchesAny("*yo", ["yoyo"]));
  assert.ok(matchesAny("*", ["x"]));
  assert.ok(!matchesAny("", ["", "x"]));
});
