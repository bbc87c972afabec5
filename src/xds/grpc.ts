// gRPC on node:http2, as much of it as a control plane serves: one bidirectional stream and unary calls, uncompressed.
// Written here because a server that asks for client certificates without insisting on them, which sidecars without a
// certificate yet need, cannot be had from grpc-js, and because responses are ready bytes.

import http2 from "node:http2";
import type { TLSSocket } from "node:tls";
import type { AddressInfo } from "node:net";
import type { Logger } from "#base";
import { refuseDownload, serveDownload, type Downloads } from "./download.ts";
import { GrpcError, grpcStatus, type GrpcPeer } from "./grpc-api.ts";
import {
  connectionDownloadsMax,
  connectionsMax,
  connectionStreamsMax,
  endingMs,
  handshakeMs,
  keepaliveMs,
  requestBytesMax,
  type ReachXdsLimit,
} from "./limits.ts";

/** One bidirectional call. */
export interface GrpcStream {
  readonly peer: GrpcPeer;
  /** @param pieces of one message; they may be shared with other calls and must not change any more */
  send(...pieces: readonly Uint8Array[]): void;
  /** Ends the call with a status; messages still unsent go out before. */
  end(code: number, message: string): void;
  /** Ends the call, and asks the client to make its next one over another connection. */
  leave(message: string): void;
  /** Bytes that are handed over and not yet taken by the network. */
  readonly unsentBytes: number;
}

export interface StreamHandlers {
  message(bytes: Uint8Array): void;
  /** Called once when the call is over, whoever ended it. */
  closed(): void;
}

export type StreamMethod = (stream: GrpcStream) => StreamHandlers;
export type UnaryMethod = (request: Uint8Array, peer: GrpcPeer) => Promise<Uint8Array>;

export interface TlsMaterial {
  /** The serving certificate with its chain, PEM. */
  readonly certificate: string;
  readonly key: string;
  /** The roots that client certificates are verified against, PEM. */
  readonly clientRoots: string;
}

export interface GrpcServerOptions {
  readonly host: string;
  readonly port: number;
  /** Plaintext without. */
  readonly tls?: TlsMaterial;
  readonly streams: Readonly<Record<string, StreamMethod>>;
  readonly unary: Readonly<Record<string, UnaryMethod>>;
  readonly downloads?: Downloads;
  readonly log: Logger;
  readonly reached?: ReachXdsLimit;
}

/** What a client may send ahead, on a stream and on its connection: a proxy that comes back lists some 300 KiB. */
const windowBytes = 1024 * 1024;
/** A flag and the message's length. */
const headBytes = 5;
/** Each write has its price: messages up to this size are copied together into one. */
const copiedBytesMax = 4_096;

export class GrpcServer {
  readonly #options: GrpcServerOptions;
  readonly #server: http2.Http2Server | http2.Http2SecureServer;
  readonly #sessions = new Set<http2.ServerHttp2Session>();
  /** Calls and downloads at present, for each connection. */
  readonly #calls = new StreamCount();
  readonly #downloads = new StreamCount();
  readonly #keepalive: NodeJS.Timeout;

