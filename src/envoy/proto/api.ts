// Envoy's messages: built as plain objects in camelCase, encoded to bytes, decoded for people and for the explainer.
// An `Any` is a plain object with "@type"; protobufjs encodes and decodes what is inside by that name.

import protobuf from "protobufjs";
import { encodePlain, setAnyTypes } from "./encode.ts";

export { neverChanging } from "./encode.ts";
import descriptor from "./generated/envoy-api.json" with { type: "json" };

const root = protobuf.Root.fromJSON(descriptor as protobuf.INamespace);
const types = new Map<string, protobuf.Type>();

/** A message as a plain object: fields in camelCase, enums by name, 64-bit numbers as numbers, bytes as Uint8Array. */
export type Message = Readonly<Record<string, unknown>>;

/** The `Any` form of a message: its fields beside its type. */
export interface TypedMessage {
  readonly "@type": string;
  readonly [field: string]: unknown;
}

export const typePrefix = "type.googleapis.com/";

/** Looks up a message type by full name without the prefix. Throws when Envoy's API does not have it. */
export function messageType(name: string): protobuf.Type {
  let type = types.get(name);
  if (type === undefined) types.set(name, (type = root.lookupType(name)));
  return type;
}

export function hasMessageType(name: string): boolean {
  return root.lookup(name, [protobuf.Type]) !== null;
}

/** Asked for each `Any`; a name that is not known takes a look at all of protobufjs's tree, and those that are known are few. */
setAnyTypes((name) => types.get(name) ?? (hasMessageType(name) ? messageType(name) : undefined));

/** Encodes a plain object as the named message. Fields that it does not have are left out. */
export function encodeMessage(name: string, message: Message): Uint8Array {
  return encodePlain(messageType(name), message);
}

/** Decodes bytes of the named message; `Any`s inside come as typed plain objects. */
export function decodeMessage(name: string, bytes: Uint8Array): Message {
  const type = messageType(name);
  return type.toObject(type.decode(bytes), {
    json: true,
    enums: String,
    longs: Number,
    bytes: Uint8Array,
  }) as Message;
}

/** Builds the `Any` form: `typed("envoy.extensions.filters.http.router.v3.Router", {})`. */
export function typed(name: string, message: Message = {}): TypedMessage {
  return { "@type": typePrefix + name, ...message };
}

export function durationOf(ms: number): Message {
  const seconds = Math.trunc(ms / 1000);
  return { seconds, nanos: Math.round((ms - seconds * 1000) * 1e6) };
}

/** UInt32Value, UInt64Value, DoubleValue and BoolValue all have this shape. */
export function wrapped<V>(value: V): { readonly value: V } {
  return { value };
}

/** google.protobuf.Struct of plain JSON. */
export function structOf(json: Readonly<Record<string, unknown>>): Message {
  return { fields: Object.fromEntries(Object.entries(json).map(([key, value]) => [key, valueOf(value)])) };
}

function valueOf(json: unknown): Message {
  if (json === null || json === undefined) return { nullValue: 0 };
  if (typeof json === "string") return { stringValue: json };
  if (typeof json === "number") return { numberValue: json };
  if (typeof json === "boolean") return { boolValue: json };
  if (Array.isArray(json)) return { listValue: { values: json.map(valueOf) } };
  return { structValue: structOf(json as Record<string, unknown>) };
}
