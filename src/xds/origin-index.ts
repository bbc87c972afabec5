// Which resources are made from an object: kept up to date with each resource, so that asking for one object looks at its own alone.

import { renderRef, type ObjectRef } from "#base";
import type { EnvoyResource } from "#envoy";

type Origins = EnvoyResource["origins"];

const none: Origins = [];

export class OriginIndex<Cell> {
  readonly #cells = new Map<string, Set<Cell>>();

  /** The resources made from an object. */
  of(object: ObjectRef): Iterable<Cell> {
    return this.#cells.get(renderRef(object)) ?? [];
  }

  /** To be told of each new value of a resource, of its first and of its end: undefined is none. */
  changed(cell: Cell, before: EnvoyResource | undefined, after: EnvoyResource | undefined): void {
    const left = before?.origins ?? none;
    const entered = after?.origins ?? none;
    // Most changes leave the list as it was, and long lists are those of large resources.
    if (isSame(left, entered)) return;
    const kept = new Set(entered.map(({ object }) => renderRef(object)));
    for (const { object } of left) {
      const text = renderRef(object);
      if (kept.has(text)) continue;
      const cells = this.#cells.get(text);
      if (cells?.delete(cell) === true && cells.size === 0) this.#cells.delete(text);
    }
    for (const text of kept) {
      const cells = this.#cells.get(text);
      if (cells === undefined) this.#cells.set(text, new Set([cell]));
      else cells.add(cell);
    }
  }
}

function isSame(one: Origins, other: Origins): boolean {
  if (one === other) return true;
  return (
    one.length === other.length &&
    one.every(({ object }, at) => {
      const { object: against } = other[at]!;
      return (
        object.name === against.name && object.namespace === against.namespace && object.kind === against.kind
      );
    })
  );
}
