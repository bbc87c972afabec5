// The agent's own HTTP server (15020): readiness, the application's probes, and one page of metrics from three places.

import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import { createGzip } from "node:zlib";
import { telemetryRecords, type Logger } from "#base";
import { openUrl, type EnvoyAdmin, type Readiness } from "./admin.ts";
import type { AgentConfig } from "./config.ts";
import { createExpander, renderAgentMetrics, type AgentCounts } from "./metrics.ts";
import { askApplication, inPod } from "./probes.ts";

export interface StatusOptions {
  readonly config: AgentConfig;
  readonly log: Logger;
  readonly admin: Pick<EnvoyAdmin, "open" | "readiness">;
  readonly principal: string;
  /** What the agent counts in Envoy's place, as Envoy would write it. */
  readonly records: { render(): string };
  readonly counts: () => AgentCounts;
  readonly isDraining: () => boolean;
  /** Somebody on loopback wants the agent to end, as an application's last act in a Job. */
  readonly onQuit: () => void;
}

const loopback = "127.0.0.1";
/** Metrics beyond it are cut off, with a warning: something counts without bounds there. */
const pageBytesMax = 256 * 1024 * 1024;
/** Fast, since the text repeats itself anyway: 50 to 1 at the lowest level. */
const gzipLevel = 1;

export function createStatusServer(options: StatusOptions): Server {
  const server = createServer((question, answer) => {
    route(options, question, answer).catch((error: unknown) => {
      options.log.warn({ path: question.url, reason: String(error) }, "a status request failed");
      if (!answer.headersSent) answer.writeHead(500);
      answer.end();
    });
  });
  server.keepAliveTimeout = 30_000;
  return server;
}

async function route(
  options: StatusOptions,
  question: IncomingMessage,
  answer: ServerResponse,
): Promise<void> {
  const path = (question.url ?? "/").split("?")[0] ?? "/";
  if (path === "/healthz/ready") return answerReady(options, answer);
  if (path === "/stats/prometheus" || path === "/metrics") return answerMetrics(options, question, answer);
  if (path.startsWith("/app-health/") || path.startsWith("/app-lifecycle/"))
    return answerProbe(options, path, question, answer);
  if (path === "/quitquitquit") return answerQuit(options, question, answer);
  send(answer, 404, "not found\n");
}

async function answerReady(options: StatusOptions, answer: ServerResponse): Promise<void> {
  const readiness: Readiness = options.isDraining()
    ? { ready: false, reason: "draining" }
    : await options.admin.readiness();
  send(answer, readiness.ready ? 200 : 503, readiness.ready ? "" : `${readiness.reason}\n`);
}

async function answerProbe(
  options: StatusOptions,
  path: string,
  question: IncomingMessage,
  answer: ServerResponse,
): Promise<void> {
  const probe = options.config.probes[path];
  if (probe === undefined) return send(answer, 404, `no probe is known at ${path}\n`);
  const agent = question.headers["user-agent"];
  const headers: Record<string, string> = agent === undefined ? {} : { "user-agent": agent };
  const { probeLocalhost, instanceIps } = options.config;
  const place = probeLocalhost
    ? { host: loopback, localAddress: undefined }
    : inPod(instanceIps[0] ?? loopback);
  const { status, body } = await askApplication(probe, place, headers);
  send(answer, status, body);
}

function answerQuit(options: StatusOptions, question: IncomingMessage, answer: ServerResponse): void {
  const from = question.socket.remoteAddress ?? "";
  if (!/^(::ffff:)?127\./.test(from) && from !== "::1") return send(answer, 403, "only from loopback\n");
  if (question.method !== "POST") return send(answer, 405, "use POST\n");
  send(answer, 200, "ok\n");
  options.onQuit();
}

async function answerMetrics(
  options: StatusOptions,
  question: IncomingMessage,
  answer: ServerResponse,
): Promise<void> {
  const headers = { "content-type": "text/plain; version=0.0.4; charset=utf-8" };
  const page = Readable.from(renderPage(options));
  const asksForGzip = String(question.headers["accept-encoding"] ?? "").includes("gzip");
  if (!asksForGzip || options.config.proxyConfig.statsCompression === false) {
    answer.writeHead(200, headers);
    return pipeline(page, answer);
  }
  answer.writeHead(200, { ...headers, "content-encoding": "gzip" });
  return pipeline(page, createGzip({ level: gzipLevel }), answer);
}

/** The agent's, Envoy's and the application's metrics; who is not to be had is left out, with a warning. */
async function* renderPage(options: StatusOptions): AsyncGenerator<string> {
  const { config, admin, principal } = options;
  yield renderAgentMetrics(options.counts());
  const expand = createExpander({ facts: config.facts, principal });
  for await (const lines of wholeLines(options, "Envoy", () => admin.open("/stats/prometheus")))
    yield expand(withoutAgentCounted(lines));
  yield expand(options.records.render());
  const { appMetricsUrl } = config;
  if (appMetricsUrl === undefined) return;
  for await (const lines of wholeLines(options, "the application", () => openUrl(appMetricsUrl))) {
    // OpenMetrics' end mark would end the page for whoever comes after.
    yield lines.replace(/^# EOF\n/m, "");
  }
}

/** Envoy counts the bytes of a connection when it ends; on this page stand the agent's counts, which are live. */
function withoutAgentCounted(lines: string): string {
  return lines.replace(agentCounted, "");
}

const agentCounted = new RegExp(`^(# TYPE )?envoy_(${telemetryRecords.tcp.metrics.join("|")})\\b.*\n`, "gm");

/** Pieces of a page, cut at line ends, the last one ended. */
async function* wholeLines(
  options: StatusOptions,
  whose: string,
  open: () => Promise<AsyncIterable<Buffer>>,
): AsyncGenerator<string> {
  const decoder = new TextDecoder();
  let rest = "";
  let bytes = 0;
  try {
    for await (const chunk of await open()) {
      bytes += chunk.length;
      if (bytes > pageBytesMax) throw new Error(`more than ${pageBytesMax} bytes`);
      const text = rest + decoder.decode(chunk, { stream: true });
      const end = text.lastIndexOf("\n") + 1;
      rest = text.slice(end);
      if (end > 0) yield text.slice(0, end);
    }
    if (rest !== "") yield `${rest}\n`;
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    options.log.warn({ reason }, `the metrics of ${whose} are not to be had`);
  }
}

function send(answer: ServerResponse, status: number, body: string): void {
  answer.writeHead(status, { "content-type": "text/plain; charset=utf-8" }).end(body);
}
