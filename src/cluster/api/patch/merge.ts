// JSON patch (RFC 6902), merge patch (RFC 7386) and Kubernetes' strategic merge patch.

import jsonPatch from "fast-json-patch";
import type { Operation } from "fast-json-patch";
import { ApiError, badRequest } from "../errors.ts";
import { copyOf, isRecord, sameJson, stringOf } from "../json.ts";
import type { JsonRecord } from "../json.ts";
import type { ListMerge, ListRules } from "./lists.ts";

// Kubernetes' bound on the operations of one JSON patch.
const operationsMax = 10_000;

/** Throws ApiError 400 for what is no patch, 422 for one that does not fit the object (also a failed `test`). */
export function applyJsonPatch<T>(object: T, patch: unknown): T {
  if (!Array.isArray(patch)) throw badRequest("a JSON patch must be an array of operations");
  if (patch.length > operationsMax) {
    throw new ApiError(
      413,
      "RequestEntityTooLarge",
      `The allowed maximum operations in a JSON patch is ${operationsMax}, got ${patch.length}`,
    );
  }
  try {
    return jsonPatch.applyPatch(copyOf(object), patch as Operation[], true, true, true).newDocument;
  } catch (error) {
    const why = error instanceof Error ? error.message.split("\n")[0]! : "it cannot be applied";
    throw new ApiError(
      422,
      "Invalid",
      `the server rejected our request due to an error in our request: ${why}`,
      {},
      { cause: error },
    );
  }
}

/** Null removes, records merge, all else replaces. */
export function applyMergePatch(target: unknown, patch: unknown): unknown {
  if (!isRecord(patch)) return patch;
  const result: JsonRecord = isRecord(target) ? { ...target } : {};
  for (const [name, value] of Object.entries(patch)) {
    if (value === null) delete result[name];
    else result[name] = applyMergePatch(result[name], value);
  }
  return result;
}

/** Lists merge by their keys; `$patch`, `$setElementOrder/x`, `$deleteFromPrimitiveList/x` and `$retainKeys` are directives. */
export function applyStrategicPatch(target: unknown, patch: unknown, rules: ListRules): unknown {
  return mergeStrategic(target, patch, rules, []);
}

function mergeStrategic(target: unknown, patch: unknown, rules: ListRules, path: readonly string[]): unknown {
  if (!isRecord(patch)) return patch;
  if (patch["$patch"] === "replace") return withoutDirectives(patch);
  const before = isRecord(target) ? target : {};
  let result: JsonRecord = { ...before };
  const kept = patch["$retainKeys"];
  if (Array.isArray(kept)) {
    result = Object.fromEntries(Object.entries(result).filter(([name]) => kept.includes(name)));
  }
  for (const [name, value] of Object.entries(patch)) {
    if (name.startsWith("$")) continue;
    const here = [...path, name];
    if (value === null || (isRecord(value) && value["$patch"] === "delete")) delete result[name];
    else if (Array.isArray(value)) result[name] = mergeList(result[name], value, rules, here);
    else result[name] = mergeStrategic(result[name], value, rules, here);
  }
  applyListDirectives(result, patch, rules, path);
  return result;
}

function applyListDirectives(
  result: JsonRecord,
  patch: JsonRecord,
  rules: ListRules,
  path: readonly string[],
): void {
  for (const [name, value] of Object.entries(patch)) {
    const [directive, field] = name.split("/", 2);
    if (field === undefined || !Array.isArray(value) || !Array.isArray(result[field])) continue;
    const list: unknown[] = result[field];
    if (directive === "$deleteFromPrimitiveList") {
      result[field] = list.filter((item) => !value.some((gone) => sameJson(gone, item)));
    } else if (directive === "$setElementOrder") {
      result[field] = reorder(list, value, rules([...path, field], undefined));
    }
  }
}

function withoutDirectives(patch: JsonRecord): JsonRecord {
  return Object.fromEntries(Object.entries(patch).filter(([name]) => !name.startsWith("$")));
}

function mergeList(target: unknown, patch: unknown[], rules: ListRules, path: readonly string[]): unknown[] {
  const how = rules(path, undefined);
  const before: unknown[] = Array.isArray(target) ? target : [];
  if (how.kind === "atomic") return patch.filter((item) => !isDirective(item));
  if (how.kind === "set") return [...before, ...patch.filter((item) => !before.includes(item))];
  if (
    patch.some((item) => isRecord(item) && item["$patch"] === "replace" && Object.keys(item).length === 1)
  ) {
    return patch.filter((item) => !isDirective(item));
  }
  let result = [...before];
  for (const item of patch) {
    const key = mergeKeyOf(item, how);
    const at = result.findIndex((other) => sameJson(mergeKeyOf(other, how), key));
    if (isRecord(item) && item["$patch"] === "delete") result = result.filter((_, i) => i !== at);
    else if (at < 0) result.push(mergeStrategic(undefined, item, rules, path));
    else result[at] = mergeStrategic(result[at], item, rules, path);
  }
  return result;
}

function isDirective(item: unknown): boolean {
  return isRecord(item) && item["$patch"] !== undefined;
}

/** Strategic patches know an item by its first key alone. */
function mergeKeyOf(item: unknown, how: ListMerge): unknown {
  return how.kind === "map" && isRecord(item) ? item[how.keys[0] ?? ""] : item;
}

/** Items in the order that the patch names; those it does not name keep their place among each other, after their predecessor. */
function reorder(list: unknown[], order: unknown[], how: ListMerge): unknown[] {
  const positions = new Map(order.map((item, i) => [JSON.stringify(mergeKeyOf(item, how)), i]));
  let last = -1;
  const ranked = list.map((item, i) => {
    const position = positions.get(JSON.stringify(mergeKeyOf(item, how)));
    if (position !== undefined) last = position;
    return { item, rank: position ?? last + 0.5, i };
  });
  return ranked.sort((a, b) => a.rank - b.rank || a.i - b.i).map(({ item }) => item);
}

/** Which patch a Content-Type names, undefined for none. */
export function patchKindOf(contentType: string): "json" | "merge" | "strategic" | "apply" | undefined {
  switch (stringOf(contentType.split(";")[0]).trim()) {
    case "application/json-patch+json":
      return "json";
    case "application/merge-patch+json":
      return "merge";
    case "application/strategic-merge-patch+json":
      return "strategic";
    case "application/apply-patch+yaml":
    case "application/apply-patch+json":
      return "apply";
    default:
      return undefined;
  }
}
