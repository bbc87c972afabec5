// A store in memory with the interface of the API server's, for the unit tests of node and controllers: no admission, no validation.

import { randomUUID } from "node:crypto";
import type { ApiObject, ClusterStore, ListOptions, NewObject, WatchEvent } from "../api/index.ts";

interface Watcher {
  readonly resource: string;
  readonly options: ListOptions;
  readonly onEvent: (event: WatchEvent) => void;
}

/** Label selectors of equality, and field selectors on spec.nodeName, are what its users need. */
export function memoryStore(): ClusterStore {
  const tables = new Map<string, Map<string, ApiObject>>();
  const watchers = new Set<Watcher>();
  let version = 0;
  const table = (resource: string) => {
    const found = tables.get(resource) ?? new Map<string, ApiObject>();
    tables.set(resource, found);
    return found;
  };
  const put = (resource: string, object: ApiObject, type: WatchEvent["type"]): ApiObject => {
    const { namespace = "", name } = object.metadata;
    const stored = { ...object, metadata: { ...object.metadata, resourceVersion: String(++version) } };
    if (type === "DELETED") table(resource).delete(`${namespace}/${name}`);
    else table(resource).set(`${namespace}/${name}`, stored);
    for (const watcher of watchers) {
      if (watcher.resource === resource && selects(watcher.options, stored))
        queueMicrotask(() => watcher.onEvent({ type, object: stored }));
    }
    return stored;
  };
  const current = (resource: string, namespace: string, name: string): ApiObject => {
    const found = table(resource).get(`${namespace}/${name}`);
    if (found === undefined)
      throw Object.assign(new Error(`${resource} "${name}" not found`), {
        status: { code: 404, reason: "NotFound" },
      });
    return found;
  };
  const checkVersion = (before: ApiObject, object: ApiObject) => {
    const wanted = object.metadata.resourceVersion;
    if (wanted === undefined || wanted === before.metadata.resourceVersion) return;
    throw Object.assign(new Error("the object has been modified"), {
      status: { code: 409, reason: "Conflict" },
    });
  };
  return {
    get: (resource, namespace, name) => table(resource).get(`${namespace}/${name}`),
    list: (resource, options = {}) => ({
      items: [...table(resource).values()].filter((object) => selects(options, object)),
      resourceVersion: String(version),
    }),
    watch(resource, options, onEvent) {
      const watcher = { resource, options, onEvent };
      for (const object of table(resource).values())
        if (selects(options, object)) onEvent({ type: "ADDED", object });
      watchers.add(watcher);
      return () => watchers.delete(watcher);
    },
    async create(resource, object: NewObject) {
      const name = object.metadata.name ?? `${object.metadata.generateName ?? ""}${randomUUID().slice(0, 5)}`;
      const key = `${object.metadata.namespace ?? ""}/${name}`;
      if (table(resource).has(key))
        throw Object.assign(new Error("already exists"), { status: { code: 409, reason: "AlreadyExists" } });
      const metadata = {
        uid: randomUUID(),
        creationTimestamp: new Date().toISOString(),
        generation: 1,
        ...object.metadata,
        name,
      };
      return put(resource, { ...object, metadata }, "ADDED");
    },
    async update(resource, object) {
      const before = current(resource, object.metadata.namespace ?? "", object.metadata.name);
      checkVersion(before, object);
      const generation =
        (before.metadata.generation ?? 1) +
        (JSON.stringify(before["spec"]) === JSON.stringify(object["spec"]) ? 0 : 1);
      const metadata = { ...before.metadata, ...object.metadata, generation };
      return put(resource, { ...object, metadata, status: before["status"] }, "MODIFIED");
    },
    async updateStatus(resource, object) {
      const before = current(resource, object.metadata.namespace ?? "", object.metadata.name);
      checkVersion(before, object);
      return put(resource, { ...before, status: object["status"] }, "MODIFIED");
    },
    async patch(resource, namespace, name, patch) {
      const before = current(resource, namespace, name);
      return put(resource, mergePatch(before, patch) as ApiObject, "MODIFIED");
    },
    async delete(resource, namespace, name, options = {}) {
      const before = current(resource, namespace, name);
      const seconds = options.gracePeriodSeconds;
      if (resource !== "pods" || seconds === 0) return put(resource, before, "DELETED");
      const metadata = {
        ...before.metadata,
        deletionTimestamp: new Date().toISOString(),
        deletionGracePeriodSeconds: seconds ?? 30,
      };
      return put(resource, { ...before, metadata }, "MODIFIED");
    },
    async issueToken(request) {
      return {
        token: `token-of-${request.serviceAccount}`,
        expiresAtMs: Date.now() + request.expirationSeconds * 1_000,
      };
    },
  };
}

function selects(options: ListOptions, object: ApiObject): boolean {
  if (options.namespace !== undefined && options.namespace !== object.metadata.namespace) return false;
  for (const term of (options.labelSelector ?? "").split(",").filter(Boolean)) {
    const [key = "", value] = term.split("=");
    if (object.metadata.labels?.[key] !== value) return false;
  }
  const nodeName = /^spec\.nodeName=(.*)$/.exec(options.fieldSelector ?? "")?.[1];
  const spec = object["spec"] as { nodeName?: string } | undefined;
  return nodeName === undefined || (spec?.nodeName ?? "") === nodeName;
}

function mergePatch(target: unknown, patch: unknown): unknown {
  if (typeof patch !== "object" || patch === null || Array.isArray(patch)) return patch;
  const result: Record<string, unknown> =
    typeof target === "object" && target !== null && !Array.isArray(target) ? { ...target } : {};
  for (const [key, value] of Object.entries(patch)) {
    if (value === null) delete result[key];
    else result[key] = mergePatch(result[key], value);
  }
  return result;
}
