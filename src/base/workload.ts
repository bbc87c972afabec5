// What the mesh says about a workload in telemetry, packed into one short text. The CA writes it into the Subject
// of a workload's certificate, the translators into an endpoint's metadata, Envoy carries it as one tag, and the
// agent unpacks it into Istio's labels at scrape: one tag costs Envoy a seventh of seven.

export interface WorkloadFacts {
  readonly workload: string;
  readonly namespace: string;
  readonly app: string;
  readonly version: string;
  readonly canonicalService: string;
  readonly canonicalRevision: string;
  readonly cluster: string;
}

/** Longest single fact that is kept, in characters: beyond it the text is cut, since it becomes a metric label. */
const factLengthMax = 100;

const order = [
  "workload",
  "namespace",
  "app",
  "version",
  "canonicalService",
  "canonicalRevision",
  "cluster",
] as const;

/** Istio's words for what is not known. */
export const unknownWorkload: WorkloadFacts = {
  workload: "unknown",
  namespace: "unknown",
  app: "unknown",
  version: "unknown",
  canonicalService: "unknown",
  canonicalRevision: "latest",
  cluster: "unknown",
};

/**
 * Renders the facts as `workload|namespace|app|version|canonical service|canonical revision|cluster`. Characters that
 * Kubernetes names and label values cannot have become `_`, so no fact can pose as another or end a certificate's field.
 */
export function packWorkload(facts: Partial<WorkloadFacts>): string {
  return order.map((key) => cleanFact(facts[key] ?? "")).join("|");
}

/** Parses what `packWorkload` rendered; missing and empty facts become Istio's `unknown` (`latest` for the revision). */
export function unpackWorkload(text: string): WorkloadFacts {
  const parts = text.split("|");
  if (parts.length !== order.length) return unknownWorkload;
  const facts: Record<keyof WorkloadFacts, string> = { ...unknownWorkload };
  order.forEach((key, at) => {
    if (parts[at] !== "" && parts[at] !== undefined) facts[key] = parts[at];
  });
  return facts;
}

/** What a workload's Subject looks like where Envoy prints it (RFC 2253): `description=a|b|c|d|e|f|g`. */
export const subjectPrefix = "description=";

/** Finds the packed facts in a Subject as Envoy prints it; "" if there are none, as in a foreign certificate. */
export function workloadOfSubject(subject: string): string {
  const field = subject.split(",").find((part) => part.startsWith(subjectPrefix));
  return field === undefined ? "" : field.slice(subjectPrefix.length);
}

function cleanFact(fact: string): string {
  return fact.slice(0, factLengthMax).replace(/[^A-Za-z0-9._/:-]/g, "_");
}
