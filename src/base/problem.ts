// A user's mistake is a value. Every problem has a code in the table of `objects` (severity, text, remedy);
// the webhook, the analyzer, the command line and the docs all render the same value.

/** Names one object of the API. `namespace` is "" for cluster-scoped kinds. */
export interface ObjectRef {
  readonly kind: string;
  readonly namespace: string;
  readonly name: string;
}

export interface Problem {
  /** Stable code, e.g. "MZ0101"; the table in `objects` says severity and remedy. */
  readonly code: string;
  readonly severity: "error" | "warning" | "info";
  /** The object at fault and the path of the field in it (`spec.http[0].route[1].weight`), as far as known. */
  readonly at: { readonly object?: ObjectRef; readonly path?: string };
  /** One sentence: what is wrong. */
  readonly text: string;
  /** One sentence: what to do about it. */
  readonly fix?: string;
}

/** Kinds whose objects hold what Envoy alone can judge: code, modules, its own configuration. */
const unchecked: ReadonlySet<string> = new Set(["EnvoyFilter", "TrafficExtension", "WasmPlugin"]);

/** Orders objects behind a rejected resource: everything that has been checked is the less likely cause. */
export function likelierCauseFirst(a: ObjectRef, b: ObjectRef): number {
  return Number(unchecked.has(b.kind)) - Number(unchecked.has(a.kind));
}

/** Renders `Kind namespace/name`, or `Kind name` for cluster-scoped objects. */
export function renderRef(ref: ObjectRef): string {
  return ref.namespace === "" ? `${ref.kind} ${ref.name}` : `${ref.kind} ${ref.namespace}/${ref.name}`;
}

/** Renders one problem on one line: object, field, reason, remedy. */
export function renderProblem(problem: Problem): string {
  const where = [problem.at.object && renderRef(problem.at.object), problem.at.path]
    .filter(Boolean)
    .join(" ");
  const fix = problem.fix === undefined ? "" : ` (${problem.fix})`;
  return `${where === "" ? "" : `${where}: `}${problem.text}${fix} [${problem.code}]`;
}
