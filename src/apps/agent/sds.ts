// The secret discovery service for this pod's Envoy: `default` is the workload's key and chain, `ROOTCA` what it trusts.
// Served on a unix socket that only this pod can open, in both of xDS's ways (state of the world and delta). A secret
// that is not there yet is not answered; Envoy waits for it and opens no connection meanwhile.

import protobuf from "protobufjs/minimal.js";
import { createHash } from "node:crypto";
import type { Logger } from "#base";
import type { ServerStream } from "./grpc.ts";

export const secretNames = {
  workload: "default",
  root: "ROOTCA",
  /** The mesh's own roots, without those that ProxyConfig adds for workloads. */
  meshRoot: "ROOTCA-mesh",
  systemRoots: "file-root:system",
} as const;

const secretType = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret";

export type SecretValue =
  | { readonly kind: "certificate"; readonly chainPem: string; readonly keyPem: string }
  | { readonly kind: "trust"; readonly rootsPem: string; readonly revokedPem?: string };

interface StoredSecret {
  readonly version: string;
  readonly bytes: Uint8Array;
}

export class SecretStore {
  readonly #secrets = new Map<string, StoredSecret>();
  readonly #watchers = new Set<(name: string) => void>();
  readonly #log: Logger;
  readonly #onWanted: (name: string) => void;

  /** @param onWanted told of each name that Envoy asks for, before it is answered */
  constructor(log: Logger, onWanted: (name: string) => void = () => {}) {
    this.#log = log;
    this.#onWanted = onWanted;
  }

