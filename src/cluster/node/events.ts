// Events: what happened to an object, as `kubectl describe` shows it. Best effort, never in the way: an event that cannot be written
// is dropped.

import type { Logger } from "#base";
import type { ApiObject, ClusterStore } from "../api/index.ts";

const rememberedMax = 1_000; // beyond it the oldest is forgotten, and its repetition becomes a new event
const pendingMax = 500; // events waiting to be written; beyond it they are dropped

interface Remembered {
  readonly name: string;
  count: number;
}

export class EventRecorder {
  readonly #store: ClusterStore;
  readonly #component: string;
  readonly #host: string;
  readonly #log: Logger;
  readonly #known = new Map<string, Remembered>();
  #tail: Promise<void> = Promise.resolve();
  #pending = 0;
  #serial = 0;

  constructor(store: ClusterStore, component: string, host: string, log: Logger) {
    this.#store = store;
    this.#component = component;
    this.#host = host;
    this.#log = log;
  }

  /** A repetition of the same event raises its count. */
  record(
    about: ApiObject,
    type: "Normal" | "Warning",
    reason: string,
    message: string,
    fieldPath?: string,
  ): void {
    if (this.#pending >= pendingMax) return;
    this.#pending++;
    this.#tail = this.#tail
      .then(() => this.#write(about, type, reason, message.slice(0, 1_024), fieldPath))
      .catch((error: unknown) =>
        this.#log.debug({ error: String(error), reason }, "an event was not written"),
      )
      .finally(() => {
        this.#pending--;
      });
  }

  /** Resolves when everything recorded so far is written or dropped. */
  settled(): Promise<void> {
    return this.#tail;
  }

  async #write(
    about: ApiObject,
    type: string,
    reason: string,
    message: string,
    fieldPath?: string,
  ): Promise<void> {
    const now = new Date().toISOString().replace(/\.\d+Z$/, "Z");
    const namespace = about.metadata.namespace ?? "default";
    const key = [about.kind, namespace, about.metadata.uid, fieldPath, type, reason, message].join("|");
    const known = this.#known.get(key);
    if (known !== undefined && this.#store.get("events", namespace, known.name) !== undefined) {
      known.count++;
      await this.#store.patch(
        "events",
        namespace,
        known.name,
        { count: known.count, lastTimestamp: now },
        { type: "merge" },
      );
      return;
    }
    const serial = (Date.now() * 1_000 + (this.#serial++ % 1_000)).toString(16);
    const name = `${about.metadata.name}.${serial}`;
    await this.#store.create("events", {
      apiVersion: "v1",
      kind: "Event",
      metadata: { name, namespace },
      involvedObject: {
        apiVersion: about.apiVersion,
        kind: about.kind,
        namespace: about.metadata.namespace,
        name: about.metadata.name,
        uid: about.metadata.uid,
        ...(fieldPath === undefined ? {} : { fieldPath }),
      },
      type,
      reason,
      message,
      source: { component: this.#component, host: this.#host },
      reportingComponent: this.#component,
      reportingInstance: this.#host,
      firstTimestamp: now,
      lastTimestamp: now,
      eventTime: null,
      count: 1,
    });
    this.#known.set(key, { name, count: 1 });
    if (this.#known.size > rememberedMax) this.#known.delete(this.#known.keys().next().value ?? "");
  }
}
