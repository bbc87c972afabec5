// Delta xDS as simulated sidecars read and write it. What hundreds of them receive alike is read once, and what they say
// of it is kept beside it, ready to be sent.

import protobuf from "protobufjs/minimal.js";
import { typePrefix } from "#envoy";

export const types = {
  cluster: `${typePrefix}envoy.config.cluster.v3.Cluster`,
  endpoint: `${typePrefix}envoy.config.endpoint.v3.ClusterLoadAssignment`,
  listener: `${typePrefix}envoy.config.listener.v3.Listener`,
  route: `${typePrefix}envoy.config.route.v3.RouteConfiguration`,
  virtualHost: `${typePrefix}envoy.config.route.v3.VirtualHost`,
};
export type Type = keyof typeof types;
export const typeNames = Object.keys(types) as Type[];
const typeOf = new Map(typeNames.map((type) => [types[type], type]));

/** One version of a resource: read once, whoever gets it. */
export interface Received {
  readonly name: string;
  /** What it makes a sidecar subscribe to: a cluster its endpoints, a listener its route tables. */
  readonly follows: readonly string[];
  /** A route table that wants its virtual hosts as resources. */
  readonly discovers: boolean;
  /** How a request that begins a stream says that it is held. */
  readonly heldField: Uint8Array;
}

export interface Response {
  readonly type: Type | undefined;
  readonly nonce: string;
  readonly resources: readonly Received[];
  readonly removed: readonly string[];
}

/** DeltaDiscoveryResponse: resources = 2, type_url = 4, nonce = 5, removed_resources = 6. */
export function parseResponse(bytes: Buffer): Response {
  const reader = protobuf.Reader.create(bytes);
  const starts: number[] = [];
  const removed: string[] = [];
  let type: Type | undefined;
  let nonce = "";
  while (reader.pos < reader.len) {
    const tag = reader.uint32();
    if (tag >>> 3 === 2) {
      starts.push(reader.pos);
      reader.skip(reader.uint32());
    } else if (tag >>> 3 === 4) type = typeOf.get(reader.string());
    else if (tag >>> 3 === 5) nonce = reader.string();
    else if (tag >>> 3 === 6) removed.push(reader.string());
    else reader.skipType(tag & 7);
  }
  const resources = type === undefined ? [] : starts.map((start) => receivedAt(bytes, start, type));
  return { type, nonce, resources, removed };
}

const received = Object.fromEntries(typeNames.map((type) => [type, new Map<string, Received>()])) as Record<
  Type,
  Map<string, Received>
>;

/**
 * Resource: version = 1, resource (Any: value = 2) = 2, name = 3. The server writes the version first, and it is a hash
 * of the rest: a real Envoy decodes each for itself, but that is not the server's cost.
 */
function receivedAt(bytes: Buffer, start: number, type: Type): Received {
  const reader = protobuf.Reader.create(bytes);
  reader.pos = start;
  const end = reader.uint32() + reader.pos;
  let version = "";
  let name = "";
  let value: Uint8Array = new Uint8Array();
  while (reader.pos < end) {
    const tag = reader.uint32();
    if (tag >>> 3 === 1) {
      version = reader.string();
      const known = received[type].get(version);
      if (known !== undefined) return known;
    } else if (tag >>> 3 === 2) value = anyValue(reader.bytes());
    else if (tag >>> 3 === 3) name = reader.string();
    else reader.skipType(tag & 7);
  }
  const one: Received = {
    name,
    follows: type === "cluster" ? endpointsOf(name, value) : type === "listener" ? routesOf(value) : [],
    discovers: type === "route" && wantsHosts(value),
    heldField: versionField(name, version),
  };
  received[type].set(version, one);
  return one;
}

function anyValue(bytes: Uint8Array): Uint8Array {
  const reader = protobuf.Reader.create(bytes);
  while (reader.pos < reader.len) {
    const tag = reader.uint32();
    if (tag >>> 3 === 2) return reader.bytes();
    reader.skipType(tag & 7);
  }
  return new Uint8Array();
}

const edsType = 3;

/** Cluster: type = 2. */
function endpointsOf(name: string, value: Uint8Array): readonly string[] {
  const reader = protobuf.Reader.create(value);
  while (reader.pos < reader.len) {
    const tag = reader.uint32();
    if (tag >>> 3 === 2) return reader.uint32() === edsType ? [name] : [];
    reader.skipType(tag & 7);
  }
  return [];
}

const connectionManager = `${typePrefix}envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager`;

/**
 * Listener: filter_chains = 3, default_filter_chain = 25; FilterChain: filters = 3; Filter: typed_config = 4;
 * HttpConnectionManager: rds = 3; Rds: route_config_name = 2.
 */
function routesOf(value: Uint8Array): readonly string[] {
  const configs = [...fieldsAt(value, [3, 3, 4]), ...fieldsAt(value, [25, 3, 4])];
  const names = configs.flatMap((config) => {
    const [typeUrl] = fieldsAt(config, [1]);
    if (Buffer.from(typeUrl ?? "").toString() !== connectionManager) return [];
    return fieldsAt(anyValue(config), [3, 2]).map((name) => Buffer.from(name).toString());
  });
  return [...new Set(names)];
}

/** RouteConfiguration: vhds = 9. */
function wantsHosts(value: Uint8Array): boolean {
  return fieldsAt(value, [9]).length > 0;
}

/** The messages (or texts) that stand at a path of field numbers. */
function fieldsAt(bytes: Uint8Array, [first, ...rest]: readonly number[]): Uint8Array[] {
  if (first === undefined) return [bytes];
  const reader = protobuf.Reader.create(bytes);
  const found: Uint8Array[] = [];
  while (reader.pos < reader.len) {
    const tag = reader.uint32();
    if (tag === ((first << 3) | 2)) found.push(...fieldsAt(reader.bytes(), rest));
    else reader.skipType(tag & 7);
  }
  return found;
}

// DeltaDiscoveryRequest: node = 1, type_url = 2, subscribe = 3, unsubscribe = 4, initial versions = 5, nonce = 6.
const lengthDelimited = (field: number): number => (field << 3) | 2;

const typeUrlBytes = Object.fromEntries(
  typeNames.map((type) => [
    type,
    protobuf.Writer.create().uint32(lengthDelimited(2)).string(types[type]).finish(),
  ]),
) as Record<Type, Uint8Array>;

/** The beginning of each request. */
export function requestOf(type: Type): Uint8Array {
  return typeUrlBytes[type];
}

export function nonceField(nonce: string): Uint8Array {
  return protobuf.Writer.create().uint32(lengthDelimited(6)).string(nonce).finish();
}

const subscribeFields = new Map<string, Uint8Array>();

export function subscribeField(name: string): Uint8Array {
  let field = subscribeFields.get(name);
  if (field === undefined) {
    field = protobuf.Writer.create().uint32(lengthDelimited(3)).string(name).finish();
    subscribeFields.set(name, field);
  }
  return field;
}

export function unsubscribeField(name: string): Uint8Array {
  return protobuf.Writer.create().uint32(lengthDelimited(4)).string(name).finish();
}

function versionField(name: string, version: string): Uint8Array {
  const writer = protobuf.Writer.create().uint32(lengthDelimited(5)).fork();
  writer.uint32(lengthDelimited(1)).string(name).uint32(lengthDelimited(2)).string(version);
  return writer.ldelim().finish();
}
