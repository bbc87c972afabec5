// What the tests of this room share: a server in a directory of its own, and kubectl as users run it.

import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { existsSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { request } from "node:https";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { silentLog } from "#base";
import type { Clock } from "#base";
import type { KeyPem } from "./auth/cluster-ca.ts";
import { ApiError } from "./errors.ts";
import { stringOf } from "./json.ts";
import type { JsonRecord } from "./json.ts";
import { startApiServer } from "./server.ts";
import type { ApiServer, ApiServerOptions } from "./server.ts";
import type { ApiObject } from "./store.ts";

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

export interface Answer {
  readonly code: number;
  readonly body: JsonRecord;
  readonly warning: string;
}

export interface Ask {
  readonly method?: string;
  readonly body?: unknown;
  readonly token?: string;
  readonly client?: KeyPem;
  readonly contentType?: string;
}

export function ask(cluster: TestServer, path: string, options: Ask = {}): Promise<Answer> {
  const { method = "GET", body, token, client, contentType = "application/json" } = options;
  return new Promise((resolve, reject) => {
    const call = request(
      `${cluster.url}${path}`,
      {
        method,
        ca: cluster.server.caPem,
        key: client?.keyPem,
        cert: client?.certPem,
        agent: false,
        headers: {
          "content-type": contentType,
          ...(token === undefined ? {} : { authorization: `Bearer ${token}` }),
        },
      },
      (response) => {
        let text = "";
        response.on("data", (chunk: Buffer) => (text += chunk.toString()));
        response.on("end", () => {
          const parsed = text.startsWith("{") ? (JSON.parse(text) as JsonRecord) : { text };
          resolve({
            code: response.statusCode ?? 0,
            body: parsed,
            warning: stringOf(response.headers["warning"]),
          });
        });
      },
    );
    call.on("error", reject);
    call.end(body === undefined ? undefined : JSON.stringify(body));
  });
}

export const pod = (name: string, rest: JsonRecord = {}): ApiObject => ({
  apiVersion: "v1",
  kind: "Pod",
  metadata: { name, namespace: "default" },
  spec: { containers: [{ name: "c", image: "i" }], ...rest },
});

export const settings = (name: string, rest: JsonRecord = {}): ApiObject => ({
  apiVersion: "v1",
  kind: "ConfigMap",
  metadata: { name, namespace: "default", ...rest },
});

export async function until(holds: () => boolean): Promise<void> {
  const end = Date.now() + 10_000;
  while (!holds()) {
    assert.ok(Date.now() < end, "what was waited for did not come");
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}

export async function refusal(
  write: Promise<unknown>,
): Promise<{ code: number; reason?: string; message: string }> {
  const error: unknown = await write.then(
    () => assert.fail("the write was to be refused"),
    (caught: unknown) => caught,
  );
  assert.ok(error instanceof ApiError, String(error));
  return error.status;
}
