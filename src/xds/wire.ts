// The bytes of delta xDS. A response is put together from resources that are already serialized: each resource is
// framed once, whoever gets it, and a response is a head, the shared frames and a few names. Requests are read field by
// field; only the node of a stream's first request is decoded in full.

import protobuf from "protobufjs/minimal.js";
import { decodeMessage, type EnvoyResource, type Message } from "#envoy";
import { Known } from "./known.ts";
import { SetDigest } from "./set-digest.ts";

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

/** With fewer names than this it costs less to read them than to look whether they were read. */
const knownNamesMin = 32;

const noNames: readonly string[] = [];
const noVersions: ReadonlyMap<string, string> = new Map();

/**
 * Parses DeltaDiscoveryRequests. What many proxies say alike, of what they hold and ask for when they come back, is read once,
 * and they get the same array and the same map.
 */
export class RequestReader {
  readonly #knownNames = new Known<readonly string[]>();
  readonly #knownVersions = new Known<ReadonlyMap<string, string>>();

  /** Throws on bytes that are no DeltaDiscoveryRequest. */
  read(bytes: Uint8Array): DeltaRequest {
    const reader = protobuf.Reader.create(bytes);
    let names = 0;
    let versions = 0;
    const unsubscribe: string[] = [];
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
        case subscribeField:
          names++;
          reader.skip(reader.uint32());
          break;
        case 4:
          unsubscribe.push(reader.string());
          break;
        case versionsField:
          versions++;
          reader.skip(reader.uint32());
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
    const subscribe = names === 0 ? noNames : this.#names(bytes, names);
    const initialVersions = versions === 0 ? noVersions : this.#versions(bytes, versions);
    return { node, typeUrl, subscribe, unsubscribe, initialVersions, responseNonce, rejection };
  }

  /** To be called now and then: gives up what nobody sent in a while. */
  forget(): void {
    this.#knownNames.forget();
    this.#knownVersions.forget();
  }

  #names(bytes: Uint8Array, count: number): readonly string[] {
    if (count < knownNamesMin) return readNames(bytes);
    return this.#knownNames.get(digestOf(bytes, subscribeField), bytes.length, () => readNames(bytes));
  }

  #versions(bytes: Uint8Array, count: number): ReadonlyMap<string, string> {
    if (count < knownNamesMin) return readVersions(bytes);
    return this.#knownVersions.get(digestOf(bytes, versionsField), bytes.length, () => readVersions(bytes));
  }
}

const subscribeField = 3;
const versionsField = 5;

function digestOf(bytes: Uint8Array, number: number): string {
  const digest = new SetDigest();
  eachOfField(bytes, number, (reader) => {
    const length = reader.uint32();
    digest.add(bytes, reader.pos, reader.pos + length);
    reader.pos += length;
  });
  return digest.text;
}

function readNames(bytes: Uint8Array): readonly string[] {
  const names: string[] = [];
  eachOfField(bytes, subscribeField, (reader) => names.push(reader.string()));
  return names;
}

function readVersions(bytes: Uint8Array): ReadonlyMap<string, string> {
  const versions = new Map<string, string>();
  eachOfField(bytes, versionsField, (reader) => parseEntry(reader, versions));
  return versions;
}

/** @param read takes the field's value from the reader */
function eachOfField(bytes: Uint8Array, number: number, read: (reader: protobuf.Reader) => void): void {
  const reader = protobuf.Reader.create(bytes);
  while (reader.pos < reader.len) {
    const tag = reader.uint32();
    if (tag >>> 3 === number) read(reader);
    else reader.skipType(tag & 7);
  }
}

/** A map entry, key = 1 and value = 2. */
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
