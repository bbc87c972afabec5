// What proxies rejected, said where the owner of the object looks: a condition in its status, and an Event.

import type { Clock } from "#base";
import { likelierCauseFirst, renderRef, type ObjectRef } from "#base";
import { collectionPath, KubeError, type KubeClient, type RateLimitedWriter } from "#kube";
import { kinds, type KindInfo, type KubeObject } from "#objects";
import type { Rejection } from "#xds";
import { controlPlaneLimits, type ReachControlLimit } from "./limits.ts";

export interface RejectionWriterOptions {
  readonly client: KubeClient;
  readonly writer: RateLimitedWriter;
  readonly clock: Clock;
  /** The name under which events are reported. */
  readonly component: string;
  readonly reached?: ReachControlLimit;
}

interface Condition {
  readonly type: string;
  readonly status: "True" | "False";
  readonly reason: string;
  readonly message: string;
  readonly lastTransitionTime: string;
}

const conditionType = "Programmed";
/** The object changed between reading and writing: so often it is tried again. */
const conflictsMax = 3;
const objectsMax = controlPlaneLimits.objectsAtFault.value;
const eventPauseMs = controlPlaneLimits.eventPause.value;
const eventsRememberedMax = controlPlaneLimits.eventsRemembered.value;
/** Kubernetes' limit for an event's message. */
const messageLengthMax = 1_000;

/** The mesh objects that a rejected resource is made from: the ones that a person wrote. */
export function objectsAtFault(rejection: Rejection): readonly ObjectRef[] {
  return faultOf(rejection).objects;
}

function faultOf({ origins }: Rejection): {
  readonly objects: readonly ObjectRef[];
  readonly isCut: boolean;
} {
  const seen = new Map<string, ObjectRef>();
  for (const { object } of origins) if (kindOf(object) !== undefined) seen.set(renderRef(object), object);
  const all = [...seen.values()].toSorted(likelierCauseFirst);
  return { objects: all.slice(0, objectsMax), isCut: all.length > objectsMax };
}

export class RejectionWriter {
  readonly #options: RejectionWriterOptions;
  readonly #eventAtMs = new Map<string, number>();

  constructor(options: RejectionWriterOptions) {
    this.#options = options;
  }

  rejected(rejection: Rejection): void {
    const { type, name, reason, proxy } = rejection;
    const message =
      `${proxy.split("~")[2] ?? proxy} rejected ${type} ${name}, the last good version stays in use: ${reason}`.slice(
        0,
        messageLengthMax,
      );
    const { objects, isCut } = faultOf(rejection);
    if (isCut) this.#options.reached?.("objectsAtFault");
    for (const object of objects) {
      const status = { status: "False", reason: "RejectedByProxy", message } as const;
      this.#submitCondition(object, status);
      this.#submitEvent(object, message);
    }
  }

  cleared(rejection: Rejection): void {
    for (const object of objectsAtFault(rejection)) {
      this.#submitCondition(object, { status: "True", reason: "Accepted", message: "" });
    }
  }

  #submitEvent(object: ObjectRef, message: string): void {
    const ref = renderRef(object);
    const nowMs = this.#options.clock.monotonicMs();
    // One mistake is often rejected in many resources: one event says so.
    if (nowMs - (this.#eventAtMs.get(ref) ?? -Infinity) < eventPauseMs) {
      this.#options.reached?.("eventPause");
      return;
    }
    if (this.#eventAtMs.size > eventsRememberedMax) {
      this.#options.reached?.("eventsRemembered");
      this.#eventAtMs.clear();
    }
    this.#eventAtMs.set(ref, nowMs);
    this.#options.writer.submit(`event ${ref}`, () => this.#writeEvent(object, message));
  }

  #submitCondition(object: ObjectRef, condition: Pick<Condition, "status" | "reason" | "message">): void {
    this.#options.writer.submit(`status ${renderRef(object)}`, () => this.#writeCondition(object, condition));
  }

  async #writeCondition(
    object: ObjectRef,
    { status, reason, message }: Pick<Condition, "status" | "reason" | "message">,
  ): Promise<void> {
    const kind = kindOf(object);
    if (kind === undefined) return;
    const { client, clock } = this.#options;
    const path = `${collectionPath({ ...kind, version: kind.storageVersion }, object.namespace)}/${object.name}`;
    for (let attempt = 1; ; attempt++) {
      const now = await client.get<KubeObject<unknown, { readonly conditions?: readonly Condition[] }>>(path);
      const others = (now.status?.conditions ?? []).filter(({ type }) => type !== conditionType);
      const lastTransitionTime = new Date(clock.nowMs()).toISOString().replace(/\.\d+Z$/, "Z");
      const conditions = [...others, { type: conditionType, status, reason, message, lastTransitionTime }];
      const { name, resourceVersion } = now.metadata;
      const body = { metadata: { name, resourceVersion }, status: { conditions } };
      try {
        await client.request(`${path}/status`, { method: "PATCH", patch: "merge", body });
        return;
      } catch (error) {
        // The leader writes other conditions of the same list.
        const conflicts = error instanceof KubeError && error.status === 409;
        if (!conflicts || attempt >= conflictsMax) throw error;
      }
    }
  }

  #writeEvent(object: ObjectRef, message: string): Promise<unknown> {
    const { client, clock, component } = this.#options;
    const namespace = object.namespace === "" ? "default" : object.namespace;
    const kind = kindOf(object);
    const at = new Date(clock.nowMs()).toISOString().replace(/\.\d+Z$/, "Z");
    const body = {
      apiVersion: "v1",
      kind: "Event",
      metadata: { generateName: `${object.name}.`, namespace },
      type: "Warning",
      reason: "RejectedByProxy",
      message,
      involvedObject: {
        apiVersion: kind === undefined ? "" : `${kind.group}/${kind.storageVersion}`,
        kind: object.kind,
        namespace: object.namespace,
        name: object.name,
      },
      source: { component },
      firstTimestamp: at,
      lastTimestamp: at,
      count: 1,
    };
    return client.request(`/api/v1/namespaces/${namespace}/events`, { method: "POST", body });
  }
}

function kindOf({ kind }: ObjectRef): KindInfo | undefined {
  return kinds.find((info) => info.kind === kind && info.family === "istio");
}
