// As much gRPC as the agent needs, over Node's own HTTP/2: one unary call to the CA, and bidirectional streams served
// to Envoy on a unix socket. A full library would take half of the agent's memory budget. Messages are not compressed.

import * as http2 from "node:http2";

/** A call that ended otherwise than OK; `code` is gRPC's status. */
export class GrpcError extends Error {
  readonly code: number;
  constructor(code: number, message: string) {
    super(message);
    this.code = code;
  }
}

export const grpcUnavailable = 14;
const grpcUnimplemented = 12;
const grpcResourceExhausted = 8;
/** Messages beyond it end the call: nothing that the agent speaks is near it. */
const messageBytesMax = 4 * 1024 * 1024;

/** Puts the five bytes of gRPC's framing before a message. */
export function frame(message: Uint8Array): Buffer {
  const framed = Buffer.alloc(5 + message.length);
  framed.writeUInt32BE(message.length, 1);
  framed.set(message, 5);
  return framed;
}

/** Takes chunks as they come and calls back with each whole message. */
export function createUnframer(callback: (message: Buffer) => void): (chunk: Buffer) => void {
  let rest: Buffer = Buffer.alloc(0);
  return (chunk) => {
    rest = rest.length === 0 ? chunk : Buffer.concat([rest, chunk]);
    while (rest.length >= 5) {
      const length = rest.readUInt32BE(1);
      if (rest[0] !== 0) throw new GrpcError(grpcUnimplemented, "compressed messages are not accepted");
      if (length > messageBytesMax)
        throw new GrpcError(grpcResourceExhausted, `a message of ${length} bytes is too long`);
      if (rest.length < 5 + length) return;
      callback(rest.subarray(5, 5 + length));
      rest = rest.subarray(5 + length);
    }
  };
}

export interface UnaryCall {
  /** `https://host:port` */
  readonly url: string;
  readonly path: string;
  readonly headers: Readonly<Record<string, string>>;
  readonly message: Uint8Array;
  readonly timeoutMs: number;
  readonly tls: {
    readonly ca: string;
    readonly servername: string;
    /** A client certificate, in place of or beside a token. */
    readonly cert?: string;
    readonly key?: string;
  };
}

/** Makes one call on a connection of its own. Throws GrpcError; everything short of a status is UNAVAILABLE. */
export async function callUnary(call: UnaryCall): Promise<Buffer> {
  const session = http2.connect(call.url, { ...call.tls, ALPNProtocols: ["h2"], minVersion: "TLSv1.2" });
  try {
    return await new Promise((resolve, reject) => {
      const fail = (error: Error): void =>
        reject(error instanceof GrpcError ? error : new GrpcError(grpcUnavailable, error.message));
      const timer = setTimeout(() => fail(new Error(`no answer in ${call.timeoutMs} ms`)), call.timeoutMs);
      session.on("error", fail);
      session.on("close", () => {
        clearTimeout(timer);
        fail(new Error("the connection was closed"));
      });
      exchange(session, call, resolve, fail);
    });
  } finally {
    session.destroy();
  }
}

function exchange(
  session: http2.ClientHttp2Session,
  call: UnaryCall,
  resolve: (message: Buffer) => void,
  fail: (error: Error) => void,
): void {
  const stream = session.request({
    ":method": "POST",
    ":path": call.path,
    "content-type": "application/grpc",
    te: "trailers",
    ...call.headers,
  });
  let answer: Buffer | undefined;
  let status: { code: string; text: string } | undefined;
  const readStatus = (headers: http2.IncomingHttpHeaders): void => {
    const code = headers["grpc-status"];
    if (typeof code === "string") status = { code, text: String(headers["grpc-message"] ?? "") };
  };
  const take = createUnframer((message) => (answer = Buffer.from(message)));
  stream.on("response", readStatus);
  stream.on("trailers", readStatus);
  stream.on("error", fail);
  stream.on("data", (chunk: Buffer) => {
    try {
      take(chunk);
    } catch (error) {
      fail(error instanceof Error ? error : new Error(String(error)));
    }
  });
  stream.on("end", () => {
    if (status?.code === "0" && answer !== undefined) resolve(answer);
    else if (status === undefined) fail(new Error("the call ended without a status"));
    else fail(new GrpcError(Number(status.code), decodeURIComponent(status.text)));
  });
  stream.end(frame(call.message));
}

/** One open stream from Envoy. */
export interface ServerStream {
  send(message: Uint8Array): void;
  onMessage(callback: (message: Buffer) => void): void;
  onClose(callback: () => void): void;
}

/** Makes a server whose paths each take a stream; unknown paths answer UNIMPLEMENTED. Listen on it yourself. */
export function createStreamServer(
  paths: Readonly<Record<string, (stream: ServerStream) => void>>,
): http2.Http2Server {
  const server = http2.createServer();
  server.on("stream", (stream: http2.ServerHttp2Stream, headers: http2.IncomingHttpHeaders) => {
    const serve = paths[String(headers[":path"])];
    stream.on("error", () => stream.close());
    if (serve === undefined) {
      stream.respond(
        { "content-type": "application/grpc", "grpc-status": String(grpcUnimplemented) },
        { endStream: true },
      );
      return;
    }
    stream.respond({ "content-type": "application/grpc" }, { waitForTrailers: true });
    stream.on("wantTrailers", () => stream.sendTrailers({ "grpc-status": "0" }));
    stream.on("end", () => stream.end());
    serve(serverStream(stream));
  });
  server.on("sessionError", () => {});
  return server;
}

function serverStream(stream: http2.ServerHttp2Stream): ServerStream {
  return {
    send: (message) => {
      if (!stream.destroyed && stream.writable) stream.write(frame(message));
    },
    onMessage: (callback) => {
      const take = createUnframer(callback);
      stream.on("data", (chunk: Buffer) => {
        try {
          take(chunk);
        } catch {
          stream.close(http2.constants.NGHTTP2_PROTOCOL_ERROR);
        }
      });
    },
    onClose: (callback) => void stream.on("close", callback),
  };
}
