// Plain JSON, looked at with care: what clients send has no shape until it was checked.

export type JsonRecord = Record<string, unknown>;

export function isRecord(value: unknown): value is JsonRecord {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

export function recordOf(value: unknown): JsonRecord {
  return isRecord(value) ? value : {};
}

export function arrayOf(value: unknown): unknown[] {
  return Array.isArray(value) ? value : [];
}

export function recordsOf(value: unknown): JsonRecord[] {
  return arrayOf(value).filter(isRecord);
}

export function stringOf(value: unknown): string {
  return typeof value === "string" ? value : "";
}

/** The value under a path of field names, undefined where the path ends early. */
export function valueAt(value: unknown, ...path: string[]): unknown {
  let here = value;
  for (const step of path) {
    if (!isRecord(here)) return undefined;
    here = here[step];
  }
  return here;
}

/** A deep copy of JSON data. */
export function copyOf<T>(value: T): T {
  return structuredClone(value);
}

/** Equality of JSON data; the order of keys does not count. */
export function sameJson(a: unknown, b: unknown): boolean {
  if (a === b) return true;
  if (Array.isArray(a)) {
    return Array.isArray(b) && a.length === b.length && a.every((item, i) => sameJson(item, b[i]));
  }
  if (!isRecord(a) || !isRecord(b)) return false;
  const keys = definedKeys(a);
  return keys.length === definedKeys(b).length && keys.every((key) => sameJson(a[key], b[key]));
}

function definedKeys(value: JsonRecord): string[] {
  return Object.keys(value).filter((key) => value[key] !== undefined);
}
