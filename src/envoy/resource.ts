// One resource as Envoy gets it: encoded once, shared by every proxy that wants it.

import { createHash } from "node:crypto";
import type { ObjectRef } from "#base";
import type { ResourceType } from "#plan";
import { encodeMessage, typePrefix, type Message } from "./proto/api.ts";

/** What a part of a resource comes from: for people, explain and `mizzen pc`; beside the bytes, not in them. */
export interface Origin {
  /** Path in the resource, e.g. "virtual_hosts[0].routes[1]"; "" is the whole. */
  readonly at: string;
  readonly object: ObjectRef;
  /** Path in the object, e.g. "spec.http[0]". */
  readonly path?: string;
}

export interface EnvoyResource {
  readonly name: string;
  readonly type: ResourceType;
  readonly typeUrl: string;
  /** The serialized message: the `value` of the Any. */
  readonly bytes: Uint8Array;
  /** A content hash of the bytes, never a counter: equal bytes have equal versions in every replica. */
  readonly version: string;
  readonly origins: readonly Origin[];
}

const messageOf: Readonly<Record<ResourceType, string>> = {
  cluster: "envoy.config.cluster.v3.Cluster",
  endpoint: "envoy.config.endpoint.v3.ClusterLoadAssignment",
  listener: "envoy.config.listener.v3.Listener",
  route: "envoy.config.route.v3.RouteConfiguration",
  virtualHost: "envoy.config.route.v3.VirtualHost",
  secret: "envoy.extensions.transport_sockets.tls.v3.Secret",
};

export function typeUrlOf(type: ResourceType): string {
  return typePrefix + messageOf[type];
}

export function messageNameOf(type: ResourceType): string {
  return messageOf[type];
}

export function resourceTypeOf(typeUrl: string): ResourceType | undefined {
  return (Object.keys(messageOf) as ResourceType[]).find((type) => typeUrlOf(type) === typeUrl);
}

/** Encodes a message as a resource. */
export function resource(
  type: ResourceType,
  name: string,
  message: Message,
  origins: readonly Origin[] = [],
): EnvoyResource {
  return resourceOfBytes(type, name, encodeMessage(messageOf[type], message), origins);
}

export function resourceOfBytes(
  type: ResourceType,
  name: string,
  bytes: Uint8Array,
  origins: readonly Origin[] = [],
): EnvoyResource {
  // Encoders write into pools of many kilobytes: a part of one that is kept for long would keep all of it.
  const own = new Uint8Array(bytes);
  return { name, type, typeUrl: typeUrlOf(type), bytes: own, version: contentHash(own), origins };
}

/** For `same` of resource queries: equal bytes stop propagation, origins may move. */
export function sameResource(before: EnvoyResource | undefined, after: EnvoyResource | undefined): boolean {
  return before?.version === after?.version && before?.name === after?.name;
}

function contentHash(bytes: Uint8Array): string {
  return createHash("sha256").update(bytes).digest("base64url").slice(0, 16);
}
