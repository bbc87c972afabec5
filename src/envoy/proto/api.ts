// Envoy's messages: built as plain objects in camelCase, encoded to bytes, decoded for people and for the explainer.
// An `Any` is a plain object with "@type"; protobufjs encodes and decodes what is inside by that name.

import protobuf from "protobufjs";
import descriptor from "./generated/envoy-api.json" with { type: "json" };

const root = protobuf.Root.fromJSON(descriptor as protobuf.INamespace);
const types = new Map<string, protobuf.Type>();

// Listeners of one mesh are made of the same filters over and over, and encoding these is most of what a listener costs.
// What was encoded is looked up by its text, which is cheap to make. Two generations bound the memory.
const encodedTextMax = 8_192;
const encodedPerGenerationMax = 512;
let encoded = new Map<string, protobuf.Message>();
let encodedBefore = new Map<string, protobuf.Message>();

const wrapper = protobuf.wrappers[".google.protobuf.Any"]!;
const unwrapped = wrapper.fromObject!;
wrapper.fromObject = function fromObject(this: protobuf.Type, object: Record<string, unknown>, ...rest) {
  const text = typeof object["@type"] === "string" ? JSON.stringify(object) : undefined;
  if (text === undefined || text.length > encodedTextMax) return unwrapped.call(this, object, ...rest);
  let message = encoded.get(text);
  if (message === undefined) {
    message = encodedBefore.get(text) ?? ownBytes(unwrapped.call(this, object, ...rest));
    if (encoded.size >= encodedPerGenerationMax) {
      encodedBefore = encoded;
      encoded = new Map();
    }
    encoded.set(text, message);
  }
  return message;
};

/** Encoders write into pools of many kilobytes: a part of one that is kept for long would keep all of it. */
function ownBytes(any: protobuf.Message): protobuf.Message {
  const { value } = any as unknown as { value?: Uint8Array };
  return value === undefined ? any : Object.assign(any, { value: new Uint8Array(value) });
}

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

/** Encodes a plain object as the named message. Unknown fields are our own mistake: they throw. */
export function encodeMessage(name: string, message: Message): Uint8Array {
  const type = messageType(name);
  return type.encode(type.fromObject(message)).finish();
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
