// Follows all objects of one kind: a list in pages, then a watch from there, resumed where it ended, and a new list
// when the server no longer remembers (410). Failures are tried again with growing pauses; one line says that it began
// and one that it is over, for all caches of a client together. Meanwhile what is known stays known.

import type { Clock, Logger } from "#base";
import { objectKey, type KubeObject } from "#objects";
import type { KubeClient } from "./client.ts";
import { KubeError } from "./kube-error.ts";

export interface CacheSource {
  readonly kind: string;
  readonly apiVersion: string;
  /** The collection's path, without a query. */
  readonly path: string;
  readonly fieldSelector?: string;
}

export interface CacheOptions {
  readonly client: KubeClient;
  readonly source: CacheSource;
  readonly clock: Clock;
  /** 0 to 1, for the jitter of pauses. */
  readonly random: () => number;
  readonly log: Logger;
  /** What is kept of an object; undefined for one that nobody reads. */
  readonly slim: (object: KubeObject) => KubeObject | undefined;
  /** Objects added, changed (set) and gone, in the order in which it happened. */
  readonly changed: (set: readonly KubeObject[], removed: readonly KubeObject[]) => void;
  /** The first list is in, or the kind does not exist here. */
  readonly synced: () => void;
}

const pageLimit = 500;
/** The server ends a watch by itself about then; each has its own moment, so that not all come at once. */
const watchSeconds = 300;
const pauseMinMs = 200;
const pauseMaxMs = 10_000;
/** A watch that ends sooner than this is followed by a pause. */
const shortWatchMs = 1_000;
/** How often a kind is looked for whose CRD is not installed. */
const missingPauseMs = 5_000;

interface ListPage {
  readonly metadata: { readonly resourceVersion?: string; readonly continue?: string };
  readonly items?: readonly KubeObject[];
}

interface WatchEvent {
  readonly type: "ADDED" | "MODIFIED" | "DELETED" | "BOOKMARK" | "ERROR";
  readonly object: KubeObject & {
    readonly code?: number;
    readonly reason?: string;
    readonly message?: string;
  };
}

export class WatchCache {
  readonly #options: CacheOptions;
  readonly #objects = new Map<string, KubeObject>();
  readonly #stopped = new AbortController();
  #synced = false;
  #failures = 0;
  #missing = false;
  /** Where the watch goes on; undefined where only a new list can tell. */
  #version: string | undefined;
  #openedAtMs: number | undefined;

  constructor(options: CacheOptions) {
    this.#options = options;
  }

  get objects(): ReadonlyMap<string, KubeObject> {
    return this.#objects;
  }

  get size(): number {
    return this.#objects.size;
  }

