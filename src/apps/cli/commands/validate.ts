// `mizzen validate`: checks objects in files as the cluster's webhook would, with file, line and column.

import { readFileSync } from "node:fs";
import { type Problem, renderProblem } from "#base";
import { admissionProblems, type KubeObject } from "#objects";
import pc from "picocolors";
import { type Command, NotSoError, textFlag, UsageError } from "../command.ts";
import { manifestFiles } from "../manifests.ts";
import { parsePlaced } from "../positions.ts";

export const validate: Command = {
  name: "validate",
  alias: "v",
  summary: "checks the objects of files: schema, rules, and fields that have no effect yet",
  flags: [
    { syntax: "-f, --file <path>", help: "a file, a folder, or - for standard input" },
    { syntax: "-o, --output <format>", help: "text or json", default: "text", choices: ["text", "json"] },
  ],
  examples: [
    {
      line: "mizzen validate -f virtual-service.yaml",
      does: "one file; exit code 1 when something is wrong",
    },
    { line: "kubectl get virtualservices -A -o yaml | mizzen validate -f -", does: "what a cluster has" },
  ],
  async run({ flags, io }) {
    const path = textFlag(flags, "file");
    if (path === undefined) throw new UsageError("validate wants a file or folder: mizzen validate -f FILE");
    const asJson = textFlag(flags, "output") === "json";
    const files = path === "-" ? ["-"] : manifestFiles(path);
    const found = files.flatMap(checkFile);
    if (asJson) io.out(JSON.stringify(found, undefined, 2));
    else
      for (const { where, problem } of found)
        io.out(`${where}: ${word(problem, io.isTerminal)}: ${renderProblem(problem)}`);
    const errors = found.filter(({ problem }) => problem.severity === "error").length;
    if (errors > 0) throw new NotSoError(`${counted(errors, "error")} in ${counted(files.length, "file")}`);
    if (!asJson) io.out(`${counted(files.length, "file")} checked: valid`);
  },
};

interface Finding {
  /** `file:line:column`. */
  readonly where: string;
  readonly problem: Problem;
}

function checkFile(file: string): Finding[] {
  const { objects, faults } = parsePlaced(read(file));
  const shown = file === "-" ? "standard input" : file;
  const syntax = faults.map(({ line, column, text }): Finding => {
    const problem: Problem = { code: "MZ0001", severity: "error", at: {}, text: `this is no YAML: ${text}` };
    return { where: `${shown}:${line}:${column}`, problem };
  });
  const rules = objects.flatMap(({ object, placeOf }) =>
    problemsOf(object).map((problem): Finding => {
      const { line, column } = placeOf(problem.at.path ?? "");
      return { where: `${shown}:${line}:${column}`, problem };
    }),
  );
  return [...syntax, ...rules];
}

function problemsOf(object: unknown): readonly Problem[] {
  if (isObject(object)) return admissionProblems(object);
  const text = "an object with apiVersion, kind and metadata.name is expected";
  return [{ code: "MZ0002", severity: "error", at: {}, text }];
}

function isObject(value: unknown): value is KubeObject {
  if (typeof value !== "object" || value === null) return false;
  const { apiVersion, kind, metadata } = value as {
    apiVersion?: unknown;
    kind?: unknown;
    metadata?: unknown;
  };
  return (
    typeof apiVersion === "string" &&
    typeof kind === "string" &&
    typeof metadata === "object" &&
    metadata !== null
  );
}

function read(file: string): string {
  try {
    return readFileSync(file === "-" ? 0 : file, "utf8");
  } catch (cause) {
    throw new NotSoError(
      `${file} cannot be read: ${cause instanceof Error ? cause.message : String(cause)}`,
      { cause },
    );
  }
}

function word({ severity }: Problem, isTerminal: boolean): string {
  if (!isTerminal) return severity;
  return severity === "error" ? pc.red(severity) : pc.yellow(severity);
}

function counted(count: number, noun: string): string {
  return `${count} ${noun}${count === 1 ? "" : "s"}`;
}
