// Label and field selectors, in kubectl's syntax, and metav1.LabelSelector objects.

import { badRequest } from "./errors.ts";
import { arrayOf, isRecord, recordOf, recordsOf, stringOf, valueAt } from "./json.ts";
import type { ApiObject } from "./store.ts";

export interface Requirement {
  readonly key: string;
  readonly operator: "in" | "notin" | "exists" | "absent" | "gt" | "lt";
  readonly values: readonly string[];
}

/** Parses `a=b,c in (d,e),!f`; an empty text selects everything. Throws ApiError 400. */
export function parseLabelSelector(text: string): Requirement[] {
  return splitTopLevel(text)
    .map((part) => part.trim())
    .filter((part) => part !== "")
    .map(parseRequirement);
}

function splitTopLevel(text: string): string[] {
  return text.split(/,(?![^(]*\))/);
}

function parseRequirement(part: string): Requirement {
  const set = /^(\S+)\s+(in|notin)\s*\(([^)]*)\)$/.exec(part);
  if (set) {
    const values = set[3]!.split(",").map((value) => value.trim());
    return { key: set[1]!, operator: set[2] === "in" ? "in" : "notin", values };
  }
  const pair = /^([^!=<>\s]+)\s*(==|=|!=|>|<)\s*([^=\s]*)$/.exec(part);
  if (pair) {
    const operators = { "=": "in", "==": "in", "!=": "notin", ">": "gt", "<": "lt" } as const;
    return { key: pair[1]!, operator: operators[pair[2] as keyof typeof operators], values: [pair[3]!] };
  }
  const bare = /^(!?)\s*([^!=<>\s]+)$/.exec(part);
  if (bare) return { key: bare[2]!, operator: bare[1] === "!" ? "absent" : "exists", values: [] };
  throw badRequest(`unable to parse requirement: found '${part}', expected: a label selector`);
}

export function matchesLabels(
  requirements: readonly Requirement[],
  labels: Readonly<Record<string, unknown>>,
): boolean {
  return requirements.every((requirement) => meets(requirement, labels[requirement.key]));
}

function meets({ operator, values }: Requirement, value: unknown): boolean {
  switch (operator) {
    case "in":
      return typeof value === "string" && values.includes(value);
    case "notin":
      return typeof value !== "string" || !values.includes(value);
    case "exists":
      return value !== undefined;
    case "absent":
      return value === undefined;
    case "gt":
      return typeof value === "string" && Number(value) > Number(values[0]);
    case "lt":
      return typeof value === "string" && Number(value) < Number(values[0]);
  }
}

/** A metav1.LabelSelector (matchLabels, matchExpressions). An empty one selects everything, an absent one too. */
export function selectorRequirements(selector: unknown): Requirement[] {
  const operators: Record<string, Requirement["operator"]> = {
    In: "in",
    NotIn: "notin",
    Exists: "exists",
    DoesNotExist: "absent",
  };
  const pairs = Object.entries(recordOf(valueAt(selector, "matchLabels")));
  return [
    ...pairs.map(([key, value]) => ({ key, operator: "in" as const, values: [stringOf(value)] })),
    ...recordsOf(valueAt(selector, "matchExpressions")).map((expression) => ({
      key: stringOf(expression["key"]),
      operator: operators[stringOf(expression["operator"])] ?? "exists",
      values: arrayOf(expression["values"]).map(stringOf),
    })),
  ];
}

export interface FieldRequirement {
  readonly path: string;
  readonly value: string;
  readonly equal: boolean;
}

/** Parses `metadata.name=a,status.phase!=Running`. Throws ApiError 400 for a field that cannot be selected by. */
export function parseFieldSelector(text: string, selectable: readonly string[]): FieldRequirement[] {
  return text
    .split(",")
    .filter((part) => part.trim() !== "")
    .map((part) => {
      const match = /^\s*([^!=\s]+)\s*(==|=|!=)\s*(.*?)\s*$/.exec(part);
      if (!match) throw badRequest(`invalid field selector: '${part}'; can't understand '${part}'`);
      const path = match[1]!;
      if (!selectable.includes(path)) throw badRequest(`field label not supported: ${path}`);
      return { path, value: match[3]!, equal: match[2] !== "!=" };
    });
}

export function matchesFields(requirements: readonly FieldRequirement[], object: ApiObject): boolean {
  return requirements.every(({ path, value, equal }) => (fieldText(object, path) === value) === equal);
}

function fieldText(object: ApiObject, path: string): string {
  const value = valueAt(object, ...path.split("."));
  return value === undefined || value === null || isRecord(value) ? "" : String(value);
}
