// A server that answers with what it saw of a request: for tests of the mesh, and for people who want to look through
// one. HTTP/1.1 and HTTP/2 without TLS share a port; a gRPC call of any method is answered with status 0.

import { createHash } from "node:crypto";
import { createServer as createHttpServer, type IncomingMessage, type ServerResponse } from "node:http";
import {
  createSecureServer,
  createServer as createHttp2Server,
  type Http2ServerRequest,
  type Http2ServerResponse,
  type SecureServerOptions,
} from "node:http2";
import { createServer as createTcpServer, type Server, type Socket } from "node:net";
import { hostname } from "node:os";
import type { Readable, Writable } from "node:stream";
import type { TLSSocket } from "node:tls";
import { answerGrpcStream, isGrpcStream } from "./grpc.ts";

export type EchoPort =
  | { readonly kind: "http"; readonly port: number; readonly address: string; readonly behindProxy?: boolean }
  | { readonly kind: "https"; readonly port: number; readonly address: string }
  | { readonly kind: "tcp"; readonly port: number; readonly address: string; readonly serverFirst: boolean };

export interface EchoOptions {
  readonly service: string;
  readonly version: string;
  readonly ports: readonly EchoPort[];
  /** For `https` ports. */
  readonly certificate?: Pick<SecureServerOptions, "key" | "cert">;
  /** Kept up to date, for whoever wants to end when nothing is open. */
  readonly activity?: Activity;
}

export interface Activity {
  openRequests: number;
}

/** What the server saw: the JSON body of every answer. */
export interface Echo {
  readonly hostname: string;
  readonly service: string;
  readonly version: string;
  readonly method: string;
  readonly url: string;
  readonly host: string;
  readonly protocol: string;
  readonly headers: Readonly<Record<string, string>>;
  readonly bodyBytes: number;
  readonly port: number;
  readonly remoteAddress: string;
  readonly alpn: string;
  readonly sni: string;
  /** Of the PROXY protocol, on ports that await its header; empty without. */
  readonly proxyProtocol: string;
}

/** The longest body that is read before the answer; more is refused with 413. */
const bodyBytesMax = 1_048_576;
/** The first line of an HTTP/2 connection without TLS. */
const http2Preface = "PRI * HTTP/2.0";

/** Starts every port and resolves once all of them listen. */
export async function startEcho(options: EchoOptions): Promise<readonly Server[]> {
  const servers = options.ports.map((port) => ({ port, server: serverFor(port, options) }));
  await Promise.all(
    servers.map(
      ({ port, server }) =>
        new Promise<void>((resolve, reject) => {
          server.once("error", reject);
          server.listen(port.port, port.address, resolve);
        }),
    ),
  );
  return servers.map(({ server }) => server);
}

function serverFor(port: EchoPort, options: EchoOptions): Server {
  switch (port.kind) {
    case "http":
      return plainServer(
        (request, response) => answer(options, request, response),
        port.behindProxy === true ? takeProxyHeader : untouched,
      );
    case "https":
      return createSecureServer(
        { ...options.certificate, allowHTTP1: true },
        (request: Http2ServerRequest, response: Http2ServerResponse) => answer(options, request, response),
      );
    case "tcp":
      return createTcpServer((socket) => answerTcp(options, port.serverFirst, socket));
  }
}

type Request = IncomingMessage | Http2ServerRequest;
type Response = ServerResponse | Http2ServerResponse;

/** Both HTTP versions on one port, told apart by the first bytes. */
function plainServer(
  onRequest: (request: Request, response: Response) => void,
  opened: (socket: Socket, bytes: Buffer) => Buffer | undefined,
): Server {
  const http1 = createHttpServer(onRequest);
  // The caller ends a connection: one that closes from here in the moment of the next request would lose that.
  http1.keepAliveTimeout = 0;
  http1.on("upgrade", answerUpgrade);
  const http2 = createHttp2Server(onRequest);
  return createTcpServer((socket) => {
    socket.on("error", () => socket.destroy());
    socket.once("data", (bytes: Buffer) => {
      socket.pause();
      const first = opened(socket, bytes);
      if (first === undefined) return socket.destroy();
      socket.unshift(first);
      const isHttp2 = first.subarray(0, http2Preface.length).toString("latin1") === http2Preface;
      (isHttp2 ? http2 : http1).emit("connection", socket);
      if (!isHttp2) socket.resume();
    });
  });
}

/** Versions of the PROXY protocol that connections opened with. */
const proxied = new WeakMap<object, string>();
const untouched = (_socket: Socket, bytes: Buffer): Buffer => bytes;
const proxyV2Signature = Buffer.from("0d0a0d0a000d0a515549540a", "hex");

/** Cuts the header of the PROXY protocol off; undefined when there is none, which such a port refuses. */
function takeProxyHeader(socket: Socket, bytes: Buffer): Buffer | undefined {
  if (bytes.subarray(0, proxyV2Signature.length).equals(proxyV2Signature)) {
    proxied.set(socket, "2");
    return bytes.subarray(16 + bytes.readUInt16BE(14));
  }
  const end = bytes.indexOf("\r\n");
  if (end === -1 || bytes.subarray(0, 6).toString("latin1") !== "PROXY ") return undefined;
  proxied.set(socket, "1");
  return bytes.subarray(end + 2);
}

