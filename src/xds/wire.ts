// The bytes of delta xDS. A response is put together from resources that are already serialized: each resource is
// framed once, whoever gets it, and a response is a head, the shared frames and a few names. Requests are read field by
// field; only the node of a stream's first request is decoded in full.

import protobuf from "protobufjs/minimal.js";
import { decodeMessage, type EnvoyResource, type Message } from "#envoy";

/** envoy.service.discovery.v3.DeltaDiscoveryRequest, as far as the server reads it. */
export interface DeltaRequest {
  /** Only in the first request of a stream (Envoy repeats it in none). */
  readonly node: Message | undefined;
  readonly typeUrl: string;
  readonly subscribe: readonly string[];
  readonly unsubscribe: readonly string[];
  /** Name to version of what the client holds from an earlier stream. */
  readonly initialVersions: ReadonlyMap<string, string>;
  /** "" in a request that acknowledges nothing. */
  readonly responseNonce: string;
  /** Why the client rejected the response of `responseNonce`. */
  readonly rejection: string | undefined;
}

/** What a response carries besides what its resources say themselves. */
export interface DeltaResponse {
  readonly typeUrl: string;
  readonly nonce: string;
  readonly systemVersion: string;
  readonly resources: readonly EnvoyResource[];
  /** Resources that are framed already, besides. */
  readonly body?: readonly Uint8Array[] | undefined;
  readonly removed: readonly string[];
}

/** Frames that a response passes on one by one. */
const piecesMax = 8;

const field = (number: number): number => (number << 3) | 2;

const framesMade = new WeakMap<EnvoyResource, Uint8Array>();

/** The resource as it stands in a response (field `resources`), made once. */
export function frameOf(resource: EnvoyResource): Uint8Array {
  let frame = framesMade.get(resource);
  // A copy: what the writer gives is a part of a pool, and would keep all of that.
  if (frame === undefined) framesMade.set(resource, (frame = new Uint8Array(frameResource(resource))));
  return frame;
}

// Resource { version = 1; Any resource = 2 { type_url = 1; value = 2 }; name = 3 } within resources = 2.
export function frameResource({ name, version, typeUrl, bytes }: EnvoyResource): Uint8Array {
  return protobuf.Writer.create()
    .uint32(field(2))
    .fork()
    .uint32(field(1))
    .string(version)
    .uint32(field(2))
    .fork()
    .uint32(field(1))
    .string(typeUrl)
    .uint32(field(2))
    .bytes(bytes)
    .ldelim()
    .uint32(field(3))
    .string(name)
    .ldelim()
    .finish();
}

/**
 * Renders a DeltaDiscoveryResponse: system_version_info 1, resources 2, type_url 4, nonce 5, removed_resources 6. In
 * pieces, since most of it is shared by many responses and not to be copied for each.
 */
export function renderResponse(response: DeltaResponse): Uint8Array[] {
  const tail = protobuf.Writer.create()
    .uint32(field(1))
    .string(response.systemVersion)
    .uint32(field(4))
    .string(response.typeUrl)
    .uint32(field(5))
    .string(response.nonce);
  for (const name of response.removed) tail.uint32(field(6)).string(name);
  const frames = response.resources.map(frameOf);
  // Each piece has its price on the way to the socket: many small ones are dearer than their copy.
  const pieces = frames.length > piecesMax ? [Buffer.concat(frames)] : frames;
  return [...(response.body ?? []), ...pieces, tail.finish()];
}

/** Parses a DeltaDiscoveryRequest. Throws on bytes that are none. */
export function parseRequest(bytes: Uint8Array): DeltaRequest {
  const reader = protobuf.Reader.create(bytes);
  const subscribe: string[] = [];
  const unsubscribe: string[] = [];
  const initialVersions = new Map<string, string>();
  let node: Message | undefined;
  let typeUrl = "";
  let responseNonce = "";
  let rejection: string | undefined;
  while (reader.pos < reader.len) {
    const tag = reader.uint32();
    switch (tag >>> 3) {
      case 1:
        node = decodeMessage("envoy.config.core.v3.Node", reader.bytes());
        break;
      case 2:
        typeUrl = reader.string();
        break;
      case 3:
        subscribe.push(reader.string());
        break;
      case 4:
        unsubscribe.push(reader.string());
        break;
      case 5:
        parseEntry(reader, initialVersions);
        break;
      case 6:
        responseNonce = reader.string();
        break;
      case 7:
        rejection = parseStatus(reader.bytes());
        break;
      default:
        reader.skipType(tag & 7);
    }
  }
  return { node, typeUrl, subscribe, unsubscribe, initialVersions, responseNonce, rejection };
}

/** A map entry, key = 1 and value = 2. A proxy that comes back sends thousands: nothing is made for each but its texts. */
function parseEntry(reader: protobuf.Reader, into: Map<string, string>): void {
  let name = "";
  let version = "";
  const length = reader.uint32();
  const end = reader.pos + length;
  while (reader.pos < end) {
    const tag = reader.uint32();
    if (tag >>> 3 === 1) name = reader.string();
    else if (tag >>> 3 === 2) version = reader.string();
    else reader.skipType(tag & 7);
  }
  into.set(name, version);
}

/** google.rpc.Status: the message, field 2. */
export function parseStatus(bytes: Uint8Array): string {
  const reader = protobuf.Reader.create(bytes);
  let message = "";
  while (reader.pos < reader.len) {
    const tag = reader.uint32();
    if (tag >>> 3 === 2) message = reader.string();
    else reader.skipType(tag & 7);
  }
  return message;
}
