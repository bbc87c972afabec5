// Runs the folder `validation`: is an object, a fragment of configuration or a plain value taken or refused, and is there a warning?

import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";

import { envoyFilterMismatches } from "#envoy";
import { hasErrors, validateObject, type KubeObject } from "#objects";
import type { Problem } from "#base";

import type { Failure, Score } from "./score.ts";
import { meshFragmentProblems, plainValueProblems } from "./validation-parts.ts";

interface Case {
  readonly id: string;
  readonly mode: "cr" | "wrapped" | "fragment" | "scalar";
  readonly kind: string;
  readonly object?: KubeObject;
  readonly fragment?: unknown;
  readonly fragmentPath?: string;
  readonly predicate?: string;
  readonly value?: unknown;
  readonly cliValid?: boolean;
  readonly crdSchemaErrors?: unknown;
  readonly expect: { readonly valid: boolean; readonly warning?: boolean };
}

const name = "validation";

export function run(folder: string): Promise<Score> {
  const failures: Failure[] = [];
  let total = 0;
  for (const file of readdirSync(folder).toSorted()) {
    if (!file.endsWith(".json") || file === "not-converted.json" || !existsSync(join(folder, file))) continue;
    for (const item of JSON.parse(readFileSync(join(folder, file), "utf8"), expand) as Case[]) {
      total++;
      const reason = judge(item);
      if (reason !== undefined) failures.push({ id: `${file.replace(".json", "")}/${item.id}`, reason });
    }
  }
  return Promise.resolve({
    name,
    passed: total - failures.length,
    failed: failures.length,
    knownDifferences: 0,
    failures,
  });
}

/** Long texts stand as `{"$repeat": ["a", 3]}`. */
function expand(_key: string, value: unknown): unknown {
  if (typeof value !== "object" || value === null) return value;
  if ("$repeat" in value) {
    const [text, times] = value.$repeat as [string, number];
    return text.repeat(times);
  }
  if ("$base64repeat" in value) {
    const [text, times] = value.$base64repeat as [string, number];
    return Buffer.from(text.repeat(times)).toString("base64");
  }
  return value;
}

function judge(item: Case): string | undefined {
  const problems = problemsOf(item);
  if (problems === undefined) return `nothing checks ${item.predicate ?? item.fragmentPath ?? item.kind}`;
  const valid = !hasErrors(problems);
  if (valid !== item.expect.valid && valid !== item.cliValid && !refusedBySchema(item, valid))
    return `expected ${item.expect.valid ? "taken" : "refused"}; ${render(problems)}`;
  const warned = problems.some(({ severity, code }) => severity === "warning" && code !== "MZ0103");
  if (
    item.mode === "cr" &&
    item.expect.valid &&
    item.expect.warning !== undefined &&
    warned !== item.expect.warning
  )
    return `expected ${item.expect.warning ? "a" : "no"} warning; ${render(problems)}`;
  return undefined;
}

/** An object that the API server refuses never reaches the rules that would take it. */
function refusedBySchema(item: Case, valid: boolean): boolean {
  return !valid && item.crdSchemaErrors !== undefined;
}

function render(problems: readonly Problem[]): string {
  return (
    problems.map(({ code, at, text }) => `${code} ${at.path ?? ""}: ${text}`).join("; ") || "no problem found"
  );
}

function problemsOf(item: Case): readonly Problem[] | undefined {
  if (item.object !== undefined) return validateObject(item.object, { envoyFilter: envoyFilterMismatches });
  if (item.mode === "scalar") return plainValueProblems(item.predicate ?? "", item.value);
  if (item.fragment === null) return [];
  return meshFragmentProblems(item.fragmentPath ?? "", item.fragment);
}
