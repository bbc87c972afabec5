// The writes: create, update and delete as the Kubernetes API defines them, for every kind alike.
//
// A write reads the current object, makes the new one, passes it through pruning, defaults, mutating admission, validation and
// validating admission, and stores it only if what it read is still current. Where it is not, an unconditional write starts over.

import { randomBytes, randomUUID } from "node:crypto";
import type { Clock } from "#base";
import type { Admission, AdmissionRequest } from "./admission/admission.ts";
import type { ServiceAddresses } from "./admission/service-addresses.ts";
import type { WriteContext } from "./context.ts";
import type { Database } from "./database.ts";
import {
  alreadyExists,
  conflict,
  forbidden,
  invalid,
  notFound,
  staleObject,
  tooManyRequests,
} from "./errors.ts";
import { copyOf, recordOf, sameJson, stringOf, valueAt } from "./json.ts";
import { apiVersionOf } from "./kinds/kind.ts";
import type { Kind, KindVersion } from "./kinds/kind.ts";
import { decode, objectErrors, settle } from "./object-checks.ts";
import { trackUpdate } from "./patch/apply.ts";
import { listRulesOf } from "./patch/lists.ts";
import type { Registry } from "./registry.ts";
import type { ApiObject, DeleteOptions, ManagedFields } from "./store.ts";

// A write that keeps losing to others gives up after so many rounds, with 409.
const roundsMax = 10;
const hourMs = 3_600_000;

export interface Target {
  readonly kind: Kind;
  readonly version: KindVersion;
  /** "" for cluster-scoped kinds. */
  readonly namespace: string;
}

export interface UpdateOptions {
  readonly subresource?: string;
  /** Makes the object that a patch or update starts from when there is none; absent: 404. */
  readonly orCreate?: boolean;
  readonly operation?: "Apply" | "Update";
}

/** The outcome of a deletion: `removed` tells whether the object is gone or waits for finalizers or its node. */
export interface Deletion {
  readonly object: ApiObject;
  readonly removed: boolean;
}

export class Objects {
  readonly #database: Database;
  readonly #registry: Registry;
  readonly #admission: Admission;
  readonly #addresses: ServiceAddresses;
  readonly #clock: Clock;

  constructor(parts: {
    database: Database;
    registry: Registry;
    admission: Admission;
    addresses: ServiceAddresses;
    clock: Clock;
  }) {
    this.#database = parts.database;
    this.#registry = parts.registry;
    this.#admission = parts.admission;
    this.#addresses = parts.addresses;
    this.#clock = parts.clock;
  }

  get database(): Database {
    return this.#database;
  }

  get registry(): Registry {
    return this.#registry;
  }

  /** RFC 3339, whole seconds, as metav1.Time is written. */
  now(offsetMs = 0): string {
    return new Date(this.#clock.nowMs() + offsetMs).toISOString().replace(/\.\d+Z$/, "Z");
  }

  async create(target: Target, body: unknown, context: WriteContext): Promise<ApiObject> {
    const { kind, version, namespace } = target;
    const object = decode(target, body, context);
    this.#requireNamespace(target, object);
    const generated = object.metadata.generateName;
    if (object.metadata.name === "" && generated)
      object.metadata.name = generated.slice(0, 58) + randomSuffix();
    if (version.status) delete object["status"];
    this.#fillNew(object, kind);
    const settled = settle(target, object, undefined);
    const request = this.#request("CREATE", target, settled, undefined, context);
    let admitted = (await this.#admission.mutate(request)) ?? settled;
    admitted = settle(target, admitted, undefined);
    admitted.metadata.managedFields = this.#managed(target, undefined, admitted, context, {});
    const errors = objectErrors(target, admitted, undefined);
    if (errors.length > 0) throw invalid(kind, admitted.metadata.name, errors);
    await this.#admission.validate({ ...request, object: admitted });
    this.#requireNamespace(target, admitted);
    if (this.#database.get(kind.resource, namespace, admitted.metadata.name)) {
      throw alreadyExists(kind, admitted.metadata.name);
    }
    return this.#commit(kind, admitted, undefined, context.dryRun);
  }

  #fillNew(object: ApiObject, kind: Kind): void {
    const meta = object.metadata;
    for (const field of [
      "resourceVersion",
      "deletionTimestamp",
      "deletionGracePeriodSeconds",
      "selfLink",
    ] as const) {
      delete (meta as unknown as Record<string, unknown>)[field];
    }
    meta.uid = randomUUID();
    meta.creationTimestamp = this.now();
    if (kind.custom || object["spec"] !== undefined) meta.generation = 1;
    else delete meta.generation;
  }

  #requireNamespace(target: Target, object: ApiObject): void {
    if (!target.kind.namespaced) return;
    const namespace = this.#database.get("namespaces", "", target.namespace);
    if (!namespace) throw notFound({ group: "", plural: "namespaces", kind: "Namespace" }, target.namespace);
    if (namespace.metadata.deletionTimestamp === undefined) return;
    // Events tell of the end itself, and are let in.
    if (target.kind.kind === "Event") return;
    const why = `unable to create new content in namespace ${target.namespace} because it is being terminated`;
    throw forbidden(target.kind, object.metadata.name, why);
  }

