// Gathers the problems of one object while its rules are checked.

import type { ObjectRef, Problem } from "#base";

import { makeProblem, type ProblemCode } from "./problems.ts";
import type { Fault } from "./values.ts";

export interface Report {
  readonly problems: readonly Problem[];
  /** Adds a problem; the code's row says whether it is an error or a warning. */
  add(code: ProblemCode, path: string, text: string, fix?: string): void;
  /** Adds a malformed value, if the check found a fault. */
  value(path: string, fault: Fault): void;
}

export function openReport(object?: ObjectRef): Report {
  const problems: Problem[] = [];
  const add: Report["add"] = (code, path, text, fix) => {
    problems.push(makeProblem(code, text, object === undefined ? { path } : { object, path }, fix));
  };
  return {
    problems,
    add,
    value: (path, fault) => {
      if (fault !== undefined) add("MZ0201", path, fault);
    },
  };
}

/** `spec.http` and `match` make `spec.http.match`; keys that are no words are quoted, so several are given one by one. */
export function pathOf(parent: string, ...keys: readonly (string | number)[]): string {
  return keys.reduce<string>((path, key) => {
    if (typeof key === "number") return `${path}[${key}]`;
    if (!/^[A-Za-z_][\w-]*$/.test(key)) return `${path}[${JSON.stringify(key)}]`;
    return path === "" ? key : `${path}.${key}`;
  }, parent);
}

/** Calls back for each item of a list that may be absent, with its path. Null items are the schema's matter. */
export function eachOf<T>(
  list: readonly T[] | null | undefined,
  path: string,
  visit: (item: T, path: string, index: number) => void,
): void {
  for (const [index, item] of (list ?? []).entries())
    if (item !== null && item !== undefined) visit(item, pathOf(path, index), index);
}

/** The same for the entries of a map. */
export function eachEntry<T>(
  map: Readonly<Record<string, T>> | null | undefined,
  path: string,
  visit: (key: string, value: T, path: string) => void,
): void {
  for (const [key, value] of Object.entries(map ?? {})) visit(key, value, pathOf(path, key));
}
