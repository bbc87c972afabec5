import assert from "node:assert/strict";
import { test } from "node:test";
import { silentLog } from "#base";
import { decodeMessage, encodeMessage } from "#envoy";
import type { ServerStream } from "./grpc.ts";
import { createUnframer, frame } from "./grpc.ts";
import { SecretStore } from "./sds.ts";

const typeUrl = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret";

interface FakeStream extends ServerStream {
  readonly sent: Uint8Array[];
  receive(message: Uint8Array): void;
}

function fakeStream(): FakeStream {
  const callbacks: ((message: Buffer) => void)[] = [];
  const sent: Uint8Array[] = [];
  return {
    sent,
    send: (message) => void sent.push(message),
    onMessage: (callback) => void callbacks.push(callback),
    onClose: () => {},
    receive: (message) => callbacks.forEach((callback) => callback(Buffer.from(message))),
  };
}

test("a secret is pushed when it comes, in the state-of-the-world protocol", () => {
  const store = new SecretStore(silentLog);
  const stream = fakeStream();
  store.serveWorld(stream);
  const request = { typeUrl, resourceNames: ["default"] };
  stream.receive(encodeMessage("envoy.service.discovery.v3.DiscoveryRequest", request));
  assert.equal(stream.sent.length, 0, "Envoy waits");
  store.set("default", { kind: "certificate", chainPem: "CHAIN", keyPem: "KEY" });
  store.set("default", { kind: "certificate", chainPem: "CHAIN", keyPem: "KEY" });
  assert.equal(stream.sent.length, 1, "the same contents are sent once");
  const response = decodeMessage(
    "envoy.service.discovery.v3.DiscoveryResponse",
    stream.sent[0] ?? new Uint8Array(),
  );
  const [secret] = response["resources"] as Record<string, unknown>[];
  assert.equal(response["typeUrl"], typeUrl);
  assert.match(JSON.stringify(secret), /"name":"default"/);
  const text = Buffer.from(stream.sent[0] ?? []).toString();
  assert.ok(text.includes("CHAIN") && text.includes("KEY"));
});

test("in the delta protocol each secret goes to whoever subscribed to it, and held versions are not sent again", () => {
  const store = new SecretStore(silentLog);
  store.set("ROOTCA", { kind: "trust", rootsPem: "ROOT" });
  const stream = fakeStream();
  store.serveDelta(stream);
  const delta = "envoy.service.discovery.v3.DeltaDiscoveryRequest";
  stream.receive(encodeMessage(delta, { typeUrl, resourceNamesSubscribe: ["ROOTCA"] }));
  const response = decodeMessage(
    "envoy.service.discovery.v3.DeltaDiscoveryResponse",
    stream.sent[0] ?? new Uint8Array(),
  );
  const [resource] = response["resources"] as Record<string, unknown>[];
  assert.equal(resource?.["name"], "ROOTCA");
  const held = { ROOTCA: resource?.["version"] };
  const again = fakeStream();
  store.serveDelta(again);
  const reconnect = { typeUrl, resourceNamesSubscribe: ["ROOTCA"], initialResourceVersions: held };
  again.receive(encodeMessage(delta, reconnect));
  assert.equal(again.sent.length, 0);
  store.set("ROOTCA", { kind: "trust", rootsPem: "ROOT2" });
  assert.equal(again.sent.length, 1);
});

test("messages are found in a stream however it is cut", () => {
  const bytes = Buffer.concat([
    frame(Buffer.from("one")),
    frame(Buffer.from("")),
    frame(Buffer.from("three")),
  ]);
  for (let size = 1; size < bytes.length; size++) {
    const messages: string[] = [];
    const take = createUnframer((message) => messages.push(message.toString()));
    for (let at = 0; at < bytes.length; at += size) take(bytes.subarray(at, at + size));
    assert.deepEqual(messages, ["one", "", "three"]);
  }
});

test("a message that claims to be longer than 4 MiB ends the call", () => {
  const take = createUnframer(() => {});
  assert.throws(() => take(Buffer.from([0, 0x7f, 0, 0, 0])), /too long/);
});