  /**
   * Replaces the object by what `change` makes of the current one. `change` gets a copy it may alter, undefined where there is none
   * and `orCreate` allows it. With metadata.resourceVersion in what it returns, 409 unless that is current.
   */
  async update(
    target: Target,
    name: string,
    change: (current: ApiObject | undefined) => ApiObject,
    context: WriteContext,
    options: UpdateOptions = {},
  ): Promise<{ object: ApiObject; created: boolean }> {
    const { kind, namespace } = target;
    for (let round = 0; round < roundsMax; round += 1) {
      const current = this.#database.get(kind.resource, namespace, name);
      if (!current && options.orCreate !== true) throw notFound(kind, name);
      const wanted = change(current && copyOf(current));
      if (!current) return { object: await this.create(target, wanted, context), created: true };
      const asked = wanted.metadata?.resourceVersion;
      if (asked && asked !== current.metadata.resourceVersion) throw conflict(kind, name, staleObject);
      if (wanted.metadata?.uid && wanted.metadata.uid !== current.metadata.uid) {
        const why = `Precondition failed: UID in precondition: ${wanted.metadata.uid}, UID in object meta: ${current.metadata.uid}`;
        throw conflict(kind, name, why);
      }
      const next = await this.#admitted(target, current, wanted, context, options);
      const latest = this.#database.get(kind.resource, namespace, name);
      if (latest?.metadata.resourceVersion === current.metadata.resourceVersion) {
        return { object: this.#store(kind, current, next, context.dryRun), created: false };
      }
      // Somebody else was faster: a write that names its version meets the check above, others are made anew.
    }
    throw conflict(kind, name, staleObject);
  }

  /** The new state of an existing object, after everything that may change or refuse it. */
  async #admitted(
    target: Target,
    current: ApiObject,
    wanted: ApiObject,
    context: WriteContext,
    options: UpdateOptions,
  ): Promise<ApiObject> {
    const decoded = decode(target, wanted, context);
    const prepared = this.#carryOver(target, current, decoded, options.subresource);
    const settled = settle(target, prepared, current);
    const request = this.#request("UPDATE", target, settled, current, context, options.subresource);
    const mutated = (await this.#admission.mutate(request)) ?? settled;
    const next = settle(target, this.#carryOver(target, current, mutated, options.subresource), current);
    next.metadata.managedFields =
      options.operation === "Apply"
        ? (decoded.metadata.managedFields ?? [])
        : this.#managed(
            target,
            current,
            { ...next, metadata: { ...next.metadata, managedFields: undefined } },
            context,
            options,
            decoded,
          );
    const errors = objectErrors(target, next, current, options.subresource);
    if (errors.length > 0) throw invalid(target.kind, current.metadata.name, errors);
    await this.#admission.validate({ ...request, object: next });
    return next;
  }

  /** What an update may not change is taken from the current object; a status write changes the status alone. */
  #carryOver(
    target: Target,
    current: ApiObject,
    wanted: ApiObject,
    subresource: string | undefined,
  ): ApiObject {
    const old = current.metadata;
    const metadata = { ...wanted.metadata };
    for (const field of [
      "name",
      "namespace",
      "generateName",
      "uid",
      "creationTimestamp",
      "deletionTimestamp",
      "deletionGracePeriodSeconds",
      "generation",
    ] as const) {
      const kept = { [field]: old[field] };
      Object.assign(metadata, kept);
      if (old[field] === undefined) delete metadata[field];
    }
    const apiVersion = apiVersionOf(target.kind.group, target.version.name);
    if (subresource === "status") {
      // Labels and annotations of a status write are kept as they are, managedFields move on.
      const kept = {
        ...metadata,
        labels: old.labels,
        annotations: old.annotations,
        finalizers: old.finalizers,
        ownerReferences: old.ownerReferences,
      };
      return copyOf({ ...current, apiVersion, metadata: kept, status: wanted["status"] });
    }
    const next: ApiObject = { ...wanted, apiVersion, kind: target.kind.kind, metadata };
    if (target.version.status) {
      if (current["status"] === undefined) delete next["status"];
      else next["status"] = current["status"];
    }
    const bare = copyOf(next);
    target.kind.hooks.prepareUpdate?.(bare, current);
    const changed = !sameJson(contentOf(bare), contentOf(current));
    if (changed && old.generation !== undefined) bare.metadata.generation = old.generation + 1;
    return bare;
  }

