// Checks a value against a structural schema and says what is wrong in the API server's words.

import { duplicate, invalidValue, notSupported, required, wrongType } from "../errors.ts";
import type { FieldError } from "../errors.ts";
import { isRecord, sameJson } from "../json.ts";
import { formatError } from "./formats.ts";
import { patternMatches } from "./pattern.ts";
import { fieldPath, resolveSchema } from "./schema.ts";
import type { Schema } from "./schema.ts";

// Beyond it the first ones are told: nobody reads more, and a huge object must not make a huge answer.
const errorsMax = 50;

/** Every violation, with its field path. CEL rules are checked elsewhere. */
export function validateSchema(value: unknown, schema: Schema, path = ""): FieldError[] {
  const errors: FieldError[] = [];
  check(value, schema, path, errors);
  return errors.slice(0, errorsMax);
}

function check(value: unknown, given: Schema, path: string, errors: FieldError[]): void {
  if (errors.length >= errorsMax) return;
  const schema = resolveSchema(given);
  if (value === null && (schema.nullable === true || isUntyped(schema))) return;
  if (!typeFits(value, schema)) {
    errors.push(
      wrongType(
        path,
        value,
        schema["x-kubernetes-int-or-string"] ? "integer,string" : (schema.type ?? "object"),
      ),
    );
    return;
  }
  if (schema.enum && !schema.enum.some((allowed) => sameJson(allowed, value))) {
    errors.push(notSupported(path, value, schema.enum));
  }
  if (typeof value === "string") checkString(value, schema, path, errors);
  else if (typeof value === "number") checkNumber(value, schema, path, errors);
  else if (Array.isArray(value)) checkArray(value, schema, path, errors);
  else if (isRecord(value)) checkObject(value, schema, path, errors);
  checkCombinations(value, schema, path, errors);
}

function isUntyped(schema: Schema): boolean {
  return schema.type === undefined;
}

function typeFits(value: unknown, schema: Schema): boolean {
  if (schema["x-kubernetes-int-or-string"]) return typeof value === "string" || typeof value === "number";
  switch (schema.type) {
    case "string":
      return typeof value === "string";
    case "integer":
      return typeof value === "number" && Number.isInteger(value);
    case "number":
      return typeof value === "number";
    case "boolean":
      return typeof value === "boolean";
    case "array":
      return Array.isArray(value);
    case "object":
      return isRecord(value);
    default:
      return true;
  }
}

function checkString(value: string, schema: Schema, path: string, errors: FieldError[]): void {
  const length = [...value].length;
  if (schema.maxLength !== undefined && length > schema.maxLength) {
    const message = `Too long: may not be more than ${schema.maxLength} bytes`;
    errors.push({ field: path, reason: "FieldValueTooLong", message });
  }
  if (schema.minLength !== undefined && length < schema.minLength) {
    errors.push(
      invalidValue(path, value, `${path} in body should be at least ${schema.minLength} chars long`),
    );
  }
  if (schema.pattern !== undefined && !patternMatches(schema.pattern, value)) {
    errors.push(invalidValue(path, value, `${path} in body should match '${schema.pattern}'`));
  }
  const wrongFormat = schema.format === undefined ? undefined : formatError(schema.format, value);
  if (wrongFormat !== undefined) {
    errors.push(
      invalidValue(path, value, `${path} in body must be of type ${schema.format}: ${wrongFormat}`),
    );
  }
}

function checkNumber(value: number, schema: Schema, path: string, errors: FieldError[]): void {
  const { minimum, maximum, multipleOf } = schema;
  if (minimum !== undefined && (schema.exclusiveMinimum ? value <= minimum : value < minimum)) {
    const words = schema.exclusiveMinimum ? "greater than" : "greater than or equal to";
    errors.push(invalidValue(path, value, `${path} in body should be ${words} ${minimum}`));
  }
  if (maximum !== undefined && (schema.exclusiveMaximum ? value >= maximum : value > maximum)) {
    const words = schema.exclusiveMaximum ? "less than" : "less than or equal to";
    errors.push(invalidValue(path, value, `${path} in body should be ${words} ${maximum}`));
  }
  if (multipleOf !== undefined && value % multipleOf !== 0) {
    errors.push(invalidValue(path, value, `${path} in body should be a multiple of ${multipleOf}`));
  }
  if (schema.format === "int32" && Math.abs(value) > 2 ** 31) {
    errors.push(invalidValue(path, value, `${path} in body must be of type int32: ${JSON.stringify(value)}`));
  }
}

