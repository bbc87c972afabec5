// Port 15014: metrics and readiness for everyone, what is inside for those on loopback or with a token that may.

import http from "node:http";
import type { AddressInfo } from "node:net";
import type { Logger } from "#base";
import { controlPlaneLimits, type ReachControlLimit } from "./limits.ts";

/** Answers a debug question; undefined if what it asks for does not exist. */
export type DebugPage = (query: URLSearchParams) => unknown;

export interface MonitoringOptions {
  readonly host: string;
  readonly port: number;
  readonly metrics: () => Promise<{ readonly text: string; readonly contentType: string }>;
  readonly isReady: () => boolean;
  readonly version: object;
  readonly debug: Readonly<Record<string, DebugPage>>;
  /** Whether the bearer of a token may see a debug page. */
  readonly mayRead: (token: string, path: string) => Promise<boolean>;
  /** Told of each question to a debug page that is refused. */
  readonly refused: () => void;
  readonly reached: ReachControlLimit;
  readonly log: Logger;
}

const requestTimeoutMs = controlPlaneLimits.monitoringTime.value;

export class MonitoringServer {
  readonly #options: MonitoringOptions;
  readonly #server: http.Server;

  private constructor(options: MonitoringOptions) {
    this.#options = options;
    this.#server = http.createServer({ requestTimeout: requestTimeoutMs }, (request, response) => {
      void this.#answer(request, response).catch((error: unknown) => {
        options.log.error({ path: request.url, error: String(error) }, "monitoring request failed");
        if (!response.headersSent) send(response, 500, "internal error\n");
      });
    });
    this.#server.on("clientError", (error: NodeJS.ErrnoException, socket) => {
      if (error.code === "ERR_HTTP_REQUEST_TIMEOUT") options.reached("monitoringTime");
      socket.destroy();
    });
  }

  static listen(options: MonitoringOptions): Promise<MonitoringServer> {
    const server = new MonitoringServer(options);
    return new Promise((resolve, reject) => {
      server.#server.once("error", reject);
      server.#server.listen(options.port, options.host, () => resolve(server));
    });
  }

  get port(): number {
    return (this.#server.address() as AddressInfo).port;
  }

  close(): void {
    this.#server.close();
    this.#server.closeAllConnections();
  }

  async #answer(request: http.IncomingMessage, response: http.ServerResponse): Promise<void> {
    const url = new URL(request.url ?? "/", "http://istiod");
    const { metrics, isReady, version } = this.#options;
    if (request.method !== "GET") send(response, 405, "only GET is answered\n");
    else if (url.pathname === "/ready" || url.pathname === "/healthz/ready")
      send(response, isReady() ? 200 : 503, isReady() ? "ready\n" : "not ready\n");
    else if (url.pathname === "/metrics") {
      const { text, contentType } = await metrics();
      send(response, 200, text, contentType);
    } else if (url.pathname === "/version") sendJson(response, version);
    else if (url.pathname.startsWith("/debug")) await this.#debug(url, request, response);
    else send(response, 404, "there are /metrics, /ready, /version and /debug\n");
  }

  async #debug(url: URL, request: http.IncomingMessage, response: http.ServerResponse): Promise<void> {
    if (!(await this.#isAllowed(url, request))) {
      const { log, refused } = this.#options;
      log.warn({ peer: request.socket.remoteAddress, path: url.pathname }, "debug page refused");
      refused();
      send(response, 401, "debug pages are for loopback, or for a bearer token that may get this path\n");
      return;
    }
    const page = this.#options.debug[url.pathname.replace(/^\/debug\/?/, "")];
    if (page === undefined) {
      sendJson(response, { pages: Object.keys(this.#options.debug).map((name) => `/debug/${name}`) });
      return;
    }
    const answer = page(url.searchParams);
    if (answer === undefined) send(response, 404, "there is no such proxy; see /debug/syncz\n");
    else sendJson(response, answer);
  }

  async #isAllowed(url: URL, request: http.IncomingMessage): Promise<boolean> {
    if (isLoopback(request.socket.remoteAddress ?? "")) return true;
    const token = /^Bearer\s+(\S+)$/i.exec(request.headers.authorization ?? "")?.[1];
    return token !== undefined && this.#options.mayRead(token, url.pathname);
  }
}

function isLoopback(address: string): boolean {
  return address === "::1" || /^(::ffff:)?127\./.test(address);
}

function sendJson(response: http.ServerResponse, value: unknown): void {
  send(response, 200, `${JSON.stringify(value, undefined, 2)}\n`, "application/json");
}

function send(response: http.ServerResponse, status: number, text: string, contentType = "text/plain"): void {
  response.writeHead(status, { "content-type": contentType });
  response.end(text);
}
