// The incremental engine. Inputs are rows of tables; everything else is a query: a memoized pure function that
// records what it reads while it runs. Nobody writes invalidation rules, so nobody can forget one.
//
// How a change travels (as in Salsa and in signal libraries):
//   1. `apply` stores the changed rows and colours everything reachable behind them: direct readers "dirty", the
//      rest "check". That walk touches only what depends on the change, and nothing is computed in it.
//   2. `settle` asks each coloured *watched* node for its value. A node in "check" first asks what it read; only
//      if one of those really changed it runs again. Where a query's `same` says that the new value is the old
//      one, propagation stops.
//   3. Nodes that nobody watches or reads any longer are dropped at the end of `settle`.
// A query that throws keeps its last good value, and the failure is reported: one bad object cannot take the
// control plane down.

import type { Index, Query, Read, Source, Table } from "./source.ts";

type Colour = "clean" | "check" | "dirty";

interface Node {
  readonly source: Source<never, unknown>;
  readonly key: unknown;
  readonly text: string;
  value: unknown;
  failure: unknown;
  hasValue: boolean;
  colour: Colour;
  /** The revision at which the value last changed. */
  changedAt: number;
  /** The revision at which the value was last known to be right. */
  verifiedAt: number;
  /** In the order of reading; one may stand there twice. */
  reads: Node[];
  readers: Readers;
  watches: number;
  /** The `changedAt` that `settle` last reported. */
  reportedAt: number;
  running: boolean;
  /** The run of a query that last read it, or looked whether it was read: spares each run a Set. */
  readMark: number;
}

/** How many reads of its last run a query may leave out and still be recognized as reading on in order. */
const readAheadMax = 8;

/** There are several hundred thousand nodes, and most have one reader or none: a Set only for those with more. */
type Readers = Node | Set<Node> | undefined;

/** One row set (value) or removed (undefined). */
export interface Change<V = unknown> {
  readonly table: Table<V>;
  readonly key: string;
  readonly value: V | undefined;
}

/** A watched query whose value is another than at the last `settle`. */
export interface Changed {
  readonly query: Query<never, unknown>;
  readonly key: unknown;
  readonly keyText: string;
  readonly value: unknown;
}

/** A query that threw; its readers go on with its last good value. */
export interface Failure {
  readonly query: string;
  readonly keyText: string;
  readonly error: unknown;
}

export interface Settled {
  readonly revision: number;
  readonly changed: readonly Changed[];
  readonly failures: readonly Failure[];
}

interface TableState {
  readonly rows: Map<string, unknown>;
  /** For each index of the table: group to rows by key. */
  readonly groups: Map<number, Map<string, Map<string, unknown>>>;
}

export class Engine {
  #revision = 0;
  readonly #nodes = new Map<number, Map<string, Node>>();
  readonly #tables = new Map<number, TableState>();
  readonly #groupsOfIndex = new Map<number, Map<string, Map<string, unknown>>>();
  #unsettled = new Set<Node>();
  #orphans = new Set<Node>();
  #failures: Failure[] = [];
  #reader: Node | undefined;
  #computed = 0;
  /** The number of the run of `#reader`. */
  #run = 0;
  /** What the query of `#reader` read at its run before, and how far this run has come in that. */
  #before: readonly Node[] = [];
  #beforeAt = 0;
  /** Marks that are no run's count down. */
  #lastMark = 0;

  /** How many times a query has run since the start: the measure of "work proportional to the change". */
  get computedTotal(): number {
    return this.#computed;
  }

  get revision(): number {
    return this.#revision;
  }

