// Application probes on behalf of the kubelet: the injector turned them into requests to the agent, since under STRICT
// mutual TLS the kubelet itself cannot reach the application. The agent asks the application's own port from 127.0.0.6,
// the address that the capture rules take for the inbound side's own.

import { request as httpRequest } from "node:http";
import { connect as connectHttp2 } from "node:http2";
import { request as httpsRequest } from "node:https";
import { connect } from "node:net";
import type { AppProbe } from "./config.ts";
import { createUnframer, frame } from "./grpc.ts";

const localIpv4 = "127.0.0.6";
const localIpv6 = "::6";
const timeoutSecondsDefault = 1;

/** Where the application is asked, and from which address. */
export interface ProbePlace {
  readonly host: string;
  readonly localAddress: string | undefined;
}

/** The pod's own address, reached past the capture. */
export function inPod(podIp: string): ProbePlace {
  return { host: podIp, localAddress: podIp.includes(":") ? localIpv6 : localIpv4 };
}

export interface ProbeAnswer {
  readonly status: number;
  readonly body: string;
}

/** Asks the application. Never throws: what goes wrong is 500 and the reason, as a failed probe is. */
export async function askApplication(
  probe: AppProbe,
  place: ProbePlace,
  headers: Readonly<Record<string, string>> = {},
): Promise<ProbeAnswer> {
  const timeoutMs = (probe.timeoutSeconds ?? timeoutSecondsDefault) * 1_000;
  const target = { ...place, timeoutMs };
  try {
    if (probe.httpGet !== undefined) return await askHttp(probe.httpGet, target, headers);
    if (probe.tcpSocket !== undefined) return await askTcp(Number(probe.tcpSocket.port), target);
    if (probe.grpc !== undefined) return await askGrpc(probe.grpc, target);
    return { status: 500, body: "the probe has no kind that is known here" };
  } catch (error) {
    return { status: 500, body: error instanceof Error ? error.message : String(error) };
  }
}

interface Target extends ProbePlace {
  readonly timeoutMs: number;
}

function askHttp(
  get: NonNullable<AppProbe["httpGet"]>,
  target: Target,
  headers: Readonly<Record<string, string>>,
): Promise<ProbeAnswer> {
  const secure = get.scheme?.toUpperCase() === "HTTPS";
  const sent: Record<string, string> = { ...headers };
  for (const { name, value } of get.httpHeaders ?? []) sent[name.toLowerCase()] = value;
  const path = get.path === undefined || get.path === "" ? "/" : get.path;
  const options = {
    host: target.host,
    port: Number(get.port),
    localAddress: target.localAddress,
    path: path.startsWith("/") ? path : `/${path}`,
    headers: sent,
    agent: false as const,
    signal: AbortSignal.timeout(target.timeoutMs),
    // As the kubelet: a probe asks whether the application is there, not who signed it.
    rejectUnauthorized: false,
  };
  return new Promise((resolve, reject) => {
    const question = (secure ? httpsRequest : httpRequest)(options, (answer) => {
      answer.resume();
      resolve({ status: answer.statusCode ?? 500, body: "" });
    });
    question.on("error", reject);
    question.end();
  });
}

function askTcp(port: number, target: Target): Promise<ProbeAnswer> {
  return new Promise((resolve, reject) => {
    const socket = connect({ host: target.host, port, localAddress: target.localAddress });
    socket.setTimeout(target.timeoutMs, () =>
      socket.destroy(new Error(`no connection in ${target.timeoutMs} ms`)),
    );
    socket.on("error", reject);
    socket.on("connect", () => {
      socket.destroy();
      resolve({ status: 200, body: "" });
    });
  });
}

const serving = 1;

/** grpc.health.v1.Health/Check { string service = 1 } -> { ServingStatus status = 1 } */
async function askGrpc(probe: NonNullable<AppProbe["grpc"]>, target: Target): Promise<ProbeAnswer> {
  const name = Buffer.from(probe.service ?? "");
  const message = name.length === 0 ? name : Buffer.concat([Buffer.from([0x0a, name.length]), name]);
  const authority = target.host.includes(":") ? `[${target.host}]` : target.host;
  const session = connectHttp2(`http://${authority}:${probe.port}`, {
    createConnection: () =>
      connect({ host: target.host, port: probe.port, localAddress: target.localAddress }),
  });
  try {
    return await new Promise((resolve, reject) => {
      setTimeout(() => reject(new Error(`no answer in ${target.timeoutMs} ms`)), target.timeoutMs).unref();
      session.on("error", reject);
      const headers = { ":method": "POST", ":path": "/grpc.health.v1.Health/Check", te: "trailers" };
      const stream = session.request({ ...headers, "content-type": "application/grpc" });
      let status = 0;
      const take = createUnframer((answer) => (status = answer[0] === 0x08 ? (answer[1] ?? 0) : 0));
      stream.on("data", (chunk: Buffer) => take(chunk));
      stream.on("error", reject);
      stream.on("end", () =>
        resolve(
          status === serving ? { status: 200, body: "" } : { status: 500, body: `health status ${status}` },
        ),
      );
      stream.end(frame(message));
    });
  } finally {
    session.destroy();
  }
}