  /** Follows until stopped; never rejects. */
  async run(): Promise<void> {
    while (!this.#stopped.signal.aborted) {
      this.#openedAtMs = undefined;
      try {
        this.#version ??= await this.#list();
        await this.#watch(this.#version);
        await this.#pauseIfShort();
      } catch (error) {
        if (this.#stopped.signal.aborted) return;
        if (error instanceof KubeError && error.status === 410) {
          this.#version = undefined;
          await this.#pause(pauseMinMs);
        } else if (this.#openedAtMs !== undefined && !(error instanceof KubeError)) {
          // A connection that was cut says nothing yet about the server; asking anew will.
          await this.#pauseIfShort();
        } else await this.#failed(error);
      }
    }
  }

  /** A server that ends each watch at once is not asked more often than this. */
  async #pauseIfShort(): Promise<void> {
    const { clock, random } = this.#options;
    if (clock.monotonicMs() - (this.#openedAtMs ?? -Infinity) < shortWatchMs)
      await this.#pause(pauseMinMs * (0.5 + random()));
  }

  stop(): void {
    this.#stopped.abort();
    this.#options.client.outage.forget(this);
  }

  async #list(): Promise<string> {
    const { client, source, changed } = this.#options;
    const seen = new Set<string>();
    let token = "";
    let version = "";
    do {
      const query = new URLSearchParams({ limit: String(pageLimit) });
      if (token !== "") query.set("continue", token);
      if (source.fieldSelector !== undefined) query.set("fieldSelector", source.fieldSelector);
      const page = await client.get<ListPage>(`${source.path}?${query}`);
      const set = (page.items ?? []).flatMap((object) => {
        const kept = this.#keep(object);
        if (kept === undefined) return [];
        seen.add(objectKey(kept));
        return this.#isNew(kept) ? [kept] : [];
      });
      for (const object of set) this.#objects.set(objectKey(object), object);
      if (set.length > 0) changed(set, []);
      token = page.metadata.continue ?? "";
      version = page.metadata.resourceVersion ?? "0";
    } while (token !== "");
    const removed = [...this.#objects].filter(([key]) => !seen.has(key));
    for (const [key] of removed) this.#objects.delete(key);
    if (removed.length > 0)
      changed(
        [],
        removed.map(([, object]) => object),
      );
    this.#markSynced();
    return version;
  }

  /** Watches until the server ends it. What it has brought is not asked for again, however it ends. */
  async #watch(from: string): Promise<void> {
    const { source, random } = this.#options;
    const query = new URLSearchParams({
      watch: "true",
      allowWatchBookmarks: "true",
      resourceVersion: from,
      timeoutSeconds: String(Math.round(watchSeconds * (1 + random()))),
    });
    if (source.fieldSelector !== undefined) query.set("fieldSelector", source.fieldSelector);
    for await (const line of this.#lines(`${source.path}?${query}`)) {
      const { type, object } = line as WatchEvent;
      if (type === "ERROR") throw new KubeError(object.code ?? 0, object.reason ?? "", object.message ?? "");
      if (type !== "BOOKMARK") this.#apply(type, object);
      this.#version = object.metadata.resourceVersion ?? this.#version;
    }
  }

  #lines(path: string): AsyncGenerator<unknown> {
    return this.#options.client.watch(path, this.#stopped.signal, () => this.#opened());
  }

  #apply(type: WatchEvent["type"], object: KubeObject): void {
    const kept = type === "DELETED" ? undefined : this.#keep(object);
    if (kept !== undefined) {
      if (!this.#isNew(kept)) return;
      this.#objects.set(objectKey(kept), kept);
      this.#options.changed([kept], []);
      return;
    }
    const key = objectKey(object);
    const before = this.#objects.get(key);
    if (before !== undefined && this.#objects.delete(key)) this.#options.changed([], [before]);
  }

  #keep(object: KubeObject): KubeObject | undefined {
    const { kind, apiVersion } = this.#options.source;
    // Items of a list do not say what they are.
    return this.#options.slim({ ...object, kind, apiVersion });
  }

  #isNew(object: KubeObject): boolean {
    const before = this.#objects.get(objectKey(object));
    return before === undefined || before.metadata.resourceVersion !== object.metadata.resourceVersion;
  }

  #markSynced(): void {
    if (this.#synced) return;
    this.#synced = true;
    this.#options.synced();
  }

  #opened(): void {
    this.#openedAtMs = this.#options.clock.monotonicMs();
    const { client, log, source } = this.#options;
    if (this.#missing) log.info({ kind: source.kind }, "the API server has this kind now");
    client.outage.succeeded(this, log);
    this.#failures = 0;
    this.#missing = false;
  }

  async #failed(error: unknown): Promise<void> {
    const { client, log, source, random } = this.#options;
    const isMissing = error instanceof KubeError && error.status === 404;
    if (isMissing) {
      // That is an answer, too.
      client.outage.succeeded(this, log);
      if (!this.#missing) log.info({ kind: source.kind }, "the API server has no such kind; looking again");
      this.#missing = true;
      this.#markSynced();
      await this.#pause(missingPauseMs);
      return;
    }
    // One failure is a connection that broke at a bad moment; the second in a row is worth a line.
    if (this.#failures > 0) client.outage.failed(this, source.kind, error, log);
    const pauseMs = Math.min(pauseMaxMs, pauseMinMs * 2 ** this.#failures);
    this.#failures++;
    await this.#pause(pauseMs * (0.5 + random()));
  }

  #pause(ms: number): Promise<void> {
    const { signal } = this.#stopped;
    return new Promise((resolve) => {
      const done = (): void => {
        cancel();
        signal.removeEventListener("abort", done);
        resolve();
      };
      const cancel = this.#options.clock.after(ms, done);
      signal.addEventListener("abort", done);
    });
  }
}
