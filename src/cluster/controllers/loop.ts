// What every controller shares: watches name keys, a key is reconciled by looking at the present state, one turn a key at a time,
// failures come again with growing pauses.

import type { Logger } from "#base";
import type { ApiObject, ApiOwner, ClusterStore } from "../api/index.ts";

export interface WatchedResource {
  readonly resource: string;
  /** The keys (`namespace/name`) that a change of this object concerns. */
  readonly keysOf: (object: ApiObject) => readonly string[];
}

export interface ControllerPlan {
  readonly name: string;
  readonly watches: readonly WatchedResource[];
  /** Resolves with the milliseconds after which the key wants to be looked at again, if at all. */
  readonly reconcile: (key: string) => Promise<number | undefined>;
}

const retryFirstMs = 20;
const retryMaxMs = 10_000;

/** Starts a controller; returns the function that ends it. */
export function startController(store: ClusterStore, log: Logger, plan: ControllerPlan): () => void {
  const queued = new Set<string>();
  const active = new Set<string>();
  const retries = new Map<string, number>();
  const timers = new Map<string, NodeJS.Timeout>();
  let stopped = false;

  const add = (key: string) => {
    if (stopped || queued.has(key)) return;
    queued.add(key);
    setImmediate(() => void turn(key));
  };

  const later = (key: string, delayMs: number) => {
    clearTimeout(timers.get(key));
    timers.set(
      key,
      setTimeout(() => {
        timers.delete(key);
        add(key);
      }, delayMs),
    );
  };

  async function turn(key: string): Promise<void> {
    if (stopped || active.has(key)) return; // the turn under way looks at the queue when it ends
    queued.delete(key);
    active.add(key);
    try {
      const againMs = await plan.reconcile(key);
      retries.delete(key);
      if (againMs !== undefined && !stopped) later(key, againMs);
    } catch (error) {
      const count = retries.get(key) ?? 0;
      retries.set(key, count + 1);
      if (!isConflict(error))
        log.debug({ controller: plan.name, key, error: String(error) }, "will be tried again");
      if (!stopped) later(key, Math.min(retryFirstMs * 2 ** count, retryMaxMs));
    } finally {
      active.delete(key);
      if (queued.has(key)) setImmediate(() => void turn(key));
    }
  }

  const stops = plan.watches.map((watched) =>
    store.watch(watched.resource, {}, (event) => {
      for (const key of watched.keysOf(event.object)) add(key);
    }),
  );
  return () => {
    stopped = true;
    for (const stop of stops) stop();
    for (const timer of timers.values()) clearTimeout(timer);
  };
}

export function keyOf(object: ApiObject): string {
  return `${object.metadata.namespace ?? ""}/${object.metadata.name}`;
}

/** The key of the object's controller when that is of `kind`. */
export function ownerKeys(kind: string): (object: ApiObject) => string[] {
  return (object) => {
    const owner = controllerOf(object);
    return owner?.kind === kind ? [`${object.metadata.namespace ?? ""}/${owner.name}`] : [];
  };
}

export function controllerOf(object: ApiObject): ApiOwner | undefined {
  return object.metadata.ownerReferences?.find((owner) => owner.controller === true);
}

export function ownedBy(owner: ApiObject): (object: ApiObject) => boolean {
  return (object) => controllerOf(object)?.uid === owner.metadata.uid;
}

export function ownerReferenceTo(owner: ApiObject): ApiOwner {
  return {
    apiVersion: owner.apiVersion,
    kind: owner.kind,
    name: owner.metadata.name,
    uid: owner.metadata.uid ?? "",
    controller: true,
    blockOwnerDeletion: true,
  };
}

export function splitKey(key: string): [namespace: string, name: string] {
  const slash = key.indexOf("/");
  return [key.slice(0, slash), key.slice(slash + 1)];
}

export function reasonOf(error: unknown): string | undefined {
  if (typeof error !== "object" || error === null || !("status" in error)) return undefined;
  const { status } = error;
  return typeof status === "object" && status !== null && "reason" in status
    ? String(status.reason)
    : undefined;
}

function isConflict(error: unknown): boolean {
  return reasonOf(error) === "Conflict";
}

/** Writes `status` when it differs from the stored one. */
export async function writeStatus(
  store: ClusterStore,
  resource: string,
  object: ApiObject,
  status: object,
): Promise<void> {
  if (stableText(object["status"] ?? {}) === stableText(status)) return;
  await store.updateStatus(resource, { ...object, status });
}

/** JSON with sorted keys: equal for equal values. */
export function stableText(value: unknown): string {
  return JSON.stringify(value, (_key, item: unknown) => {
    if (typeof item !== "object" || item === null || Array.isArray(item)) return item;
    return Object.fromEntries(Object.entries(item).toSorted(([left], [right]) => (left < right ? -1 : 1)));
  });
}
