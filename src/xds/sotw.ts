// State-of-the-world ADS for one stream, as a translation: a request says all names that the client wants, and becomes
// what a delta client would say of the difference; a response of clusters or listeners says all that there are, one of
// the other types only what changed. Everything else (views, canary first, order, rejections) is the delta session's.
//
// A version says what a response holds, and is a hash of it. What such a client holds from an earlier stream it cannot
// say name by name, so it gets everything again.

import { createHash } from "node:crypto";
import protobuf from "protobufjs/minimal.js";
import { decodeMessage, resourceTypeOf, type EnvoyResource, type Message } from "#envoy";
import type { ResourceType } from "#plan";
import { parseStatus, type DeltaRequest, type DeltaResponse } from "./wire.ts";

/** envoy.service.discovery.v3.DiscoveryRequest, as far as the server reads it. */
export interface StateRequest {
  readonly node: Message | undefined;
  readonly names: readonly string[];
  readonly typeUrl: string;
  readonly responseNonce: string;
  readonly rejection: string | undefined;
}

/** Types of which a response holds everything: what is missing in it does not exist. */
const wholeTypes: ReadonlySet<ResourceType> = new Set<ResourceType>(["cluster", "listener"]);

interface TypeState {
  /** The names of the last request; undefined before the first. */
  names: ReadonlySet<string> | undefined;
  /** What the client holds once it has taken the response in flight. */
  resources: ReadonlyMap<string, EnvoyResource>;
  /** The response in flight, and what the client holds if it rejects it. */
  inFlight: { readonly nonce: string; readonly before: ReadonlyMap<string, EnvoyResource> } | undefined;
}

export class StateOfTheWorld {
  readonly #types = new Map<string, TypeState>();

  /** Throws on bytes that are no DiscoveryRequest; undefined for a request that asks for nothing. */
  parse(bytes: Uint8Array): DeltaRequest | undefined {
    const request = parseStateRequest(bytes);
    const { typeUrl, node, rejection, responseNonce } = request;
    const state = this.#stateOf(typeUrl);
    const before = state.names;
    const names = new Set(request.names);
    // Without names a first request asks for all clusters or listeners, and for nothing of another type.
    if (before === undefined && names.size === 0 && !isWhole(typeUrl)) return undefined;
    state.names = names;
    if (responseNonce !== "" && responseNonce === state.inFlight?.nonce) {
      if (rejection !== undefined) state.resources = state.inFlight.before;
      state.inFlight = undefined;
    }
    return {
      node,
      typeUrl,
      subscribe: [...names].filter((name) => before?.has(name) !== true),
      unsubscribe: [...(before ?? [])].filter((name) => !names.has(name)),
      initialVersions: new Map(),
      responseNonce,
      rejection,
    };
  }

  /** @param sent all resources of the response, also those that `response` has as a body */
  render({ typeUrl, nonce, removed }: DeltaResponse, sent: Iterable<EnvoyResource>): Uint8Array[] {
    const state = this.#stateOf(typeUrl);
    const changed = [...sent];
    const before = state.resources;
    const resources = new Map(before);
    for (const one of changed) resources.set(one.name, one);
    for (const name of removed) resources.delete(name);
    // What is no longer asked for the client has forgotten.
    const { names } = state;
    if (names !== undefined && names.size > 0 && !names.has("*"))
      for (const name of resources.keys()) if (!names.has(name)) resources.delete(name);
    state.resources = resources;
    state.inFlight = { nonce, before };
    const shown = isWhole(typeUrl) ? [...resources.values()] : changed;
    const frames = shown.toSorted((a, b) => (a.name < b.name ? -1 : 1)).map(anyOf);
    return [Buffer.concat(frames), renderTail(typeUrl, nonce, versionOf(shown))];
  }

  #stateOf(typeUrl: string): TypeState {
    let state = this.#types.get(typeUrl);
    if (state === undefined) {
      state = { names: undefined, resources: new Map(), inFlight: undefined };
      this.#types.set(typeUrl, state);
    }
    return state;
  }
}

function isWhole(typeUrl: string): boolean {
  const type = resourceTypeOf(typeUrl);
  return type !== undefined && wholeTypes.has(type);
}

const field = (number: number): number => (number << 3) | 2;

const anysMade = new WeakMap<EnvoyResource, Uint8Array>();

/** The resource as it stands in a DiscoveryResponse: Any { type_url = 1; value = 2 } within resources = 2; made once. */
function anyOf(resource: EnvoyResource): Uint8Array {
  let any = anysMade.get(resource);
  if (any === undefined) {
    any = protobuf.Writer.create()
      .uint32(field(2))
      .fork()
      .uint32(field(1))
      .string(resource.typeUrl)
      .uint32(field(2))
      .bytes(resource.bytes)
      .ldelim()
      .finish();
    anysMade.set(resource, any);
  }
  return any;
}

/** DiscoveryResponse without its resources: version_info 1, type_url 4, nonce 5. */
function renderTail(typeUrl: string, nonce: string, version: string): Uint8Array {
  return protobuf.Writer.create()
    .uint32(field(1))
    .string(version)
    .uint32(field(4))
    .string(typeUrl)
    .uint32(field(5))
    .string(nonce)
    .finish();
}

function versionOf(resources: readonly EnvoyResource[]): string {
  const parts = resources.map(({ name, version }) => `${name} ${version}\n`).toSorted();
  return createHash("sha256").update(parts.join("")).digest("base64url").slice(0, 16);
}

function parseStateRequest(bytes: Uint8Array): StateRequest {
  const reader = protobuf.Reader.create(bytes);
  const names: string[] = [];
  let node: Message | undefined;
  let typeUrl = "";
  let responseNonce = "";
  let rejection: string | undefined;
  while (reader.pos < reader.len) {
    const tag = reader.uint32();
    switch (tag >>> 3) {
      case 2:
        node = decodeMessage("envoy.config.core.v3.Node", reader.bytes());
        break;
      case 3:
        names.push(reader.string());
        break;
      case 4:
        typeUrl = reader.string();
        break;
      case 5:
        responseNonce = reader.string();
        break;
      case 6:
        rejection = parseStatus(reader.bytes());
        break;
      default:
        reader.skipType(tag & 7);
    }
  }
  return { node, names, typeUrl, responseNonce, rejection };
}
