// YAML manifests with positions: each document's object, and where in the file each of its fields stands, so that a problem of
// a field can be shown with line and column.

import type { Problem } from "#base";
import {
  isMap,
  isPair,
  isScalar,
  isSeq,
  LineCounter,
  parseAllDocuments,
  type Document,
  type Node,
} from "yaml";

import type { KubeObject } from "./object.ts";
import { makeProblem } from "./problems.ts";

/** Both count from 1. */
export interface Position {
  readonly line: number;
  readonly column: number;
}

/** A problem in a file. `position` is the nearest known place: the field's, its parent's, or the document's. */
export interface ManifestProblem extends Problem {
  readonly file: string;
  readonly position: Position;
}

export interface ManifestDocument {
  readonly object: KubeObject;
  readonly file: string;
  /** Of the field at a path such as `spec.http[0].route[1].weight`, or of the nearest one above it that exists. */
  positionOf(path: string): Position;
}

export interface Manifest {
  readonly documents: readonly ManifestDocument[];
  /** What keeps a document from being an object. Such documents are not among `documents`. */
  readonly problems: readonly ManifestProblem[];
}

/** Objects of a `List` stand for themselves. Empty documents are passed over. */
export function parseManifest(text: string, file: string): Manifest {
  const lines = new LineCounter();
  const documents: ManifestDocument[] = [];
  const problems: ManifestProblem[] = [];
  for (const document of parseAllDocuments(text, { lineCounter: lines, prettyErrors: false })) {
    for (const error of document.errors)
      problems.push({
        ...makeProblem("MZ0001", error.message),
        file,
        position: positionAt(lines, error.pos[0]),
      });
    if (document.errors.length > 0 || document.contents === null || document.toJS() === null) continue;
    const root = document.contents as Node;
    for (const { value, node } of itemsOf(document as Document<Node>, root)) {
      const fault = shapeFault(value);
      const at = (path: string) => locate(node, path, lines) ?? positionAt(lines, node.range?.[0] ?? 0);
      if (fault === undefined) documents.push({ object: value as KubeObject, file, positionOf: at });
      else
        problems.push({
          ...makeProblem("MZ0002", fault.text, { path: fault.path }),
          file,
          position: at(fault.path),
        });
    }
  }
  return { documents, problems };
}

/** A problem of an object with the place of its field. */
export function placeProblem(problem: Problem, document: ManifestDocument): ManifestProblem {
  return { ...problem, file: document.file, position: document.positionOf(problem.at.path ?? "") };
}

/** `file:line:column: Kind namespace/name field: text (fix) [code]` begins with this. */
export function renderPosition({ file, position }: Pick<ManifestProblem, "file" | "position">): string {
  return `${file}:${position.line}:${position.column}`;
}

interface Item {
  readonly value: unknown;
  readonly node: Node;
}

function itemsOf(document: Document<Node>, root: Node): Item[] {
  const value = document.toJS() as unknown;
  if (!isRecord(value) || !Array.isArray(value["items"]) || !String(value["kind"]).endsWith("List"))
    return [{ value, node: root }];
  const list = isMap(root) ? root.get("items", true) : undefined;
  return value["items"].map((item: unknown, index) => ({
    value: item,
    node: (isSeq(list) ? (list.items[index] as Node | undefined) : undefined) ?? root,
  }));
}

const isRecord = (value: unknown): value is Readonly<Record<string, unknown>> =>
  typeof value === "object" && value !== null && !Array.isArray(value);

function shapeFault(value: unknown): { readonly path: string; readonly text: string } | undefined {
  if (!isRecord(value))
    return { path: "", text: "the document is no object: expected apiVersion, kind, metadata and spec" };
  for (const field of ["apiVersion", "kind"] as const)
    if (typeof value[field] !== "string" || value[field] === "")
      return { path: field, text: `${field} is missing: expected a text` };
  const { metadata } = value;
  if (!isRecord(metadata)) return { path: "metadata", text: "metadata is missing: expected at least a name" };
  if (typeof metadata["name"] === "string" || typeof metadata["generateName"] === "string") return undefined;
  return {
    path: "metadata.name",
    text: metadata["name"] === undefined ? "metadata.name is missing" : "metadata.name must be a text",
  };
}

function positionAt(lines: LineCounter, offset: number): Position {
  const { line, col } = lines.linePos(offset);
  return { line: Math.max(line, 1), column: Math.max(col, 1) };
}

/** `spec.http[0].headers["x-a"]` as keys and indices. */
export function splitPath(path: string): (string | number)[] {
  return [...path.matchAll(/\["((?:[^"\\]|\\.)*)"\]|\[(\d+)\]|([^.[\]]+)/g)].map(([, quoted, index, word]) =>
    quoted !== undefined
      ? (JSON.parse(`"${quoted}"`) as string)
      : index !== undefined
        ? Number(index)
        : (word ?? ""),
  );
}

/** The place of a field's key, or of a list's item; of the deepest one that exists. */
function locate(root: Node, path: string, lines: LineCounter): Position | undefined {
  let node: unknown = root;
  let offset: number | undefined;
  for (const step of splitPath(path)) {
    if (isMap(node)) {
      const pair: unknown = node.items.find(
        (item) => isPair(item) && isScalar(item.key) && String(item.key.value) === String(step),
      );
      if (!isPair(pair)) break;
      offset = (pair.key as Node).range?.[0] ?? offset;
      node = pair.value;
    } else if (isSeq(node) && typeof step === "number") {
      node = node.items[step];
      if (node === undefined) break;
      offset = (node as Node).range?.[0] ?? offset;
    } else break;
  }
  return offset === undefined ? undefined : positionAt(lines, offset);
}
