// Follows all objects of one kind: a list in pages, then a watch from there, resumed where it ended, and a new list
// when the server no longer remembers (410). Failures are tried again with growing pauses; one line says that it began
// and one that it is over. Meanwhile what is known stays known.

import type { Clock, Logger } from "#base";
import { objectKey, type KubeObject } from "#objects";
import { KubeError, type KubeClient } from "./client.ts";

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
    let version: string | undefined;
    while (!this.#stopped.signal.aborted) {
      try {
        version ??= await this.#list();
        version = await this.#watch(version);
      } catch (error) {
        if (this.#stopped.signal.aborted) return;
        if (error instanceof KubeError && error.status === 410) {
          version = undefined;
          await this.#pause(pauseMinMs);
        } else await this.#failed(error);
      }
    }
  }

  stop(): void {
    this.#stopped.abort();
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

  /** Watches until the server ends it; returns the version to go on from. */
  async #watch(from: string): Promise<string> {
    const { source, random } = this.#options;
    const query = new URLSearchParams({
      watch: "true",
      allowWatchBookmarks: "true",
      resourceVersion: from,
      timeoutSeconds: String(Math.round(watchSeconds * (1 + random()))),
    });
    if (source.fieldSelector !== undefined) query.set("fieldSelector", source.fieldSelector);
    let version = from;
    for await (const line of this.#lines(`${source.path}?${query}`)) {
      const { type, object } = line as WatchEvent;
      if (type === "ERROR") throw new KubeError(object.code ?? 0, object.reason ?? "", object.message ?? "");
      version = object.metadata.resourceVersion ?? version;
      if (type !== "BOOKMARK") this.#apply(type, object);
    }
    return version;
  }

  #lines(path: string): AsyncGenerator<unknown> {
    return this.#options.client.watch(path, this.#stopped.signal, () => this.#recovered());
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

  #recovered(): void {
    const { log, source } = this.#options;
    if (this.#failures > 0 || this.#missing) log.info({ kind: source.kind }, "the API server answers again");
    this.#failures = 0;
    this.#missing = false;
  }

  async #failed(error: unknown): Promise<void> {
    const { log, source, random } = this.#options;
    const isMissing = error instanceof KubeError && error.status === 404;
    if (isMissing) {
      if (!this.#missing) log.info({ kind: source.kind }, "the API server has no such kind; looking again");
      this.#missing = true;
      this.#markSynced();
      await this.#pause(missingPauseMs);
      return;
    }
    if (this.#failures === 0)
      log.warn(
        { kind: source.kind, error: String(error) },
        "watch failed; trying again, what is known stays",
      );
    const pauseMs = Math.min(pauseMaxMs, pauseMinMs * 2 ** this.#failures);
    this.#failures++;
    await this.#pause(pauseMs * (0.5 + random()));
  }

  #pause(ms: number): Promise<void> {
    return new Promise((resolve) => {
      const cancel = this.#options.clock.after(ms, resolve);
      this.#stopped.signal.addEventListener("abort", () => {
        cancel();
        resolve();
      });
    });
  }
}
