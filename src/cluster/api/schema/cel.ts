// x-kubernetes-validations: CEL rules at any place of a schema, over `self` and, on updates, `oldSelf`.

import { Environment } from "@marcbachmann/cel-js";
import { invalidValue } from "../errors.ts";
import type { FieldError } from "../errors.ts";
import { isRecord } from "../json.ts";
import { celEnvironment } from "./cel-library.ts";
import { fieldPath, resolveSchema } from "./schema.ts";
import type { CelRule, Schema } from "./schema.ts";

type Program = ReturnType<Environment["parse"]>;

const programs = new Map<string, Program | Error>();

const schemasWithRules = new WeakMap<Schema, boolean>();

/** Violations of every rule in the schema. `previous` is undefined on create; transition rules are then left out. */
export function validateRules(value: unknown, previous: unknown, schema: Schema, path = ""): FieldError[] {
  const errors: FieldError[] = [];
  walk(value, previous, schema, path, errors);
  return errors;
}

function walk(value: unknown, previous: unknown, given: Schema, path: string, errors: FieldError[]): void {
  const schema = resolveSchema(given);
  if (value === undefined || value === null || !hasRules(schema)) return;
  for (const rule of schema["x-kubernetes-validations"] ?? []) {
    const error = checkRule(rule, value, previous, schema, path);
    if (error) errors.push(error);
  }
  if (Array.isArray(value)) {
    const { items } = schema;
    const keys =
      schema["x-kubernetes-list-type"] === "map" ? (schema["x-kubernetes-list-map-keys"] ?? []) : [];
    if (items) {
      value.forEach((item, i) =>
        walk(item, counterpart(item, previous, keys), items, `${path}[${i}]`, errors),
      );
    }
  } else if (isRecord(value)) {
    const before = isRecord(previous) ? previous : {};
    for (const [name, field] of Object.entries(value)) {
      const property = schema.properties?.[name] ?? schema.additionalProperties;
      if (typeof property === "object") walk(field, before[name], property, fieldPath(path, name), errors);
    }
  }
}

/** The item of the old list with the same key; lists that are not maps have no counterparts. */
function counterpart(item: unknown, previous: unknown, keys: readonly string[]): unknown {
  if (!Array.isArray(previous) || !isRecord(item) || keys.length === 0) return undefined;
  return previous.find((other: unknown) => isRecord(other) && keys.every((key) => other[key] === item[key]));
}

function hasRules(given: Schema): boolean {
  const schema = resolveSchema(given);
  const known = schemasWithRules.get(schema);
  if (known !== undefined) return known;
  schemasWithRules.set(schema, false);
  const parts = [...Object.values(schema.properties ?? {}), schema.items, schema.additionalProperties];
  const found =
    (schema["x-kubernetes-validations"]?.length ?? 0) > 0 ||
    parts.some((part) => typeof part === "object" && hasRules(part));
  schemasWithRules.set(schema, found);
  return found;
}

function checkRule(
  rule: CelRule,
  value: unknown,
  previous: unknown,
  schema: Schema,
  path: string,
): FieldError | undefined {
  if (previous === undefined && /\boldSelf\b/.test(rule.rule)) return undefined;
  const context = {
    self: toCel(value, schema),
    oldSelf: previous === undefined ? null : toCel(previous, schema),
  };
  const at = `${path}${rule.fieldPath ?? ""}`.replace(/^\./, "");
  const shown = isRecord(value) ? "object" : Array.isArray(value) ? "array" : value;
  try {
    if (evaluate(rule.rule, context) === true) return undefined;
    return invalidValue(at, shown, messageOf(rule, context));
  } catch (error) {
    const why = error instanceof Error ? error.message.split("\n")[0] : "failed";
    return invalidValue(at, shown, `rule evaluation error: ${why} (${rule.rule})`);
  }
}

function messageOf(rule: CelRule, context: Record<string, unknown>): string {
  if (rule.messageExpression !== undefined) {
    try {
      const text = evaluate(rule.messageExpression, context);
      if (typeof text === "string" && text !== "") return text;
    } catch {
      // A message that cannot be made is replaced by the written one, as in Kubernetes.
    }
  }
  return rule.message ?? `failed rule: ${rule.rule.trim()}`;
}

/** Runs one expression. Throws when it cannot be parsed or fails. */
export function evaluate(expression: string, context: Record<string, unknown>): unknown {
  let program = programs.get(expression);
  if (program === undefined) {
    try {
      program = celEnvironment.parse(withPlainHas(expression).replaceAll(".matches(", ".matchesRe2("));
    } catch (error) {
      program = error instanceof Error ? error : new Error("unreadable expression");
    }
    programs.set(expression, program);
  }
  if (program instanceof Error) throw program;
  return program(context);
}

/** Why a rule cannot be run, undefined when it can. */
export function ruleProblem(expression: string): string | undefined {
  const result = celEnvironment.check(withPlainHas(expression));
  return result.valid ? undefined : result.error?.message.split("\n")[0];
}

/** cel-js takes no index within has(): `has(a[0].b)` is asked as `"b" in a[0]`, the same thing for the maps that objects are here. */
function withPlainHas(expression: string): string {
  return expression.replaceAll(/\bhas\(\s*([^()]*\][^()]*)\.([A-Za-z_]\w*)\s*\)/g, '("$2" in $1)');
}

// Names that CEL reserves, or that are no CEL identifiers, are written escaped in rules.
const reserved = new Set(
  "true false null in as break const continue else for function if import let loop package namespace return var void while".split(
    " ",
  ),
);

/** JSON as CEL sees it: whole numbers are ints where the schema says integer, names escaped as Kubernetes does. */
export function toCel(value: unknown, given: Schema): unknown {
  const schema = resolveSchema(given);
  if (typeof value === "number") {
    const isInteger = schema.type === "integer" || (schema.type !== "number" && Number.isInteger(value));
    return isInteger ? BigInt(Math.trunc(value)) : value;
  }
  if (Array.isArray(value)) return value.map((item) => toCel(item, schema.items ?? {}));
  if (!isRecord(value)) return value;
  const result: Record<string, unknown> = {};
  for (const [name, field] of Object.entries(value)) {
    const property = schema.properties?.[name];
    const others = typeof schema.additionalProperties === "object" ? schema.additionalProperties : {};
    const converted = toCel(field, property ?? others);
    result[property ? escaped(name) : name] = converted;
  }
  return result;
}

function escaped(name: string): string {
  if (reserved.has(name)) return `__${name}__`;
  return name
    .replaceAll("__", "__underscores__")
    .replaceAll(".", "__dot__")
    .replaceAll("-", "__dash__")
    .replaceAll("/", "__slash__");
}
