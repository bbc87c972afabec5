// Checks a value against a structural schema, as a Kubernetes API server does with the schema of a CRD: types, bounds,
// enums, alternatives, CEL rules. An own walk, so that every problem has the path of its field.

import { brokenRules, type CelRule } from "./cel.ts";
import { parseDurationNs } from "./duration.ts";
import meshSchemas from "./generated/mesh-schemas.json" with { type: "json" };
import schemas from "./generated/schemas.json" with { type: "json" };
import { groupOf, versionOf } from "./kinds.ts";
import { pathOf, type Report } from "./report.ts";
import { show } from "./values.ts";

export interface Schema {
  readonly type?: string;
  readonly format?: string;
  readonly enum?: readonly unknown[];
  readonly properties?: Readonly<Record<string, Schema>>;
  readonly required?: readonly string[];
  readonly items?: Schema;
  readonly additionalProperties?: Schema | boolean;
  readonly default?: unknown;
  readonly nullable?: boolean;
  readonly pattern?: string;
  readonly minimum?: number;
  readonly maximum?: number;
  readonly exclusiveMinimum?: boolean;
  readonly exclusiveMaximum?: boolean;
  readonly minLength?: number;
  readonly maxLength?: number;
  readonly minItems?: number;
  readonly maxItems?: number;
  readonly minProperties?: number;
  readonly maxProperties?: number;
  readonly oneOf?: readonly Schema[];
  readonly anyOf?: readonly Schema[];
  readonly allOf?: readonly Schema[];
  readonly not?: Schema;
  readonly "x-kubernetes-preserve-unknown-fields"?: boolean;
  readonly "x-kubernetes-int-or-string"?: boolean;
  readonly "x-kubernetes-list-type"?: string;
  readonly "x-kubernetes-list-map-keys"?: readonly string[];
  readonly "x-kubernetes-validations"?: readonly CelRule[];
}

interface Entry {
  readonly versions: Readonly<Record<string, number>>;
  readonly schemas: readonly Schema[];
}

const table = schemas as unknown as Readonly<Record<string, Entry>>;

/** The schema of an object's kind in its version, without metadata and status; undefined when there is none. */
export function schemaOf(apiVersion: string, kind: string): Schema | undefined {
  const entry = table[`${groupOf(apiVersion)}/${kind}`];
  const index = entry?.versions[versionOf(apiVersion)];
  return index === undefined ? undefined : entry?.schemas[index];
}

/** Of the kinds that have a schema: `group/kind` and the versions in which they are served. */
export function schemaKinds(): readonly {
  readonly group: string;
  readonly kind: string;
  readonly versions: readonly string[];
}[] {
  return Object.entries(table).map(([name, entry]) => {
    const [group = "", kind = ""] = name.split("/");
    return { group, kind, versions: Object.keys(entry.versions) };
  });
}

export const meshSchemaOf = (name: "MeshConfig" | "ProxyConfig" | "MeshNetworks"): Schema =>
  meshSchemas[name] as Schema;

type Json = unknown;
type JsonObject = Readonly<Record<string, Json>>;

const isObject = (value: Json): value is JsonObject =>
  typeof value === "object" && value !== null && !Array.isArray(value);

/** A copy in which absent fields that have a default stand. Shares what it does not change. */
export function withDefaults(value: Json, schema: Schema): Json {
  if (Array.isArray(value))
    return schema.items === undefined ? value : value.map((item) => withDefaults(item, schema.items!));
  if (!isObject(value)) return value;
  const result: Record<string, Json> = {};
  for (const [key, child] of Object.entries(value)) {
    const inner =
      schema.properties?.[key] ??
      (typeof schema.additionalProperties === "object" ? schema.additionalProperties : undefined);
    result[key] = inner === undefined ? child : withDefaults(child, inner);
  }
  for (const [key, inner] of Object.entries(schema.properties ?? {}))
    if (result[key] === undefined && inner.default !== undefined)
      result[key] = structuredClone(inner.default);
  return result;
}

