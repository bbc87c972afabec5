// The kinds of gRPC calls in which messages flow: server, client and both ways. A test of what lies between needs no schema: messages
// are texts.

import {
  connect,
  type Http2ServerRequest,
  type Http2ServerResponse,
  type IncomingHttpHeaders,
} from "node:http2";
import type { Answer, Order } from "./forward.ts";

/** Paths of the calls in which messages flow; a call of any other path has one message each way. */
const serverStream = "/echo.Echo/ServerStream";
const clientStream = "/echo.Echo/ClientStream";
const bothStream = "/echo.Echo/BidiStream";
const messagesMax = 100;
const messageBytesMax = 65_536;

export function isGrpcStream(path: string): boolean {
  return path === serverStream || path === clientStream || path === bothStream;
}

/**
 * As many messages as the one that came asks for; or one, which says how many came; or each that comes is repeated at once,
 * before the next.
 */
export function answerGrpcStream(request: Http2ServerRequest, response: Http2ServerResponse): void {
  response.writeHead(200, { "content-type": "application/grpc" });
  response.addTrailers({ "grpc-status": "0" });
  let count = 0;
  const read = messageReader((text) => {
    count++;
    if (request.url === bothStream) response.write(grpcMessage(text));
    if (request.url !== serverStream) return;
    const wanted = Math.min(Number(text) || 0, messagesMax);
    for (let at = 1; at <= wanted; at++) response.write(grpcMessage(`${at} of ${wanted}`));
  });
  request.on("data", (chunk: Buffer) => {
    if (!read(chunk)) request.stream.destroy();
  });
  request.on("end", () => {
    if (request.url === clientStream) response.write(grpcMessage(`${count} came`));
    response.end();
  });
}

/** The messages that came back, one a line. Where they flow both ways, each waits for the answer to the one before. */
export function callGrpcStream(url: URL, order: Order, timeoutMs: number): Promise<Answer> {
  const { promise, resolve, reject } = Promise.withResolvers<Answer>();
  const session = connect(`http://${url.host}`);
  const timer = setTimeout(() => reject(new Error("timed out")), timeoutMs);
  const stream = session.request({
    ":method": "POST",
    ":path": url.pathname,
    ":authority": order.headers?.["Host"] ?? url.host,
    "content-type": "application/grpc",
    te: "trailers",
  });
  const messages = (order.messages ?? []).slice(0, messagesMax);
  const answers: string[] = [];
  let sent = 0;
  const send = (): void => {
    const text = messages[sent++];
    if (text === undefined) stream.end();
    else stream.write(grpcMessage(text));
  };
  const read = messageReader((text) => {
    answers.push(text);
    if (url.pathname === bothStream) send();
  });
  let heads: IncomingHttpHeaders = {};
  stream.on("response", (fields) => (heads = { ...fields }));
  stream.on("trailers", (fields) => (heads = { ...heads, ...fields }));
  stream.on("data", (chunk: Buffer) => void read(chunk));
  stream.on("end", () => {
    const grpcStatus = heads["grpc-status"] === undefined ? {} : { grpcStatus: Number(heads["grpc-status"]) };
    resolve({ status: Number(heads[":status"]), headers: {}, body: answers.join("\n"), ...grpcStatus });
  });
  stream.on("error", reject);
  session.on("error", reject);
  if (url.pathname === bothStream) send();
  else while (sent <= messages.length) send();
  return promise.finally(() => {
    clearTimeout(timer);
    session.destroy();
  });
}

/** A flag byte and a length go before the text. */
function grpcMessage(text: string): Buffer {
  const body = Buffer.from(text);
  const head = Buffer.alloc(5);
  head.writeUInt32BE(body.length, 1);
  return Buffer.concat([head, body]);
}

/** Takes chunks and gives whole messages; false says that one is longer than is taken. */
function messageReader(take: (text: string) => void): (chunk: Buffer) => boolean {
  let rest: Buffer = Buffer.alloc(0);
  return (chunk) => {
    rest = Buffer.concat([rest, chunk]);
    while (rest.length >= 5) {
      const length = rest.readUInt32BE(1);
      if (length > messageBytesMax) return false;
      if (rest.length < 5 + length) break;
      take(rest.subarray(5, 5 + length).toString());
      rest = rest.subarray(5 + length);
    }
    return true;
  };
}
