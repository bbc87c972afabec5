// Istio's echo application as far as the Gateway API's conformance suite drives it: its server's flags, and its client with the text
// that it prints (https://github.com/istio/istio/tree/master/pkg/test/echo).

import { readFile } from "node:fs/promises";
import { parseArgs } from "node:util";
import { forward, type Result } from "./forward.ts";
import { startEcho, type Echo, type EchoPort } from "./server.ts";

export const advancedHelp = `echo-advanced [--port PORT]... [--tcp PORT]... [--grpc PORT]... [--tls PORT]... [--crt FILE --key FILE]
  echo-client URL [--method GET] [-H name:value]... [--count 1]`;

/** `--tls` says which of the ports speaks TLS; plain ports take HTTP/1.1, HTTP/2 and gRPC alike. */
export async function runAdvancedServer(args: readonly string[]): Promise<void> {
  const list = { type: "string", multiple: true, default: [] as string[] } as const;
  const { values } = parseArgs({
    args: [...args],
    options: {
      port: list,
      tcp: list,
      grpc: list,
      tls: list,
      crt: { type: "string", default: "" },
      key: { type: "string", default: "" },
      version: { type: "string", default: "v1" },
    },
  });
  const address = "0.0.0.0";
  const secured = new Set(values.tls.map(Number));
  const certificate =
    secured.size === 0 ? undefined : { cert: await readFile(values.crt), key: await readFile(values.key) };
  const ports: EchoPort[] = [
    ...[...new Set([...values.port, ...values.grpc, ...values.tls].map(Number))].map((port): EchoPort => ({
      kind: secured.has(port) ? "https" : "http",
      port,
      address,
    })),
    ...values.tcp.map((port): EchoPort => ({ kind: "tcp", port: Number(port), address, serverFirst: false })),
  ];
  await startEcho({ service: "echo", version: values.version, ports, ...(certificate && { certificate }) });
  process.once("SIGTERM", () => process.exit(0));
}

/** Makes calls and prints what came back; the exit code is 1 when one got no answer. */
export async function runAdvancedClient(args: readonly string[]): Promise<number> {
  const { values, positionals } = parseArgs({
    args: [...args],
    allowPositionals: true,
    options: {
      method: { type: "string", default: "GET" },
      header: { type: "string", short: "H", multiple: true, default: [] },
      count: { type: "string", default: "1" },
    },
  });
  const [url = ""] = positionals;
  const headers = Object.fromEntries(
    values.header.map((text): [string, string] => {
      const colon = text.indexOf(":");
      return [text.slice(0, colon), text.slice(colon + 1)];
    }),
  );
  const results = await forward({ url, method: values.method, headers, count: Number(values.count) });
  console.log(results.map((result, at) => renderResult(url, result, at)).join("\n\n"));
  return results.some(({ error }) => error !== undefined) ? 1 : 0;
}

/** Lines `[0] StatusCode=200` of the call, and `[0 body] Hostname=...` of what the server saw. */
export function renderResult(url: string, result: Result, at: number): string {
  if (result.error !== undefined) return `[${at}] Url=${url}\n[${at}] Error=${result.error}`;
  const call = [
    `Url=${url}`,
    `StatusCode=${result.status}`,
    ...Object.entries(result.headers).map(([name, value]) => `ResponseHeader=${capitalized(name)}:${value}`),
  ];
  return [
    ...call.map((line) => `[${at}] ${line}`),
    ...seenLines(result).map((line) => `[${at} body] ${line}`),
  ].join("\n");
}

function seenLines(result: Result): string[] {
  const hostname = result.headers["x-echo-hostname"];
  if (!result.body.startsWith("{")) return hostname === undefined ? [] : [`Hostname=${hostname}`];
  const seen = JSON.parse(result.body) as Echo;
  return [
    `ServiceVersion=${seen.version}`,
    `ServicePort=${seen.port}`,
    `Host=${seen.host}`,
    `URL=${seen.url}`,
    `Method=${seen.method}`,
    `Proto=${seen.protocol}`,
    `IP=${seen.remoteAddress}`,
    ...Object.entries(seen.headers).map(([name, value]) => `RequestHeader=${capitalized(name)}:${value}`),
    `Hostname=${seen.hostname}`,
  ];
}

/** `x-request-id` as `X-Request-Id`: how Go writes names. */
function capitalized(name: string): string {
  return name.replaceAll(/(^|-)[a-z]/g, (start) => start.toUpperCase());
}
