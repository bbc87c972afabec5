// Server-side apply: fields have owners, an applier changes what it owns, and takes from others only by force.

import { applyConflict } from "../errors.ts";
import { isRecord, sameJson } from "../json.ts";
import type { JsonRecord } from "../json.ts";
import type { Schema } from "../schema/schema.ts";
import { resolveSchema } from "../schema/schema.ts";
import type { ApiObject, ManagedFields } from "../store.ts";
import {
  changedFields,
  fieldsOf,
  intersect,
  isEmpty,
  itemKey,
  leafPaths,
  subtract,
  union,
} from "./fields.ts";
import type { FieldSet } from "./fields.ts";
import { itemSchema, schemaBelow } from "./lists.ts";
import type { ListMerge, ListRules } from "./lists.ts";

export interface Manager {
  readonly name: string;
  readonly operation: "Apply" | "Update";
  readonly apiVersion: string;
  /** RFC 3339. */
  readonly time: string;
  readonly subresource?: string;
}

interface Shape {
  readonly schema: Schema;
  readonly rules: ListRules;
}

/**
 * The object that results from applying `wanted` over `current`, with managedFields brought up to date. Throws ApiError 409 naming
 * every field that another manager owns with a different value, unless forced.
 */
export function serverSideApply(
  current: ApiObject | undefined,
  wanted: ApiObject,
  manager: Manager,
  force: boolean,
  { schema, rules }: Shape,
): ApiObject {
  const applied = fieldsOf(wanted, schema, rules);
  const entries = current?.metadata.managedFields ?? [];
  const others = entries.filter((entry) => !isOf(entry, manager));
  const own = entries.find((entry) => isOf(entry, manager));
  const base: ApiObject = current ?? { ...wanted, metadata: { name: wanted.metadata.name } };
  const merged = mergeApplied(base, wanted, { path: [], schema: resolveSchema(schema), rules }) as ApiObject;
  const changes = changedFields(base, merged, schema, rules);
  const contested = others
    .map((entry) => ({ entry, fields: intersect(intersect(entry.fieldsV1, applied), changes) }))
    .filter(({ fields }) => !isEmpty(fields));
  if (contested.length > 0 && !force) {
    throw applyConflict(
      contested.flatMap(({ entry, fields }) =>
        leafPaths(fields).map((field) => ({
          reason: "FieldManagerConflict",
          message: conflictText(entry),
          field,
        })),
      ),
    );
  }
  const remaining = others.map((entry) => {
    const lost = contested.find((one) => one.entry === entry);
    return lost ? { ...entry, fieldsV1: subtract(entry.fieldsV1, lost.fields) } : entry;
  });
  const heldByOthers = remaining.reduce<FieldSet>((set, entry) => union(set, entry.fieldsV1), {});
  const dropped = own ? subtract(subtract(own.fieldsV1, applied), heldByOthers) : {};
  const result = removeFields(merged, dropped, [], rules, resolveSchema(schema)) as ApiObject;
  const mine: ManagedFields = entryOf(manager, applied, own);
  const managedFields = [
    ...remaining.filter((entry) => !isEmpty(entry.fieldsV1)),
    ...(isEmpty(applied) ? [] : [mine]),
  ];
  return { ...result, metadata: { ...result.metadata, managedFields } };
}

function conflictText(entry: ManagedFields): string {
  const using = entry.operation === "Update" ? ` using ${entry.apiVersion}` : "";
  return `conflict with "${entry.manager}"${entry.subresource ? ` with subresource "${entry.subresource}"` : ""}${using}`;
}

function isOf(entry: ManagedFields, manager: Manager): boolean {
  return (
    entry.manager === manager.name &&
    entry.operation === manager.operation &&
    (entry.subresource ?? "") === (manager.subresource ?? "") &&
    (manager.operation === "Apply" || entry.apiVersion === manager.apiVersion)
  );
}

function entryOf(manager: Manager, fieldsV1: FieldSet, before: ManagedFields | undefined): ManagedFields {
  const unchanged = before !== undefined && sameJson(before.fieldsV1, fieldsV1);
  return {
    manager: manager.name,
    operation: manager.operation,
    apiVersion: manager.apiVersion,
    time: unchanged ? before.time : manager.time,
    fieldsType: "FieldsV1",
    fieldsV1,
    ...(manager.subresource === undefined ? {} : { subresource: manager.subresource }),
  };
}

