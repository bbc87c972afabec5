// Patches of lists of named things: filters and routes.

import type { ReadyPatch } from "./envoy-filter.ts";
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
  const at = wanted === "" ? -1 : items.findIndex(({ name }) => name === wanted);
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
      return at < 0 ? items : items.filter(({ name }) => name !== wanted);
    case "MERGE":
    case "MERGE_AND_REPLACE_LIST":
      return at < 0 ? items : items.map((item) => (item.name === wanted ? merge(item, value) : item));
    default:
      return items;
  }
}

export function listOf<Item>(message: Message, field: string): readonly Item[] {
  return (message[field] as readonly Item[] | undefined) ?? [];
}
