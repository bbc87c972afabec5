// Patches of lists of named things: filters and routes.

import type { ReadyPatch } from "./envoy-filter.ts";
import { presentFilterName } from "#objects";
import type { ListMerge } from "./merge.ts";
import type { Message } from "./proto/api.ts";

export interface Named extends Message {
  readonly name?: string;
}

/**
 * Istio's operations on a list of named things. Without a name to stand by, insertions go to the ends and the
 * operations that change something do nothing. The list itself comes back when nothing changed.
 */
export function patchList<Item extends Named>(
  items: readonly Item[],
  { operation, value }: ReadyPatch,
  wanted: string,
  merge: (under: Item, over: Message) => Item,
): readonly Item[] {
  const added = value as Item;
  const isWanted = ({ name }: Item): boolean => isSameFilter(name, wanted);
  const at = wanted === "" ? -1 : items.findIndex(isWanted);
  switch (operation) {
    case "ADD":
      return [...items, added];
    case "INSERT_FIRST":
      return [added, ...items];
    case "INSERT_BEFORE":
      return wanted === "" ? [added, ...items] : at < 0 ? items : items.toSpliced(at, 0, added);
    case "INSERT_AFTER":
      return wanted === "" ? [...items, added] : at < 0 ? items : items.toSpliced(at + 1, 0, added);
    case "REPLACE":
      return at < 0 ? items : items.toSpliced(at, 1, added);
    case "REMOVE":
      return at < 0 ? items : items.filter((item) => !isWanted(item));
    case "MERGE":
    case "MERGE_AND_REPLACE_LIST":
      return at < 0 ? items : items.map((item) => (isWanted(item) ? merge(item, value) : item));
    default:
      return items;
  }
}

/** Whether two names mean the same: Envoy's extensions have former names. */
export function isSameFilter(name: string | undefined, wanted: string): boolean {
  return name === wanted || (name !== undefined && presentFilterName(name) === presentFilterName(wanted));
}

export function listMerge(operation: string): ListMerge {
  return operation === "MERGE_AND_REPLACE_LIST" ? "replace" : "append";
}

export function listOf<Item>(message: Message, field: string): readonly Item[] {
  return (message[field] as readonly Item[] | undefined) ?? [];
}
