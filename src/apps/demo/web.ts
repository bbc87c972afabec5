// The little of a web framework that the demo's services need: routes, JSON answers, a client that passes headers on.

import {
  Agent,
  createServer,
  type IncomingHttpHeaders,
  type IncomingMessage,
  request,
  type Server,
  type ServerResponse,
} from "node:http";

export interface Answer {
  readonly status: number;
  readonly headers?: Readonly<Record<string, string>>;
  readonly body: string;
}

/** Returns undefined for a path that it does not serve. */
export type Route = (url: URL, incoming: IncomingMessage) => Answer | undefined | Promise<Answer | undefined>;

/** What a service passes from the request it serves to those it makes, so that one trace and one user go through all of them. */
const passedOn = [
  "x-request-id",
  "x-ot-span-context",
  "x-cloud-trace-context",
  "traceparent",
  "tracestate",
  "grpc-trace-bin",
  "b3",
  "x-b3-traceid",
  "x-b3-spanid",
  "x-b3-parentspanid",
  "x-b3-sampled",
  "x-b3-flags",
  "sw8",
  "end-user",
  "user-agent",
  "cookie",
  "authorization",
  "jwt",
];

const agent = new Agent({ keepAlive: true });
const bodyBytesMax = 1 << 20;

export function json(status: number, value: unknown): Answer {
  return { status, headers: { "content-type": "application/json" }, body: JSON.stringify(value) };
}

export function passOn(headers: IncomingHttpHeaders): Record<string, string> {
  const passed: Record<string, string> = {};
  for (const name of passedOn) {
    const value = headers[name];
    if (typeof value === "string") passed[name] = value;
  }
  return passed;
}

/**
 * How long a program still takes requests after SIGTERM: its callers learn a little later than itself that it goes. It is
 * what `preStop: sleep` does for programs that end at once.
 */
export const lingerMs = 1_000;

/** Serves until SIGTERM and a little longer, then finishes the open requests and ends the process. Counts requests for /metrics. */
export function serve(name: string, port: number, route: Route): Server {
  const counts = new Map<number, number>();
  const server = createServer((incoming, response) => {
    void answer(name, route, counts, incoming, response);
  });
  server.keepAliveTimeout = 65_000;
  server.listen(port, () => console.log(`${name} listens on ${port}`));
  for (const signal of ["SIGTERM", "SIGINT"] as const) {
    process.once(signal, () => {
      setTimeout(() => {
        server.close(() => process.exit(0));
        server.closeIdleConnections();
      }, lingerMs);
    });
  }
  return server;
}

async function answer(
  name: string,
  route: Route,
  counts: Map<number, number>,
  incoming: IncomingMessage,
  response: ServerResponse,
): Promise<void> {
  const url = new URL(incoming.url ?? "/", "http://localhost");
  let result: Answer;
  try {
    if (url.pathname === "/metrics") result = metrics(name, counts);
    else
      result = (await route(url, incoming)) ?? json(404, { error: `${name} has nothing at ${url.pathname}` });
  } catch (cause) {
    console.error(`${name}: ${url.pathname}: ${String(cause)}`);
    result = json(500, { error: "internal error" });
  }
  counts.set(result.status, (counts.get(result.status) ?? 0) + 1);
  response.writeHead(result.status, { ...result.headers, "content-length": Buffer.byteLength(result.body) });
  response.end(incoming.method === "HEAD" ? undefined : result.body);
}

function metrics(name: string, counts: ReadonlyMap<number, number>): Answer {
  const lines = [...counts].map(
    ([status, count]) => `demo_requests_total{service="${name}",status="${status}"} ${count}`,
  );
  const body = [
    "# HELP demo_requests_total Requests answered.",
    "# TYPE demo_requests_total counter",
    ...lines,
    "",
  ].join("\n");
  return { status: 200, headers: { "content-type": "text/plain; version=0.0.4" }, body };
}

export interface Fetched {
  readonly status: number;
  readonly body: string;
}

/** GET, within `timeoutMs` for all of it. Rejects when the connection fails or the time is over. */
export function get(
  url: string,
  headers: Readonly<Record<string, string>>,
  timeoutMs: number,
): Promise<Fetched> {
  return new Promise((resolve, reject) => {
    const outgoing = request(url, { headers, agent, signal: AbortSignal.timeout(timeoutMs) }, (response) => {
      const parts: Buffer[] = [];
      response.on("data", (part: Buffer) => parts.push(part));
      response.on("end", () =>
        resolve({ status: response.statusCode ?? 0, body: Buffer.concat(parts).toString("utf8") }),
      );
      response.on("error", reject);
    });
    outgoing.on("error", (error: NodeJS.ErrnoException) => {
      // An idle connection may be closed just as it is used again; the request never got through.
      if (outgoing.reusedSocket && error.code === "ECONNRESET")
        get(url, headers, timeoutMs).then(resolve, reject);
      else reject(error);
    });
    outgoing.end();
  });
}

export async function readBody(incoming: IncomingMessage): Promise<string> {
  const parts: Buffer[] = [];
  let size = 0;
  for await (const part of incoming as AsyncIterable<Buffer>) {
    size += part.length;
    if (size > bodyBytesMax) throw new Error(`the request's body is larger than ${bodyBytesMax} bytes`);
    parts.push(part);
  }
  return Buffer.concat(parts).toString("utf8");
}
