// A client of the Kubernetes API for one program that watches much and writes little. Its own code, and not
// @kubernetes/client-node, for what that costs here: 80 MB resident and a second of start-up for types of every API.

import { readFileSync } from "node:fs";
import http from "node:http";
import https from "node:https";
import type { KubeAccess } from "./credentials.ts";
import { KubeError } from "./kube-error.ts";
import { kubeLimits, type ReachKubeLimit } from "./limits.ts";
import { Outage } from "./outage.ts";

export type PatchType = "merge" | "json" | "apply";

export interface RequestOptions {
  readonly method?: "GET" | "POST" | "PUT" | "PATCH" | "DELETE";
  readonly body?: unknown;
  readonly patch?: PatchType;
}

const patchMediaType: Readonly<Record<PatchType, string>> = {
  merge: "application/merge-patch+json",
  json: "application/json-patch+json",
  apply: "application/apply-patch+yaml",
};

const requestTimeoutMs = kubeLimits.requestTime.value;
const watchSilenceMs = kubeLimits.watchSilence.value;
const requestSocketsMax = kubeLimits.requestConnections.value;
const answerBytesMax = kubeLimits.answerBytes.value;

export class KubeClient {
  readonly #access: KubeAccess;
  readonly #base: URL;
  readonly #agent: http.Agent;
  readonly #watchAgent: http.Agent;
  /** What those who watch through this client know of the server's failing. */
  readonly outage = new Outage();
  #requestsOpen = 0;

  readonly #reached: ReachKubeLimit;

  constructor(access: KubeAccess, reached: ReachKubeLimit = () => {}) {
    this.#access = access;
    this.#reached = reached;
    this.#base = new URL(access.server);
    const tls: https.AgentOptions = {
      ca: access.ca,
      cert: access.clientCertificate,
      key: access.clientKey,
      servername: access.tlsServerName,
      minVersion: "TLSv1.2",
    };
    const make = (options: http.AgentOptions): http.Agent =>
      this.#base.protocol === "https:" ? new https.Agent({ ...tls, ...options }) : new http.Agent(options);
    this.#agent = make({ keepAlive: true, maxSockets: requestSocketsMax });
    this.#watchAgent = make({ keepAlive: false });
  }

  /** The API server's address, for people. */
  get server(): string {
    return this.#access.server;
  }

  close(): void {
    this.#agent.destroy();
    this.#watchAgent.destroy();
  }

  get<T>(path: string): Promise<T> {
    return this.request<T>(path);
  }

  /** Sends a request and returns the answer's JSON. Throws KubeError. */
  async request<T>(path: string, options: RequestOptions = {}): Promise<T> {
    if (this.#requestsOpen >= requestSocketsMax) this.#reached("requestConnections");
    this.#requestsOpen++;
    const timeout = AbortSignal.timeout(requestTimeoutMs);
    try {
      return await this.#ask<T>(path, options, timeout);
    } catch (error) {
      if (timeout.aborted) this.#reached("requestTime");
      throw error;
    } finally {
      this.#requestsOpen--;
    }
  }

  async #ask<T>(path: string, options: RequestOptions, signal: AbortSignal): Promise<T> {
    const response = await this.#send(path, options, this.#agent, signal);
    const text = await this.#readText(response);
    const status = response.statusCode ?? 0;
    if (status < 200 || status > 299) throw errorOf(status, text, path);
    return JSON.parse(text) as T;
  }

