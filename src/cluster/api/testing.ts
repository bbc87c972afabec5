// What the tests of this room share: a server in a directory of its own, and kubectl as users run it.

import { execFile } from "node:child_process";
import { existsSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { silentLog } from "#base";
import type { Clock } from "#base";
import { startApiServer } from "./server.ts";
import type { ApiServer, ApiServerOptions } from "./server.ts";

export const testClock: Clock = {
  nowMs: () => Date.now(),
  monotonicMs: () => performance.now(),
  after: (delayMs, callback) => {
    const timer = setTimeout(callback, delayMs);
    return () => clearTimeout(timer);
  },
};

export const kubectlPath = join(import.meta.dirname, "../../../.cache/bin/kubectl");
export const hasKubectl = existsSync(kubectlPath);

export interface Kubectl {
  readonly code: number;
  readonly out: string;
  readonly err: string;
}

export interface TestServer {
  readonly server: ApiServer;
  readonly url: string;
  readonly dir: string;
  /** Runs kubectl with the administrator's kubeconfig; `stdin` is what `-f -` reads. */
  kubectl(args: readonly string[], stdin?: string, env?: Record<string, string>): Promise<Kubectl>;
  close(): Promise<void>;
}

export async function startTestServer(options: Partial<ApiServerOptions> = {}): Promise<TestServer> {
  const dir = mkdtempSync(join(tmpdir(), "mizzen-api-test-"));
  const server = await startApiServer({
    dataDir: join(dir, "data"),
    listen: [{ host: "127.0.0.1", port: 0 }],
    clock: testClock,
    log: silentLog,
    ...options,
  });
  const url = server.urls[0]!;
  const kubeconfig = join(dir, "kubeconfig");
  writeFileSync(kubeconfig, server.adminKubeconfig(url), { mode: 0o600 });
  return {
    server,
    url,
    dir,
    kubectl: (args, stdin, env) => runKubectl(dir, kubeconfig, args, stdin, env),
    close: async () => {
      await server.close();
      rmSync(dir, { recursive: true, force: true });
    },
  };
}

// A kubectl that hangs fails its test rather than the run.
const kubectlTimeoutMs = 30_000;

function runKubectl(
  dir: string,
  kubeconfig: string,
  args: readonly string[],
  stdin?: string,
  env: Record<string, string> = {},
): Promise<Kubectl> {
  return new Promise((resolve) => {
    const child = execFile(
      kubectlPath,
      [...args],
      {
        timeout: kubectlTimeoutMs,
        env: { PATH: process.env["PATH"], HOME: dir, KUBECONFIG: kubeconfig, ...env },
      },
      (error, out, err) => resolve({ code: error ? Number(error.code ?? 1) : 0, out, err }),
    );
    child.stdin?.end(stdin ?? "");
  });
}
