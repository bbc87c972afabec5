// Turns Envoy's .proto files (from the package @grpc/grpc-js-xds, plus the few it lacks, in src/envoy/proto/extra)
// into one JSON descriptor that loads in a few milliseconds: src/envoy/proto/generated/envoy-api.json.

import { createRequire } from "node:module";
import { existsSync, globSync, mkdirSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import protobuf from "protobufjs";

const here = import.meta.dirname;
const deps = join(dirname(createRequire(import.meta.url).resolve("@grpc/grpc-js-xds/package.json")), "deps");
const extra = join(here, "../src/envoy/proto/extra");
const target = join(here, "../src/envoy/proto/generated/envoy-api.json");
const importRoots = [
  dirname(createRequire(import.meta.url).resolve("protobufjs/package.json")),
  extra,
  join(deps, "envoy-api"),
  join(deps, "xds"),
  join(deps, "googleapis"),
  join(deps, "protoc-gen-validate"),
];

/** What of Envoy's API the mesh speaks; everything these import comes along. */
const wanted = [
  "envoy/admin/v3/*.proto",
  "envoy/config/{bootstrap,cluster,core,endpoint,listener,metrics,rbac,route,trace,accesslog}/v3/*.proto",
  "envoy/extensions/**/v3/*.proto",
  "envoy/service/{discovery,secret,route,listener,cluster,endpoint,extension,auth,accesslog,status}/v3/*.proto",
  "envoy/type/**/v3/*.proto",
];

const root = new protobuf.Root();
/** Left out: it needs OpenCensus's own protos, and Envoy 1.40 no longer has that tracer. */
const left = /trace\/v3\/(opencensus|service)\.proto$/;
root.resolvePath = (_origin, file) =>
  left.test(file)
    ? null
    : (importRoots.map((path) => join(path, file)).find((path) => existsSync(path)) ?? null);

const files = [
  "google/protobuf/descriptor.proto",
  ...globSync(wanted, { cwd: join(deps, "envoy-api") }).filter((file) => !left.test(file)),
  ...globSync("**/*.proto", { cwd: extra }),
  "xds/type/v3/typed_struct.proto",
  "google/rpc/status.proto",
].toSorted();
root.loadSync(files, { keepCase: false });
addNewerFields();
root.resolveAll();
mkdirSync(dirname(target), { recursive: true });
const json = JSON.stringify(root.toJSON({ keepComments: false }), (key, value: unknown) =>
  key === "edition" ? value : withoutOptions(key, value),
);
writeFileSync(target, json);
process.stdout.write(`envoy-api.json: ${files.length} files, ${(json.length / 1e6).toFixed(1)} MB\n`);

/** Fields that Envoy 1.40 carries and the package's older .proto files lack; numbers as in the binary's descriptors. */
function addNewerFields(): void {
  const tcpProxy = root.lookupType("envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy");
  tcpProxy.add(
    new protobuf.Enum("UpstreamConnectMode", {
      IMMEDIATE: 0,
      ON_DOWNSTREAM_DATA: 1,
      ON_DOWNSTREAM_TLS_HANDSHAKE: 2,
    }),
  );
  tcpProxy.add(new protobuf.Field("upstreamConnectMode", 21, "UpstreamConnectMode"));
  tcpProxy.add(new protobuf.Field("maxEarlyDataBytes", 22, "google.protobuf.UInt32Value"));
  root
    .lookupType("envoy.config.cluster.v3.CircuitBreakers.Thresholds.RetryBudget")
    .add(new protobuf.Field("budgetInterval", 3, "google.protobuf.Duration"));
  root
    .lookupType("envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager.Tracing")
    .add(new protobuf.Field("noContextPropagation", 13, "bool"));
  const customTag = root.lookupType("envoy.type.tracing.v3.CustomTag");
  const formatted = new protobuf.Field("value", 6, "string");
  customTag.add(formatted);
  customTag.oneofs["type"]?.add(formatted);
  const zipkin = root.lookupType("envoy.config.trace.v3.ZipkinConfig");
  zipkin.add(new protobuf.Enum("TraceContextOption", { USE_B3: 0, USE_B3_WITH_W3C_PROPAGATION: 1 }));
  zipkin.add(new protobuf.Field("traceContextOption", 8, "TraceContextOption"));
  zipkin.add(new protobuf.Field("collectorService", 9, "envoy.config.core.v3.HttpService"));
}

/** Validation and documentation options are not read by anyone here; only what shapes the wire stays. */
function withoutOptions(key: string, value: unknown): unknown {
  if (key !== "options" && key !== "parsedOptions") return value;
  if (key === "parsedOptions" || typeof value !== "object" || value === null) return undefined;
  const kept = Object.entries(value).filter(([name]) => name === "packed" || name === "proto3_optional");
  return kept.length === 0 ? undefined : Object.fromEntries(kept);
}