  /**
   * Follows a watch: yields each line's JSON until the server ends it or the signal aborts. Throws KubeError.
   * @param opened called when the server has accepted the watch, which may say nothing for long
   */
  async *watch(path: string, signal: AbortSignal, opened: () => void): AsyncGenerator<unknown> {
    const silence = new AbortController();
    let timer = setTimeout(() => silence.abort(), watchSilenceMs).unref();
    const heard = (): void => {
      clearTimeout(timer);
      timer = setTimeout(() => silence.abort(), watchSilenceMs).unref();
    };
    try {
      const both = AbortSignal.any([signal, silence.signal]);
      const response = await this.#send(path, {}, this.#watchAgent, both);
      const status = response.statusCode ?? 0;
      if (status !== 200) throw errorOf(status, await this.#readText(response), path);
      opened();
      for await (const line of linesOf(response, heard)) yield JSON.parse(line);
    } catch (error) {
      if (silence.signal.aborted && !signal.aborted) this.#reached("watchSilence");
      // A watch that fell silent is only to be asked for anew.
      if (!silence.signal.aborted || signal.aborted) throw error;
    } finally {
      clearTimeout(timer);
      silence.abort();
    }
  }

  #send(
    path: string,
    options: RequestOptions,
    agent: http.Agent,
    signal: AbortSignal,
  ): Promise<http.IncomingMessage> {
    const body = options.body === undefined ? undefined : JSON.stringify(options.body);
    const { protocol } = this.#base;
    const headers: http.OutgoingHttpHeaders = { accept: "application/json", "user-agent": "mizzen-istiod" };
    const token = this.#token();
    if (token !== undefined) headers.authorization = `Bearer ${token}`;
    if (body !== undefined) {
      headers["content-type"] =
        options.patch === undefined ? "application/json" : patchMediaType[options.patch];
      headers["content-length"] = Buffer.byteLength(body);
    }
    return new Promise((resolve, reject) => {
      const request = (protocol === "https:" ? https : http).request(
        new URL(path, this.#base),
        { method: options.method ?? "GET", headers, agent, signal },
        resolve,
      );
      request.once("error", (error) =>
        reject(
          new KubeError(0, "Unreachable", `${this.#access.server} does not answer: ${error.message}`, error),
        ),
      );
      request.end(body);
    });
  }

  async #readText(response: http.IncomingMessage): Promise<string> {
    const chunks: Buffer[] = [];
    let bytes = 0;
    for await (const chunk of response as AsyncIterable<Buffer>) {
      bytes += chunk.length;
      if (bytes > answerBytesMax) {
        this.#reached("answerBytes");
        throw new KubeError(0, "TooLarge", `an answer of more than ${answerBytesMax} bytes`);
      }
      chunks.push(chunk);
    }
    return Buffer.concat(chunks).toString();
  }

  /** Read at each request: a projected token's file is renewed under our feet. */
  #token(): string | undefined {
    const { token, tokenFile } = this.#access;
    return tokenFile === undefined ? token : readFileSync(tokenFile, "utf8").trim();
  }
}

async function* linesOf(response: http.IncomingMessage, heard: () => void): AsyncGenerator<string> {
  let rest: Buffer[] = [];
  for await (const chunk of response as AsyncIterable<Buffer>) {
    heard();
    let start = 0;
    for (let end = chunk.indexOf(10); end >= 0; end = chunk.indexOf(10, start)) {
      const line = Buffer.concat([...rest, chunk.subarray(start, end)]).toString();
      rest = [];
      start = end + 1;
      if (line !== "") yield line;
    }
    if (start < chunk.length) rest.push(chunk.subarray(start));
  }
}

function errorOf(status: number, text: string, path: string): KubeError {
  let reason = "";
  let message = `the API server answered ${status} to ${path}`;
  try {
    const body = JSON.parse(text) as { reason?: string; message?: string };
    reason = body.reason ?? "";
    if (body.message !== undefined) message = body.message;
  } catch {
    // Not every refusal comes from the API itself: a proxy before it answers in HTML.
  }
  return new KubeError(status, reason, message);
}

/** The path of a kind's collection, of one namespace or of all. */
export function collectionPath(
  { group, version, plural }: { readonly group: string; readonly version: string; readonly plural: string },
  namespace?: string,
): string {
  const root = group === "" ? `/api/${version}` : `/apis/${group}/${version}`;
  return namespace === undefined ? `${root}/${plural}` : `${root}/namespaces/${namespace}/${plural}`;
}
