// The client side of echo: makes calls from where it runs (a pod in the mesh, say) and says what came back.

import { request as httpRequest, type RequestOptions } from "node:http";
import { connect as connectHttp2, type SecureClientSessionOptions } from "node:http2";
import { request as httpsRequest } from "node:https";
import { lookupDns } from "./forward-dns.ts";
import { callTcp } from "./forward-tcp.ts";
import { callGrpcStream, isGrpcStream } from "./grpc.ts";
import { callUdp } from "./udp.ts";

/** One order: `count` calls, one after another or `concurrency` at a time. */
export interface Order {
  /**
   * `http://host:port/path`, `https://...`, `ws://...`, `tcp://host:port`, `tls://host:port`, `udp://host:port`,
   * `grpc://host:port/service/method` (of which `grpc.ts` knows those in which messages flow),
   * `dns://name?protocol=tcp&server=127.0.0.1` (the system's server, and UDP, unless said).
   */
  readonly url: string;
  readonly count?: number;
  readonly concurrency?: number;
  readonly method?: string;
  readonly headers?: Readonly<Record<string, string>>;
  /** HTTP/2 with prior knowledge. */
  readonly http2?: boolean;
  readonly followRedirects?: boolean;
  readonly timeoutMs?: number;
  /** SNI of calls over TLS, and the protocols they offer. */
  readonly serverName?: string;
  readonly alpn?: readonly string[];
  /** What a TCP call sends, what it waits for, whether the server has to speak first, and whether a PROXY header leads. */
  readonly message?: string;
  readonly expect?: string;
  readonly serverFirst?: boolean;
  readonly proxyProtocol?: boolean;
  readonly body?: string;
  /** What a gRPC call in which messages flow sends. */
  readonly messages?: readonly string[];
}

export interface Result {
  /** 0 when there was no HTTP answer. */
  readonly status: number;
  readonly headers: Readonly<Record<string, string>>;
  readonly body: string;
  readonly error?: string;
  readonly durationMs: number;
  /** For gRPC calls. */
  readonly grpcStatus?: number;
}

export const callsMax = 10_000;
const redirectsMax = 5;
const defaultTimeoutMs = 10_000;

export async function forward(order: Order): Promise<readonly Result[]> {
  const count = Math.min(order.count ?? 1, callsMax);
  const results: Result[] = [];
  let started = 0;
  async function worker(): Promise<void> {
    while (started < count) {
      started++;
      results.push(await callOnce(order));
    }
  }
  await Promise.all(Array.from({ length: Math.max(1, Math.min(order.concurrency ?? 1, 64)) }, worker));
  return results;
}

async function callOnce(order: Order): Promise<Result> {
  const from = performance.now();
  try {
    const result = await callFor(order);
    return { ...result, durationMs: performance.now() - from };
  } catch (error) {
    const text =
      error instanceof Error
        ? `${(error as NodeJS.ErrnoException).code ?? ""} ${error.message}`.trim()
        : String(error);
    return { status: 0, headers: {}, body: "", error: text, durationMs: performance.now() - from };
  }
}

export type Answer = Omit<Result, "durationMs">;

async function callFor(order: Order): Promise<Answer> {
  const url = new URL(order.url.replace(/^(tcp|tls|grpc|ws|dns|udp):/, "http:"));
  const timeoutMs = order.timeoutMs ?? defaultTimeoutMs;
  if (order.url.startsWith("dns:")) return lookupDns(url, timeoutMs);
  if (order.url.startsWith("tcp:") || order.url.startsWith("tls:")) return callTcp(url, order, timeoutMs);
  if (order.url.startsWith("ws:")) return callWebSocket(url, order);
  if (order.url.startsWith("udp:")) return callUdp(url, order, timeoutMs);
  if (order.url.startsWith("grpc:") && isGrpcStream(url.pathname))
    return callGrpcStream(url, order, timeoutMs);
  if (order.url.startsWith("grpc:")) return callHttp2(url, grpcOrder(order));
  if (order.http2 === true) return callHttp2(url, order);
  let at = url;
  for (let hops = 0; ; hops++) {
    const answer = await callHttp1(at, order);
    const location = answer.headers["location"];
    if (
      order.followRedirects !== true ||
      answer.status < 300 ||
      answer.status > 399 ||
      location === undefined
    ) {
      return answer;
    }
    if (hops === redirectsMax) throw new Error(`more than ${redirectsMax} redirects`);
    at = new URL(location, at);
  }
}

