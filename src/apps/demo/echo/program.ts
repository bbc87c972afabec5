// `demo echo`: the flags of echo. `--forward PORT` opens the client side: POST an Order as JSON, get Results.

import { createServer, type ServerResponse } from "node:http";
import { parseArgs } from "node:util";
import { forward, type Order } from "./forward.ts";
import { lingerMs } from "../web.ts";
import { startEcho, type Activity, type EchoPort } from "./server.ts";
import { startUdpEcho } from "./udp.ts";

export const echoHelp = `echo [--service NAME] [--version v1] [--http PORTS] [--http-localhost PORTS] [--tcp PORTS] [--tcp-server-first PORTS]
     [--https PORTS (--key-file FILE --cert-file FILE | --own-certificate NAMES)] [--http-behind-proxy PORTS] [--udp PORTS]
     [--forward PORT] [--pod-ip IP --http-pod-ip PORTS]
  PORTS are comma-separated. Example: echo --service a --http 8080,8081 --tcp 9090 --forward 8999`;

const orderBytesMax = 262_144;

export async function runEcho(args: readonly string[]): Promise<void> {
  const text = { type: "string", default: "" } as const;
  const { values } = parseArgs({
    args: [...args],
    options: {
      service: { type: "string", default: "echo" },
      version: { type: "string", default: "v1" },
      http: text,
      "http-localhost": text,
      "http-pod-ip": text,
      "http-behind-proxy": text,
      "own-certificate": text,
      "pod-ip": text,
      tcp: text,
      "tcp-server-first": text,
      udp: text,
      https: text,
      "key-file": text,
      "cert-file": text,
      forward: text,
    },
  });
  const any = "0.0.0.0";
  const ports: EchoPort[] = [
    ...numbers(values.http).map((port) => ({ kind: "http", port, address: any }) as const),
    ...numbers(values["http-localhost"]).map(
      (port) => ({ kind: "http", port, address: "127.0.0.1" }) as const,
    ),
    ...numbers(values["http-pod-ip"]).map(
      (port) => ({ kind: "http", port, address: values["pod-ip"] }) as const,
    ),
    ...numbers(values["http-behind-proxy"]).map(
      (port) => ({ kind: "http", port, address: any, behindProxy: true }) as const,
    ),
    ...numbers(values.https).map((port) => ({ kind: "https", port, address: any }) as const),
    ...numbers(values.tcp).map((port) => ({ kind: "tcp", port, address: any, serverFirst: false }) as const),
    ...numbers(values["tcp-server-first"]).map(
      (port) => ({ kind: "tcp", port, address: any, serverFirst: true }) as const,
    ),
  ];
  const certificate =
    values["own-certificate"] === ""
      ? await certificateIn(values["key-file"], values["cert-file"])
      : await ownCertificate(values["own-certificate"].split(","));
  const activity: Activity = { openRequests: 0 };
  await startEcho({
    service: values.service,
    version: values.version,
    ports,
    activity,
    ...(certificate && { certificate }),
  });
  for (const port of numbers(values.udp)) await startUdpEcho(port, any, `service=${values.service}`);
  for (const port of numbers(values.forward)) startForwarder(port);
  process.once("SIGTERM", () => setTimeout(() => endWhenIdle(activity), lingerMs));
}

const idlePollMs = 50;

function endWhenIdle(activity: Activity): void {
  if (activity.openRequests === 0) process.exit(0);
  setTimeout(() => endWhenIdle(activity), idlePollMs);
}

async function certificateIn(
  keyFile: string,
  certFile: string,
): Promise<{ key: Buffer; cert: Buffer } | undefined> {
  if (keyFile === "" || certFile === "") return undefined;
  const { readFile } = await import("node:fs/promises");
  return { key: await readFile(keyFile), cert: await readFile(certFile) };
}

/** A certificate that nobody vouches for, made anew at every start. */
async function ownCertificate(names: readonly string[]): Promise<{ key: string; cert: string }> {
  const { CertificateAuthority, createSelfSignedMaterial } = await import("#identity");
  const clock = {
    nowMs: () => Date.now(),
    monotonicMs: () => performance.now(),
    after: (): (() => void) => () => {},
  };
  const authority = await CertificateAuthority.load(await createSelfSignedMaterial(clock), { clock });
  const { key, chain } = await authority.issueServing(names);
  return { key, cert: chain };
}

function numbers(list: string): readonly number[] {
  return list
    .split(",")
    .filter((part) => part !== "")
    .map((part) => {
      const port = Number(part);
      if (!Number.isInteger(port) || port < 1 || port > 65_535) throw new Error(`'${part}' is not a port`);
      return port;
    });
}

/** Whoever reaches this port makes calls in the pod's name: it is for tests, and off unless asked for. */
function startForwarder(port: number): void {
  createServer((request, response) => {
    const chunks: Buffer[] = [];
    let received = 0;
    request.on("data", (chunk: Buffer) => {
      received += chunk.length;
      if (received > orderBytesMax) request.destroy();
      else chunks.push(chunk);
    });
    request.on("end", () => void answerOrder(Buffer.concat(chunks).toString(), response));
  }).listen(port, "0.0.0.0");
}

async function answerOrder(text: string, response: ServerResponse): Promise<void> {
  response.setHeader("content-type", "application/json");
  try {
    response.end(JSON.stringify(await forward(JSON.parse(text) as Order)));
  } catch (error) {
    response.statusCode = 400;
    response.end(JSON.stringify({ error: String(error) }));
  }
}
