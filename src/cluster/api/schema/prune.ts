// Removes what a schema does not know, and fills what it defaults: the two steps that change an object before it is validated.

import { copyOf, isRecord } from "../json.ts";
import { fieldPath, keepsUnknown, resolveSchema } from "./schema.ts";
import type { Schema } from "./schema.ts";

const metaFields = ["apiVersion", "kind", "metadata"];

/** A copy without unknown fields, and the paths of those, in document order. */
export function prune<T>(value: T, schema: Schema): { value: T; unknown: string[] } {
  const unknown: string[] = [];
  return { value: pruned(value, schema, "", unknown, true) as T, unknown };
}

function pruned(value: unknown, given: Schema, path: string, unknown: string[], isRoot = false): unknown {
  const schema = resolveSchema(given);
  if (Array.isArray(value)) {
    const items = schema.items;
    return items === undefined
      ? value
      : value.map((item, i) => pruned(item, items, `${path}[${i}]`, unknown));
  }
  if (!isRecord(value) || schema["x-kubernetes-int-or-string"]) return value;
  const embedded = isRoot || schema["x-kubernetes-embedded-resource"] === true;
  const result: Record<string, unknown> = {};
  for (const [name, field] of Object.entries(value)) {
    if (field === undefined) continue;
    const here = fieldPath(path, name);
    const property = schema.properties?.[name];
    // What metadata holds is not the schema's to say.
    if (embedded && metaFields.includes(name)) result[name] = field;
    else if (property !== undefined) result[name] = pruned(field, property, here, unknown);
    else if (typeof schema.additionalProperties === "object") {
      result[name] = pruned(field, schema.additionalProperties, here, unknown);
    } else if (schema.additionalProperties === true || keepsUnknown(schema)) result[name] = field;
    else if (isUntyped(schema)) result[name] = field;
    else unknown.push(here);
  }
  return result;
}

/** The any-schema of a built-in field (`{}`): everything is known there. */
function isUntyped(schema: Schema): boolean {
  return schema.type === undefined && schema.properties === undefined;
}

/** A copy with the schema's defaults where fields are absent (or null and not nullable), and without other such nulls. */
export function applyDefaults<T>(value: T, schema: Schema): T {
  return defaulted(value, schema) as T;
}

function defaulted(value: unknown, given: Schema): unknown {
  const schema = resolveSchema(given);
  if (Array.isArray(value)) {
    const items = schema.items;
    return items === undefined ? value : value.map((item) => defaulted(item, items));
  }
  if (!isRecord(value)) return value;
  const result: Record<string, unknown> = { ...value };
  for (const [name, property] of Object.entries(schema.properties ?? {})) {
    const isNull = result[name] === null && property.nullable !== true;
    if ((result[name] === undefined || isNull) && property.default !== undefined) {
      result[name] = copyOf(property.default);
    }
    // As in Kubernetes, where a field that may not be null and has no default is as good as absent.
    else if (isNull) delete result[name];
    if (result[name] !== undefined) result[name] = defaulted(result[name], property);
  }
  const others = schema.additionalProperties;
  if (typeof others === "object") {
    for (const name of Object.keys(result)) {
      if (schema.properties?.[name] === undefined) result[name] = defaulted(result[name], others);
    }
  }
  return result;
}
