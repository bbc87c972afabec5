// Every kind of problem that the mesh reports, in one table: the webhook, the analyzer, the command line and the docs read it.
// Codes are for ever: a row may be reworded, never reused. Other rooms add rows here.

import type { ObjectRef, Problem } from "#base";

export interface ProblemRow {
  readonly severity: Problem["severity"];
  readonly title: string;
  /** What to do when a problem has no remedy of its own. */
  readonly remedy: string;
}

export const problemTable = {
  MZ0001: {
    severity: "error",
    title: "Not YAML",
    remedy: "Correct the file at the line and column given.",
  },
  MZ0002: {
    severity: "error",
    title: "Not an object of the API",
    remedy: "Give it apiVersion, kind and metadata.name.",
  },
  MZ0003: {
    severity: "warning",
    title: "Unknown kind or version",
    remedy: "Check apiVersion and kind; this mesh does not read the object.",
  },
  MZ0101: {
    severity: "error",
    title: "Value of the wrong type",
    remedy: "Write a value of the type named.",
  },
  MZ0102: { severity: "error", title: "Required field is missing", remedy: "Add the field." },
  MZ0103: {
    severity: "warning",
    title: "Unknown field",
    remedy: "Check its spelling and its place; the API server drops it.",
  },
  MZ0104: {
    severity: "error",
    title: "Value is not one of those allowed",
    remedy: "Write one of the values named.",
  },
  MZ0105: { severity: "error", title: "Value out of bounds", remedy: "Keep to the bounds named." },
  MZ0106: {
    severity: "error",
    title: "Fields exclude each other",
    remedy: "Keep one of the fields named.",
  },
  MZ0107: {
    severity: "error",
    title: "A rule of the schema is broken",
    remedy: "Change the field so that the rule holds.",
  },
  MZ0201: { severity: "error", title: "Malformed value", remedy: "Write the value as expected." },
  MZ0202: {
    severity: "error",
    title: "Something is missing here",
    remedy: "Add what is named.",
  },
  MZ0203: {
    severity: "error",
    title: "Settings contradict each other",
    remedy: "Remove one of the settings named.",
  },
  MZ0204: { severity: "error", title: "Duplicate", remedy: "Remove or rename one of them." },
  MZ0205: {
    severity: "error",
    title: "Not allowed here",
    remedy: "Remove the setting, or use the one named.",
  },
  MZ0250: {
    severity: "warning",
    title: "Setting has no effect",
    remedy: "Remove it, or change what makes it idle.",
  },
  MZ0251: {
    severity: "warning",
    title: "Deprecated setting",
    remedy: "Use the newer setting named.",
  },
  MZ0252: {
    severity: "warning",
    title: "Rule is never reached",
    remedy: "Move it before the rule that takes its requests, or remove it.",
  },
  MZ0253: {
    severity: "warning",
    title: "Match is already taken",
    remedy: "Move it before the match that takes its requests, or remove it.",
  },
  MZ0254: {
    severity: "warning",
    title: "Probably not what is meant",
    remedy: "Check the setting.",
  },
  MZ0301: {
    severity: "warning",
    title: "Field has no effect yet",
    remedy: "See docs/reference/supported-fields.md; the object is kept as it is.",
  },
  MZ0302: {
    severity: "error",
    title: "Field is not supported",
    remedy: "See docs/reference/supported-fields.md; remove the field.",
  },
  MZ0401: {
    severity: "warning",
    title: "Server of a Gateway is not served",
    remedy: "Give it another port, bind or host; the older Gateway keeps what both want.",
  },
  MZ0402: {
    severity: "error",
    title: "Credential cannot be used",
    remedy:
      "Create the Secret in the namespace of the proxies, with tls.crt and tls.key (and ca.crt for mutual TLS).",
  },
  MZ0403: {
    severity: "error",
    title: "Patch does not fit Envoy's API",
    remedy: "Correct the field named; the patch is left out until then.",
  },
  MZ0404: {
    severity: "error",
    title: "Service account may not read Secrets",
    remedy:
      "Bind the service account to a Role of its namespace that lists secrets, or take the workload out of the selector. The API server is asked again within a minute.",
  },
  MZ0405: {
    severity: "warning",
    title: "Sidecars get no certificate",
    remedy:
      "Give the rule a workloadSelector for the sidecars that are to originate TLS, or export it to the namespaces of gateways alone.",
  },
  MZ0601: {
    severity: "error",
    title: "Destination is not known",
    remedy:
      "Name a Service or the host of a ServiceEntry that is exported to this namespace; until then it answers 503.",
  },
  MZ0602: {
    severity: "error",
    title: "Subset is not defined",
    remedy: "Define the subset in a DestinationRule for the host; until then it answers 503.",
  },
  MZ0603: {
    severity: "warning",
    title: "Subset selects no endpoint",
    remedy: "Correct the labels of the subset, or start workloads that have them; until then it answers 503.",
  },
  MZ0604: {
    severity: "error",
    title: "Gateway is not known",
    remedy: "Create the Gateway, or name it as namespace/name if it is in another namespace.",
  },
  MZ0605: {
    severity: "error",
    title: "Delegate cannot be used",
    remedy: "Name a VirtualService without hosts that routes by itself and is exported to this namespace.",
  },
  MZ0606: {
    severity: "warning",
    title: "Host belongs to another object",
    remedy: "Merge the two objects, or remove the host from one of them.",
  },
  MZ0607: {
    severity: "warning",
    title: "Host is no service",
    remedy: "Check its spelling and namespace, or create the Service.",
  },
  MZ0608: {
    severity: "warning",
    title: "Selects no workload",
    remedy: "Correct the selector, or start the workload that it names.",
  },
  MZ0609: {
    severity: "warning",
    title: "Patch touches nothing",
    remedy: "Compare its match with what `mizzen pc` shows of a proxy that it is for.",
  },
  MZ0610: {
    severity: "warning",
    title: "Very many routes",
    remedy: "Split the object by host, or use prefixes; every request walks the list until one fits.",
  },
  MZ0611: {
    severity: "error",
    title: "Keys of a JWT issuer cannot be fetched",
    remedy:
      "Check jwksUri and the way there; until there are keys, every token of the issuer is refused with 401.",
  },
  MZ0612: {
    severity: "warning",
    title: "Provider takes no telemetry of this kind",
    remedy:
      "Name an extension provider of MeshConfig: for access logs with envoyFileAccessLog, envoyOtelAls, envoyHttpAls or envoyTcpAls, or the built-in `envoy`; for tracing with opentelemetry or zipkin, whose service is in the mesh.",
  },
  MZ0613: {
    severity: "warning",
    title: "URL names no module",
    remedy:
      "Name an image as registry/repository:tag or with @sha256: and its digest, or give a URL of http, https or file.",
  },
  MZ0614: {
    severity: "warning",
    title: "Host belongs to another namespace",
    remedy:
      "Write the rule in the namespace of the service, or let the mesh take such rules for all clients (FOREIGN_ROUTES).",
  },
  MZ0615: {
    severity: "error",
    title: "Module cannot be fetched",
    remedy:
      "Check url, sha256 and imagePullSecret, and the way from the control plane to there; it is tried again and again.",
  },
  MZ0801: {
    severity: "error",
    title: "Annotation steers injection to what cannot work",
    remedy: "Correct or remove the annotation in the workload's pod template.",
  },
  MZ0802: {
    severity: "error",
    title: "proxy.istio.io/config cannot be read",
    remedy: "Write the fields of ProxyConfig as YAML, as `concurrency: 2`.",
  },
  MZ0803: {
    severity: "error",
    title: "Injection template cannot be used",
    remedy: "Correct the template in the ConfigMap istio-sidecar-injector, or the annotation that names it.",
  },
} as const satisfies Readonly<Record<string, ProblemRow>>;

export type ProblemCode = keyof typeof problemTable;

/** A problem with the severity and, unless given, the remedy of its row. */
export function makeProblem(
  code: ProblemCode,
  text: string,
  at: { readonly object?: ObjectRef; readonly path?: string } = {},
  fix?: string,
): Problem {
  const row = problemTable[code];
  return { code, severity: row.severity, at, text, fix: fix ?? row.remedy };
}
