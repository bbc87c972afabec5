// Probes and lifecycle handlers: how one is carried out, and how a series of results becomes "started", "ready" or "restart it".

import { request as httpRequest } from "node:http";
import { connect as connectHttp2 } from "node:http2";
import { request as httpsRequest } from "node:https";
import { connect } from "node:net";
import type { Container, Handler, HttpGet, Probe } from "../types.ts";
import type { RunningContainer } from "./container.ts";

export type ProbeResult =
  | { readonly kind: "success" }
  | { readonly kind: "failure"; readonly message: string };

const success: ProbeResult = { kind: "success" };
const bodyMax = 10 * 2 ** 10; // bytes of an answer that are read; a probe needs its status alone

/** Carries out one probe from the node's network. Never throws: what goes wrong is a failure with its reason. */
export async function attempt(
  handler: Handler,
  container: Container,
  running: RunningContainer,
  podIp: string,
  timeoutMs: number,
): Promise<ProbeResult> {
  try {
    if (handler.exec !== undefined) await running.exec(handler.exec.command ?? [], timeoutMs);
    else if (handler.httpGet !== undefined) await getHttp(handler.httpGet, container, podIp, timeoutMs);
    else if (handler.tcpSocket !== undefined) {
      await openTcp(handler.tcpSocket.host ?? podIp, portOf(handler.tcpSocket.port, container), timeoutMs);
    } else if (handler.grpc !== undefined) await checkGrpc(podIp, handler.grpc, timeoutMs);
    else if (handler.sleep !== undefined)
      await new Promise((resolve) => setTimeout(resolve, (handler.sleep?.seconds ?? 0) * 1_000));
    return success;
  } catch (error) {
    return { kind: "failure", message: error instanceof Error ? error.message : String(error) };
  }
}

/** A port's number; a name is looked up among the container's own ports. */
export function portOf(port: number | string, container: Container): number {
  if (typeof port === "number") return port;
  const named = container.ports?.find((one) => one.name === port)?.containerPort ?? Number(port);
  if (!(named > 0)) throw new Error(`container ${container.name} has no port named "${port}"`);
  return named;
}

function getHttp(get: HttpGet, container: Container, podIp: string, timeoutMs: number): Promise<void> {
  return new Promise((resolve, reject) => {
    const secure = get.scheme?.toUpperCase() === "HTTPS";
    const headers: Record<string, string> = {
      "User-Agent": "kube-probe/1.37",
      Accept: "*/*",
      Connection: "close",
    };
    for (const { name, value } of get.httpHeaders ?? []) headers[name] = value;
    const host = get.host ?? podIp;
    const port = portOf(get.port, container);
    const path = get.path === undefined || get.path === "" ? "/" : get.path;
    // A probe asks whether the program answers, not who it is: certificates are not checked, as with a kubelet.
    const options = {
      host,
      port,
      path: path.startsWith("/") ? path : `/${path}`,
      headers,
      agent: false,
      rejectUnauthorized: false,
    };
    const request = (secure ? httpsRequest : httpRequest)(options, (response) => {
      const status = response.statusCode ?? 0;
      let body = "";
      response.on("data", (chunk: Buffer) => {
        if (body.length < bodyMax) body += chunk.toString("latin1");
      });
      response.on("error", reject);
      response.on("end", () => {
        clearTimeout(timer);
        if (status >= 200 && status < 400) resolve();
        else reject(new Error(`HTTP probe failed with statuscode: ${status}`));
      });
    });
    const timer = setTimeout(
      () => request.destroy(new Error(`no answer from ${host}:${port} within ${timeoutMs} ms`)),
      timeoutMs,
    );
    request.on("error", (error) => {
      clearTimeout(timer);
      reject(error);
    });
    request.end();
  });
}

function openTcp(host: string, port: number, timeoutMs: number): Promise<void> {
  return new Promise((resolve, reject) => {
    const socket = connect({ host, port, timeout: timeoutMs });
    socket.on("connect", () => {
      socket.destroy();
      resolve();
    });
    socket.on("timeout", () =>
      socket.destroy(new Error(`no connection to ${host}:${port} within ${timeoutMs} ms`)),
    );
    socket.on("error", reject);
  });
}

