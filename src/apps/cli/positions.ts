// Objects with the place of each of their fields in the text, so that a problem is shown where it was written.

import { type Document, isMap, isNode, isPair, LineCounter, parseAllDocuments } from "yaml";

export interface PlacedObject {
  readonly object: unknown;
  /** Line and column, from 1, of the field at a path such as `spec.http[0].route`, or of the nearest one around it that was written. */
  readonly placeOf: (path: string) => Place;
}

export interface Place {
  readonly line: number;
  readonly column: number;
}

export interface SyntaxFault extends Place {
  readonly text: string;
}

/** All documents of a YAML or JSON text, `kind: List` taken apart, or the first fault of each that cannot be read. */
export function parsePlaced(text: string): {
  readonly objects: readonly PlacedObject[];
  readonly faults: readonly SyntaxFault[];
} {
  const counter = new LineCounter();
  const objects: PlacedObject[] = [];
  const faults: SyntaxFault[] = [];
  const placeAt = (offset: number): Place => {
    const { line, col } = counter.linePos(offset);
    return { line, column: col };
  };
  for (const document of parseAllDocuments(text, { lineCounter: counter })) {
    const [error] = document.errors;
    if (error !== undefined) {
      faults.push({
        ...placeAt(error.pos[0]),
        text: error.message.split(/ at line |\n/)[0] ?? error.message,
      });
      continue;
    }
    const object: unknown = document.toJS();
    if (object === null || object === undefined) continue;
    const items = isList(object) ? object.items : undefined;
    if (items === undefined)
      objects.push({ object, placeOf: (path) => placeAt(offsetOf(document, steps(path))) });
    else {
      for (const [index, item] of items.entries()) {
        objects.push({
          object: item,
          placeOf: (path) => placeAt(offsetOf(document, ["items", index, ...steps(path)])),
        });
      }
    }
  }
  return { objects, faults };
}

function isList(object: unknown): object is { items: unknown[] } {
  return (
    typeof object === "object" &&
    object !== null &&
    "kind" in object &&
    object.kind === "List" &&
    "items" in object &&
    Array.isArray(object.items)
  );
}

/** `spec.http[0].match["a.b"]` as its steps. */
function steps(path: string): (string | number)[] {
  return [...path.matchAll(/\[(\d+)\]|\[["']?([^\]"']+)["']?\]|([^.[\]]+)/g)].map(([, index, quoted, name]) =>
    index === undefined ? (quoted ?? name ?? "") : Number(index),
  );
}

/** Where the key of the last step stands that is there; an absent field is shown at what should hold it. */
function offsetOf(document: Document, path: readonly (string | number)[]): number {
  for (let length = path.length; length > 0; length -= 1) {
    const last = path[length - 1];
    const parent: unknown =
      length === 1 ? document.contents : document.getIn(path.slice(0, length - 1), true);
    if (typeof last === "string" && isMap(parent)) {
      const pair = parent.items.find((item) => isPair(item) && String(item.key) === last);
      if (pair !== undefined && isNode(pair.key) && pair.key.range != null) return pair.key.range[0];
    }
    const node: unknown = document.getIn(path.slice(0, length), true);
    if (typeof last === "number" && isNode(node) && node.range != null) return node.range[0];
  }
  return document.contents?.range?.[0] ?? 0;
}
