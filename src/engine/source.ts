// What can be read: tables (the inputs), indexes over tables, and queries (pure functions of other reads).
// Definitions are values at module level and hold no state; an Engine holds the state of all of them.

/** Reads one source at one key and records that the running query depends on it. */
export type Read = <K, V>(source: Source<K, V>, key: K) => V;

/** Anything readable by key. */
export interface Source<K, V> {
  readonly id: number;
  readonly name: string;
  /** A stable text for the key: two keys of equal text are the same key. */
  readonly keyText: (key: K) => string;
  /** Carries the value's type; never set. */
  readonly valueType?: V;
}

/** An input table: rows of V by row key. Reading a row that is absent gives undefined. */
export interface Table<V> extends Source<string, V | undefined> {
  readonly kind: "table";
  readonly indexes: readonly Index<V>[];
}

/** Rows of a table grouped under keys that are derived from each row, ordered by row key. */
export interface Index<V> extends Source<string, readonly V[]> {
  readonly kind: "index";
  /** The groups a row belongs to. */
  readonly groupsOf: (row: V) => readonly string[];
  /** Only the row keys of a group: changes when membership changes, not when a row's content does. */
  readonly members: Members;
}

export interface Members extends Source<string, readonly string[]> {
  readonly kind: "members";
}

/** A memoized pure function of what it reads. */
export interface Query<K, V> extends Source<K, V> {
  readonly kind: "query";
  readonly compute: (read: Read, key: K) => V;
  /** When true, a recomputed value counts as unchanged and nothing behind it is recomputed. */
  readonly same: (before: V, after: V) => boolean;
  /**
   * The key that is asked in place of this one, for many keys of equal answer. Whether they are equal may depend on what
   * is read here: the asker depends on that as if it had read it. (Watched keys are taken as they are.) Gives a K.
   */
  readonly shared?: ((read: Read, key: K) => unknown) | undefined;
}

let nextId = 0;

const identity = (key: string): string => key;

/**
 * Defines an input table with its indexes: `defineTable<Pod, "namespace">("Pod", { namespace: ... })`.
 * @param groupings index name to the function that gives a row's groups
 */
export function defineTable<V, Name extends string = never>(
  name: string,
  groupings?: Readonly<Record<Name, (row: V) => readonly string[]>>,
): Table<V> & { readonly by: Readonly<Record<Name, Index<V>>> } {
  const by: Record<string, Index<V>> = {};
  for (const [indexName, groupsOf] of Object.entries<(row: V) => readonly string[]>(groupings ?? {})) {
    const fullName = `${name}.by.${indexName}`;
    const members: Members = {
      kind: "members",
      id: nextId++,
      name: `${fullName}.members`,
      keyText: identity,
    };
    by[indexName] = { kind: "index", id: nextId++, name: fullName, keyText: identity, groupsOf, members };
  }
  const indexes = Object.values(by);
  const table: Table<V> = { kind: "table", id: nextId++, name, keyText: identity, indexes };
  return { ...table, by: by as Readonly<Record<Name, Index<V>>> };
}

/** Defines a query whose key is a text. */
export function defineQuery<V>(
  name: string,
  compute: (read: Read, key: string) => V,
  same: (before: V, after: V) => boolean = Object.is,
): Query<string, V> {
  return { kind: "query", id: nextId++, name, keyText: identity, compute, same };
}

/**
 * Defines a query whose key is a structure.
 * @param keyText must tell apart every two keys that the computation tells apart
 * @param shared the key to ask in place of this one: see `Query`
 */
export function defineKeyedQuery<K, V>(
  name: string,
  keyText: (key: K) => string,
  compute: (read: Read, key: K) => V,
  same: (before: V, after: V) => boolean = Object.is,
  shared?: (read: Read, key: K) => K,
): Query<K, V> {
  return { kind: "query", id: nextId++, name, keyText, compute, same, shared };
}

/** Equality by content for plain data (JSON-like, Maps and Sets excluded). */
export function sameData(before: unknown, after: unknown): boolean {
  if (Object.is(before, after)) return true;
  if (typeof before !== "object" || typeof after !== "object" || before === null || after === null)
    return false;
  if (Array.isArray(before) !== Array.isArray(after)) return false;
  const keys = Object.keys(before);
  if (keys.length !== Object.keys(after).length) return false;
  const a = before as Record<string, unknown>;
  const b = after as Record<string, unknown>;
  return keys.every((key) => Object.hasOwn(b, key) && sameData(a[key], b[key]));
}