  /** Replaces a secret and tells every stream that asked for it; equal contents change nothing. */
  set(name: string, value: SecretValue): void {
    const bytes = encodeSecret(name, value);
    const version = createHash("sha256").update(bytes).digest("hex").slice(0, 16);
    if (this.#secrets.get(name)?.version === version) return;
    this.#secrets.set(name, { version, bytes });
    for (const watcher of this.#watchers) watcher(name);
  }

  /** Serves `StreamSecrets`. */
  readonly serveWorld = (stream: ServerStream): void => {
    let wanted: readonly string[] = [];
    let sentVersions = "";
    let nonce = 0;
    const push = (): void => {
      const present = wanted.flatMap((name) => this.#secrets.get(name) ?? []);
      const versions = present.map((secret) => secret.version).join(".");
      if (present.length === 0 || versions === sentVersions) return;
      sentVersions = versions;
      nonce += 1;
      stream.send(encodeWorld(versions, present, String(nonce)));
    };
    this.#watch(stream, (name) => {
      if (wanted.includes(name)) push();
    });
    stream.onMessage((message) => {
      const request = decodeWorldRequest(message);
      if (request.error !== "")
        this.#log.error({ secrets: request.names, error: request.error }, "Envoy rejected a secret");
      const isNew = request.names.join() !== wanted.join();
      if (isNew) request.names.forEach(this.#onWanted);
      wanted = request.names;
      if (isNew) push();
    });
  };

  /** Serves `DeltaSecrets`. */
  readonly serveDelta = (stream: ServerStream): void => {
    const sent = new Map<string, string>();
    const wanted = new Set<string>();
    let nonce = 0;
    const push = (name: string): void => {
      const secret = this.#secrets.get(name);
      if (secret === undefined || !wanted.has(name) || sent.get(name) === secret.version) return;
      sent.set(name, secret.version);
      nonce += 1;
      stream.send(encodeDelta(name, secret, String(nonce)));
    };
    this.#watch(stream, push);
    stream.onMessage((message) => {
      const request = decodeDeltaRequest(message);
      if (request.error !== "") this.#log.error({ error: request.error }, "Envoy rejected a secret");
      for (const [name, version] of request.held) sent.set(name, version);
      for (const name of request.unsubscribe) {
        wanted.delete(name);
        sent.delete(name);
      }
      for (const name of request.subscribe) {
        this.#onWanted(name);
        wanted.add(name);
        push(name);
      }
    });
  };

  #watch(stream: ServerStream, watcher: (name: string) => void): void {
    this.#watchers.add(watcher);
    stream.onClose(() => this.#watchers.delete(watcher));
  }
}

/** The paths for `createStreamServer`. */
export function secretPaths(store: SecretStore): Record<string, (stream: ServerStream) => void> {
  return {
    "/envoy.service.secret.v3.SecretDiscoveryService/StreamSecrets": store.serveWorld,
    "/envoy.service.secret.v3.SecretDiscoveryService/DeltaSecrets": store.serveDelta,
  };
}

// Field numbers below are those of envoy/service/discovery/v3/discovery.proto and
// envoy/extensions/transport_sockets/tls/v3/{secret,common}.proto. Tag = number << 3 | 2 for everything with a length.
const lengthDelimited = (field: number): number => (field << 3) | 2;

/** Secret { name = 1; tls_certificate = 2 | validation_context = 4 }, with DataSource { inline_bytes = 2 }. */
function encodeSecret(name: string, value: SecretValue): Uint8Array {
  const writer = protobuf.Writer.create().uint32(lengthDelimited(1)).string(name);
  if (value.kind === "certificate") {
    writer.uint32(lengthDelimited(2)).fork();
    writeSource(writer, 1, value.chainPem);
    writeSource(writer, 2, value.keyPem);
    return writer.ldelim().finish();
  }
  writer.uint32(lengthDelimited(4)).fork();
  writeSource(writer, 1, value.rootsPem);
  if (value.revokedPem !== undefined) writeSource(writer, 7, value.revokedPem);
  return writer.ldelim().finish();
}

function writeSource(writer: protobuf.Writer, field: number, pem: string): void {
  writer.uint32(lengthDelimited(field)).fork();
  writer.uint32(lengthDelimited(2)).bytes(Buffer.from(pem)).ldelim();
}

function writeAny(writer: protobuf.Writer, field: number, secret: StoredSecret): void {
  writer.uint32(lengthDelimited(field)).fork();
  writer.uint32(lengthDelimited(1)).string(secretType);
  writer.uint32(lengthDelimited(2)).bytes(secret.bytes).ldelim();
}

/** DiscoveryResponse { version_info = 1; resources = 2; type_url = 4; nonce = 5 } */
function encodeWorld(version: string, secrets: readonly StoredSecret[], nonce: string): Uint8Array {
  const writer = protobuf.Writer.create().uint32(lengthDelimited(1)).string(version);
  for (const secret of secrets) writeAny(writer, 2, secret);
  writer.uint32(lengthDelimited(4)).string(secretType);
  return writer.uint32(lengthDelimited(5)).string(nonce).finish();
}

/** DeltaDiscoveryResponse { resources = 2 (Resource { version = 1; resource = 2; name = 3 }); type_url = 4; nonce = 5 } */
function encodeDelta(name: string, secret: StoredSecret, nonce: string): Uint8Array {
  const writer = protobuf.Writer.create().uint32(lengthDelimited(1)).string(secret.version);
  writer.uint32(lengthDelimited(2)).fork();
  writer.uint32(lengthDelimited(1)).string(secret.version);
  writeAny(writer, 2, secret);
  writer.uint32(lengthDelimited(3)).string(name).ldelim();
  writer.uint32(lengthDelimited(4)).string(secretType);
  return writer.uint32(lengthDelimited(5)).string(nonce).finish();
}

/** DiscoveryRequest { resource_names = 3; error_detail = 6 } */
function decodeWorldRequest(message: Buffer): { names: string[]; error: string } {
  const reader = protobuf.Reader.create(message);
  const names: string[] = [];
  let error = "";
  while (reader.pos < reader.len) {
    const tag = reader.uint32();
    if (tag === lengthDelimited(3)) names.push(reader.string());
    else if (tag === lengthDelimited(6)) error = decodeStatus(reader.bytes());
    else reader.skipType(tag & 7);
  }
  return { names, error };
}

interface DeltaRequest {
  readonly subscribe: string[];
  readonly unsubscribe: string[];
  readonly held: [string, string][];
  error: string;
}

/** DeltaDiscoveryRequest { subscribe = 3; unsubscribe = 4; initial_resource_versions = 5 (map); error_detail = 7 } */
function decodeDeltaRequest(message: Buffer): DeltaRequest {
  const reader = protobuf.Reader.create(message);
  const request: DeltaRequest = { subscribe: [], unsubscribe: [], held: [], error: "" };
  while (reader.pos < reader.len) {
    const tag = reader.uint32();
    if (tag === lengthDelimited(3)) request.subscribe.push(reader.string());
    else if (tag === lengthDelimited(4)) request.unsubscribe.push(reader.string());
    else if (tag === lengthDelimited(5)) request.held.push(decodeEntry(reader.bytes()));
    else if (tag === lengthDelimited(7)) request.error = decodeStatus(reader.bytes());
    else reader.skipType(tag & 7);
  }
  return request;
}

function decodeEntry(bytes: Uint8Array): [string, string] {
  const reader = protobuf.Reader.create(bytes);
  let key = "";
  let value = "";
  while (reader.pos < reader.len) {
    const tag = reader.uint32();
    if (tag === lengthDelimited(1)) key = reader.string();
    else if (tag === lengthDelimited(2)) value = reader.string();
    else reader.skipType(tag & 7);
  }
  return [key, value];
}

/** google.rpc.Status { message = 2 } */
function decodeStatus(bytes: Uint8Array): string {
  const reader = protobuf.Reader.create(bytes);
  while (reader.pos < reader.len) {
    const tag = reader.uint32();
    if (tag === lengthDelimited(2)) return reader.string();
    reader.skipType(tag & 7);
  }
  return "rejected without a reason";
}
