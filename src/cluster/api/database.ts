// Where objects rest: all of them in memory for reading, each change first in SQLite.
//
// A change is accepted when SQLite has it on disk (WAL, synchronous=FULL: each commit is fsynced), and only then enters memory and
// wakes watchers. So a kill loses nothing that a client was told, and on a full disk the write fails while reads go on. One counter,
// the resource version, orders all changes of all resources; it is stored with each change, so that it never goes back.

import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import type { StatementSync } from "node:sqlite";
import type { Logger } from "#base";
import { badRequest, internalError, tooOld } from "./errors.ts";
import type { ApiObject, ResourceName, WatchEvent } from "./store.ts";

// Changes kept for watchers that come back. Beyond it their version is answered 410 Gone, and they list anew.
const historyMax = 10_000;

export interface Change {
  readonly revision: number;
  readonly resource: ResourceName;
  readonly type: WatchEvent["type"];
  /** The state after the change; for DELETED the last one. */
  readonly object: ApiObject;
  /** The state before; selectors need it to see an object leave. */
  readonly previous: ApiObject | undefined;
}

type Listener = (change: Change) => void;

export class Database {
  readonly #sqlite: DatabaseSync;
  readonly #log: Logger;
  readonly #put: StatementSync;
  readonly #remove: StatementSync;
  readonly #count: StatementSync;
  readonly #tables = new Map<ResourceName, Map<string, ApiObject>>();
  readonly #history: Change[] = [];
  readonly #listeners = new Map<ResourceName, Set<Listener>>();
  readonly #pending: Change[] = [];
  #revision: number;
  /** The oldest version a watch may start from. */
  #historyStart: number;
  #waking = false;
  /** Whether the last change could not be stored: it is said once, and once that it is over. */
  #refusing = false;

