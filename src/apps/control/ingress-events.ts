// What is wrong with an Ingress, said in Events: its status has no place for it. One replica writes, the leader, and each mistake
// once: an Event's name is made of what it says.

import { createHash } from "node:crypto";
import { renderProblem, type Clock, type Problem } from "#base";
import type { Changed, Engine } from "#engine";
import { KubeError, type KubeClient, type RateLimitedWriter } from "#kube";
import { ingressProblemsOf, statusKeysOf, tables } from "#model";

export interface IngressEventsOptions {
  readonly engine: Engine;
  readonly client: KubeClient;
  readonly writer: RateLimitedWriter;
  readonly clock: Clock;
  /** The name under which events are reported. */
  readonly component: string;
}

/** What is applied together comes one by one: a mistake that is gone by then was none. */
const patienceMs = 3_000;
/** Events of one Ingress at a time; the others come when these are mended. */
const eventsMax = 10;
/** Kubernetes' limit for an event's message. */
const messageLengthMax = 1_000;

export class IngressEvents {
  readonly #options: IngressEventsOptions;
  readonly #watched = new Set<string>();
  /** When an Ingress, by row key, is looked at. */
  readonly #due = new Map<string, number>();
  #leading = false;

  constructor(options: IngressEventsOptions) {
    this.#options = options;
  }

  setLeading(leading: boolean): void {
    if (leading === this.#leading) return;
    this.#leading = leading;
    const { engine } = this.#options;
    if (leading) this.#follow(engine.watch(statusKeysOf, "Ingress"));
    else {
      this.#follow([]);
      engine.unwatch(statusKeysOf, "Ingress");
    }
  }

  /** To be told what each settling of the engine changed. */
  settled(changed: readonly Changed[]): void {
    if (!this.#leading) return;
    for (const { query, key, value } of changed) {
      if (query.id === ingressProblemsOf.id) this.#lookLater(key as string);
      else if (query.id === statusKeysOf.id && key === "Ingress") this.#follow(value as readonly string[]);
    }
  }

  /** To be called every half second or so. */
  tick(): void {
    const { engine, clock } = this.#options;
    const nowMs = clock.monotonicMs();
    for (const [key, atMs] of this.#due) {
      if (atMs > nowMs) continue;
      this.#due.delete(key);
      if (!this.#watched.has(key)) continue;
      const problems = engine.get(ingressProblemsOf, key).slice(0, eventsMax);
      for (const problem of problems) this.#submit(key, problem);
    }
  }

  #follow(keys: readonly string[]): void {
    const { engine } = this.#options;
    const now = new Set(keys);
    for (const key of this.#watched) {
      if (now.has(key)) continue;
      engine.unwatch(ingressProblemsOf, key);
      this.#watched.delete(key);
      this.#due.delete(key);
    }
    for (const key of now) {
      if (this.#watched.has(key)) continue;
      this.#watched.add(key);
      if (engine.watch(ingressProblemsOf, key).length > 0) this.#lookLater(key);
    }
  }

  #lookLater(key: string): void {
    this.#due.set(key, this.#options.clock.monotonicMs() + patienceMs);
  }

  #submit(key: string, { at, ...problem }: Problem): void {
    const { client, writer, clock, component, engine } = this.#options;
    const { metadata } = engine.rows(tables.Ingress).get(key) ?? {};
    if (metadata === undefined) return;
    const { namespace = "default", name, uid = "" } = metadata;
    const text = renderProblem({ ...problem, at: at.path === undefined ? {} : { path: at.path } });
    const message = text.slice(0, messageLengthMax);
    const mark = createHash("sha256").update(`${uid} ${message}`).digest("hex").slice(0, 16);
    const now = new Date(clock.nowMs()).toISOString().replace(/\.\d+Z$/, "Z");
    const body = {
      apiVersion: "v1",
      kind: "Event",
      metadata: { name: `${name}.${mark}`, namespace },
      type: "Warning",
      reason: problem.code,
      message,
      involvedObject: { apiVersion: "networking.k8s.io/v1", kind: "Ingress", namespace, name, uid },
      source: { component },
      firstTimestamp: now,
      lastTimestamp: now,
      count: 1,
    };
    writer.submit(`event Ingress ${key} ${mark}`, async () => {
      try {
        await client.request(`/api/v1/namespaces/${namespace}/events`, { method: "POST", body });
      } catch (error) {
        // It was said before, by this leader or another one.
        if (!(error instanceof KubeError && error.status === 409)) throw error;
      }
    });
  }
}
