// A map over a map that others share: it holds only in what it differs. Most proxies of a view hold the same thousands
// of versions, so each keeps a pointer to one map of them, and a proxy that is behind keeps a few entries of its own.

/** The layer below is never written to, by anyone. */
export class LayeredMap<V> implements ReadonlyMap<string, V> {
  #base: ReadonlyMap<string, V> = new Map();
  /** `gone` hides an entry of the base. */
  readonly #own = new Map<string, V | typeof gone>();
  #size = 0;

  get size(): number {
    return this.#size;
  }

  /** How many entries are its own cost. */
  get ownSize(): number {
    return this.#own.size;
  }

  get(name: string): V | undefined {
    const own = this.#own.get(name);
    if (own === undefined) return this.#base.get(name);
    return own === gone ? undefined : own;
  }

  has(name: string): boolean {
    return this.get(name) !== undefined;
  }

  set(name: string, value: V): this {
    if (!this.has(name)) this.#size++;
    if (this.#base.get(name) === value) this.#own.delete(name);
    else this.#own.set(name, value);
    return this;
  }

  delete(name: string): boolean {
    if (!this.has(name)) return false;
    this.#size--;
    if (this.#base.has(name)) this.#own.set(name, gone);
    else this.#own.delete(name);
    return true;
  }

  /** Forgets what it has and is as the base. */
  adopt(base: ReadonlyMap<string, V>): void {
    this.#own.clear();
    this.#base = base;
    this.#size = base.size;
  }

  /** Stands on another layer from now on if that saves entries of its own; the content stays. */
  rebase(base: ReadonlyMap<string, V>): void {
    if (base === this.#base) return;
    const other = this.#othersThan(base);
    const missing = this.#missingOf(base, other);
    if (other.length + missing < this.#own.size) this.#moveTo(base, other, missing);
  }

  /** Stands on another layer from now on; the content stays. Gives the names in which it differs from that layer. */
  moveTo(base: ReadonlyMap<string, V>): Iterable<string> {
    if (this.#own.size === 0) {
      const own = differences(this.#base, base) as ReadonlyMap<string, V | typeof gone>;
      const size = this.#size;
      this.adopt(base);
      for (const [name, value] of own) this.#own.set(name, value);
      this.#size = size;
      return this.#own.keys();
    }
    const other = this.#othersThan(base);
    this.#moveTo(base, other, this.#missingOf(base, other));
    return this.#own.keys();
  }

  /** Whether it is as the layer below, nothing added and nothing hidden. */
  isAs(base: ReadonlyMap<string, V>): boolean {
    return this.#base === base && this.#own.size === 0;
  }

  /** Whether an entry is the base's. */
  isOfBase(name: string): boolean {
    return this.#base.has(name) && !this.#own.has(name);
  }

  #othersThan(base: ReadonlyMap<string, V>): [string, V][] {
    const other: [string, V][] = [];
    for (const entry of this.#base)
      if (base.get(entry[0]) !== entry[1] && !this.#own.has(entry[0])) other.push(entry);
    for (const [name, value] of this.#own)
      if (value !== gone && base.get(name) !== value) other.push([name, value]);
    return other;
  }

  /** How many names of a base it does not have, by count alone. */
  #missingOf(base: ReadonlyMap<string, V>, other: readonly (readonly [string, V])[]): number {
    const changed = other.reduce((sum, [name]) => sum + Number(base.has(name)), 0);
    return base.size - (this.#size - other.length) - changed;
  }

  #moveTo(base: ReadonlyMap<string, V>, other: readonly (readonly [string, V])[], missing: number): void {
    const hidden = missing === 0 ? [] : [...base.keys()].filter((name) => !this.has(name));
    this.adopt(base);
    for (const name of hidden) this.delete(name);
    for (const [name, value] of other) this.set(name, value);
  }

  *entries(): MapIterator<[string, V]> {
    for (const entry of this.#base) if (!this.#own.has(entry[0])) yield entry;
    for (const [name, value] of this.#own) if (value !== gone) yield [name, value];
  }

  *keys(): MapIterator<string> {
    for (const [name] of this.entries()) yield name;
  }

  *values(): MapIterator<V> {
    for (const [, value] of this.entries()) yield value;
  }

  [Symbol.iterator](): MapIterator<[string, V]> {
    return this.entries();
  }

  forEach(visit: (value: V, name: string, map: ReadonlyMap<string, V>) => void): void {
    for (const [name, value] of this.entries()) visit(value, name, this);
  }
}

const gone = Symbol("gone");

/** What was compared last with each layer: after a restart, what proxies hold and what a view serves, for each of its proxies. */
const compared = new WeakMap<
  ReadonlyMap<string, unknown>,
  { readonly base: ReadonlyMap<string, unknown>; readonly own: ReadonlyMap<string, unknown> }
>();

/** What a map on `base` needs of its own to be as `content`. */
function differences(
  content: ReadonlyMap<string, unknown>,
  base: ReadonlyMap<string, unknown>,
): ReadonlyMap<string, unknown> {
  const known = compared.get(content);
  if (known?.base === base) return known.own;
  const own = new Map<string, unknown>();
  for (const [name, value] of content) if (base.get(name) !== value) own.set(name, value);
  for (const name of base.keys()) if (!content.has(name)) own.set(name, gone);
  compared.set(content, { base, own });
  return own;
}

/** A set of names over the names of a map that others share. */
export class LayeredNames {
  #base: ReadonlyMap<string, unknown> = new Map();
  /** True for a name besides the base's, false for one of the base that is not in the set. */
  readonly #own = new Map<string, boolean>();
  #size = 0;

  get size(): number {
    return this.#size;
  }

  get ownSize(): number {
    return this.#own.size;
  }

  has(name: string): boolean {
    return this.#own.get(name) ?? this.#base.has(name);
  }

  add(name: string): void {
    if (this.has(name)) return;
    this.#size++;
    if (this.#base.has(name)) this.#own.delete(name);
    else this.#own.set(name, true);
  }

  delete(name: string): void {
    if (!this.has(name)) return;
    this.#size--;
    if (this.#base.has(name)) this.#own.set(name, false);
    else this.#own.delete(name);
  }

  /** Forgets what it has and is as the names of the base. */
  adopt(base: ReadonlyMap<string, unknown>): void {
    this.#own.clear();
    this.#base = base;
    this.#size = base.size;
  }

  /** Stands on other names from now on if that saves entries of its own; the content stays. */
  rebase(base: ReadonlyMap<string, unknown>): void {
    if (base === this.#base) return;
    const other: string[] = [];
    for (const name of this.#base.keys()) if (!base.has(name) && !this.#own.has(name)) other.push(name);
    for (const [name, isIn] of this.#own) if (isIn && !base.has(name)) other.push(name);
    const missing = base.size - (this.#size - other.length);
    if (missing + other.length >= this.#own.size) return;
    const hidden = missing === 0 ? [] : [...base.keys()].filter((name) => !this.has(name));
    this.#own.clear();
    this.#base = base;
    for (const name of hidden) this.#own.set(name, false);
    for (const name of other) this.#own.set(name, true);
  }

  *[Symbol.iterator](): Generator<string> {
    for (const name of this.#base.keys()) if (!this.#own.has(name)) yield name;
    for (const [name, isIn] of this.#own) if (isIn) yield name;
  }
}