  /** How many nodes are held, for the memory metric. */
  get nodesHeld(): number {
    let held = 0;
    for (const nodes of this.#nodes.values()) held += nodes.size;
    return held;
  }

  /** Stores changed rows. A row equal (`Object.is`) to the stored one is no change. */
  apply(changes: Iterable<Change>): void {
    this.#revision++;
    for (const change of changes) this.#store(change);
  }

  /** Sets one row; shorthand for `apply` of a single change. */
  set<V>(table: Table<V>, key: string, value: V | undefined): void {
    this.apply([{ table: table as Table<unknown>, key, value }]);
  }

  /** The rows of a table, by key, in no particular order. */
  rows<V>(table: Table<V>): ReadonlyMap<string, V> {
    return this.#tableState(table as Table<unknown>).rows as Map<string, V>;
  }

  /** Reads from outside of any query; computes what is missing. */
  get<K, V>(source: Source<K, V>, key: K): V {
    return this.#read(source, key);
  }

  /** Keeps a query alive and reports its changes from `settle`. Returns its value now. Counted: unwatch as often. */
  watch<K, V>(query: Query<K, V>, key: K): V {
    const node = this.#nodeFor(query, key);
    node.watches++;
    this.#ensure(node);
    if (node.watches === 1) node.reportedAt = node.changedAt;
    return valueOf(node) as V;
  }

  unwatch<K, V>(query: Query<K, V>, key: K): void {
    const node = this.#nodes.get(query.id)?.get(query.keyText(key));
    if (node === undefined || node.watches === 0) throw new Error(`${query.name} is not watched at this key`);
    node.watches--;
    if (node.watches === 0) {
      this.#unsettled.delete(node);
      this.#orphans.add(node);
    }
  }

  /** Brings every watched query up to date and reports those whose value changed, in the order they were reached. */
  settle(): Settled {
    const changed: Changed[] = [];
    const unsettled = this.#unsettled;
    this.#unsettled = new Set();
    for (const node of unsettled) {
      if (node.watches === 0) continue;
      this.#ensure(node);
      if (node.changedAt <= node.reportedAt) continue;
      node.reportedAt = node.changedAt;
      const query = node.source as unknown as Query<never, unknown>;
      changed.push({ query, key: node.key, keyText: node.text, value: node.value });
    }
    this.#sweep();
    const failures = this.#failures;
    this.#failures = [];
    return { revision: this.#revision, changed, failures };
  }

  #store({ table, key, value }: Change): void {
    const state = this.#tableState(table);
    const before = state.rows.get(key);
    if (Object.is(before, value)) return;
    if (value === undefined) state.rows.delete(key);
    else state.rows.set(key, value);
    const row = this.#nodes.get(table.id)?.get(key);
    if (row !== undefined) this.#inputChanged(row, value);
    for (const index of table.indexes) this.#regroup(index, state, key, before, value);
  }

  #regroup(index: Index<unknown>, state: TableState, key: string, before: unknown, after: unknown): void {
    const groups = state.groups.get(index.id) as Map<string, Map<string, unknown>>;
    const left = new Set(before === undefined ? [] : index.groupsOf(before));
    const entered = new Set(after === undefined ? [] : index.groupsOf(after));
    for (const group of left) {
      if (entered.has(group)) continue;
      const rows = groups.get(group);
      rows?.delete(key);
      if (rows?.size === 0) groups.delete(group);
      this.#groupChanged(index, group, true);
    }
    for (const group of entered) {
      let rows = groups.get(group);
      if (rows === undefined) groups.set(group, (rows = new Map()));
      rows.set(key, after);
      this.#groupChanged(index, group, !left.has(group));
    }
  }

