// Parameters of a Gateway or of a class: YAML in a ConfigMap, each a part of an object that is deployed, to be laid over it.

import { parseYamlValue } from "#objects";
import type { Mistake } from "./findings.ts";

/** What may be laid over, in the order in which it is deployed. */
export const parameterNames = [
  "serviceAccount",
  "deployment",
  "service",
  "horizontalPodAutoscaler",
  "podDisruptionBudget",
] as const;

type Fields = Readonly<Record<string, unknown>>;

export type ParsedParameter =
  | { readonly kind: "fields"; readonly fields: Fields }
  | { readonly kind: "unfit"; readonly fault: string };

/** Names and owners are not for users to choose. */
const fixedMetadata: ReadonlySet<string> = new Set(["name", "namespace", "ownerReferences", "uid"]);

/** The fields of one parameter; none for an empty text. */
export function parseParameter(name: string, text: string): ParsedParameter {
  const parsed = parseYamlValue(text);
  if ("fault" in parsed) return unfit(`${name} is no YAML: ${parsed.fault}`);
  const given = parsed.value ?? {};
  if (!isFields(given)) return unfit(`${name} is no object`);
  const strange = Object.keys(given).find((field) => field !== "metadata" && field !== "spec");
  if (strange !== undefined) return unfit(`${name} may not set ${strange}, but metadata and spec alone`);
  for (const field of ["metadata", "spec"])
    if (!isFields(given[field] ?? {})) return unfit(`${field} of ${name} is no object`);
  const fixed = Object.keys(given["metadata"] ?? {}).find((field) => fixedMetadata.has(field));
  if (fixed !== undefined) return unfit(`${name} may not set metadata.${fixed}`);
  return { kind: "fields", fields: given };
}

function unfit(fault: string): ParsedParameter {
  return { kind: "unfit", fault: `parameter ${fault}` };
}

/** What is wrong with a ConfigMap's parameters. @param from whose they are, for the message */
export function parametersFault(
  data: Readonly<Record<string, string>> | undefined,
  from: string,
): Mistake | undefined {
  for (const name of parameterNames) {
    const text = data?.[name];
    const parsed = text === undefined ? undefined : parseParameter(name, text);
    if (parsed?.kind === "unfit") return { reason: "InvalidParameters", message: `${from}: ${parsed.fault}` };
  }
  return undefined;
}

function isFields(value: unknown): value is Fields {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