  #request(
    operation: "CREATE" | "UPDATE",
    target: Target,
    object: ApiObject,
    oldObject: ApiObject | undefined,
    context: WriteContext,
    subresource = "",
  ): AdmissionRequest {
    const { kind, version, namespace } = target;
    const name = object.metadata.name;
    const { user, dryRun, warn } = context;
    return {
      operation,
      kind,
      version: version.name,
      subresource,
      namespace,
      name,
      object,
      oldObject,
      user,
      dryRun,
      warn,
    };
  }

  #managed(
    target: Target,
    current: ApiObject | undefined,
    next: ApiObject,
    context: WriteContext,
    options: UpdateOptions,
    given: ApiObject = next,
  ): ManagedFields[] {
    // A client that sends an empty list gives up all ownership records, as Kubernetes lets it.
    if (current && given.metadata.managedFields?.length === 0) return [];
    if (options.operation === "Apply") return next.metadata.managedFields ?? [];
    const apiVersion = apiVersionOf(target.kind.group, target.version.name);
    const manager = {
      name: context.fieldManager,
      operation: "Update" as const,
      apiVersion,
      time: this.now(),
      subresource: options.subresource,
    };
    const entries = current
      ? undefined
      : next.metadata.managedFields?.filter((entry) => entry.operation === "Apply");
    const shape = { schema: target.version.schema, rules: listRulesOf(target.kind) };
    if (entries && entries.length > 0) return entries;
    // The status of an ordinary write is the server's doing.
    const { status, ...rest } = next;
    const before =
      current && options.subresource === undefined && target.version.status
        ? { ...current, status: undefined }
        : current;
    const after = options.subresource === undefined && target.version.status ? rest : { ...rest, status };
    return trackUpdate(
      before,
      { ...(after as ApiObject), metadata: { ...next.metadata, managedFields: undefined } },
      manager,
      shape,
    );
  }

  /** Stores an update; where nothing changed nothing is written, and where the last finalizer went the object goes. */
  #store(kind: Kind, current: ApiObject, next: ApiObject, dryRun: boolean): ApiObject {
    if (sameJson(comparable(current, kind), comparable(next, kind))) return current;
    const meta = next.metadata;
    const finalizers = meta.finalizers ?? [];
    const waits =
      finalizers.length > 0 || (meta.deletionGracePeriodSeconds ?? 0) > 0 || holdsNamespace(kind, next);
    if (meta.deletionTimestamp !== undefined && !waits) {
      if (dryRun) return next;
      return this.#remove(kind, next);
    }
    return this.#commit(kind, next, current, dryRun);
  }

  #commit(kind: Kind, object: ApiObject, previous: ApiObject | undefined, dryRun: boolean): ApiObject {
    const stored = { ...object, apiVersion: apiVersionOf(kind.group, kind.storageVersion) };
    if (kind.resource === "services") this.#addresses.assign(stored, previous);
    if (dryRun) return stored;
    const result = this.#database.put(kind.resource, stored);
    if (kind.resource === "customresourcedefinitions.apiextensions.k8s.io") this.#registry.define(result);
    return result;
  }

  #remove(kind: Kind, object: ApiObject): ApiObject {
    const last = this.#database.remove(kind.resource, object);
    if (kind.resource !== "customresourcedefinitions.apiextensions.k8s.io") return last;
    for (const instance of this.#database.list(object.metadata.name))
      this.#database.remove(object.metadata.name, instance);
    this.#registry.undefine(object);
    return last;
  }

  async delete(
    target: Target,
    name: string,
    options: DeleteOptions,
    context: WriteContext,
  ): Promise<Deletion> {
    const { kind, version, namespace } = target;
    for (let round = 0; round < roundsMax; round += 1) {
      const current = this.#database.get(kind.resource, namespace, name);
      if (!current) throw notFound(kind, name);
      checkPreconditions(kind, current, options);
      if (kind.resource === "namespaces" && lastingNamespaces.has(name)) {
        throw forbidden(kind, name, "this namespace may not be deleted");
      }
      const { user, dryRun, warn } = context;
      await this.#admission.validate({
        operation: "DELETE",
        kind,
        version: version.name,
        subresource: "",
        namespace,
        name,
        object: undefined,
        oldObject: current,
        user,
        dryRun,
        warn,
      });
      const latest = this.#database.get(kind.resource, namespace, name);
      if (latest?.metadata.resourceVersion !== current.metadata.resourceVersion) continue;
      return this.#markOrRemove(kind, current, options, dryRun);
    }
    throw conflict(kind, name, staleObject);
  }

  #markOrRemove(kind: Kind, current: ApiObject, options: DeleteOptions, dryRun: boolean): Deletion {
    const graceSeconds = graceOf(kind, current, options);
    const finalizers = finalizersFor(current, options);
    const waits = graceSeconds > 0 || finalizers.length > 0 || holdsNamespace(kind, current);
    if (!waits) return { object: dryRun ? current : this.#remove(kind, current), removed: true };
    const old = current.metadata;
    const isMarked = old.deletionTimestamp !== undefined;
    const graceBefore = old.deletionGracePeriodSeconds ?? 0;
    if (isMarked && graceSeconds >= graceBefore && sameJson(finalizers, old.finalizers ?? [])) {
      return { object: current, removed: false };
    }
    const metadata = {
      ...old,
      deletionTimestamp:
        isMarked && graceSeconds >= graceBefore ? old.deletionTimestamp : this.now(graceSeconds * 1000),
      deletionGracePeriodSeconds: isMarked ? Math.min(graceSeconds, graceBefore) : graceSeconds,
      ...(finalizers.length > 0 ? { finalizers } : {}),
      ...(old.generation === undefined || isMarked ? {} : { generation: old.generation + 1 }),
    };
    const marked: ApiObject = { ...current, metadata };
    if (kind.resource === "namespaces")
      marked["status"] = { ...recordOf(current["status"]), phase: "Terminating" };
    return { object: dryRun ? marked : this.#database.put(kind.resource, marked), removed: false };
  }

  /** Removes Events older than an hour, as Kubernetes does: they are news, not records. Returns how many. */
  expireEvents(): number {
    const before = this.#clock.nowMs() - hourMs;
    const old = ["events", "events.events.k8s.io"].flatMap((resource) =>
      this.#database
        .list(resource)
        .filter(
          (event) =>
            Date.parse(stringOf(event["lastTimestamp"]) || stringOf(event.metadata.creationTimestamp)) <
            before,
        )
        .map((event) => ({ resource, event })),
    );
    for (const { resource, event } of old) this.#database.remove(resource, event);
    return old.length;
  }

  /** Refuses an eviction that a PodDisruptionBudget does not allow now. */
  checkBudget(pod: ApiObject): void {
    for (const budget of this.#database.list("poddisruptionbudgets.policy", pod.metadata.namespace)) {
      const labels = recordOf(valueAt(budget, "spec", "selector", "matchLabels"));
      const covers = Object.entries(labels).every(([key, value]) => pod.metadata.labels?.[key] === value);
      if (covers && Number(valueAt(budget, "status", "disruptionsAllowed") ?? 1) < 1) {
        throw tooManyRequests("Cannot evict pod as it would violate the pod's disruption budget.", 10);
      }
    }
  }
}

