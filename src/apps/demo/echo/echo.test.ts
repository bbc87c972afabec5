import assert from "node:assert/strict";
import type { AddressInfo } from "node:net";
import { test } from "node:test";
import { forward } from "./forward.ts";
import { startEcho, type Echo } from "./server.ts";
import { startUdpEcho } from "./udp.ts";

const address = "127.0.0.1";
const servers = await startEcho({
  service: "echo",
  version: "v2",
  ports: [
    { kind: "http", port: 0, address },
    { kind: "tcp", port: 0, address, serverFirst: false },
    { kind: "tcp", port: 0, address, serverFirst: true },
    { kind: "http", port: 0, address, behindProxy: true },
  ],
});
// Nothing waits for them, and all unit tests share a process.
for (const server of servers) server.unref();
const [http, tcp, serverFirst, behindProxy] = servers.map((server) => (server.address() as AddressInfo).port);

test("HTTP/1.1 and HTTP/2 on one port answer with what they saw", async () => {
  for (const http2 of [false, true]) {
    const headers = { host: "reviews:9080", "x-a": "b" };
    const [result] = await forward({ url: `http://${address}:${http}/p?q=1`, headers, http2 });
    const echo = JSON.parse(result?.body ?? "") as Echo;
    assert.equal(echo.protocol, http2 ? "HTTP/2.0" : "HTTP/1.1");
    assert.deepEqual(
      [echo.host, echo.url, echo.headers["x-a"], echo.version],
      ["reviews:9080", "/p?q=1", "b", "v2"],
    );
  }
});

test("an asked-for status and delay are given", async () => {
  const [result] = await forward({ url: `http://${address}:${http}/?status=503&delay=30` });
  assert.equal(result?.status, 503);
  assert.ok((result?.durationMs ?? 0) >= 29);
});

test("a gRPC call gets status 0", async () => {
  const [result] = await forward({ url: `grpc://${address}:${http}/echo.Echo/Say` });
  assert.equal(result?.grpcStatus, 0);
});

test("gRPC messages flow to the client, from it, and both ways in turn", async () => {
  const streamed = async (kind: string, ...messages: string[]) => {
    const [result] = await forward({ url: `grpc://${address}:${http}/echo.Echo/${kind}`, messages });
    assert.equal(result?.grpcStatus, 0, JSON.stringify(result));
    return result.body.split("\n");
  };
  assert.deepEqual(await streamed("ServerStream", "3"), ["1 of 3", "2 of 3", "3 of 3"]);
  assert.deepEqual(await streamed("ClientStream", "a", "b", "c"), ["3 came"]);
  assert.deepEqual(await streamed("BidiStream", "a", "b"), ["a", "b"]);
});

test("a datagram comes back", async () => {
  const socket = await startUdpEcho(0, address, "service=echo");
  const [result] = await forward({ url: `udp://${address}:${socket.address().port}`, message: "hi" });
  socket.close();
  assert.equal(result?.body, "service=echo from=127.0.0.1 echo=hi", JSON.stringify(result));
});

test("servers of one version can be asked to fail alone", async () => {
  const statusOf = async (version: string) =>
    (await forward({ url: `http://${address}:${http}/?status=503&version=${version}` }))[0]?.status;
  assert.deepEqual([await statusOf("v1"), await statusOf("v2")], [200, 503]);
});

test("TCP is echoed, and a server that speaks first does", async () => {
  const [plain] = await forward({ url: `tcp://${address}:${tcp}`, message: "hi\n" });
  assert.match(plain?.body ?? "", /service=echo version=v2 echo=hi/);
  const [first] = await forward({ url: `tcp://${address}:${serverFirst}`, message: "hi\n" });
  assert.match(first?.body ?? "", /^ready hostname=/);
});

test("a refused connection is an error, not a throw", async () => {
  const [result] = await forward({ url: `http://${address}:1/` });
  assert.equal(result?.status, 0);
  assert.match(result?.error ?? "", /ECONNREFUSED/);
});

test("a client of a protocol in which the server speaks first waits for it", async () => {
  const [result] = await forward({
    url: `tcp://${address}:${serverFirst}`,
    serverFirst: true,
    message: "hi",
  });
  assert.match(result?.body ?? "", /^ready [^]*echo=hi/);
  const [never] = await forward({ url: `tcp://${address}:${tcp}`, serverFirst: true, timeoutMs: 50 });
  assert.match(never?.error ?? "", /timed out/);
});

test("a port behind a proxy wants the PROXY protocol and says which version came", async () => {
  const message = "GET / HTTP/1.1\r\nHost: a\r\n\r";
  const order = { url: `tcp://${address}:${behindProxy}`, message, expect: "proxyProtocol" };
  const [named] = await forward({ ...order, proxyProtocol: true });
  assert.match(named?.body ?? "", /"proxyProtocol":"1"/);
  const [plain] = await forward(order);
  assert.match(plain?.error ?? "", /closed/);
});

test("a WebSocket opens, and what is sent comes back", async () => {
  const [result] = await forward({ url: `ws://${address}:${http}/chat`, message: "hello" });
  assert.equal(result?.body, "hello");
});
