// Envoy's messages as people write them in YAML (the JSON mapping of protocol buffers) turned into the plain objects
// that this room encodes: field names in either case, wrappers and durations as plain values, `Any` by "@type".

import { parseDurationNs } from "#objects";
import type protobuf from "protobufjs";
import { hasMessageType, messageType, structOf, typePrefix, type Message, type TypedMessage } from "./api.ts";

/** What a user wrote does not fit Envoy's API: where, and why. */
export class JsonMismatch extends Error {
  readonly path: string;

  constructor(path: string, reason: string) {
    super(path === "" ? reason : `${path}: ${reason}`);
    this.path = path;
  }
}

/** Converts the JSON form of the named message. Throws `JsonMismatch` for fields that it does not have. */
export function fromJson(name: string, json: unknown, path = ""): Message {
  const special = wellKnown(name, json, path);
  if (special !== undefined) return special;
  if (typeof json !== "object" || json === null || Array.isArray(json))
    throw new JsonMismatch(path, `expected an object, which ${name} is`);
  const type = messageType(name);
  const fields = Object.entries(json)
    .filter(([, value]) => value !== null && value !== undefined)
    .map(([key, value]) => {
      const field = type.fields[camelCase(key)];
      if (field === undefined) throw new JsonMismatch(join(path, key), `${name} has no such field`);
      return [field.name, fieldFromJson(field, value, join(path, key))] as const;
    });
  return Object.fromEntries(fields);
}

/**
 * The `Any` form of what carries an "@type". A type that Envoy's API here does not know passes as
 * xds.type.v3.TypedStruct, which Envoy reads by itself: it knows more extensions than we do.
 */
export function anyFromJson(json: unknown, path = ""): TypedMessage {
  if (typeof json !== "object" || json === null)
    throw new JsonMismatch(path, "expected an object with @type");
  const { "@type": url, ...fields } = json as Readonly<Record<string, unknown>>;
  if (typeof url !== "string") throw new JsonMismatch(path, "@type is missing");
  const name = url.slice(url.lastIndexOf("/") + 1);
  if (name.endsWith(".TypedStruct")) {
    // Both of its names, the older one in udpa, hold the same.
    const { type_url: snake, typeUrl = snake, value } = fields;
    return {
      "@type": `${typePrefix}xds.type.v3.TypedStruct`,
      typeUrl,
      value: structOf((value ?? {}) as Readonly<Record<string, unknown>>),
    };
  }
  if (hasMessageType(name)) {
    const value = wellKnownNames.has(name) ? fields["value"] : fields;
    return { "@type": typePrefix + name, ...fromJson(name, value, path) };
  }
  return {
    "@type": `${typePrefix}xds.type.v3.TypedStruct`,
    typeUrl: url,
    value: structOf(fields),
  };
}

function fieldFromJson(field: protobuf.Field, value: unknown, path: string): unknown {
  if (field.map) {
    const entries = Object.entries(value as Readonly<Record<string, unknown>>);
    return Object.fromEntries(entries.map(([key, one]) => [key, oneFromJson(field, one, join(path, key))]));
  }
  if (!field.repeated) return oneFromJson(field, value, path);
  if (!Array.isArray(value)) throw new JsonMismatch(path, "expected a list");
  return value.map((one, at) => oneFromJson(field, one, `${path}[${at}]`));
}

function oneFromJson(field: protobuf.Field, value: unknown, path: string): unknown {
  const resolved = field.resolvedType ?? field.resolve().resolvedType;
  if (resolved === null) return scalarFromJson(field.type, value, path);
  if ("values" in resolved) {
    const known =
      typeof value === "number"
        ? resolved.valuesById[value] !== undefined
        : Object.hasOwn(resolved.values, String(value));
    if (!known) throw new JsonMismatch(path, `${resolved.name} has no value ${JSON.stringify(value)}`);
    return value;
  }
  return fromJson(resolved.fullName.replace(/^\./, ""), value, path);
}

const numeric = /^(?:u?int|s?fixed|sint)(?:32|64)$|^(?:double|float)$/;

function scalarFromJson(type: string, value: unknown, path: string): unknown {
  const expected = type === "string" || type === "bytes" ? "string" : type === "bool" ? "boolean" : "number";
  if (typeof value === expected) return type === "bytes" ? Buffer.from(String(value), "base64") : value;
  // 64-bit numbers may be written as texts.
  if (numeric.test(type) && typeof value === "string" && /^-?\d+$/.test(value)) return Number(value);
  throw new JsonMismatch(path, `expected a ${expected}`);
}

const wrappers = new Set(
  ["Double", "Float", "Int64", "UInt64", "Int32", "UInt32", "Bool", "String", "Bytes"].map(
    (kind) => `google.protobuf.${kind}Value`,
  ),
);
const wellKnownNames = new Set([
  ...wrappers,
  "google.protobuf.Duration",
  "google.protobuf.Struct",
  "google.protobuf.Value",
]);

/** Types whose JSON is not an object of their fields. */
function wellKnown(name: string, json: unknown, path: string): Message | undefined {
  if (name === "google.protobuf.Any") return anyFromJson(json, path);
  if (name === "google.protobuf.Duration") return durationFromJson(json, path);
  if (name === "google.protobuf.Struct") return structOf((json ?? {}) as Readonly<Record<string, unknown>>);
  if (name === "google.protobuf.Value")
    return (structOf({ value: json })["fields"] as Readonly<Record<string, Message>>)["value"] as Message;
  if (!wrappers.has(name)) return undefined;
  const value = messageType(name).fields["value"];
  if (value === undefined) return undefined;
  const plain = typeof json === "object" && json !== null ? (json as { value?: unknown }).value : json;
  return { value: scalarFromJson(value.type, plain, path) };
}

/** Protobuf's JSON form, and Go's (`500ms`), which Istio takes too. */
function durationFromJson(json: unknown, path: string): Message {
  const ns = typeof json === "string" ? parseDurationNs(json) : undefined;
  if (ns === undefined) throw new JsonMismatch(path, 'expected a duration in seconds such as "1.5s"');
  return { seconds: Number(ns / 1_000_000_000n), nanos: Number(ns % 1_000_000_000n) };
}

/** The name of a field in camel case, whichever way it is written. */
export function camelCase(name: string): string {
  return name.replace(/_([a-z0-9])/g, (_whole, letter: string) => letter.toUpperCase());
}

function join(path: string, key: string): string {
  return path === "" ? key : `${path}.${key}`;
}