/** What counts as a new generation: all but metadata and status. */
function contentOf(object: ApiObject): unknown {
  const { metadata: _metadata, status: _status, apiVersion: _apiVersion, ...content } = object;
  return content;
}

/** The object without what changes by itself. */
function comparable(object: ApiObject, kind: Kind): unknown {
  const { resourceVersion: _version, managedFields, ...metadata } = object.metadata;
  const owned = (managedFields ?? []).map(({ time: _time, ...entry }) => entry);
  return { ...object, apiVersion: kind.kind, metadata: { ...metadata, owned } };
}

/** A namespace goes only when its spec.finalizers are gone. */
function holdsNamespace(kind: Kind, object: ApiObject): boolean {
  const finalizers = valueAt(object, "spec", "finalizers");
  return kind.resource === "namespaces" && Array.isArray(finalizers) && finalizers.length > 0;
}

function checkPreconditions(kind: Kind, current: ApiObject, { preconditions }: DeleteOptions): void {
  const { uid, resourceVersion, name } = current.metadata;
  if (preconditions?.uid !== undefined && preconditions.uid !== uid) {
    throw conflict(
      kind,
      name,
      `Precondition failed: UID in precondition: ${preconditions.uid}, UID in object meta: ${uid}`,
    );
  }
  if (preconditions?.resourceVersion !== undefined && preconditions.resourceVersion !== resourceVersion) {
    const why = `Precondition failed: ResourceVersion in precondition: ${preconditions.resourceVersion}, ResourceVersion in object meta: ${resourceVersion}`;
    throw conflict(kind, name, why);
  }
}