/** Reports everything in which a value differs from its schema. */
export function checkSchema(value: Json, schema: Schema, path: string, report: Report): void {
  if (value === null && schema.nullable === true) return;
  if (!checkType(value, schema, path, report)) return;
  if (schema.enum !== undefined && !schema.enum.includes(value))
    report.add(
      "MZ0104",
      path,
      `${show(value)} is not allowed: expected one of ${schema.enum.filter((word) => word !== "").join(", ")}`,
    );
  if (typeof value === "number") checkNumber(value, schema, path, report);
  if (typeof value === "string") checkText(value, schema, path, report);
  if (Array.isArray(value)) checkList(value, schema, path, report);
  if (isObject(value)) checkObject(value, schema, path, report);
  checkAlternatives(value, schema, path, report);
  for (const broken of brokenRules(value, schema))
    report.add("MZ0107", broken.fieldPath === "" ? path : `${path}${broken.fieldPath}`, broken.text);
}

function checkType(value: Json, schema: Schema, path: string, report: Report): boolean {
  if (schema["x-kubernetes-int-or-string"] === true) {
    if (Number.isInteger(value) || typeof value === "string") return true;
    report.add("MZ0101", path, `found ${describe(value)}, expected an integer or a text`);
    return false;
  }
  if (schema.type === undefined || typeMatches(value, schema.type)) return true;
  report.add("MZ0101", path, `found ${describe(value)}, expected ${typeNames[schema.type] ?? schema.type}`);
  return false;
}

const typeNames: Readonly<Record<string, string>> = {
  string: "a text",
  integer: "an integer",
  number: "a number",
  boolean: "true or false",
  array: "a list",
  object: "an object",
};

function typeMatches(value: Json, type: string): boolean {
  switch (type) {
    case "integer":
      return Number.isInteger(value);
    case "array":
      return Array.isArray(value);
    case "object":
      return isObject(value);
    default:
      return typeof value === type;
  }
}

function describe(value: Json): string {
  if (value === null) return "null";
  if (Array.isArray(value)) return "a list";
  if (typeof value === "object") return "an object";
  const text = show(value);
  return text.length > 80 ? `${text.slice(0, 77)}...` : text;
}

function checkNumber(value: number, schema: Schema, path: string, report: Report): void {
  const { minimum, maximum } = schema;
  if (minimum !== undefined && (schema.exclusiveMinimum === true ? value <= minimum : value < minimum))
    report.add("MZ0105", path, `${value} is too small: expected at least ${minimum}`);
  if (maximum !== undefined && (schema.exclusiveMaximum === true ? value >= maximum : value > maximum))
    report.add("MZ0105", path, `${value} is too large: expected at most ${maximum}`);
}

function checkText(value: string, schema: Schema, path: string, report: Report): void {
  const length = [...value].length;
  if (schema.minLength !== undefined && length < schema.minLength)
    report.add(
      "MZ0105",
      path,
      value === ""
        ? "the text is empty"
        : `the text has ${length} characters, at least ${schema.minLength} are expected`,
    );
  if (schema.maxLength !== undefined && length > schema.maxLength)
    report.add("MZ0105", path, `the text has ${length} characters, at most ${schema.maxLength} are allowed`);
  if (schema.pattern !== undefined && !compiled(schema.pattern).test(value))
    report.add("MZ0105", path, `${describe(value)} does not have the form ${schema.pattern}`);
  if (schema.format === "duration" && parseDurationNs(value) === undefined)
    report.add("MZ0101", path, `${describe(value)} is not a duration: expected a text such as 5s or 250ms`);
}

const patterns = new Map<string, RegExp>();

/** Patterns come from the committed schemas alone, so the cache is bounded by them. */
function compiled(pattern: string): RegExp {
  let regex = patterns.get(pattern);
  if (regex === undefined) patterns.set(pattern, (regex = new RegExp(pattern, "u")));
  return regex;
}

function checkList(value: readonly Json[], schema: Schema, path: string, report: Report): void {
  if (schema.minItems !== undefined && value.length < schema.minItems)
    report.add(
      "MZ0105",
      path,
      `the list has ${value.length} items, at least ${schema.minItems} are expected`,
    );
  if (schema.maxItems !== undefined && value.length > schema.maxItems)
    report.add("MZ0105", path, `the list has ${value.length} items, at most ${schema.maxItems} are allowed`);
  if (schema.items !== undefined)
    for (const [index, item] of value.entries()) checkSchema(item, schema.items, pathOf(path, index), report);
  checkUnique(value, schema, path, report);
}

