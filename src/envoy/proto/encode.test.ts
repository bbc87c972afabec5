import assert from "node:assert/strict";
import { test } from "node:test";
import { Engine } from "#engine";
import { worldChanges } from "#model";
import { proxyClasses, randomObject, seeded } from "../random-world.ts";
import { messageNameOf } from "../resource.ts";
import { snapshotOf } from "../snapshot.ts";
import { decodeMessage, encodeMessage, messageType, structOf, typed, type Message } from "./api.ts";
import { encodePlain } from "./encode.ts";

/** As protobufjs does it, by message objects. */
function reference(name: string, message: Message): Uint8Array {
  const type = messageType(name);
  return type.encode(type.fromObject(message)).finish();
}

function assertSame(name: string, message: Message): void {
  const [ours, theirs] = [encodeMessage(name, message), reference(name, message)];
  const at = ours.findIndex((byte, index) => byte !== theirs[index]);
  assert.ok(
    ours.length === theirs.length && at === -1,
    `${ours.length} bytes, not ${theirs.length}; at ${at}: ${Buffer.from(ours.slice(at, at + 40)).toString("hex")}, not ${Buffer.from(theirs.slice(at, at + 40)).toString("hex")}`,
  );
}

const cluster = "envoy.config.cluster.v3.Cluster";
const listener = "envoy.config.listener.v3.Listener";

test("bytes are those of protobufjs: numbers, texts, enumerations, lists, maps, wrappers, messages in messages", () => {
  assertSame(cluster, {});
  assertSame(cluster, {
    name: "outbound|80||reviews.default.svc.cluster.local",
    type: "EDS",
    lbPolicy: "LEAST_REQUEST",
    connectTimeout: { seconds: 10, nanos: 500_000_000 },
    perConnectionBufferLimitBytes: { value: 4_294_967_295 },
    metadata: {
      filterMetadata: { b: structOf({ x: [1, "zwei", null, true, { y: 1.5 }] }), a: structOf({}) },
    },
    dnsLookupFamily: "V4_ONLY",
    commonLbConfig: { healthyPanicThreshold: { value: 33.3 } },
    circuitBreakers: { thresholds: [{ maxConnections: { value: 0 } }, { priority: "HIGH" }] },
  });
  const types = "envoy.config.accesslog.v3.AccessLogFilter";
  assertSame(types, { logTypeFilter: { types: ["TcpConnectionEnd", "NotSet", "DownstreamEnd"] } });
  for (const seconds of [0, 1, 127, 128, 2 ** 31, 2 ** 32, 2 ** 53 - 1, -1, -(2 ** 40)])
    assertSame("google.protobuf.Duration", { seconds, nanos: -1 });
  for (const text of ["", "ä", "日本語".repeat(50), "x".repeat(70_000), "a".repeat(63) + "é"])
    assertSame(cluster, { name: text, altStatName: "s" });
});

test("bytes are those of protobufjs: what an Any holds, in Anys as well", () => {
  const tcp = typed("envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy", {
    statPrefix: "x",
    cluster: "c",
    accessLog: [
      {
        name: "log",
        typedConfig: typed("envoy.extensions.access_loggers.stream.v3.StdoutAccessLog", {
          logFormat: { textFormatSource: { inlineString: "%START_TIME%\n" } },
        }),
      },
    ],
  });
  assertSame(listener, {
    name: "l",
    address: { socketAddress: { address: "0.0.0.0", portValue: 15_006 } },
    filterChains: Array.from({ length: 300 }, (_, at) => ({
      name: `chain ${at}`,
      filters: [{ name: "tcp", typedConfig: tcp }],
    })),
    listenerFilters: [
      { name: "dst", typedConfig: typed("envoy.extensions.filters.listener.original_dst.v3.OriginalDst") },
    ],
  });
});

test("bytes are those of protobufjs: every resource of random worlds", () => {
  let compared = 0;
  for (let seed = 1; seed <= 10; seed++) {
    const random = seeded(seed);
    const engine = new Engine();
    engine.apply(worldChanges(Array.from({ length: 60 }, () => randomObject(random))));
    for (const proxy of proxyClasses()) {
      for (const { type, bytes } of Object.values(snapshotOf(engine, proxy)).flat()) {
        const name = messageNameOf(type);
        assertSame(name, decodeMessage(name, bytes));
        compared++;
      }
    }
  }
  assert.ok(compared > 500, `${compared} resources`);
});

test("values that an enumeration does not have are left out, and so are fields that a type does not have", () => {
  assertSame(cluster, { type: "NONE_SUCH", lbPolicy: "MAGLEV", noSuchField: 1 });
  assert.deepEqual(encodePlain(messageType(cluster), { noSuchField: { a: 1 } }), new Uint8Array());
});

test("what was encoded is not touched by what is encoded later", () => {
  const first = encodeMessage(cluster, { name: "first" });
  const copy = Buffer.from(first).toString("hex");
  encodeMessage(cluster, { name: "second".repeat(100) });
  assert.equal(Buffer.from(first).toString("hex"), copy);
  assert.equal(first.buffer.byteLength, first.length, "it keeps no larger buffer alive");
});