/** grpc.health.v1.Health/Check by hand: a request of at most one string field, an answer whose first field is the status (1: serving). */
function checkGrpc(host: string, grpc: { port: number; service?: string }, timeoutMs: number): Promise<void> {
  return new Promise((resolve, reject) => {
    const session = connectHttp2(`http://${host}:${grpc.port}`);
    const fail = (error: Error) => {
      clearTimeout(timer);
      session.destroy();
      reject(error);
    };
    const timer = setTimeout(
      () => fail(new Error(`no answer from ${host}:${grpc.port} within ${timeoutMs} ms`)),
      timeoutMs,
    );
    session.on("error", fail);
    const stream = session.request({
      ":method": "POST",
      ":path": "/grpc.health.v1.Health/Check",
      "content-type": "application/grpc",
      te: "trailers",
    });
    const chunks: Buffer[] = [];
    stream.on("data", (chunk: Buffer) => chunks.push(chunk));
    stream.on("error", fail);
    stream.on("end", () => {
      const answer = Buffer.concat(chunks).subarray(5);
      if (answer[0] !== 8 || answer[1] !== 1)
        return fail(new Error("the gRPC health check does not say SERVING"));
      clearTimeout(timer);
      session.close();
      resolve();
    });
    const service = Buffer.from(grpc.service ?? "");
    const message =
      service.length === 0 ? service : Buffer.concat([Buffer.from([10, service.length]), service]);
    stream.end(Buffer.concat([Buffer.from([0, 0, 0, 0, message.length]), message]));
  });
}

export interface ProbeLoop {
  stop(): void;
}

export interface ProbeRun {
  readonly probe: Probe;
  readonly attempt: (timeoutMs: number) => Promise<ProbeResult>;
  /** Called when the judgement changes, with the message of the last failure; first when it is made for the first time. */
  readonly onJudged: (good: boolean, message: string) => void;
  /** Called at each failed attempt. */
  readonly onFailure: (message: string) => void;
  /** Until the first success, ask more often than `periodSeconds`. */
  readonly eager: boolean;
}

const eagerPeriodMs = 100;
const eagerExecPeriodMs = 500; // a command inside a container costs a process of the runtime each time

/**
 * Repeats a probe. Until its first success a readiness or startup probe is asked every 100 ms (a command every 500 ms) instead of every period, so that a
 * program counts as ready when it is; such extra failures do not count towards `failureThreshold`, which stays a number of periods.
 */
export function startProbe(run: ProbeRun): ProbeLoop {
  const { probe } = run;
  const periodMs = (probe.periodSeconds ?? 10) * 1_000;
  const timeoutMs = (probe.timeoutSeconds ?? 1) * 1_000;
  let stopped = false;
  let judged: boolean | undefined;
  let successes = 0;
  let failures = 0;
  // An eager probe's first period is for the program to come up: failures in it do not count.
  let countedAtMs = run.eager
    ? performance.now() + (probe.initialDelaySeconds ?? 0) * 1_000
    : Number.NEGATIVE_INFINITY;
  let timer = setTimeout(() => void once(), (probe.initialDelaySeconds ?? 0) * 1_000);

  async function once(): Promise<void> {
    const result = await run.attempt(timeoutMs);
    if (stopped) return;
    const nowMs = performance.now();
    let waitMs = periodMs;
    if (result.kind === "success") {
      successes++;
      failures = 0;
      if (judged !== true && successes >= (probe.successThreshold ?? 1)) judge(true, "");
    } else {
      successes = 0;
      const counts = nowMs - countedAtMs >= periodMs * 0.95;
      if (counts) {
        countedAtMs = nowMs;
        failures++;
        run.onFailure(result.message);
        if (judged !== false && failures >= (probe.failureThreshold ?? 3)) judge(false, result.message);
        else if (judged === false && failures % (probe.failureThreshold ?? 3) === 0)
          judge(false, result.message);
      }
      if (run.eager && judged !== true)
        waitMs = Math.min(periodMs, probe.exec === undefined ? eagerPeriodMs : eagerExecPeriodMs);
    }
    if (!stopped) timer = setTimeout(() => void once(), waitMs);
  }

  function judge(good: boolean, message: string): void {
    judged = good;
    run.onJudged(good, message);
  }

  return {
    stop() {
      stopped = true;
      clearTimeout(timer);
    },
  };
}
