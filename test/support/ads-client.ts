// A simulated proxy on a real socket: subscribes to all clusters and listeners and to the clusters' endpoints, as Envoy does, and
// may be as slow or as silent as a test wants.

import http2 from "node:http2";
import { connect } from "node:net";
import { Duplex } from "node:stream";
import protobuf from "protobufjs/minimal.js";
import { encodeMessage, typeUrlOf } from "#envoy";
import { adsPath } from "#xds";

export interface AdsClientOptions {
  readonly port: number;
  /** `name.namespace` of the pod that it stands for. */
  readonly pod: string;
  /** Answers nothing that it gets. */
  readonly neverAcknowledges?: boolean;
  /** Takes nothing from the stream, though its connection lives. */
  readonly neverReads?: boolean;
  /** Takes no more than this from the socket, whatever comes. */
  readonly bytesPerSecond?: number;
}

type Type = "cluster" | "endpoint" | "listener";

export class AdsClient {
  readonly #options: AdsClientOptions;
  readonly #session: http2.ClientHttp2Session;
  readonly #stream: http2.ClientHttp2Stream;
  readonly held: Readonly<Record<Type, Map<string, string>>> = {
    cluster: new Map(),
    endpoint: new Map(),
    listener: new Map(),
  };
  #buffer: Buffer = Buffer.alloc(0);
  /** Names that the server took away. */
  readonly removed: string[] = [];
  responses = 0;
  closed = false;
  /** gRPC's status, once the stream has ended with one. */
  status: string | undefined;

  constructor(options: AdsClientOptions) {
    this.#options = options;
    const { bytesPerSecond } = options;
    this.#session = http2.connect(
      `http://127.0.0.1:${options.port}`,
      bytesPerSecond === undefined
        ? {}
        : { createConnection: () => slowSocket(options.port, bytesPerSecond) },
    );
    this.#session.on("error", () => (this.closed = true));
    this.#stream = this.#session.request({
      ":method": "POST",
      ":path": adsPath,
      "content-type": "application/grpc",
      te: "trailers",
    });
    this.#stream.on("error", () => (this.closed = true));
    this.#stream.on("close", () => (this.closed = true));
    for (const event of ["response", "trailers"] as const)
      this.#stream.on(event, (headers: http2.IncomingHttpHeaders) => {
        const status = headers["grpc-status"];
        if (status !== undefined) this.status = String(status);
      });
    if (options.neverReads !== true) this.#stream.on("data", (chunk: Buffer) => this.#receive(chunk));
    const node = { id: `sidecar~127.0.0.1~${options.pod}~default.svc.cluster.local`, cluster: "test" };
    this.#send("cluster", { node });
    this.#send("listener", {});
  }

  close(): void {
    this.#session.destroy();
  }

  #send(type: Type, fields: Record<string, unknown>): void {
    const message = encodeMessage("envoy.service.discovery.v3.DeltaDiscoveryRequest", {
      typeUrl: typeUrlOf(type),
      ...fields,
    });
    const head = Buffer.alloc(5);
    head.writeUInt32BE(message.length, 1);
    if (!this.closed) this.#stream.write(Buffer.concat([head, message]));
  }

  #receive(chunk: Buffer): void {
    this.#buffer = this.#buffer.length === 0 ? chunk : Buffer.concat([this.#buffer, chunk]);
    while (this.#buffer.length >= 5) {
      const length = this.#buffer.readUInt32BE(1);
      if (this.#buffer.length < 5 + length) return;
      this.#respond(this.#buffer.subarray(5, 5 + length));
      this.#buffer = this.#buffer.subarray(5 + length);
    }
  }

  #respond(bytes: Uint8Array): void {
    this.responses++;
    const { typeUrl, nonce, resources, removed } = parseResponse(bytes);
    const type = (["cluster", "endpoint", "listener"] as const).find((one) => typeUrlOf(one) === typeUrl);
    if (type === undefined) return;
    const fresh = resources.filter(({ name }) => !this.held[type].has(name));
    for (const { name, version } of resources) this.held[type].set(name, version);
    for (const name of removed) if (this.held[type].delete(name)) this.removed.push(`${type} ${name}`);
    if (this.#options.neverAcknowledges === true) return;
    this.#send(type, { responseNonce: nonce });
    if (type === "cluster" && fresh.length > 0)
      this.#send("endpoint", { resourceNamesSubscribe: fresh.map(({ name }) => name) });
  }
}

/** A connection whose reading side trickles. */
function slowSocket(port: number, bytesPerSecond: number): Duplex {
  const socket = connect({ port, host: "127.0.0.1" }).pause();
  const trickle = setInterval(() => {
    const bytes = socket.read(bytesPerSecond) as Buffer | null;
    if (bytes !== null) slow.push(bytes);
  }, 1_000).unref();
  const slow = new Duplex({
    read: () => {},
    write: (chunk: Buffer, _encoding, done) => socket.write(chunk, done),
    destroy: (error, done) => {
      clearInterval(trickle);
      socket.destroy();
      done(error);
    },
  });
  socket.on("close", () => slow.destroy());
  socket.on("error", () => slow.destroy());
  return slow;
}

/** DeltaDiscoveryResponse: resources = 2 { version = 1, name = 3 }, type_url = 4, nonce = 5, removed_resources = 6. */
function parseResponse(bytes: Uint8Array) {
  const reader = protobuf.Reader.create(bytes);
  const resources: { name: string; version: string }[] = [];
  const removed: string[] = [];
  let typeUrl = "";
  let nonce = "";
  while (reader.pos < reader.len) {
    const tag = reader.uint32();
    if (tag >>> 3 === 2) resources.push(parseResource(reader.bytes()));
    else if (tag >>> 3 === 4) typeUrl = reader.string();
    else if (tag >>> 3 === 5) nonce = reader.string();
    else if (tag >>> 3 === 6) removed.push(reader.string());
    else reader.skipType(tag & 7);
  }
  return { typeUrl, nonce, resources, removed };
}

function parseResource(bytes: Uint8Array): { name: string; version: string } {
  const reader = protobuf.Reader.create(bytes);
  const parsed = { name: "", version: "" };
  while (reader.pos < reader.len) {
    const tag = reader.uint32();
    if (tag >>> 3 === 1) parsed.version = reader.string();
    else if (tag >>> 3 === 3) parsed.name = reader.string();
    else reader.skipType(tag & 7);
  }
  return parsed;
}
