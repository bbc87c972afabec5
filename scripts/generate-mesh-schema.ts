// Writes src/objects/generated/mesh-schemas.json: MeshConfig, its ProxyConfig and MeshNetworks as schemas like those of the CRDs,
// from the .proto files of Istio's API module. Development-time only, as scripts/generate-crds.ts.

import { readFileSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

import protobuf from "protobufjs";

import { istioModule, moduleDirectory } from "./generate-crds.ts";

const root = dirname(dirname(fileURLToPath(import.meta.url)));

interface Schema {
  type?: string;
  format?: string;
  enum?: string[];
  properties?: Record<string, Schema>;
  items?: Schema;
  additionalProperties?: Schema;
  "x-kubernetes-preserve-unknown-fields"?: boolean;
}

const files = [
  "mesh/v1alpha1/config.proto",
  "mesh/v1alpha1/proxy.proto",
  "mesh/v1alpha1/network.proto",
  "networking/v1alpha3/destination_rule.proto",
  "networking/v1alpha3/virtual_service.proto",
  "networking/v1alpha3/workload_group.proto",
  "networking/v1alpha3/workload_entry.proto",
  "networking/v1beta1/proxy_config.proto",
  "type/v1beta1/selector.proto",
];

const wellKnown: Readonly<Record<string, Schema>> = {
  "google.protobuf.Duration": { type: "string", format: "duration" },
  "google.protobuf.Struct": { type: "object", "x-kubernetes-preserve-unknown-fields": true },
  "google.protobuf.StringValue": { type: "string" },
  "google.protobuf.BoolValue": { type: "boolean" },
  "google.protobuf.Int32Value": { type: "integer" },
  "google.protobuf.UInt32Value": { type: "integer" },
  "google.protobuf.Int64Value": { type: "integer" },
  "google.protobuf.UInt64Value": { type: "integer" },
  "google.protobuf.DoubleValue": { type: "number" },
  "google.protobuf.FloatValue": { type: "number" },
};

const connectionSettings: Schema = {
  type: "object",
  properties: {
    profile: { type: "string", enum: ["SIDECAR", "EDGE"] },
    ...Object.fromEntries(
      [
        "listenerPerConnectionBufferLimitBytes",
        "clusterPerConnectionBufferLimitBytes",
        "httpMaxConcurrentStreams",
        "http2InitialStreamWindowSize",
        "http2InitialConnectionWindowSize",
        "listenerConnectionLimit",
        "globalDownstreamConnectionLimit",
      ].map((name) => [name, { type: "integer" }]),
    ),
    ...Object.fromEntries(
      ["Idle", "Drain", "Request", "RequestHeaders", "StreamIdle"].map((name) => [
        `http${name}Timeout`,
        { type: "string", format: "duration" },
      ]),
    ),
    httpMaxConnectionDuration: { type: "string", format: "duration" },
    httpMaxStreamDuration: { type: "string", format: "duration" },
    httpMergeSlashes: { type: "boolean" },
    httpHeadersWithUnderscoresAction: {
      type: "string",
      enum: ["UNSPECIFIED", "ALLOW", "REJECT_REQUEST", "DROP_HEADER"].map(
        (name) => `HEADERS_WITH_UNDERSCORES_${name}`,
      ),
    },
    httpPathWithEscapedSlashesAction: {
      type: "string",
      enum: [
        "PATH_WITH_ESCAPED_SLASHES_UNSPECIFIED",
        "KEEP_UNCHANGED",
        "REJECT_REQUEST",
        "UNESCAPE_AND_REDIRECT",
        "UNESCAPE_AND_FORWARD",
      ],
    },
  },
};

export function generateMeshSchema(): void {
  const directory = moduleDirectory(istioModule);
  const space = new protobuf.Root();
  for (const file of files)
    protobuf.parse(readFileSync(join(directory, file), "utf8"), space, { keepCase: true });

  const message = (name: string) => messageSchema(space.lookupType(name), []);
  const mesh = message("istio.mesh.v1alpha1.MeshConfig");
  const proxy = message("istio.mesh.v1alpha1.ProxyConfig");
  // Istio 1.32 has these, the released module has not yet.
  proxy.properties!["connectionSettings"] ??= connectionSettings;
  mesh.properties!["defaultConfig"] = proxy;
  mesh.properties!["defaultInboundHttpRetryPolicy"] ??= mesh.properties!["defaultHttpRetryPolicy"]!;

  const networks = message("istio.mesh.v1alpha1.MeshNetworks");
  const table = { MeshConfig: mesh, ProxyConfig: proxy, MeshNetworks: networks };
  writeFileSync(join(root, "src/objects/generated/mesh-schemas.json"), `${JSON.stringify(table)}\n`);
}

function messageSchema(type: protobuf.Type, above: readonly string[]): Schema {
  if (above.includes(type.fullName)) return { type: "object", "x-kubernetes-preserve-unknown-fields": true };
  const properties: Record<string, Schema> = {};
  for (const field of type.fieldsArray) {
    const value = valueSchema(type, field.type, [...above, type.fullName]);
    properties[jsonName(field)] =
      field instanceof protobuf.MapField
        ? { type: "object", additionalProperties: value }
        : field.repeated
          ? { type: "array", items: value }
          : value;
  }
  return { type: "object", properties };
}

function valueSchema(scope: protobuf.Type, name: string, above: readonly string[]): Schema {
  const known = wellKnown[name.replace(/^\./, "")];
  if (known !== undefined) return known;
  if (name === "bool") return { type: "boolean" };
  if (name === "string" || name === "bytes") return { type: "string" };
  if (/^(?:double|float)$/.test(name)) return { type: "number" };
  if (/^[usf]?(?:int|ixed)(?:32|64)$/.test(name)) return { type: "integer" };
  const found = scope.lookupTypeOrEnum(name);
  return found instanceof protobuf.Enum
    ? { type: "string", enum: Object.keys(found.values) }
    : messageSchema(found, above);
}

function jsonName(field: protobuf.Field): string {
  return field.name.replace(/_(.)/g, (_, next: string) => next.toUpperCase());
}

if (import.meta.main) generateMeshSchema();
