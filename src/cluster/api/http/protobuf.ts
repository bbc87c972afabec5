// Reads bodies in Kubernetes' protobuf form. kubectl's typed commands (create namespace, create token, auth can-i, ...) send nothing
// else; answers are JSON, which they accept.
//
// Three things of the JSON form are not in the messages and come from the schemas beside them: fields that are embedded (a Volume's
// source) and so have no name in JSON; and, as the encoder writes every plain field, whether a zero was meant or is just there.

import protobuf from "protobufjs";
import protos from "../generated/builtin-protos.json" with { type: "json" };
import { ApiError, badRequest } from "../errors.ts";
import type { JsonRecord } from "../json.ts";
import { isRecord, stringOf } from "../json.ts";
import { splitApiVersion } from "../kinds/kind.ts";
import { builtinSchemas, resolveSchema } from "../schema/schema.ts";
import type { Schema } from "../schema/schema.ts";

type Reader = protobuf.Reader;
type Field = readonly [name: string, type: string, mark: "" | "r" | "m"];

const messages = protos as unknown as Readonly<Record<string, Readonly<Record<string, Field>>>>;
const machinery = "k8s.io.apimachinery.pkg";
// Every message of this form begins with these bytes.
const magic = Buffer.from("k8s\0");
// Deeper than any real object; beyond it the body is an attack.
const depthMax = 60;

// Fields whose zero differs from their absence: they are pointers in Kubernetes' types. Other zeros are left out.
const meaningfulZeros = new Set(
  (
    "replicas revisionHistoryLimit terminationGracePeriodSeconds automountServiceAccountToken gracePeriodSeconds backoffLimit " +
    "completions parallelism enableServiceLinks allowPrivilegeEscalation runAsUser runAsGroup fsGroup runAsNonRoot immutable " +
    "optional suspend controller blockOwnerDeletion partition activeDeadlineSeconds minReplicas readOnlyRootFilesystem privileged " +
    "allocateLoadBalancerNodePorts value ttlSecondsAfterFinished intVal"
  ).split(" "),
);

/** The object in the body, as JSON. Throws ApiError 400. */
export function parseProtobuf(body: Uint8Array): JsonRecord {
  if (!magic.equals(body.subarray(0, 4))) throw badRequest("the body is not in Kubernetes' protobuf form");
  try {
    const { apiVersion, kind, raw } = readEnvelope(protobuf.Reader.create(body.subarray(4)));
    const type = messageOf(apiVersion, kind);
    if (type === undefined)
      throw badRequest(
        `no kind ${JSON.stringify(kind)} in ${JSON.stringify(apiVersion)} is known in protobuf`,
      );
    const reader = protobuf.Reader.create(raw);
    return { apiVersion, kind, ...readMessage(reader, reader.len, type, schemaOf(type), 0) };
  } catch (error) {
    if (error instanceof ApiError) throw error;
    throw badRequest(`the body cannot be read: ${error instanceof Error ? error.message : "unknown"}`);
  }
}

function readEnvelope(reader: Reader): { apiVersion: string; kind: string; raw: Uint8Array } {
  const found: { apiVersion: string; kind: string; raw: Uint8Array } = {
    apiVersion: "",
    kind: "",
    raw: new Uint8Array(),
  };
  while (reader.pos < reader.len) {
    const tag = reader.uint32();
    if (tag === 10) {
      const end = reader.uint32() + reader.pos;
      while (reader.pos < end) {
        const inner = reader.uint32();
        if (inner === 10) found.apiVersion = reader.string();
        else if (inner === 18) found.kind = reader.string();
        else reader.skipType(inner & 7);
      }
    } else if (tag === 18) found.raw = reader.bytes();
    else reader.skipType(tag & 7);
  }
  return found;
}

function messageOf(apiVersion: string, kind: string): string | undefined {
  const { group, version } = splitApiVersion(apiVersion);
  const own = `k8s.io.api.${group === "" ? "core" : group.split(".")[0]}.${version}.${kind}`;
  return [own, `${machinery}.apis.meta.v1.${kind}`].find((name) => messages[name] !== undefined);
}

/** The built-in schema of a message: client-node prefixes names that are taken twice with their group. */
function schemaOf(type: string): Schema | undefined {
  const [version, name] = type.split(".").slice(-2) as [string, string];
  const group = type.split(".").at(-3) ?? "";
  const upper = version.toUpperCase();
  const capital = group[0]?.toUpperCase() + group.slice(1);
  const found = builtinSchemas[`${upper}${name}`] ?? builtinSchemas[`${capital}${upper}${name}`];
  return found && resolveSchema(found);
}

