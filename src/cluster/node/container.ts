// One container under runc. `runc run` stays in the foreground as the container's parent: it hands on signals, and its exit code is
// the container's. A container's identity is `<pod key>.<container>.<attempt>`.

import { spawn, type ChildProcess, type ChildProcessWithoutNullStreams } from "node:child_process";
import { existsSync } from "node:fs";
import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { CommandError, run } from "./command.ts";

export interface ContainerExit {
  readonly exitCode: number;
  readonly atMs: number;
}

/** The container did not come to life; `message` is runc's own. */
export class ContainerStartError extends Error {
  readonly reason = "StartError";
}

export interface RunningContainer {
  readonly id: string;
  readonly startedAtMs: number;
  /** Resolves once, when the container is gone. */
  readonly exited: Promise<ContainerExit>;
  signal(signal: "SIGTERM" | "SIGKILL"): void;
  /** Runs a command inside; resolves with its output, throws CommandError when it fails or takes longer than `timeoutMs`. */
  exec(command: readonly string[], timeoutMs: number): Promise<string>;
  /** Starts a command inside, with its streams. */
  spawn(command: readonly string[]): ChildProcessWithoutNullStreams;
}

const pidPollMs = 5;

/** Starts the container whose root file system stands in `bundle/rootfs`. `rawFd` becomes its standard output and error. */
export async function startContainer(
  runcRoot: string,
  bundle: string,
  id: string,
  config: object,
  rawFd: number,
): Promise<RunningContainer> {
  await writeFile(join(bundle, "config.json"), JSON.stringify(config));
  const pidFile = join(bundle, "pid");
  const logFile = join(bundle, "runc.log");
  const args = ["--root", runcRoot, "--log", logFile, "--log-format", "json", "run", "--no-new-keyring"];
  const child = spawn("runc", [...args, "--bundle", bundle, "--pid-file", pidFile, id], {
    stdio: ["ignore", rawFd, rawFd],
    env: { PATH: process.env["PATH"] ?? "/usr/sbin:/usr/bin:/sbin:/bin", GOMAXPROCS: "1" },
  });
  const life = { over: false };
  const exited = exitOf(child).then((exit) => {
    life.over = true;
    return exit;
  });
  // runc writes the pid once the container's own process is about to run its program.
  while (!life.over && !existsSync(pidFile)) await new Promise((resolve) => setTimeout(resolve, pidPollMs));
  const pid = Number(await readFile(pidFile, "utf8").catch(() => "0"));
  if (!(pid > 0)) {
    await exited;
    throw new ContainerStartError(await startFault(logFile));
  }
  return {
    id,
    startedAtMs: Date.now(),
    exited,
    signal(signal) {
      if (life.over) return;
      // runc hands SIGTERM on; SIGKILL it cannot, so that goes to the container's first process and takes all others with it.
      if (signal === "SIGTERM") child.kill("SIGTERM");
      else killQuietly(pid);
    },
    spawn: (command) => spawn("runc", ["--root", runcRoot, "exec", id, ...command], { stdio: "pipe" }),
    async exec(command, timeoutMs) {
      if (life.over) throw new CommandError(command.join(" "), null, "the container is not running");
      return run("runc", ["--root", runcRoot, "exec", id, ...command], { timeoutMs });
    },
  };
}

function exitOf(child: ChildProcess): Promise<ContainerExit> {
  return new Promise((resolve) => {
    child.on("error", () => resolve({ exitCode: 128, atMs: Date.now() }));
    child.on("exit", (code, signal) =>
      resolve({ exitCode: code ?? (signal === "SIGKILL" ? 137 : 143), atMs: Date.now() }),
    );
  });
}

function killQuietly(pid: number): void {
  try {
    process.kill(pid, "SIGKILL");
  } catch {
    // It ended by itself a moment ago.
  }
}

/** The last error that runc logged, as one line. */
async function startFault(logFile: string): Promise<string> {
  const text = await readFile(logFile, "utf8").catch(() => "");
  const messages = text.split("\n").flatMap((line) => {
    const message = /"msg":"((?:[^"\\]|\\.)*)"/.exec(line)?.[1];
    return message === undefined ? [] : [message.replaceAll('\\"', '"')];
  });
  return messages.at(-1) ?? "the container runtime gave no reason";
}

/** Removes what an ended or half-started container left with runc. */
export async function forgetContainer(runcRoot: string, id: string): Promise<void> {
  if (!existsSync(join(runcRoot, id))) return;
  await run("runc", ["--root", runcRoot, "delete", "--force", id], { timeoutMs: 10_000 }).catch(() => {});
}
