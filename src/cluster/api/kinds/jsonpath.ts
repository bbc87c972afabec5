// The JSONPath that printer columns use: `.a.b`, `.a[0]`, `.a[*].b`, `.a[?(@.type=="Ready")].status`, `.a['x.y/z']`.

import { isRecord } from "../json.ts";

type Step = (value: unknown) => unknown[];

const parsed = new Map<string, Step[]>();

/** Every value at the path; none when the path is not there or not understood. */
export function jsonPath(root: unknown, path: string): unknown[] {
  let steps = parsed.get(path);
  if (!steps) parsed.set(path, (steps = parsePath(path)));
  return steps
    .reduce<unknown[]>((values, step) => values.flatMap(step), [root])
    .filter((value) => value !== undefined && value !== null);
}

function parsePath(path: string): Step[] {
  const text = path
    .replace(/^\$/, "")
    .replace(/^\{(.*)\}$/, "$1")
    .replaceAll(String.raw`\.`, "\uE000");
  const steps: Step[] = [];
  let at = 0;
  const field =
    /\.([\w\uE000/-]+|\*)|\[\?\(@\.([\w.-]+)\s*==\s*["']?([^"')]*)["']?\)\]|\[(\*|-?\d+)\]|\[['"]([^'"]*)['"]\]/y;
  while (at < text.length) {
    field.lastIndex = at;
    const match = field.exec(text);
    if (!match) return [() => []];
    steps.push(stepOf(match));
    at = field.lastIndex;
  }
  return steps;
}

function stepOf(match: RegExpExecArray): Step {
  const [, name, filterPath, filterValue, index, quoted] = match;
  if (filterPath !== undefined) {
    return (value) =>
      elements(value).filter((item) => String(jsonPath(item, `.${filterPath}`)[0] ?? "") === filterValue);
  }
  if (index === "*" || name === "*") return elements;
  if (index !== undefined) return (value) => (Array.isArray(value) ? [value.at(Number(index))] : []);
  const key = (name ?? quoted ?? "").replaceAll("\uE000", ".");
  return (value) => (isRecord(value) ? [value[key]] : []);
}

function elements(value: unknown): unknown[] {
  if (Array.isArray(value)) return value;
  return isRecord(value) ? Object.values(value) : [];
}
