// Small commands for hooks and for people with `kubectl exec`: wait until the proxy is ready, ask Envoy's admin.

import { get } from "node:http";
import { EnvoyAdmin } from "./admin.ts";
import { ConfigError } from "./config.ts";
import { ports } from "#base";

const waitSecondsDefault = 60;
const periodMs = 200;

/** `agent wait`: 0 once the proxy is ready, 1 when it is not in time. Holds the next container's start as a postStart hook. */
export async function runWait(args: readonly string[]): Promise<number> {
  const url = flagOf(args, "url") ?? `http://127.0.0.1:${ports.ready}/healthz/ready`;
  const seconds = Number(flagOf(args, "timeoutSeconds") ?? waitSecondsDefault);
  if (!Number.isFinite(seconds)) throw new ConfigError("--timeoutSeconds wants a number");
  const endMs = performance.now() + seconds * 1_000;
  let last = "nobody asked yet";
  while (performance.now() < endMs) {
    last = await statusOf(url);
    if (last === "200") return 0;
    await new Promise<void>((resolve) => void setTimeout(resolve, periodMs));
  }
  process.stderr.write(`the proxy was not ready in ${seconds} s (${last})\n`);
  return 1;
}

/** `agent request GET clusters?format=json`: Envoy's answer on stdout; 1 for an answer that is not 200. */
export async function runRequest(args: readonly string[]): Promise<number> {
  const [method = "GET", path = "help"] = args.filter((arg) => !arg.startsWith("-"));
  if (method !== "GET" && method !== "POST") throw new ConfigError("usage: agent request GET|POST <path>");
  const answer = await new EnvoyAdmin(ports.admin).ask(path.startsWith("/") ? path : `/${path}`, method);
  process.stdout.write(answer.body);
  return answer.status === 200 ? 0 : 1;
}

function statusOf(url: string): Promise<string> {
  return new Promise((resolve) => {
    const question = get(url, { agent: false, timeout: 1_000 }, (answer) => {
      answer.resume();
      resolve(String(answer.statusCode));
    });
    question.on("timeout", () => question.destroy(new Error("no answer")));
    question.on("error", (error) => resolve(error.message));
  });
}

function flagOf(args: readonly string[], name: string): string | undefined {
  const inline = args.find((arg) => arg.startsWith(`--${name}=`));
  if (inline !== undefined) return inline.slice(name.length + 3);
  const at = args.indexOf(`--${name}`);
  return at < 0 ? undefined : args[at + 1];
}
