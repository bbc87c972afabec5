// `mizzen validate`: checks objects in files as the cluster's webhook would, with file, line and column.

import { readFileSync } from "node:fs";
import { type Problem, renderProblem } from "#base";
import {
  admissionProblems,
  type ManifestProblem,
  parseManifest,
  placeProblem,
  renderPosition,
} from "#objects";
import pc from "picocolors";
import { type Command, NotSoError, textFlag, UsageError } from "../command.ts";
import { manifestFiles } from "../manifests.ts";

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
    // Loaded here alone: it brings the description of Envoy's whole API.
    const { envoyFilterMismatches } = await import("#envoy");
    const found = files.flatMap((file) => checkFile(file, { envoyFilter: envoyFilterMismatches }));
    if (asJson) io.out(JSON.stringify(found, undefined, 2));
    else
      for (const problem of found)
        io.out(`${renderPosition(problem)}: ${word(problem, io.isTerminal)}: ${renderProblem(problem)}`);
    const errors = found.filter(({ severity }) => severity === "error").length;
    if (errors > 0) throw new NotSoError(`${counted(errors, "error")} in ${counted(files.length, "file")}`);
    if (!asJson) io.out(`${counted(files.length, "file")} checked: valid`);
  },
};

/** As the webhook of the control plane judges them. */
function checkFile(file: string, context: Parameters<typeof admissionProblems>[1]): ManifestProblem[] {
  const { documents, problems } = parseManifest(read(file), file === "-" ? "standard input" : file);
  const found = documents.flatMap((document) =>
    admissionProblems(document.object, context).map((problem) => placeProblem(problem, document)),
  );
  return [...problems, ...found];
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