  private constructor(options: GrpcServerOptions) {
    this.#options = options;
    const settings: http2.ServerOptions = {
      settings: {
        // HTTP/2's own limit stands above ours, which are counted.
        maxConcurrentStreams: 2 * (connectionStreamsMax + connectionDownloadsMax),
        initialWindowSize: windowBytes,
      },
      maxSessionMemory: 64,
    };
    this.#server =
      options.tls === undefined
        ? http2.createServer(settings)
        : http2.createSecureServer({
            ...settings,
            ...secureContext(options.tls),
            requestCert: true,
            // A proxy without a certificate yet proves itself by its token; `peerOf` passes on verified ones alone.
            rejectUnauthorized: false,
            ALPNProtocols: ["h2"],
            handshakeTimeout: handshakeMs,
          });
    this.#server.maxConnections = connectionsMax;
    this.#server.on("drop", () => this.#reached("connections"));
    this.#server.on("session", (session) => this.#track(session));
    this.#server.on("stream", (stream, headers) => this.#serve(stream as http2.ServerHttp2Stream, headers));
    this.#server.on("sessionError", (error) =>
      options.log.debug({ error: String(error) }, "connection failed"),
    );
    this.#server.on("tlsClientError", (error: NodeJS.ErrnoException) => {
      if (error.code === "ERR_TLS_HANDSHAKE_TIMEOUT") this.#reached("handshake");
      options.log.debug({ error: String(error) }, "TLS handshake failed");
    });
    this.#keepalive = setInterval(() => this.#pingAll(), keepaliveMs);
    this.#keepalive.unref();
  }

  /** Listens. Rejects if the port is taken. */
  static async listen(options: GrpcServerOptions): Promise<GrpcServer> {
    const server = new GrpcServer(options);
    await new Promise<void>((resolve, reject) => {
      server.#server.once("error", reject);
      server.#server.listen(options.port, options.host, () => {
        server.#server.off("error", reject);
        server.#server.on("error", (error: Error) =>
          options.log.error({ error: String(error) }, "server failed"),
        );
        resolve();
      });
    });
    return server;
  }

  get port(): number {
    return (this.#server.address() as AddressInfo).port;
  }

  get connectionCount(): number {
    return this.#sessions.size;
  }

  /** Uses another certificate or other roots for connections from now on. */
  replaceTls(tls: TlsMaterial): void {
    (this.#server as http2.Http2SecureServer).setSecureContext(secureContext(tls));
  }

  /** Takes no new connections and asks the clients to go elsewhere, spread over `drainMs`; then closes what is left. */
  async close(drainMs: number): Promise<void> {
    clearInterval(this.#keepalive);
    const closed = new Promise<void>((resolve) => this.#server.close(() => resolve()));
    const sessions = [...this.#sessions];
    const waits = sessions.map(
      (session, at) =>
        new Promise<void>((resolve) =>
          setTimeout(
            () => {
              if (!session.destroyed) session.goaway(http2.constants.NGHTTP2_NO_ERROR);
              session.destroy();
              resolve();
            },
            (drainMs * at) / sessions.length,
          ),
        ),
    );
    await Promise.all(waits);
    for (const session of this.#sessions) session.destroy();
    await closed;
  }

  #track(session: http2.ServerHttp2Session): void {
    this.#sessions.add(session);
    session.setLocalWindowSize(windowBytes);
    session.on("error", (error) => this.#options.log.debug({ error: String(error) }, "connection failed"));
    session.once("close", () => this.#sessions.delete(session));
  }

  #pingAll(): void {
    for (const session of this.#sessions) {
      if (session.destroyed) continue;
      const timer = setTimeout(() => {
        if (!session.destroyed) this.#reached("keepalive");
        session.destroy();
      }, keepaliveMs).unref();
      if (!session.ping(() => clearTimeout(timer))) clearTimeout(timer);
    }
  }

  #serve(stream: http2.ServerHttp2Stream, headers: http2.IncomingHttpHeaders): void {
    stream.on("error", (error) => this.#options.log.debug({ error: String(error) }, "call failed"));
    const path = headers[":path"] ?? "";
    const streamMethod = this.#options.streams[path];
    const unaryMethod = this.#options.unary[path];
    const { downloads } = this.#options;
    if (downloads !== undefined && headers[":method"] === "GET" && path.startsWith(downloads.prefix)) {
      this.#serveDownload(stream, path.slice(downloads.prefix.length), headers, downloads);
      return;
    }
    if (!/^application\/grpc(\+proto)?\b/.test(headers["content-type"] ?? "")) {
      stream.respond({ ":status": 415 }, { endStream: true });
      return;
    }
    const call = new Call(stream, peerOf(stream, headers), (limit) => this.#reached(limit));
    if (this.#calls.add(stream) > connectionStreamsMax) {
      this.#reached("connectionStreams");
      call.end(grpcStatus.resourceExhausted, `more than ${connectionStreamsMax} calls on one connection`);
    } else if (streamMethod !== undefined) call.serve(streamMethod(call));
    else if (unaryMethod !== undefined) call.serveUnary(unaryMethod, this.#options.log);
    else call.end(grpcStatus.unimplemented, `no method ${path}`);
  }

  #serveDownload(
    stream: http2.ServerHttp2Stream,
    name: string,
    headers: http2.IncomingHttpHeaders,
    { find }: Downloads,
  ): void {
    if (this.#downloads.add(stream) > connectionDownloadsMax) {
      this.#reached("connectionDownloads");
      refuseDownload(stream, grpcStatus.resourceExhausted);
      return;
    }
    const peer = peerOf(stream, headers);
    const { log } = this.#options;
    void serveDownload({ stream, name, peer, find, log, reached: (limit) => this.#reached(limit) });
  }

  #reached(limit: Parameters<ReachXdsLimit>[0]): void {
    this.#options.reached?.(limit);
  }
}

/** Streams of a kind that each connection has at present. */
class StreamCount {
  readonly #counts = new WeakMap<http2.Http2Session, number>();

  /** How many its connection has with it. */
  add(stream: http2.ServerHttp2Stream): number {
    const { session } = stream;
    if (session === undefined) return 0;
    const count = (this.#counts.get(session) ?? 0) + 1;
    this.#counts.set(session, count);
    stream.once("close", () => this.#counts.set(session, (this.#counts.get(session) ?? 1) - 1));
    return count;
  }
}

/** One call: message framing (a flag, four bytes of length, the message) over an HTTP/2 stream. */
class Call implements GrpcStream {
  readonly peer: GrpcPeer;
  readonly #stream: http2.ServerHttp2Stream;
  readonly #reached: ReachXdsLimit;
  #ended = false;
  #responded = false;
  #pending: Buffer[] = [];
  #pendingBytes = 0;
  /** Of the head or, once that is known, of the whole message. */
  #neededBytes = headBytes;

  constructor(stream: http2.ServerHttp2Stream, peer: GrpcPeer, reached: ReachXdsLimit) {
    this.#stream = stream;
    this.peer = peer;
    this.#reached = reached;
  }

  get unsentBytes(): number {
    return this.#stream.writableLength;
  }

  serve(handlers: StreamHandlers): void {
    this.#stream.on("data", (chunk: Buffer) => this.#receive(chunk, (message) => handlers.message(message)));
    this.#stream.on("end", () => this.end(grpcStatus.ok, ""));
    this.#stream.once("close", () => handlers.closed());
  }

  serveUnary(method: UnaryMethod, log: Logger): void {
    let request: Uint8Array | undefined;
    this.#stream.on("data", (chunk: Buffer) => this.#receive(chunk, (message) => (request ??= message)));
    this.#stream.on("end", () => {
      if (request === undefined) {
        this.end(grpcStatus.invalidArgument, "a request without a message");
        return;
      }
      void this.#answer(method, request, log);
    });
  }

  send(...pieces: readonly Uint8Array[]): void {
    if (this.#ended || this.#stream.destroyed) return;
    this.#respond();
    const length = pieces.reduce((sum, piece) => sum + piece.length, 0);
    const isSmall = length <= copiedBytesMax;
    const head = Buffer.allocUnsafe(isSmall ? headBytes + length : headBytes);
    head[0] = 0;
    head.writeUInt32BE(length, 1);
    if (isSmall) {
      let at = headBytes;
      for (const piece of pieces) {
        head.set(piece, at);
        at += piece.length;
      }
      this.#stream.write(head);
      return;
    }
    // Corked, the pieces go down in one call, and uncopied.
    this.#stream.cork();
    this.#stream.write(head);
    for (const piece of pieces) if (piece.length > 0) this.#stream.write(piece);
    this.#stream.uncork();
  }

  leave(message: string): void {
    const { session } = this.#stream;
    this.end(grpcStatus.unavailable, message);
    // GOAWAY: the connection ends with its last call.
    session?.close();
  }

  end(code: number, message: string): void {
    if (this.#ended) return;
    this.#ended = true;
    if (this.#stream.destroyed) return;
    const trailers = { "grpc-status": String(code), "grpc-message": encodeMessageText(message) };
    if (this.#responded) {
      this.#stream.once("wantTrailers", () => this.#stream.sendTrailers(trailers));
      this.#stream.end();
      this.#resetIfUnread();
      return;
    }
    const headers = { ":status": 200, "content-type": "application/grpc", ...trailers };
    this.#stream.respond(headers, { endStream: true });
  }

  async #answer(method: UnaryMethod, request: Uint8Array, log: Logger): Promise<void> {
    try {
      this.send(await method(request, this.peer));
      this.end(grpcStatus.ok, "");
    } catch (error) {
      if (!(error instanceof GrpcError)) log.error({ error: String(error) }, "call failed");
      const refusal =
        error instanceof GrpcError ? error : new GrpcError(grpcStatus.internal, "internal error");
      this.end(refusal.code, refusal.message);
    }
  }

  /** A peer that does not read would keep all that was sent to it in our memory, and its stream open. */
  #resetIfUnread(): void {
    const timer = setTimeout(() => {
      this.#reached("ending");
      this.#stream.close(http2.constants.NGHTTP2_CANCEL);
      this.#stream.destroy();
    }, endingMs).unref();
    this.#stream.once("close", () => clearTimeout(timer));
  }

  #respond(): void {
    if (this.#responded) return;
    this.#responded = true;
    this.#stream.respond({ ":status": 200, "content-type": "application/grpc" }, { waitForTrailers: true });
  }

  #receive(chunk: Buffer, each: (message: Uint8Array) => void): void {
    this.#pending.push(chunk);
    this.#pendingBytes += chunk.length;
    // Put together only once a message is whole: thousands of names come in dozens of chunks.
    while (this.#pendingBytes >= this.#neededBytes && !this.#ended) {
      const bytes = this.#pending.length === 1 ? this.#pending[0]! : Buffer.concat(this.#pending);
      this.#pending = [bytes];
      const length = bytes.readUInt32BE(1);
      if (bytes[0] !== 0) {
        this.end(grpcStatus.unimplemented, "compressed messages are not understood");
        return;
      }
      if (length > requestBytesMax) {
        this.#reached("requestBytes");
        this.end(
          grpcStatus.resourceExhausted,
          `a message of ${length} bytes; ${requestBytesMax} are allowed`,
        );
        return;
      }
      this.#neededBytes = headBytes + length;
      if (bytes.length < this.#neededBytes) return;
      const isAll = bytes.length === this.#neededBytes;
      this.#pending = isAll ? [] : [bytes.subarray(this.#neededBytes)];
      this.#pendingBytes -= this.#neededBytes;
      this.#neededBytes = headBytes;
      each(bytes.subarray(headBytes, headBytes + length));
    }
  }
}

function secureContext(tls: TlsMaterial): http2.SecureServerOptions {
  return {
    cert: tls.certificate,
    key: tls.key,
    ca: tls.clientRoots,
    minVersion: "TLSv1.2",
  };
}

function peerOf(stream: http2.ServerHttp2Stream, headers: http2.IncomingHttpHeaders): GrpcPeer {
  const socket = stream.session?.socket as TLSSocket | undefined;
  const verified = socket?.authorized === true ? socket.getPeerX509Certificate?.() : undefined;
  return {
    address: `${socket?.remoteAddress ?? ""}:${socket?.remotePort ?? ""}`,
    authorization: headers.authorization,
    certificate: verified?.raw,
  };
}

/**
 * gRPC's percent-encoding: printable ASCII but for "%" stands for itself, every other byte of the UTF-8 is escaped. More
 * escapes than these would be right by the protocol, and some clients (grpc-js) show them as they are.
 */
function encodeMessageText(message: string): string {
  return message.toWellFormed().replaceAll(/[^ -$&-~]+/g, (escaped) => encodeURIComponent(escaped));
}
