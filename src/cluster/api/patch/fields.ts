// Field sets: which paths of an object somebody owns, in the notation of metadata.managedFields (FieldsV1).
//
// A set is a tree: `{"f:spec": {"f:replicas": {}, "f:containers": {"k:{\"name\":\"a\"}": {".": {}, "f:image": {}}}}}`. A leaf is an
// empty record; "." in a record says that the item or field itself is owned beside what is in it.

import { isRecord, sameJson } from "../json.ts";
import type { JsonRecord } from "../json.ts";
import { resolveSchema } from "../schema/schema.ts";
import type { Schema } from "../schema/schema.ts";
import { itemSchema, keyDefaults, schemaBelow } from "./lists.ts";
import type { ListMerge, ListRules } from "./lists.ts";

export type FieldSet = JsonRecord;

// The server's own: nobody manages them.
const unmanaged = new Set(["apiVersion", "kind"]);
const unmanagedMeta = new Set(
  "name namespace uid resourceVersion generation creationTimestamp deletionTimestamp deletionGracePeriodSeconds managedFields selfLink generateName".split(
    " ",
  ),
);

interface Place {
  readonly path: readonly string[];
  readonly schema: Schema | undefined;
  readonly rules: ListRules;
}

/** All fields that the object sets. */
export function fieldsOf(object: unknown, schema: Schema, rules: ListRules): FieldSet {
  return collect(object, { path: [], schema: resolveSchema(schema), rules });
}

function collect(value: unknown, place: Place): FieldSet {
  const set: FieldSet = {};
  if (Array.isArray(value)) {
    const how = place.rules(place.path, place.schema);
    if (how.kind === "atomic") return {};
    for (const item of value) {
      const below = how.kind === "set" ? {} : { ".": {}, ...collect(item, itemPlace(place)) };
      set[itemKey(item, how)] = below;
    }
    return set;
  }
  if (!isRecord(value) || isAtomicMap(place.schema)) return {};
  for (const [name, field] of Object.entries(value)) {
    if (place.path.length === 0 && unmanaged.has(name)) continue;
    if (place.path.length === 1 && place.path[0] === "metadata" && unmanagedMeta.has(name)) continue;
    const below = collect(field, fieldPlace(place, name));
    // An object always has metadata: nobody owns it as such, only fields in it.
    if (place.path.length === 0 && name === "metadata" && isEmpty(below)) continue;
    set[`f:${name}`] = below;
  }
  return set;
}

function isAtomicMap(schema: Schema | undefined): boolean {
  return schema?.["x-kubernetes-map-type"] === "atomic";
}

function fieldPlace(place: Place, name: string): Place {
  return { ...place, path: [...place.path, name], schema: schemaBelow(place.schema, name) };
}

function itemPlace(place: Place): Place {
  return { ...place, schema: itemSchema(place.schema) };
}

export function itemKey(item: unknown, how: ListMerge): string {
  if (how.kind !== "map" || !isRecord(item)) return `v:${JSON.stringify(item)}`;
  const keys = how.keys
    .map((key) => [key, item[key] ?? keyDefaults[key]] as const)
    .filter(([, value]) => value !== undefined)
    .sort(([a], [b]) => (a < b ? -1 : 1));
  return `k:${JSON.stringify(Object.fromEntries(keys))}`;
}

/** Fields that are new in `after` or differ from `before`. */
export function changedFields(before: unknown, after: unknown, schema: Schema, rules: ListRules): FieldSet {
  return changed(before, after, { path: [], schema: resolveSchema(schema), rules }) ?? {};
}

function changed(before: unknown, after: unknown, place: Place): FieldSet | undefined {
  if (sameJson(before, after)) return undefined;
  if (before === undefined) return collect(after, place);
  if (Array.isArray(after) && Array.isArray(before)) {
    const how = place.rules(place.path, place.schema);
    return how.kind === "atomic" ? {} : changedItems(before, after, how, place);
  }
  if (!isRecord(after) || !isRecord(before) || isAtomicMap(place.schema)) return {};
  const set: FieldSet = {};
  for (const [name, field] of Object.entries(after)) {
    if (place.path.length === 0 && unmanaged.has(name)) continue;
    if (place.path.length === 1 && place.path[0] === "metadata" && unmanagedMeta.has(name)) continue;
    const difference = changed(before[name], field, fieldPlace(place, name));
    if (difference !== undefined) set[`f:${name}`] = difference;
  }
  return Object.keys(set).length === 0 ? undefined : set;
}

function changedItems(
  before: unknown[],
  after: unknown[],
  how: ListMerge,
  place: Place,
): FieldSet | undefined {
  const set: FieldSet = {};
  const old = new Map(before.map((item) => [itemKey(item, how), item]));
  for (const item of after) {
    const key = itemKey(item, how);
    if (!old.has(key)) set[key] = how.kind === "set" ? {} : { ".": {}, ...collect(item, itemPlace(place)) };
    else {
      const difference = how.kind === "set" ? undefined : changed(old.get(key), item, itemPlace(place));
      if (difference !== undefined) set[key] = difference;
    }
  }
  return Object.keys(set).length === 0 ? undefined : set;
}

/** What is in either. */
export function union(a: FieldSet, b: FieldSet): FieldSet {
  const result: FieldSet = { ...a };
  for (const [key, below] of Object.entries(b)) {
    result[key] = isRecord(result[key]) && isRecord(below) ? union(result[key], below) : below;
  }
  return result;
}

/** What is in `a` and not in `b`; a record whose leaves are all gone is gone. */
export function subtract(a: FieldSet, b: FieldSet): FieldSet {
  const result: FieldSet = {};
  for (const [key, below] of Object.entries(a)) {
    const other = b[key];
    if (!isRecord(other)) result[key] = below;
    else if (isRecord(below) && Object.keys(below).length > 0) {
      const rest = subtract(below, other);
      if (Object.keys(rest).length > 0) result[key] = rest;
    }
  }
  return result;
}

/** What is in both: the leaves of the one that the other has too. */
export function intersect(a: FieldSet, b: FieldSet): FieldSet {
  const result: FieldSet = {};
  for (const [key, below] of Object.entries(a)) {
    const other = b[key];
    if (!isRecord(other) || !isRecord(below)) continue;
    if (Object.keys(below).length === 0 || Object.keys(other).length === 0) {
      if (Object.keys(below).length === 0 && Object.keys(other).length === 0) result[key] = {};
      continue;
    }
    const both = intersect(below, other);
    if (Object.keys(both).length > 0) result[key] = both;
  }
  return result;
}

export function isEmpty(set: FieldSet): boolean {
  return Object.keys(set).length === 0;
}

/** The leaves, as the paths that a conflict names: `.spec.replicas`, `.spec.containers[name="a"].image`. */
export function leafPaths(set: FieldSet, path = ""): string[] {
  return Object.entries(set).flatMap(([key, below]) => {
    if (key === ".") return [];
    const here = path + stepText(key);
    const inner = isRecord(below) ? leafPaths(below, here) : [];
    return inner.length > 0 ? inner : [here];
  });
}

function stepText(key: string): string {
  if (key.startsWith("f:")) return `.${key.slice(2)}`;
  if (key.startsWith("v:")) return `[=${key.slice(2)}]`;
  const keys = Object.entries(JSON.parse(key.slice(2)) as JsonRecord);
  return `[${keys.map(([name, value]) => `${name}=${JSON.stringify(value)}`).join(",")}]`;
}
