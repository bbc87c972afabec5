// The CEL rules of the schemas (`x-kubernetes-validations`), with the functions that a Kubernetes API server adds to CEL.
// Each rule is compiled once. A rule that cannot be evaluated is broken, as the API server sees it.

import { isIP } from "node:net";

import { Environment } from "@marcbachmann/cel-js";
import { RE2JS } from "re2js";

import { isLowerDnsLabel } from "./label-match.ts";
import type { Schema } from "./schema.ts";

export interface CelRule {
  readonly rule: string;
  readonly message?: string;
  readonly fieldPath?: string;
}

export interface BrokenRule {
  readonly text: string;
  /** As the rule says it: `.hostname`, or "" for the value itself. */
  readonly fieldPath: string;
}

class CelUrl {
  readonly scheme: string;
  constructor(text: string) {
    this.scheme = new URL(text).protocol.slice(0, -1);
  }
}

const environment = new Environment({ unlistedVariablesAreDyn: false, homogeneousAggregateLiterals: false })
  .registerVariable("self", "dyn")
  .registerType("Url", CelUrl)
  .registerFunction("isIP(string): bool", (text: string) => isIP(text) !== 0)
  .registerFunction("isURL(string): bool", (text: string) => isRequestUrl(text))
  .registerFunction("url(string): Url", (text: string) => new CelUrl(text))
  .registerFunction("Url.getScheme(): string", (url: CelUrl) => url.scheme)
  .registerFunction("isDnsLabel(string): bool", (text: string) => isLowerDnsLabel(text))
  .registerFunction("string.matchesRe2(string): bool", (text: string, pattern: string) =>
    re2(pattern).test(text),
  );

/** An absolute URL or an absolute path, as Go's ParseRequestURI reads one. */
function isRequestUrl(text: string): boolean {
  return text.startsWith("/") || (/^[a-zA-Z][-+.a-zA-Z0-9]*:/.test(text) && URL.canParse(text));
}

type Program = (context: { readonly self: unknown }) => unknown;

// Both caches hold what the committed schemas hold, no more.
const programs = new Map<string, Program | undefined>();
const regexes = new Map<string, RE2JS>();

function re2(pattern: string): RE2JS {
  let regex = regexes.get(pattern);
  if (regex === undefined) regexes.set(pattern, (regex = RE2JS.compile(pattern)));
  return regex;
}

/** The rules of a schema that its value breaks. Transition rules (`oldSelf`) need the former object and are the API server's. */
export function brokenRules(value: unknown, schema: Schema): BrokenRule[] {
  const rules = schema["x-kubernetes-validations"];
  if (rules === undefined || value === null) return [];
  const self = celValue(value, schema);
  return rules.flatMap(({ rule, message, fieldPath }) => {
    const program = compile(rule);
    if (program === undefined || holds(program, self)) return [];
    return [{ text: message ?? `the rule does not hold: ${rule}`, fieldPath: fieldPath ?? "" }];
  });
}

function holds(program: Program, self: unknown): boolean {
  try {
    return program({ self }) === true;
  } catch {
    return false;
  }
}

function compile(rule: string): Program | undefined {
  if (!programs.has(rule))
    programs.set(rule, rule.includes("oldSelf") ? undefined : environment.parse(translate(rule)));
  return programs.get(rule);
}

/** Says in the library's dialect what it lacks: has() behind an index, RE2 flags, the API server's formats. */
function translate(rule: string): string {
  return rule
    .replace(/has\(([\w.]+\[\d+\](?:\.\w+)*)\.(\w+)\)/g, '("$2" in $1)')
    .replaceAll(".matches(", ".matchesRe2(")
    .replaceAll("format.dns1123Label().validate(self) == null", "isDnsLabel(self)");
}

/** Integers as CEL's int, and names that CEL reserves also under their escaped form. */
function celValue(value: unknown, schema: Schema | undefined): unknown {
  if (typeof value === "number")
    return schema?.type === "number" ? value : Number.isInteger(value) ? BigInt(value) : value;
  if (Array.isArray(value)) return value.map((item) => celValue(item, schema?.items));
  if (typeof value !== "object" || value === null) return value;
  const result: Record<string, unknown> = {};
  for (const [key, child] of Object.entries(value)) {
    const additional = schema?.additionalProperties;
    const converted = celValue(
      child,
      schema?.properties?.[key] ?? (typeof additional === "object" ? additional : undefined),
    );
    result[key] = converted;
    if (key === "namespace" && schema?.properties !== undefined) result["__namespace__"] = converted;
  }
  return result;
}
