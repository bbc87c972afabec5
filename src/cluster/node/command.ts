// Runs one program of the host and waits for it.

import { spawn } from "node:child_process";

export class CommandError extends Error {
  readonly code: number | null;
  readonly stderr: string;
  constructor(command: string, code: number | null, stderr: string) {
    super(
      `${command} failed (${code === null ? "killed" : `exit ${code}`}): ${stderr.trim().slice(0, 2_000)}`,
    );
    this.name = "CommandError";
    this.code = code;
    this.stderr = stderr;
  }
}

export interface CommandOptions {
  /** Written to the program's standard input, which is then closed. */
  readonly input?: string;
  /** Beyond it the program is killed and the call fails. */
  readonly timeoutMs?: number;
}

const outputMax = 1_000_000; // characters; beyond it the rest of the output is dropped

/** Resolves with the standard output; throws CommandError on any exit code but 0. */
export function run(file: string, args: readonly string[], options: CommandOptions = {}): Promise<string> {
  return new Promise((resolve, reject) => {
    const child = spawn(file, args, {
      stdio: [options.input === undefined ? "ignore" : "pipe", "pipe", "pipe"],
    });
    let stdout = "";
    let stderr = "";
    const timer =
      options.timeoutMs === undefined
        ? undefined
        : setTimeout(() => {
            stderr += `no answer within ${options.timeoutMs} ms`;
            child.kill("SIGKILL");
          }, options.timeoutMs);
    child.stdout?.on("data", (chunk: Buffer) => {
      if (stdout.length < outputMax) stdout += chunk.toString("utf8");
    });
    child.stderr?.on("data", (chunk: Buffer) => {
      if (stderr.length < outputMax) stderr += chunk.toString("utf8");
    });
    child.on("error", (error) => {
      clearTimeout(timer);
      reject(new CommandError(`${file} ${args.join(" ")}`, null, error.message));
    });
    child.on("close", (code) => {
      clearTimeout(timer);
      if (code === 0) resolve(stdout);
      else reject(new CommandError(`${file} ${args.slice(0, 4).join(" ")}`, code, stderr));
    });
    if (options.input !== undefined) {
      child.stdin?.on("error", () => {}); // a program that does not read its input says why in its exit code
      child.stdin?.end(options.input);
    }
  });
}
