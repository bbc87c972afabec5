import assert from "node:assert/strict";
import { test } from "node:test";
import * as dnsPacket from "dns-packet";
import type { EndpointSlice, Service } from "../../types.ts";
import { answerDns, type DnsView } from "./answers.ts";
import { answerMessage } from "./server.ts";

const services: Record<string, Service["spec"]> = {
  "default/web": { clusterIP: "10.96.0.7", ports: [{ name: "http", port: 80 }] },
  "default/db": { clusterIP: "None", ports: [{ name: "sql", port: 5432 }] },
  "default/alias": { type: "ExternalName", externalName: "web.default.svc.cluster.local" },
  "default/away": { type: "ExternalName", externalName: "example.test" },
};

const slice: EndpointSlice = {
  apiVersion: "discovery.k8s.io/v1",
  kind: "EndpointSlice",
  metadata: { name: "db-1", namespace: "default" },
  addressType: "IPv4",
  ports: [{ name: "sql", port: 5432 }],
  endpoints: [
    { addresses: ["10.244.0.9"], hostname: "db-1" },
    { addresses: ["10.244.0.8"], hostname: "db-0" },
    { addresses: ["10.244.0.10"], hostname: "db-2", conditions: { ready: false } },
  ],
};

const view: DnsView = {
  service: (namespace, name) => {
    const spec = services[`${namespace}/${name}`];
    return spec && { apiVersion: "v1", kind: "Service", metadata: { name, namespace }, spec };
  },
  slices: (_namespace, service) => (service === "db" ? [slice] : []),
  hasNamespace: (name) => name === "default",
};

function ask(type: string, name: string): unknown {
  const answer = answerDns(type, name, view, "cluster.local");
  return answer.kind === "found" ? answer.records.map((record) => record.data) : answer.kind;
}

test("a Service's name is its ClusterIP, in any case and with a final dot", () => {
  assert.deepEqual(ask("A", "Web.default.svc.cluster.local."), ["10.96.0.7"]);
});

test("a Service has no IPv6 address, and says so without denying its name", () => {
  assert.deepEqual(ask("AAAA", "web.default.svc.cluster.local"), []);
});

test("a headless Service's name is its ready Pods, each of which has a name of its own", () => {
  assert.deepEqual(ask("A", "db.default.svc.cluster.local"), ["10.244.0.8", "10.244.0.9"]);
  assert.deepEqual(ask("A", "db-1.db.default.svc.cluster.local"), ["10.244.0.9"]);
  assert.equal(ask("A", "db-2.db.default.svc.cluster.local"), "noSuchName");
});

test("an alias is followed inside the cluster and only named outside", () => {
  assert.deepEqual(ask("A", "alias.default.svc.cluster.local"), [
    "web.default.svc.cluster.local",
    "10.96.0.7",
  ]);
  assert.deepEqual(ask("A", "away.default.svc.cluster.local"), ["example.test"]);
});

test("a named port has a service record", () => {
  assert.deepEqual(ask("SRV", "_http._tcp.web.default.svc.cluster.local"), [
    { target: "web.default.svc.cluster.local", port: 80, priority: 0, weight: 100 },
  ]);
  assert.equal(ask("SRV", "_other._tcp.web.default.svc.cluster.local"), "noSuchName");
});

test("an address with dashes is a Pod's name", () => {
  assert.deepEqual(ask("A", "10-244-0-7.default.pod.cluster.local"), ["10.244.0.7"]);
});

test("names outside the zone are never forwarded", () => {
  assert.equal(ask("A", "example.test"), "refused");
  assert.equal(ask("A", "xcluster.local"), "refused");
});

test("a message comes back with its id, and an unknown name as NXDOMAIN", () => {
  const query = dnsPacket.encode({
    type: "query",
    id: 7,
    questions: [{ type: "A", name: "nobody.default.svc.cluster.local" }],
  });
  const answer = answerMessage(query, view, "cluster.local", 512);
  assert.ok(answer);
  assert.equal(answer.readUInt16BE(0), 7);
  assert.equal(answer.readUInt16BE(2) & 15, 3);
});