function readMessage(
  reader: Reader,
  end: number,
  type: string,
  schema: Schema | undefined,
  depth: number,
): JsonRecord {
  if (depth > depthMax) throw badRequest("the body is nested too deeply");
  const result: JsonRecord = {};
  while (reader.pos < end) {
    const tag = reader.uint32();
    const field = messages[type]?.[String(tag >>> 3)];
    if (field === undefined) {
      reader.skipType(tag & 7);
      continue;
    }
    const [name, of, mark] = field;
    const below = schema?.properties?.[name] && resolveSchema(schema.properties[name]);
    if (mark === "m") readEntry(reader, result, field, below, depth);
    else if (mark === "r") readItem(reader, result, field, below, tag & 7, depth);
    else {
      const value = readValue(reader, of, below, depth);
      const isEmbedded =
        isRecord(value) &&
        messages[of] !== undefined &&
        schema?.properties !== undefined &&
        below === undefined;
      if (isEmbedded) Object.assign(result, value);
      else if (isMeant(name, value)) result[name] = value;
    }
  }
  return result;
}

function isMeant(name: string, value: unknown): boolean {
  if (value === undefined || value === "") return false;
  return (value !== 0 && value !== false) || meaningfulZeros.has(name);
}

function readItem(
  reader: Reader,
  result: JsonRecord,
  [name, of]: Field,
  below: Schema | undefined,
  wire: number,
  depth: number,
): void {
  const list = Array.isArray(result[name]) ? (result[name] as unknown[]) : [];
  result[name] = list;
  const items = below?.items && resolveSchema(below.items);
  const isNumber = ["int32", "int64", "uint32", "bool"].includes(of);
  if (!isNumber || wire !== 2) {
    list.push(readValue(reader, of, items, depth));
    return;
  }
  const end = reader.uint32() + reader.pos;
  while (reader.pos < end) list.push(readValue(reader, of, items, depth));
}

function readEntry(
  reader: Reader,
  result: JsonRecord,
  [name, of]: Field,
  below: Schema | undefined,
  depth: number,
): void {
  const map = isRecord(result[name]) ? result[name] : {};
  result[name] = map;
  const values = isRecord(below?.additionalProperties)
    ? resolveSchema(below.additionalProperties as Schema)
    : undefined;
  const end = reader.uint32() + reader.pos;
  let key = "";
  let value: unknown = messages[of] === undefined ? "" : {};
  while (reader.pos < end) {
    const tag = reader.uint32();
    if (tag >>> 3 === 1) key = reader.string();
    else if (tag >>> 3 === 2) value = readValue(reader, of, values, depth);
    else reader.skipType(tag & 7);
  }
  map[key] = value;
}

function readValue(reader: Reader, type: string, schema: Schema | undefined, depth: number): unknown {
  switch (type) {
    case "string":
      return reader.string();
    case "bytes":
      return Buffer.from(reader.bytes()).toString("base64");
    case "bool":
      return reader.bool();
    case "int32":
      return reader.int32();
    case "uint32":
      return reader.uint32();
    case "int64":
    case "uint64":
      return Number(reader.int64());
    case "double":
      return reader.double();
    default: {
      const end = reader.uint32() + reader.pos;
      return plainValue(type, readMessage(reader, end, type, schema ?? schemaOf(type), depth + 1));
    }
  }
}

/** Messages that JSON writes as something else than an object. */
function plainValue(type: string, value: JsonRecord): unknown {
  switch (type) {
    case `${machinery}.api.resource.Quantity`:
      return value["string"] ?? "0";
    case `${machinery}.util.intstr.IntOrString`:
      return value["type"] === 1 ? (value["strVal"] ?? "") : (value["intVal"] ?? 0);
    case `${machinery}.apis.meta.v1.Time`:
    case `${machinery}.apis.meta.v1.MicroTime`:
      return timeText(value, type.endsWith("MicroTime"));
    case `${machinery}.apis.meta.v1.Duration`:
      return `${Number(value["duration"] ?? 0) / 1e9}s`;
    case `${machinery}.apis.meta.v1.FieldsV1`:
      return jsonIn(value["Raw"]);
    case `${machinery}.runtime.RawExtension`:
      return jsonIn(value["raw"]);
    default:
      return type.endsWith(".ExtraValue") || type.endsWith(".Verbs") ? (value["items"] ?? []) : value;
  }
}

/** A time that was never set is written as an empty message. */
function timeText({ seconds, nanos }: JsonRecord, isMicro: boolean): string | undefined {
  if (seconds === undefined) return undefined;
  const text = new Date(Number(seconds) * 1000).toISOString();
  const micros = String(Math.floor(Number(nanos ?? 0) / 1000)).padStart(6, "0");
  return text.replace(/\.\d+Z$/, isMicro ? `.${micros}Z` : "Z");
}

function jsonIn(base64: unknown): unknown {
  return base64 === undefined
    ? undefined
    : JSON.parse(Buffer.from(stringOf(base64), "base64").toString("utf8"));
}