function callHttp1(url: URL, order: Order): Promise<Answer> {
  const { promise, resolve, reject } = Promise.withResolvers<Answer>();
  const options: RequestOptions & { rejectUnauthorized: boolean } = {
    method: order.method ?? "GET",
    headers: order.headers ?? {},
    agent: false,
    // Echo's certificates are its own: what is tested is the mesh between.
    rejectUnauthorized: false,
    ...tlsOptions(order),
    signal: AbortSignal.timeout(order.timeoutMs ?? defaultTimeoutMs),
  };
  const request = (url.protocol === "https:" ? httpsRequest : httpRequest)(url, options, (response) => {
    const chunks: Buffer[] = [];
    response.on("data", (chunk: Buffer) => chunks.push(chunk));
    response.on("error", reject);
    response.on("end", () =>
      resolve({
        status: response.statusCode ?? 0,
        headers: flat(response.headers),
        body: Buffer.concat(chunks).toString(),
      }),
    );
  });
  request.on("error", reject);
  request.end(order.body);
  return promise;
}

function tlsOptions({ serverName, alpn }: Order): { servername?: string; ALPNProtocols?: string[] } {
  return {
    ...(serverName === undefined ? {} : { servername: serverName }),
    ...(alpn === undefined ? {} : { ALPNProtocols: [...alpn] }),
  };
}

/** Opens a WebSocket, sends one masked frame, and answers with the text that comes back. */
function callWebSocket(url: URL, order: Order): Promise<Answer> {
  const { promise, resolve, reject } = Promise.withResolvers<Answer>();
  const request = httpRequest(url, {
    headers: {
      connection: "Upgrade",
      upgrade: "websocket",
      "sec-websocket-version": "13",
      "sec-websocket-key": "bWl6emVuIHNheXMgaGVsbG8=",
      ...order.headers,
    },
    agent: false,
    signal: AbortSignal.timeout(order.timeoutMs ?? defaultTimeoutMs),
  });
  request.on("upgrade", (response, socket) => {
    const text = Buffer.from((order.message ?? "hello").slice(0, 125));
    // A mask of zeros is allowed, and leaves the text as it is.
    socket.write(Buffer.concat([Buffer.from([0x81, 0x80 | text.length, 0, 0, 0, 0]), text]));
    socket.once("data", (frame: Buffer) => {
      resolve({ status: 200, headers: flat(response.headers), body: frame.subarray(2).toString() });
      socket.destroy();
    });
    socket.on("error", reject);
  });
  request.on("response", (response) => {
    response.resume();
    resolve({ status: response.statusCode ?? 0, headers: flat(response.headers), body: "" });
  });
  request.on("error", reject);
  request.end();
  return promise;
}

function grpcOrder(order: Order): Order {
  const headers = { "content-type": "application/grpc", te: "trailers", ...order.headers };
  // One empty message: a flag byte and a length of 0.
  return { ...order, method: "POST", headers, body: "\0\0\0\0\0" };
}

function callHttp2(url: URL, order: Order): Promise<Answer> {
  const { promise, resolve, reject } = Promise.withResolvers<Answer>();
  const options: SecureClientSessionOptions = { rejectUnauthorized: false, ...tlsOptions(order) };
  const session = connectHttp2(`${url.protocol}//${url.host}`, options);
  const timer = setTimeout(() => reject(new Error("timed out")), order.timeoutMs ?? defaultTimeoutMs);
  const { host, Host, ...headers } = order.headers ?? {};
  const stream = session.request({
    ":method": order.method ?? "GET",
    ":path": url.pathname + url.search,
    ":authority": host ?? Host ?? url.host,
    ...headers,
  });
  const isGrpc = headers["content-type"] === "application/grpc";
  let answer: Answer = { status: 0, headers: {}, body: "" };
  const chunks: Buffer[] = [];
  stream.on("response", (fields) => {
    const status = fields["grpc-status"];
    answer = { ...answer, status: Number(fields[":status"]), headers: flat(fields) };
    if (status !== undefined) answer = { ...answer, grpcStatus: Number(status) };
  });
  stream.on("trailers", (fields) => {
    if (fields["grpc-status"] !== undefined)
      answer = { ...answer, grpcStatus: Number(fields["grpc-status"]) };
  });
  stream.on("data", (chunk: Buffer) => chunks.push(chunk));
  // A gRPC message follows a flag byte and its length.
  stream.on("end", () => {
    const body = Buffer.concat(chunks);
    resolve({ ...answer, body: (isGrpc ? body.subarray(5) : body).toString() });
  });
  stream.on("error", reject);
  session.on("error", reject);
  stream.end(order.body === undefined ? undefined : Buffer.from(order.body, "latin1"));
  return promise.finally(() => {
    clearTimeout(timer);
    session.destroy();
  });
}

function flat(headers: Readonly<Record<string, string | string[] | undefined>>): Record<string, string> {
  const entries = Object.entries(headers).filter(
    ([name, value]) => value !== undefined && !name.startsWith(":"),
  );
  return Object.fromEntries(
    entries.map(([name, value]) => [name, Array.isArray(value) ? value.join(",") : String(value)]),
  );
}