  constructor(dataDir: string, log: Logger) {
    this.#log = log;
    mkdirSync(dataDir, { recursive: true, mode: 0o700 });
    this.#sqlite = new DatabaseSync(join(dataDir, "objects.db"));
    this.#sqlite.exec("PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA busy_timeout=5000;");
    this.#sqlite.exec(
      `CREATE TABLE IF NOT EXISTS objects (resource TEXT, key TEXT, body TEXT NOT NULL, PRIMARY KEY (resource, key)) WITHOUT ROWID;
       CREATE TABLE IF NOT EXISTS counter (id INTEGER PRIMARY KEY CHECK (id = 1), revision INTEGER NOT NULL);
       INSERT OR IGNORE INTO counter VALUES (1, 1);`,
    );
    this.#put = this.#sqlite.prepare("INSERT OR REPLACE INTO objects VALUES (?, ?, ?)");
    this.#remove = this.#sqlite.prepare("DELETE FROM objects WHERE resource = ? AND key = ?");
    this.#count = this.#sqlite.prepare("UPDATE counter SET revision = ? WHERE id = 1");
    this.#revision = this.#load();
    this.#historyStart = this.#revision;
  }

  #load(): number {
    for (const row of this.#sqlite.prepare("SELECT resource, key, body FROM objects").iterate()) {
      const object = JSON.parse(String(row["body"])) as ApiObject;
      this.#table(String(row["resource"])).set(String(row["key"]), object);
    }
    return Number(this.#sqlite.prepare("SELECT revision FROM counter").get()?.["revision"] ?? 1);
  }

  #table(resource: ResourceName): Map<string, ApiObject> {
    let table = this.#tables.get(resource);
    if (!table) this.#tables.set(resource, (table = new Map()));
    return table;
  }

  /** The version of the latest change. */
  get revision(): number {
    return this.#revision;
  }

  get(resource: ResourceName, namespace: string, name: string): ApiObject | undefined {
    return this.#tables.get(resource)?.get(keyOf(namespace, name));
  }

  /** All objects of a resource, of one namespace if given, ordered by namespace and name. */
  list(resource: ResourceName, namespace?: string): ApiObject[] {
    const prefix = namespace === undefined ? "" : `${namespace}/`;
    return [...(this.#tables.get(resource)?.entries() ?? [])]
      .filter(([key]) => key.startsWith(prefix))
      .sort(([a], [b]) => (a < b ? -1 : 1))
      .map(([, object]) => object);
  }

  /** The resources that have, or had, objects. */
  resources(): ResourceName[] {
    return [...this.#tables.keys()].sort();
  }

  /** Stores a new state and gives it its resourceVersion. The caller has checked that `previous` is still current. */
  put(resource: ResourceName, object: ApiObject): ApiObject {
    const key = keyOf(object.metadata.namespace ?? "", object.metadata.name);
    const previous = this.#table(resource).get(key);
    const revision = this.#revision + 1;
    const stored = { ...object, metadata: { ...object.metadata, resourceVersion: String(revision) } };
    this.#commit(revision, () => this.#put.run(resource, key, JSON.stringify(stored)));
    this.#table(resource).set(key, stored);
    this.#record({ revision, resource, type: previous ? "MODIFIED" : "ADDED", object: stored, previous });
    return stored;
  }

  /** Removes an object; its last state, with the resourceVersion of the removal, is returned. */
  remove(resource: ResourceName, object: ApiObject): ApiObject {
    const key = keyOf(object.metadata.namespace ?? "", object.metadata.name);
    const previous = this.#table(resource).get(key);
    const revision = this.#revision + 1;
    const last = { ...object, metadata: { ...object.metadata, resourceVersion: String(revision) } };
    this.#commit(revision, () => this.#remove.run(resource, key));
    this.#table(resource).delete(key);
    this.#record({ revision, resource, type: "DELETED", object: last, previous });
    return last;
  }

  #commit(revision: number, write: () => void): void {
    try {
      this.#sqlite.exec("BEGIN IMMEDIATE");
      write();
      this.#count.run(revision);
      this.#sqlite.exec("COMMIT");
    } catch (cause) {
      if (this.#sqlite.isTransaction) this.#sqlite.exec("ROLLBACK");
      if (!this.#refusing)
        this.#log.error({ error: String(cause) }, "objects cannot be stored; what is there is served");
      this.#refusing = true;
      throw internalError(
        `the object could not be stored: ${cause instanceof Error ? cause.message : "?"}`,
        cause,
      );
    }
    this.#revision = revision;
    if (this.#refusing) this.#log.info({}, "objects can be stored again");
    this.#refusing = false;
  }

  #record(change: Change): void {
    this.#history.push(change);
    if (this.#history.length > historyMax * 1.1) {
      const dropped = this.#history.splice(0, this.#history.length - historyMax);
      this.#historyStart = dropped.at(-1)!.revision;
    }
    this.#pending.push(change);
    if (this.#waking) return;
    this.#waking = true;
    queueMicrotask(() => this.#wake());
  }

  #wake(): void {
    for (let change = this.#pending.shift(); change; change = this.#pending.shift()) {
      for (const listener of this.#listeners.get(change.resource) ?? []) this.#tell(listener, change);
    }
    this.#waking = false;
  }

  /** A watcher that throws must not keep the others from hearing. */
  #tell(listener: Listener, change: Change): void {
    try {
      listener(change);
    } catch (error) {
      this.#log.error({ resource: change.resource, error }, "a watcher failed on a change");
    }
  }

  /**
   * Changes of a resource after `fromRevision`, oldest first: those of the past before this returns, later ones as they come.
   * Throws ApiError 410 when the history does not reach back that far.
   */
  watch(resource: ResourceName, fromRevision: number, listener: Listener): () => void {
    if (!Number.isSafeInteger(fromRevision)) throw badRequest("invalid resource version");
    if (fromRevision < this.#historyStart) throw tooOld(String(fromRevision), String(this.#historyStart));
    const delivered = this.#revision;
    for (const change of this.#since(fromRevision)) if (change.resource === resource) listener(change);
    // Changes already delivered above may still be pending for the others.
    const later: Listener = (change) => {
      if (change.revision > delivered && change.revision > fromRevision) listener(change);
    };
    let listeners = this.#listeners.get(resource);
    if (!listeners) this.#listeners.set(resource, (listeners = new Set()));
    listeners.add(later);
    return () => void listeners.delete(later);
  }

  #since(revision: number): Change[] {
    let low = 0;
    let high = this.#history.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (this.#history[middle]!.revision <= revision) low = middle + 1;
      else high = middle;
    }
    return this.#history.slice(low);
  }

  close(): void {
    this.#listeners.clear();
    this.#sqlite.close();
  }
}

function keyOf(namespace: string, name: string): string {
  return `${namespace}/${name}`;
}