  #groupChanged(index: Index<unknown>, group: string, membership: boolean): void {
    const rows = this.#nodes.get(index.id)?.get(group);
    if (rows !== undefined) this.#inputChanged(rows, this.#groupRows(index.id, group));
    if (!membership) return;
    const members = this.#nodes.get(index.members.id)?.get(group);
    if (members !== undefined) this.#inputChanged(members, this.#groupKeys(index.id, group));
  }

  #inputChanged(node: Node, value: unknown): void {
    node.value = value;
    node.changedAt = this.#revision;
    node.verifiedAt = this.#revision;
    eachReader(node, (reader) => this.#colour(reader, "dirty"));
  }

  #colour(first: Node, colour: "dirty" | "check"): void {
    const stack: Node[] = [];
    const paint = (node: Node, paintColour: Colour): void => {
      const before = node.colour;
      if (before === "clean" || paintColour === "dirty") node.colour = paintColour;
      if (node.watches > 0) this.#unsettled.add(node);
      if (before === "clean") stack.push(node);
    };
    paint(first, colour);
    for (let node = stack.pop(); node !== undefined; node = stack.pop()) {
      eachReader(node, (reader) => paint(reader, "check"));
    }
  }

  #read<K, V>(source: Source<K, V>, asked: K): V {
    const { shared } = source as { readonly shared?: Query<K, V>["shared"] };
    const key = shared === undefined ? asked : (shared(this.#readAsQuery, asked) as K);
    const node = this.#nodeFor(source, key);
    if (node.colour !== "clean") this.#ensure(node);
    const reader = this.#reader;
    if (reader !== undefined && node.readMark !== this.#run) {
      node.readMark = this.#run;
      reader.reads.push(node);
      if (!this.#wasReadNext(node)) addReader(node, reader);
    }
    return valueOf(node) as V;
  }

  /** A query that runs again reads mostly what it read before, in the same order: those know their reader already. */
  #wasReadNext(node: Node): boolean {
    const end = Math.min(this.#before.length, this.#beforeAt + readAheadMax);
    for (let at = this.#beforeAt; at < end; at++) {
      if (this.#before[at] !== node) continue;
      this.#beforeAt = at + 1;
      return true;
    }
    return false;
  }

  readonly #readAsQuery: Read = (source, key) => this.#read(source, key);

  #ensure(node: Node): void {
    if (node.colour === "clean") return;
    if (node.running) throw new Error(`${node.source.name}(${node.text}) reads itself`);
    if (node.colour === "check") {
      const suspended = this.#reader;
      this.#reader = undefined;
      for (const read of node.reads) {
        this.#ensure(read);
        if (read.changedAt > node.verifiedAt) {
          node.colour = "dirty";
          break;
        }
      }
      this.#reader = suspended;
    }
    if (node.colour === "dirty") this.#compute(node);
    node.colour = "clean";
    node.verifiedAt = this.#revision;
  }

  #compute(node: Node): void {
    const query = node.source as unknown as Query<unknown, unknown>;
    const before = node.reads;
    const suspended = this.#reader;
    const suspendedRun = this.#run;
    const suspendedBefore = this.#before;
    const suspendedAt = this.#beforeAt;
    node.reads = [];
    node.running = true;
    this.#reader = node;
    this.#run = ++this.#computed;
    this.#before = before;
    this.#beforeAt = 0;
    try {
      const value = query.compute(this.#readAsQuery, node.key);
      if (!node.hasValue || !query.same(node.value, value)) {
        node.value = value;
        node.changedAt = this.#revision;
      }
      node.hasValue = true;
      node.failure = undefined;
    } catch (error) {
      node.failure = error;
      this.#failures.push({ query: query.name, keyText: node.text, error });
    } finally {
      this.#reader = suspended;
      this.#run = suspendedRun;
      this.#before = suspendedBefore;
      this.#beforeAt = suspendedAt;
      node.running = false;
    }
    if (before.length > 0) this.#leaveUnread(node, before);
  }

  /** What a query read before and reads no longer is not to wake it, and may be unused now. */
  #leaveUnread(node: Node, before: readonly Node[]): void {
    const mark = --this.#lastMark;
    for (const read of node.reads) read.readMark = mark;
    for (const read of before) {
      if (read.readMark === mark) continue;
      removeReader(read, node);
      if (read.readers === undefined && read.watches === 0) this.#orphans.add(read);
    }
  }

  #nodeFor<K, V>(source: Source<K, V>, key: K): Node {
    let nodes = this.#nodes.get(source.id);
    if (nodes === undefined) this.#nodes.set(source.id, (nodes = new Map()));
    const text = source.keyText(key);
    let node = nodes.get(text);
    if (node === undefined) {
      node = this.#newNode(source, key, text);
      nodes.set(text, node);
      // A node that only an outside `get` asked for has no reader: it goes at the next settle.
      this.#orphans.add(node);
    }
    return node;
  }

  #newNode<K, V>(source: Source<K, V>, key: K, text: string): Node {
    const isQuery = (source as { kind?: string }).kind === "query";
    return {
      source: source as unknown as Source<never, unknown>,
      key,
      text,
      value: isQuery ? undefined : this.#inputValue(source as Source<never, unknown>, text),
      failure: undefined,
      hasValue: !isQuery,
      colour: isQuery ? "dirty" : "clean",
      changedAt: isQuery ? 0 : this.#revision,
      verifiedAt: this.#revision,
      reads: [],
      readers: undefined,
      watches: 0,
      reportedAt: 0,
      running: false,
      readMark: 0,
    };
  }

  #inputValue(source: Source<never, unknown>, text: string): unknown {
    const kind = (source as unknown as { kind: string }).kind;
    if (kind === "table") return this.#tables.get(source.id)?.rows.get(text);
    if (kind === "index") return this.#groupRows(source.id, text);
    // The members of an index carry the id just below the index they belong to (see defineTable).
    return this.#groupKeys(source.id + 1, text);
  }

  #groupKeys(indexId: number, group: string): readonly string[] {
    return [...(this.#groupsOfIndex.get(indexId)?.get(group)?.keys() ?? [])].toSorted(byText);
  }

  #groupRows(indexId: number, group: string): readonly unknown[] {
    const rows = this.#groupsOfIndex.get(indexId)?.get(group);
    if (rows === undefined) return [];
    return [...rows].toSorted(([a], [b]) => byText(a, b)).map(([, row]) => row);
  }

  #tableState(table: Table<unknown>): TableState {
    let state = this.#tables.get(table.id);
    if (state === undefined) {
      state = { rows: new Map(), groups: new Map() };
      for (const index of table.indexes) {
        const groups = new Map<string, Map<string, unknown>>();
        state.groups.set(index.id, groups);
        this.#groupsOfIndex.set(index.id, groups);
      }
      this.#tables.set(table.id, state);
    }
    return state;
  }

  #sweep(): void {
    const orphans = this.#orphans;
    this.#orphans = new Set();
    for (const node of orphans) {
      if (node.watches > 0 || node.readers !== undefined) continue;
      const nodes = this.#nodes.get(node.source.id);
      if (nodes?.get(node.text) === node) nodes.delete(node.text);
      for (const read of node.reads) {
        removeReader(read, node);
        // Sets visit what is added while they are iterated, so a whole orphaned chain goes in one sweep.
        if (read.readers === undefined && read.watches === 0) orphans.add(read);
      }
      node.reads = [];
    }
  }
}

function valueOf(node: Node): unknown {
  if (node.hasValue) return node.value;
  throw new Error(`${node.source.name}(${node.text}) has no value`, { cause: node.failure });
}

function addReader(node: Node, reader: Node): void {
  const { readers } = node;
  if (readers === undefined) node.readers = reader;
  else if (readers instanceof Set) readers.add(reader);
  else if (readers !== reader) node.readers = new Set([readers, reader]);
}

function removeReader(node: Node, reader: Node): void {
  const { readers } = node;
  if (readers === reader) node.readers = undefined;
  else if (readers instanceof Set && readers.delete(reader) && readers.size === 0) node.readers = undefined;
}

function eachReader({ readers }: Node, visit: (reader: Node) => void): void {
  if (readers === undefined) return;
  if (readers instanceof Set) for (const reader of readers) visit(reader);
  else visit(readers);
}

function byText(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0;
}