/** Seconds that a Pod is left to end by itself; all other kinds go at once, and so does a Pod that no node runs. */
function graceOf(kind: Kind, current: ApiObject, options: DeleteOptions): number {
  if (kind.resource !== "pods") return 0;
  const phase = valueAt(current, "status", "phase");
  const runs =
    stringOf(valueAt(current, "spec", "nodeName")) !== "" && phase !== "Succeeded" && phase !== "Failed";
  if (!runs) return 0;
  return (
    options.gracePeriodSeconds ?? Number(valueAt(current, "spec", "terminationGracePeriodSeconds") ?? 30)
  );
}

// Kubernetes keeps these: too much counts on them.
const lastingNamespaces = new Set(["default", "kube-system", "kube-public"]);

export const foregroundFinalizer = "foregroundDeletion";
export const orphanFinalizer = "orphan";

function finalizersFor(current: ApiObject, options: DeleteOptions): string[] {
  const others = (current.metadata.finalizers ?? []).filter(
    (finalizer) =>
      options.propagationPolicy === undefined ||
      (finalizer !== foregroundFinalizer && finalizer !== orphanFinalizer),
  );
  if (options.propagationPolicy === "Foreground") return [...others, foregroundFinalizer];
  if (options.propagationPolicy === "Orphan") return [...others, orphanFinalizer];
  return others;
}

// Without vowels and look-alikes, as Kubernetes' generated names.
const suffixLetters = "bcdfghjklmnpqrstvwxz2456789";

export function randomSuffix(): string {
  return [...randomBytes(5)].map((byte) => suffixLetters[byte % suffixLetters.length]).join("");
}
