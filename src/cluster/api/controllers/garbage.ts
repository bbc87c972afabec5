// Garbage collection: what an owner leaves behind goes with it, foreground deletions wait for it, orphaned dependents are let go.

import type { Clock, Logger } from "#base";
import { ApiError } from "../errors.ts";
import { splitApiVersion } from "../kinds/kind.ts";
import type { Registry } from "../registry.ts";
import type { ApiObject, ApiOwner, ClusterStore, ResourceName } from "../store.ts";
import { foregroundFinalizer, orphanFinalizer } from "../objects.ts";
import { watchAll } from "./watch-all.ts";

// After a failure an object is looked at again so much later.
const retryMs = 1_000;

interface Node {
  readonly resource: ResourceName;
  readonly namespace: string;
  readonly name: string;
  readonly uid: string;
  readonly owners: readonly ApiOwner[];
}

export interface GarbageParts {
  readonly store: ClusterStore;
  readonly registry: Registry;
  readonly clock: Clock;
  readonly log: Logger;
}

/** Runs until the returned function is called. */
export function startGarbageCollector(parts: GarbageParts): () => void {
  const collector = new GarbageCollector(parts);
  const stop = watchAll(parts.store, parts.registry, (resource, event) =>
    collector.see(resource, event.type, event.object),
  );
  return () => {
    collector.stop();
    stop();
  };
}

class GarbageCollector {
  readonly #store: ClusterStore;
  readonly #registry: Registry;
  readonly #clock: Clock;
  readonly #log: Logger;
  readonly #nodes = new Map<string, Node>();
  /** Dependents by their owner's uid. */
  readonly #dependents = new Map<string, Set<string>>();
  readonly #queue = new Set<string>();
  readonly #timers = new Set<() => void>();
  #working = false;
  #stopped = false;

  constructor({ store, registry, clock, log }: GarbageParts) {
    this.#store = store;
    this.#registry = registry;
    this.#clock = clock;
    this.#log = log;
  }

  stop(): void {
    this.#stopped = true;
    for (const cancel of this.#timers) cancel();
  }

  see(resource: ResourceName, type: "ADDED" | "MODIFIED" | "DELETED", object: ApiObject): void {
    const { uid = "", name, namespace = "", ownerReferences = [], deletionTimestamp } = object.metadata;
    this.#forget(uid);
    if (type === "DELETED") {
      for (const dependent of this.#dependents.get(uid) ?? []) this.#enqueue(dependent);
      for (const owner of ownerReferences) this.#enqueue(owner.uid);
      return;
    }
    this.#nodes.set(uid, { resource, namespace, name, uid, owners: ownerReferences });
    for (const owner of ownerReferences) {
      const dependents = this.#dependents.get(owner.uid) ?? new Set();
      this.#dependents.set(owner.uid, dependents.add(uid));
    }
    if (ownerReferences.length > 0 || deletionTimestamp !== undefined) this.#enqueue(uid);
  }

  #forget(uid: string): void {
    const node = this.#nodes.get(uid);
    if (!node) return;
    this.#nodes.delete(uid);
    for (const owner of node.owners) {
      const dependents = this.#dependents.get(owner.uid);
      dependents?.delete(uid);
      if (dependents?.size === 0) this.#dependents.delete(owner.uid);
    }
  }

  #enqueue(uid: string): void {
    if (this.#stopped || !this.#nodes.has(uid)) return;
    this.#queue.add(uid);
    if (this.#working) return;
    this.#working = true;
    // The events of one moment are taken in first: an owner is often created just before its dependent.
    const cancel = this.#clock.after(0, () => {
      this.#timers.delete(cancel);
      void this.#work();
    });
    this.#timers.add(cancel);
  }