function checkUnique(value: readonly Json[], schema: Schema, path: string, report: Report): void {
  const listType = schema["x-kubernetes-list-type"];
  if (listType !== "set" && listType !== "map") return;
  const keys = schema["x-kubernetes-list-map-keys"] ?? [];
  const seen = new Set<string>();
  for (const [index, item] of value.entries()) {
    const identity = show(listType === "map" && isObject(item) ? keys.map((key) => item[key]) : item);
    if (seen.has(identity))
      report.add(
        "MZ0204",
        pathOf(path, index),
        listType === "map"
          ? `${keys.join(", ")} stands twice in the list`
          : `${identity} stands twice in the list`,
      );
    seen.add(identity);
  }
}

function checkObject(value: JsonObject, schema: Schema, path: string, report: Report): void {
  const count = Object.keys(value).length;
  if (schema.minProperties !== undefined && count < schema.minProperties)
    report.add(
      "MZ0105",
      path,
      `the object has ${count} fields, at least ${schema.minProperties} are expected`,
    );
  if (schema.maxProperties !== undefined && count > schema.maxProperties)
    report.add("MZ0105", path, `the object has ${count} fields, at most ${schema.maxProperties} are allowed`);
  for (const name of schema.required ?? [])
    if (value[name] === undefined) report.add("MZ0102", pathOf(path, name), `${name} is missing`);
  for (const [name, child] of Object.entries(value)) {
    if (child === undefined) continue;
    const inner =
      schema.properties !== undefined && Object.hasOwn(schema.properties, name)
        ? schema.properties[name]
        : schema.additionalProperties;
    if (typeof inner === "object") checkSchema(child, inner, pathOf(path, name), report);
    else if (inner !== true && isClosed(schema)) reportUnknown(name, schema, path, report);
  }
}

/** Whether fields that the schema does not name are unknown. Alternatives name only what they require. */
function isClosed(schema: Schema): boolean {
  return (
    schema.type === "object" &&
    schema.properties !== undefined &&
    schema["x-kubernetes-preserve-unknown-fields"] !== true
  );
}

function reportUnknown(name: string, schema: Schema, path: string, report: Report): void {
  const near = nearest(name, Object.keys(schema.properties ?? {}));
  report.add(
    "MZ0103",
    pathOf(path, name),
    `${name} is no field here${near === undefined ? "" : `: is ${near} meant?`}`,
  );
}

/** The known word that is at most two edits away, or differs in case alone. */
function nearest(word: string, known: readonly string[]): string | undefined {
  const plain = (text: string) => text.toLowerCase().replaceAll("_", "");
  return (
    known.find((other) => plain(other) === plain(word)) ??
    known.find((other) => editDistance(plain(other), plain(word)) <= 2)
  );
}

function editDistance(one: string, other: string): number {
  let row = Array.from({ length: other.length + 1 }, (_, index) => index);
  for (const [i, char] of [...one].entries()) {
    const next = [i + 1];
    for (const [j, against] of [...other].entries())
      next.push(
        Math.min((next[j] ?? 0) + 1, (row[j + 1] ?? 0) + 1, (row[j] ?? 0) + Number(char !== against)),
      );
    row = next;
  }
  return row[other.length] ?? 0;
}

function checkAlternatives(value: Json, schema: Schema, path: string, report: Report): void {
  if (schema.oneOf !== undefined) {
    const holding = schema.oneOf.filter((option) => matches(value, option));
    if (holding.length !== 1) {
      const names = schema.oneOf.flatMap((option) => option.required ?? []);
      const set = isObject(value) ? names.filter((name) => value[name] !== undefined) : [];
      report.add(
        "MZ0106",
        path,
        set.length > 1
          ? `${set.join(" and ")} are set: set only one of ${[...new Set(names)].join(", ")}`
          : `set exactly one of ${[...new Set(names)].join(", ")}`,
      );
    }
  }
  if (
    schema.anyOf !== undefined &&
    schema["x-kubernetes-int-or-string"] !== true &&
    !schema.anyOf.some((option) => matches(value, option))
  )
    report.add(
      "MZ0106",
      path,
      `set at least one of ${schema.anyOf.flatMap((option) => option.required ?? []).join(", ")}`,
    );
  for (const option of schema.allOf ?? [])
    if (!matches(value, option)) report.add("MZ0106", path, "a condition of the schema does not hold");
  if (schema.not !== undefined && matches(value, schema.not))
    report.add("MZ0106", path, "an excluded combination of fields is set");
}

function matches(value: Json, schema: Schema): boolean {
  let good = true;
  const silent: Report = { problems: [], add: (code) => void (good &&= code === "MZ0103"), value: () => {} };
  checkSchema(value, schema, "", silent);
  return good;
}