function checkArray(value: unknown[], schema: Schema, path: string, errors: FieldError[]): void {
  if (schema.maxItems !== undefined && value.length > schema.maxItems) {
    const message = `Too many: ${value.length}: must have at most ${schema.maxItems} items`;
    errors.push({ field: path, reason: "FieldValueTooMany", message });
  }
  if (schema.minItems !== undefined && value.length < schema.minItems) {
    errors.push(
      invalidValue(path, value.length, `${path} in body should have at least ${schema.minItems} items`),
    );
  }
  const { items } = schema;
  if (items) value.forEach((item, i) => check(item, items, `${path}[${i}]`, errors));
  const listType = schema["x-kubernetes-list-type"];
  if (listType === "set" || schema.uniqueItems) checkUnique(value, (item) => item, path, errors);
  if (listType === "map") {
    const keys = schema["x-kubernetes-list-map-keys"] ?? [];
    checkUnique(value, (item) => pick(item, keys, items), path, errors);
  }
}

/** The key of an item; an absent key field counts as its default. */
function pick(item: unknown, keys: readonly string[], items: Schema | undefined): unknown {
  if (!isRecord(item)) return item;
  return Object.fromEntries(
    keys
      .map((key) => [key, item[key] ?? items?.properties?.[key]?.default])
      .filter(([, value]) => value !== undefined),
  );
}

function checkUnique(
  value: unknown[],
  keyOf: (item: unknown) => unknown,
  path: string,
  errors: FieldError[],
): void {
  const seen = new Set<string>();
  value.forEach((item, i) => {
    const key = keyOf(item);
    const text = JSON.stringify(key);
    if (seen.has(text)) errors.push(duplicate(`${path}[${i}]`, key));
    seen.add(text);
  });
}

function checkObject(
  value: Record<string, unknown>,
  schema: Schema,
  path: string,
  errors: FieldError[],
): void {
  for (const name of schema.required ?? []) {
    if (value[name] === undefined) errors.push(required(fieldPath(path, name)));
  }
  const count = Object.values(value).filter((field) => field !== undefined).length;
  if (schema.maxProperties !== undefined && count > schema.maxProperties) {
    const message = `Too many: ${count}: must have at most ${schema.maxProperties} items`;
    errors.push({ field: path, reason: "FieldValueTooMany", message });
  }
  if (schema.minProperties !== undefined && count < schema.minProperties) {
    errors.push(
      invalidValue(path, count, `${path} in body should have at least ${schema.minProperties} properties`),
    );
  }
  for (const [name, field] of Object.entries(value)) {
    const property = schema.properties?.[name];
    if (field === undefined) continue;
    if (property) check(field, property, fieldPath(path, name), errors);
    else if (typeof schema.additionalProperties === "object") {
      check(field, schema.additionalProperties, fieldPath(path, name), errors);
    }
  }
}

function checkCombinations(value: unknown, schema: Schema, path: string, errors: FieldError[]): void {
  for (const part of schema.allOf ?? []) check(value, part, path, errors);
  const fits = (part: Schema): boolean => validateSchema(value, part, path).length === 0;
  if (schema.anyOf && !schema.anyOf.some(fits)) {
    errors.push(
      invalidValue(path, shown(value), `${path} in body must validate at least one schema (anyOf)`),
    );
  }
  if (schema.oneOf) {
    const count = schema.oneOf.filter(fits).length;
    const text = `${path} in body must validate one and only one schema (oneOf).`;
    const found = count === 0 ? "Found none valid" : `Found ${count} valid alternatives`;
    if (count !== 1) errors.push(invalidValue(path, shown(value), `${text} ${found}`));
  }
  if (schema.not && fits(schema.not)) {
    errors.push(invalidValue(path, shown(value), `${path} in body must not validate the schema (not)`));
  }
}

function shown(value: unknown): unknown {
  return isRecord(value) || Array.isArray(value) ? (Array.isArray(value) ? "array" : "object") : value;
}