/** A WebSocket, as far as a test of what lies between needs one: the handshake, then every frame comes back unmasked. */
function answerUpgrade(request: IncomingMessage, socket: Socket): void {
  const accept = createHash("sha1")
    .update(`${request.headers["sec-websocket-key"] ?? ""}258EAFA5-E914-47DA-95CA-C5AB0DC85B11`)
    .digest("base64");
  socket.on("error", () => socket.destroy());
  socket.write(
    `HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: ${accept}\r\n\r\n`,
  );
  socket.on("data", (frame: Buffer) => {
    const length = (frame[1] ?? 0) & 0x7f;
    if (length > 125 || frame.length < 6 + length) return socket.destroy();
    const mask = frame.subarray(2, 6);
    const text = frame.subarray(6, 6 + length).map((byte, at) => byte ^ (mask[at % 4] ?? 0));
    socket.write(Buffer.concat([Buffer.from([frame[0] ?? 0x81, length]), text]));
  });
}

function answer(options: EchoOptions, request: Request, response: Response): void {
  const { activity } = options;
  if (activity !== undefined) {
    activity.openRequests++;
    const stream: Writable = response;
    stream.once("close", () => activity.openRequests--);
  }
  if ("stream" in response && "stream" in request && isGrpcStream(request.url)) {
    answerGrpcStream(request as Http2ServerRequest, response);
    return;
  }
  let received = 0;
  const body: Readable = request;
  body.on("data", (chunk: Buffer) => {
    received += chunk.length;
    if (received > bodyBytesMax) request.destroy();
  });
  body.on("end", () => {
    const seen = echoOf(options, request, received);
    if (seen.headers["content-type"]?.startsWith("application/grpc") === true && "stream" in response) {
      answerGrpc(response, seen);
      return;
    }
    const { status, delayMs } = wishesOf(request.url ?? "/", options.version);
    setTimeout(() => {
      response.statusCode = status;
      response.setHeader("content-type", "application/json");
      response.setHeader("x-echo-version", options.version);
      response.end(`${JSON.stringify(seen)}\n`);
    }, delayMs);
  });
}

/** `?status=503` and `?delay=200` (ms) ask for another answer; with `version=v1` of servers of that version alone. */
function wishesOf(url: string, own: string): { readonly status: number; readonly delayMs: number } {
  const query = new URL(url, "http://echo").searchParams;
  if ((query.get("version") ?? own) !== own) return { status: 200, delayMs: 0 };
  const status = Number(query.get("status") ?? 200);
  const delayMs = Number(query.get("delay") ?? 0);
  return {
    status: Number.isInteger(status) && status >= 200 && status < 600 ? status : 200,
    delayMs: delayMs >= 0 && delayMs <= 60_000 ? delayMs : 0,
  };
}

/** One message, which says what was seen, and status 0, whatever the method. */
function answerGrpc(response: Http2ServerResponse, seen: Echo): void {
  const message = Buffer.from(JSON.stringify(seen));
  const head = Buffer.alloc(5);
  head.writeUInt32BE(message.length, 1);
  response.writeHead(200, { "content-type": "application/grpc", "x-echo-hostname": hostname() });
  response.addTrailers({ "grpc-status": "0" });
  response.end(Buffer.concat([head, message]));
}

function echoOf(options: EchoOptions, request: Request, bodyBytes: number): Echo {
  const headers = headersOf(request.rawHeaders);
  const socket = request.socket as TLSSocket;
  return {
    hostname: hostname(),
    service: options.service,
    version: options.version,
    method: request.method ?? "",
    url: request.url ?? "",
    host: ("authority" in request ? request.authority : undefined) || (headers["host"] ?? ""),
    protocol: `HTTP/${request.httpVersion}`,
    headers,
    bodyBytes,
    port: socket.localPort ?? 0,
    remoteAddress: socket.remoteAddress ?? "",
    alpn: typeof socket.alpnProtocol === "string" ? socket.alpnProtocol : "",
    sni: typeof socket.servername === "string" ? socket.servername : "",
    proxyProtocol: proxied.get(request.socket) ?? "",
  };
}

/** As they came, in lower case; several values of one name with commas between. */
function headersOf(raw: readonly string[]): Record<string, string> {
  const headers: Record<string, string> = {};
  for (let at = 0; at + 1 < raw.length; at += 2) {
    const name = raw[at]!.toLowerCase();
    const value = raw[at + 1]!;
    if (!name.startsWith(":"))
      headers[name] = headers[name] === undefined ? value : `${headers[name]},${value}`;
  }
  return headers;
}

/** Answers each chunk with a line that names the server and repeats the chunk; speaks first where asked to. */
function answerTcp(options: EchoOptions, serverFirst: boolean, socket: Socket): void {
  socket.on("error", () => socket.destroy());
  const name = `hostname=${hostname()} service=${options.service} version=${options.version}`;
  if (serverFirst) socket.write(`ready ${name}\n`);
  socket.on("data", (chunk: Buffer) => socket.write(`${name} echo=${chunk.toString("latin1").trimEnd()}\n`));
}
