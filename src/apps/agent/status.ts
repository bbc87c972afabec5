// The agent's own HTTP server (15020): readiness, the application's probes, and one page of metrics from three places.

import { createServer, get, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import { gzip } from "node:zlib";
import { promisify } from "node:util";
import type { Logger } from "#base";
import type { EnvoyAdmin, Readiness } from "./admin.ts";
import type { AgentConfig } from "./config.ts";
import { createExpander, renderAgentMetrics, type AgentCounts } from "./metrics.ts";
import { askApplication, inPod } from "./probes.ts";

export interface StatusOptions {
  readonly config: AgentConfig;
  readonly log: Logger;
  readonly admin: Pick<EnvoyAdmin, "ask" | "readiness">;
  readonly principal: string;
  readonly counts: () => AgentCounts;
  readonly isDraining: () => boolean;
  /** Somebody on loopback wants the agent to end, as an application's last act in a Job. */
  readonly onQuit: () => void;
}

const loopback = "127.0.0.1";
const gzipAsync = promisify(gzip);
const appMetricsTimeoutMs = 5_000;
/** An application's metrics beyond it are left out, with a warning: they would be held in memory whole. */
const appMetricsBytesMax = 32 * 1024 * 1024;
/** Fast, since the text repeats itself anyway: 50 to 1 at the lowest level. */
const gzipLevel = 1;

export function createStatusServer(options: StatusOptions): Server {
  const expand = createExpander({ facts: options.config.facts, principal: options.principal });
  const server = createServer((question, answer) => {
    route(options, expand, question, answer).catch((error: unknown) => {
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
  expand: (text: string) => string,
  question: IncomingMessage,
  answer: ServerResponse,
): Promise<void> {
  const path = (question.url ?? "/").split("?")[0] ?? "/";
  if (path === "/healthz/ready") return answerReady(options, answer);
  if (path === "/stats/prometheus" || path === "/metrics")
    return answerMetrics(options, expand, question, answer);
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
  expand: (text: string) => string,
  question: IncomingMessage,
  answer: ServerResponse,
): Promise<void> {
  const [envoy, app] = await Promise.all([envoyMetrics(options, expand), appMetrics(options)]);
  const text = `${renderAgentMetrics(options.counts())}${envoy}${app}`;
  const headers = { "content-type": "text/plain; version=0.0.4; charset=utf-8" };
  if (!String(question.headers["accept-encoding"] ?? "").includes("gzip")) {
    answer.writeHead(200, headers).end(text);
    return;
  }
  const packed = await gzipAsync(text, { level: gzipLevel });
  answer.writeHead(200, { ...headers, "content-encoding": "gzip" }).end(packed);
}

async function envoyMetrics(options: StatusOptions, expand: (text: string) => string): Promise<string> {
  try {
    const { body } = await options.admin.ask("/stats/prometheus");
    return withNewline(expand(body));
  } catch (error) {
    options.log.warn({ reason: String(error) }, "Envoy's metrics are not to be had");
    return "";
  }
}

function appMetrics(options: StatusOptions): Promise<string> {
  const url = options.config.appMetricsUrl;
  if (url === undefined) return Promise.resolve("");
  return new Promise((resolve) => {
    const giveUp = (error: Error): void => {
      options.log.warn({ url, reason: error.message }, "the application's metrics are not to be had");
      resolve("");
    };
    const question = get(
      url,
      { timeout: appMetricsTimeoutMs, headers: { accept: "text/plain" } },
      (answer) => {
        if (answer.statusCode !== 200) question.destroy(new Error(`status ${answer.statusCode ?? 0}`));
        const parts: Buffer[] = [];
        let bytes = 0;
        answer.on("data", (part: Buffer) => {
          bytes += part.length;
          parts.push(part);
          if (bytes > appMetricsBytesMax)
            question.destroy(new Error(`more than ${appMetricsBytesMax} bytes`));
        });
        answer.on("end", () => resolve(withNewline(Buffer.concat(parts).toString())));
        answer.on("error", giveUp);
      },
    );
    question.on("timeout", () => question.destroy(new Error("no answer in time")));
    question.on("error", giveUp);
  });
}

function withNewline(text: string): string {
  // OpenMetrics' end mark would end the page for whoever comes after.
  const body = text.replace(/# EOF\n?$/, "");
  return body === "" || body.endsWith("\n") ? body : `${body}\n`;
}

function send(answer: ServerResponse, status: number, body: string): void {
  answer.writeHead(status, { "content-type": "text/plain; charset=utf-8" }).end(body);
}
