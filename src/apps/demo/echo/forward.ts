// The client side of echo: makes calls from where it runs (a pod in the mesh, say) and says what came back.

import { request as httpRequest, type RequestOptions } from "node:http";
import { connect as connectHttp2 } from "node:http2";
import { request as httpsRequest } from "node:https";
import { connect as connectTcp } from "node:net";

/** One order: `count` calls, one after another or `concurrency` at a time. */
export interface Order {
  /** `http://host:port/path`, `https://...`, `tcp://host:port` or `grpc://host:port/service/method`. */
  readonly url: string;
  readonly count?: number;
  readonly concurrency?: number;
  readonly method?: string;
  readonly headers?: Readonly<Record<string, string>>;
  /** HTTP/2 with prior knowledge. */
  readonly http2?: boolean;
  readonly followRedirects?: boolean;
  readonly timeoutMs?: number;
  /** SNI of https calls. */
  readonly serverName?: string;
  /** What a TCP call sends. */
  readonly message?: string;
  readonly body?: string;
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

type Answer = Omit<Result, "durationMs">;

async function callFor(order: Order): Promise<Answer> {
  const url = new URL(order.url.replace(/^(tcp|grpc):/, "http:"));
  if (order.url.startsWith("tcp:")) return callTcp(url, order);
  if (order.url.startsWith("grpc:")) return callHttp2(url, grpcOrder(order));
  if (order.http2 === true && url.protocol === "http:") return callHttp2(url, order);
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
  const options: RequestOptions & { rejectUnauthorized: boolean; servername?: string } = {
    method: order.method ?? "GET",
    headers: order.headers ?? {},
    agent: false,
    // Echo's certificates are its own: what is tested is the mesh between.
    rejectUnauthorized: false,
    ...(order.serverName === undefined ? {} : { servername: order.serverName }),
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

function grpcOrder(order: Order): Order {
  const headers = { "content-type": "application/grpc", te: "trailers", ...order.headers };
  // One empty message: a flag byte and a length of 0.
  return { ...order, method: "POST", headers, body: "\0\0\0\0\0" };
}

function callHttp2(url: URL, order: Order): Promise<Answer> {
  const { promise, resolve, reject } = Promise.withResolvers<Answer>();
  const session = connectHttp2(`http://${url.host}`);
  const timer = setTimeout(() => reject(new Error("timed out")), order.timeoutMs ?? defaultTimeoutMs);
  const { host, Host, ...headers } = order.headers ?? {};
  const stream = session.request({
    ":method": order.method ?? "GET",
    ":path": url.pathname + url.search,
    ":authority": host ?? Host ?? url.host,
    ...headers,
  });
  let answer: Answer = { status: 0, headers: {}, body: "" };
  let body = "";
  stream.on("response", (fields) => {
    const status = fields["grpc-status"];
    answer = { ...answer, status: Number(fields[":status"]), headers: flat(fields) };
    if (status !== undefined) answer = { ...answer, grpcStatus: Number(status) };
  });
  stream.on("trailers", (fields) => {
    if (fields["grpc-status"] !== undefined)
      answer = { ...answer, grpcStatus: Number(fields["grpc-status"]) };
  });
  stream.on("data", (chunk: Buffer) => (body += chunk.toString()));
  stream.on("end", () => resolve({ ...answer, body }));
  stream.on("error", reject);
  session.on("error", reject);
  stream.end(order.body === undefined ? undefined : Buffer.from(order.body, "latin1"));
  return promise.finally(() => {
    clearTimeout(timer);
    session.destroy();
  });
}

/** Sends the message, and answers with the first line that comes back. */
function callTcp(url: URL, order: Order): Promise<Answer> {
  const { promise, resolve, reject } = Promise.withResolvers<Answer>();
  const socket = connectTcp({ host: url.hostname, port: Number(url.port) });
  const timer = setTimeout(() => reject(new Error("timed out")), order.timeoutMs ?? defaultTimeoutMs);
  let body = "";
  socket.on("connect", () => socket.write(order.message ?? "hello\n"));
  socket.on("data", (chunk) => {
    body += chunk.toString();
    if (body.includes("echo=")) resolve({ status: 200, headers: {}, body });
  });
  socket.on("error", reject);
  socket.on("close", () => reject(new Error(`closed after ${body.length} bytes`)));
  return promise.finally(() => {
    clearTimeout(timer);
    socket.destroy();
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