  async #work(): Promise<void> {
    for (const uid of this.#queue) {
      this.#queue.delete(uid);
      if (this.#stopped) break;
      try {
        await this.#look(uid);
      } catch (error) {
        if (error instanceof ApiError && error.status.reason === "NotFound") continue;
        this.#log.warn({ uid, error }, "garbage collection of an object failed, trying again");
        const cancel = this.#clock.after(retryMs, () => {
          this.#timers.delete(cancel);
          this.#enqueue(uid);
        });
        this.#timers.add(cancel);
      }
    }
    this.#working = false;
  }

  async #look(uid: string): Promise<void> {
    const node = this.#nodes.get(uid);
    const object = node && this.#store.get(node.resource, node.namespace, node.name);
    if (!node || object?.metadata.uid !== uid) return;
    const finalizers = object.metadata.finalizers ?? [];
    if (object.metadata.deletionTimestamp !== undefined) {
      if (finalizers.includes(orphanFinalizer)) return this.#orphan(node, object);
      if (finalizers.includes(foregroundFinalizer)) return this.#foreground(node, object);
    }
    if (node.owners.length > 0) await this.#checkOwners(node, object);
  }

  /** Dependents lose their reference to this owner, then it may go. */
  async #orphan(node: Node, object: ApiObject): Promise<void> {
    for (const uid of this.#dependents.get(node.uid) ?? []) {
      const dependent = this.#nodes.get(uid);
      if (!dependent) continue;
      const current = this.#store.get(dependent.resource, dependent.namespace, dependent.name);
      const ownerReferences = (current?.metadata.ownerReferences ?? []).filter(
        (owner) => owner.uid !== node.uid,
      );
      await this.#store.patch(dependent.resource, dependent.namespace, dependent.name, {
        metadata: { ownerReferences },
      });
    }
    await this.#release(node, object, orphanFinalizer);
  }

  /** Dependents go first; the last one to go wakes their owner. */
  async #foreground(node: Node, object: ApiObject): Promise<void> {
    const dependents = [...(this.#dependents.get(node.uid) ?? [])].flatMap(
      (uid) => this.#nodes.get(uid) ?? [],
    );
    const blocking = dependents.filter((dependent) =>
      dependent.owners.some((owner) => owner.uid === node.uid && owner.blockOwnerDeletion === true),
    );
    if (blocking.length === 0) await this.#release(node, object, foregroundFinalizer);
    for (const dependent of dependents) {
      const current = this.#store.get(dependent.resource, dependent.namespace, dependent.name);
      if (current === undefined || current.metadata.deletionTimestamp !== undefined) continue;
      await this.#remove(dependent, "Foreground");
    }
  }

  async #release(node: Node, object: ApiObject, finalizer: string): Promise<void> {
    const finalizers = (object.metadata.finalizers ?? []).filter((one) => one !== finalizer);
    await this.#store.patch(node.resource, node.namespace, node.name, { metadata: { finalizers } });
  }

  /** An object none of whose owners is left goes; references to owners that are gone are dropped while another stays. */
  async #checkOwners(node: Node, object: ApiObject): Promise<void> {
    const states = node.owners.map((owner) => ({ owner, state: this.#stateOf(owner, node.namespace) }));
    if (states.some(({ state }) => state === "unknown")) return;
    const there = states.filter(({ state }) => state !== "gone");
    const solid = there.filter(({ state }) => state === "there");
    if (solid.length > 0) {
      if (there.length === states.length) return;
      const ownerReferences = there.map(({ owner }) => owner);
      await this.#store.patch(node.resource, node.namespace, node.name, { metadata: { ownerReferences } });
      return;
    }
    if (object.metadata.deletionTimestamp !== undefined) return;
    if (there.length > 0) await this.#remove(node, "Foreground");
    else await this.#remove(node, "Background");
  }

  #stateOf(owner: ApiOwner, namespace: string): "there" | "waiting" | "gone" | "unknown" {
    const { group } = splitApiVersion(owner.apiVersion);
    const kind = this.#registry.byGroupKind(group, owner.kind);
    // Of a kind that is not known nobody can say that it is gone.
    if (!kind) return "unknown";
    const found = this.#store.get(kind.resource, kind.namespaced ? namespace : "", owner.name);
    if (found?.metadata.uid !== owner.uid) return "gone";
    const waits = (found.metadata.finalizers ?? []).includes(foregroundFinalizer);
    return waits && found.metadata.deletionTimestamp !== undefined ? "waiting" : "there";
  }

  async #remove(node: Node, propagationPolicy: "Background" | "Foreground"): Promise<void> {
    const preconditions = { uid: node.uid };
    await this.#store.delete(node.resource, node.namespace, node.name, { propagationPolicy, preconditions });
  }
}
