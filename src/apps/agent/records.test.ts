import assert from "node:assert/strict";
import { test } from "node:test";
import { egressRecords, telemetryRecords } from "#base";
import { TelemetryRecords } from "./records.ts";

const tags = ["source", "peer|a", "spiffe://x", "host|name|ns"];

function tcp(logType: string, connection: string, received: number, sent: number): string {
  return ["tcp", logType, connection, received, sent, ...tags, "-"].join(telemetryRecords.separator);
}

function countOf(records: TelemetryRecords, metric: string): number {
  const line = records
    .render()
    .split("\n")
    .find((one) => one.startsWith(`envoy_${metric}{`));
  return Number(line?.slice(line.lastIndexOf(" ")) ?? 0);
}

test("what a connection has carried is counted once, however often it is told", () => {
  const records = new TelemetryRecords(() => 0);
  records.take(tcp("TcpPeriodic", "1", 10, 100));
  records.take(tcp("TcpPeriodic", "1", 30, 100));
  records.take(tcp("TcpPeriodic", "2", 5, 0));
  records.take(tcp("TcpConnectionEnd", "1", 31, 150));
  records.take(tcp("TcpConnectionEnd", "2", 5, 0));
  assert.equal(countOf(records, "istio_tcp_received_bytes_total"), 36);
  assert.equal(countOf(records, "istio_tcp_sent_bytes_total"), 150);
  assert.match(records.render(), /\{reporter="source",peer="peer\|a",peer_principal="spiffe:\/\/x"/);
});

test("a connection number that Envoy gives again after its restart counts from nothing", () => {
  const records = new TelemetryRecords(() => 0);
  records.take(tcp("TcpPeriodic", "1", 500, 500));
  records.take(tcp("TcpPeriodic", "1", 20, 10));
  assert.equal(countOf(records, "istio_tcp_received_bytes_total"), 520);
});

test("a connection of which nothing is heard any longer is forgotten, and what it carried stays counted", () => {
  let nowMs = 0;
  const records = new TelemetryRecords(() => nowMs);
  records.take(tcp("TcpPeriodic", "1", 10, 0));
  nowMs = 3_600_000;
  assert.equal(countOf(records, "istio_tcp_received_bytes_total"), 10);
  records.take(tcp("TcpPeriodic", "1", 50, 0));
  assert.equal(countOf(records, "istio_tcp_received_bytes_total"), 60);
});

test("what does not read like a record counts nothing", () => {
  const records = new TelemetryRecords(() => 0);
  for (const text of [
    "",
    "tcp",
    "udp\u001fx",
    tcp("TcpPeriodic", "1", NaN, 0),
    tcp("TcpPeriodic", "1", -1, 0),
  ])
    records.take(text);
  assert.equal(records.render(), "");
});

test("calls of hosts that nobody knows are counted by host, and those beyond the limit together", () => {
  const records = new TelemetryRecords(() => 0);
  const call = (host: string, route = "block_all"): void =>
    records.take(["egress", "http", route, host, "10.0.0.1:80"].join(telemetryRecords.separator));
  call("Example.com");
  call("example.com");
  call("", "allow_any");
  call("x", "default");
  const lines = records.render();
  assert.match(
    lines,
    /\{reporter="source",request_protocol="http",destination_host="example.com",outcome="blocked"\} 2/,
  );
  assert.match(lines, /destination_host="10.0.0.1:80",outcome="passed"\} 1/);
  assert.ok(!lines.includes('"x"'), "a route of a known host is no egress");
  for (let at = 0; at < 500; at++) call(`h${at}.example.com`);
  const hosts = new Set(
    [...records.render().matchAll(/destination_host="([^"]*)"/g)].map(([, host]) => host),
  );
  assert.equal(hosts.size, egressRecords.hostsMax + 1);
  assert.ok(hosts.has(egressRecords.otherHosts));
});