/** After an ordinary write: what it changed belongs to its manager, and to nobody else any more. */
export function trackUpdate(
  before: ApiObject | undefined,
  after: ApiObject,
  manager: Manager,
  { schema, rules }: Shape,
): ManagedFields[] {
  const changes = before ? changedFields(before, after, schema, rules) : fieldsOf(after, schema, rules);
  const entries = after.metadata.managedFields ?? before?.metadata.managedFields ?? [];
  const present = fieldsOf(after, schema, rules);
  const own = entries.find((entry) => isOf(entry, manager));
  const others = entries
    .filter((entry) => entry !== own)
    .map((entry) => ({ ...entry, fieldsV1: stillThere(subtract(entry.fieldsV1, changes), present) }))
    .filter((entry) => !isEmpty(entry.fieldsV1));
  const fields = union(own ? stillThere(own.fieldsV1, present) : {}, changes);
  return isEmpty(fields) ? others : [...others, entryOf(manager, fields, own)];
}

/** The part of a set that the object still has. */
function stillThere(set: FieldSet, present: FieldSet): FieldSet {
  const result: FieldSet = {};
  for (const [key, below] of Object.entries(set)) {
    const other = present[key];
    if (key === ".") result[key] = below;
    if (!isRecord(other) || !isRecord(below)) continue;
    const rest = stillThere(below, other);
    if (Object.keys(below).length === 0 || Object.keys(rest).length > 0) result[key] = rest;
  }
  return result;
}

interface Place extends Shape {
  readonly path: readonly string[];
}

function mergeApplied(
  current: unknown,
  wanted: unknown,
  place: Partial<Place> & Pick<Place, "path" | "rules">,
): unknown {
  if (Array.isArray(wanted)) {
    const how = place.rules(place.path, place.schema);
    if (how.kind === "atomic" || !Array.isArray(current)) return wanted;
    return mergeItems(current, wanted, how, place);
  }
  if (!isRecord(wanted) || !isRecord(current) || place.schema?.["x-kubernetes-map-type"] === "atomic")
    return wanted;
  const result: JsonRecord = { ...current };
  for (const [name, field] of Object.entries(wanted)) {
    const below = { ...place, path: [...place.path, name], schema: schemaBelow(place.schema, name) };
    result[name] = mergeApplied(current[name], field, below);
  }
  return result;
}

function mergeItems(
  current: unknown[],
  wanted: unknown[],
  how: ListMerge,
  place: Partial<Place> & Pick<Place, "path" | "rules">,
): unknown[] {
  const byKey = new Map(current.map((item) => [itemKey(item, how), item]));
  const below = { ...place, schema: itemSchema(place.schema) };
  for (const item of wanted) {
    const key = itemKey(item, how);
    byKey.set(key, byKey.has(key) && how.kind === "map" ? mergeApplied(byKey.get(key), item, below) : item);
  }
  return [...byKey.values()];
}

function removeFields(
  value: unknown,
  gone: FieldSet,
  path: readonly string[],
  rules: ListRules,
  schema: Schema | undefined,
): unknown {
  if (isEmpty(gone)) return value;
  if (Array.isArray(value)) {
    const how = rules(path, schema);
    return value.flatMap((item) => {
      const below = gone[itemKey(item, how)];
      if (!isRecord(below)) return [item];
      if (how.kind === "set" || below["."] !== undefined) return [];
      return [removeFields(item, below, path, rules, itemSchema(schema))];
    });
  }
  if (!isRecord(value)) return value;
  const result: JsonRecord = { ...value };
  for (const [key, below] of Object.entries(gone)) {
    if (!key.startsWith("f:") || !isRecord(below)) continue;
    const name = key.slice(2);
    if (Object.keys(below).length === 0) delete result[name];
    else result[name] = removeFields(result[name], below, [...path, name], rules, schemaBelow(schema, name));
  }
  return result;
}
