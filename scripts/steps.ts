// Runs the tools that check the sources, each with its time on one line. Shared by `check` and by the tests.

import { spawnSync } from "node:child_process";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

export const root = dirname(dirname(fileURLToPath(import.meta.url)));

export interface Step {
  readonly name: string;
  readonly command: readonly string[];
  /** What to do when it fails. */
  readonly remedy: string;
}

export const sourceSteps: readonly Step[] = [
  { name: "format", command: ["oxfmt", "--check", "."], remedy: "run `npm run format`" },
  { name: "lint", command: ["oxlint", "--type-aware", "--quiet"], remedy: "mend the lines that it names" },
  { name: "types", command: ["tsc", "-p", "."], remedy: "mend the lines that it names" },
];

export interface StepResult {
  readonly passed: boolean;
  readonly output: string;
  readonly tookMs: number;
}

/** Runs one tool from node_modules/.bin and collects what it prints. */
export function runStep(step: Step): StepResult {
  const [program = "", ...args] = step.command;
  const startedMs = performance.now();
  const result = spawnSync(join(root, "node_modules/.bin", program), args, {
    cwd: root,
    encoding: "utf8",
    maxBuffer: 64 << 20,
  });
  const output = `${result.stdout ?? ""}${result.stderr ?? ""}${result.error?.message ?? ""}`;
  return { passed: result.status === 0, output, tookMs: performance.now() - startedMs };
}
