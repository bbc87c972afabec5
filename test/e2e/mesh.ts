// A whole mesh for a test: brought up by the command line as a user does it, driven by the real kubectl.

import { execFile, spawn } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";

export const root = dirname(dirname(dirname(fileURLToPath(import.meta.url))));
const run = promisify(execFile);
const outputBytesMax = 64 * 1024 * 1024;

export interface MeshOptions {
  /** Part of every name on the machine, so that meshes of different tests do not meet. */
  readonly name: string;
  /** Where the ingress gateway's HTTP port is published on 127.0.0.1; HTTPS and the API take the next two. */
  readonly port: number;
  /** More words for `mizzen up`. */
  readonly args?: readonly string[];
  /** Where its state is kept; without, in a directory that goes with the mesh. */
  readonly home?: string;
}

export interface Mesh {
  readonly name: string;
  readonly gatewayUrl: string;
  readonly kubeconfig: string;
  /** Runs kubectl, whatever comes of it. */
  ranKubectl(args: readonly string[], input?: string): Promise<Ran>;
  /** Runs kubectl and gives its standard output; throws with its standard error. */
  kubectl(args: readonly string[], input?: string): Promise<string>;
  mizzen(args: readonly string[]): Promise<Ran>;
  /** Runs a command inside the node's network namespace. */
  inNode(command: readonly string[], input?: string): Promise<Ran>;
  down(): Promise<void>;
}

export interface Ran {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

export async function startMesh(options: MeshOptions): Promise<Mesh> {
  // A state of its own: what an earlier run stored would be there again.
  const home = options.home ?? mkdtempSync(join(tmpdir(), `mizzen-${options.name}-`));
  const forget = () => {
    if (options.home === undefined) rmSync(home, { recursive: true, force: true });
  };
  const mizzen = (args: readonly string[]) =>
    command(join(root, "bin/mizzen"), args, undefined, { MIZZEN_HOME: home });
  const up = [
    "up",
    "--detach",
    "--name",
    options.name,
    "--port",
    String(options.port),
    "--https-port",
    String(options.port + 1),
    "--api-port",
    String(options.port + 2),
    ...(options.args ?? []),
  ];
  const started = await mizzen(up);
  if (started.code !== 0) {
    await mizzen(["down", "--name", options.name]);
    forget();
    throw new Error(`mizzen ${up.join(" ")}: exit ${started.code}\n${started.stdout}\n${started.stderr}`);
  }
  const kubeconfig = (await mizzen(["kubeconfig", "--name", options.name, "--path"])).stdout.trim();
  const ranKubectl = (args: readonly string[], input?: string) =>
    command(join(root, ".cache/bin/kubectl"), ["--kubeconfig", kubeconfig, ...args], input);
  return {
    name: options.name,
    gatewayUrl: `http://127.0.0.1:${options.port}`,
    kubeconfig,
    ranKubectl,
    kubectl: async (args, input) => {
      const ran = await ranKubectl(args, input);
      if (ran.code !== 0) throw new Error(`kubectl ${args.join(" ")}: ${ran.stderr}`);
      return ran.stdout;
    },
    mizzen: (args) => mizzen([...args, "--name", options.name]),
    inNode: (words, input) =>
      command("nsenter", [`--net=/run/netns/mizzen-${options.name}`, "--", ...words], input),
    down: async () => {
      const ran = await mizzen(["down", "--name", options.name]);
      forget();
      if (ran.code !== 0) throw new Error(`mizzen down: ${ran.stderr}`);
    },
  };
}

/** Runs a command to its end, whatever its exit code; `env` goes on top of this process's own. */
export function command(
  file: string,
  args: readonly string[],
  input?: string,
  env: Readonly<Record<string, string>> = {},
): Promise<Ran> {
  const { promise, resolve, reject } = Promise.withResolvers<Ran>();
  const child = spawn(file, args, {
    cwd: root,
    stdio: ["pipe", "pipe", "pipe"],
    env: { ...process.env, ...env },
  });
  let stdout = "";
  let stderr = "";
  child.stdout.on(
    "data",
    (chunk: Buffer) => (stdout += stdout.length < outputBytesMax ? chunk.toString() : ""),
  );
  child.stderr.on(
    "data",
    (chunk: Buffer) => (stderr += stderr.length < outputBytesMax ? chunk.toString() : ""),
  );
  child.on("error", reject);
  child.on("close", (code) => resolve({ code: code ?? 1, stdout, stderr }));
  // A command that does not read its input closes it first: that is its right.
  child.stdin.on("error", () => undefined);
  child.stdin.end(input ?? "");
  return promise;
}

/** A text of one of the control plane's ConfigMaps. */
export function configText(mesh: Mesh, configMap: string, key: string): Promise<string> {
  return mesh.kubectl(["get", "configmap", configMap, "-n", "istio-d", "-o", `jsonpath={.data.${key}}`]);
}

/** Sets texts of one of the control plane's ConfigMaps, and leaves its others. */
export async function patchConfig(
  mesh: Mesh,
  configMap: string,
  data: Readonly<Record<string, string>>,
): Promise<void> {
  const patch = JSON.stringify({ data });
  await mesh.kubectl(["patch", "configmap", configMap, "-n", "istio-d", "--type=merge", "-p", patch]);
}

/** Asks again and again until the answer is not undefined; throws with what was waited for. */
export async function eventually<T>(
  what: string,
  ask: () => Promise<T | undefined>,
  limitMs = 30_000,
  pauseMs = 100,
): Promise<T> {
  const until = Date.now() + limitMs;
  let last: unknown;
  while (Date.now() < until) {
    try {
      const answer = await ask();
      if (answer !== undefined) return answer;
    } catch (error) {
      last = error;
    }
    await pause(pauseMs);
  }
  throw new Error(`not within ${limitMs} ms: ${what}`, { cause: last });
}

export function pause(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

/** One GET by curl, outside of the mesh: the status and the body. */
export async function curl(
  args: readonly string[],
): Promise<{ readonly status: number; readonly body: string }> {
  const { stdout } = await run("curl", [
    "-s",
    "-o",
    "-",
    "-w",
    "\n%{http_code}",
    "--max-time",
    "10",
    ...args,
  ]).catch((error: { stdout?: string }) => ({ stdout: error.stdout ?? "\n000" }));
  const cut = stdout.lastIndexOf("\n");
  return { status: Number(stdout.slice(cut + 1)), body: stdout.slice(0, cut) };
}
