// The program in every pod of the mesh: `proxy sidecar|router` beside the application, `capture` before it, `wait` as its hook.
// Each mode loads only what it needs: the capture runs for milliseconds, the proxy for months.

import { ConfigError } from "./config.ts";

const [, , mode, ...args] = process.argv;

const usage = `usage: agent proxy sidecar|router [flags]
       agent capture [flags of istio-iptables]
       agent wait [--timeoutSeconds 60]
       agent request GET|POST <path of Envoy's admin>
`;
const exitUsage = 2;

async function main(): Promise<number | undefined> {
  if (mode === "proxy") {
    const { runProxy } = await import("./proxy.ts");
    runProxy(args);
    return undefined;
  }
  if (mode === "capture" || mode === "istio-iptables") {
    const { runCapture } = await import("./capture/run.ts");
    return runCapture(args);
  }
  if (mode === "wait" || mode === "request") {
    const commands = await import("./commands.ts");
    return mode === "wait" ? commands.runWait(args) : commands.runRequest(args);
  }
  process.stderr.write(usage);
  return exitUsage;
}

try {
  const code = await main();
  if (code !== undefined) process.exitCode = code;
} catch (error) {
  process.stderr.write(`agent: ${error instanceof Error ? error.message : String(error)}\n`);
  process.exitCode = error instanceof ConfigError ? exitUsage : 1;
}
