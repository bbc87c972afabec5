// Namespaces: each gets its default service account and the cluster's CA; one that is deleted is emptied first.

import type { Clock, Logger } from "#base";
import { ApiError } from "../errors.ts";
import { recordOf } from "../json.ts";
import type { Registry } from "../registry.ts";
import type { ApiObject, ClusterStore, NewObject } from "../store.ts";

const rootCertificate = "kube-root-ca.crt";
// A namespace that still holds something (a Pod within its grace period) is looked at again so much later.
const retryMs = 200;

export interface NamespaceParts {
  readonly store: ClusterStore;
  readonly registry: Registry;
  readonly caPem: string;
  readonly clock: Clock;
  readonly log: Logger;
}

/** Runs until the returned function is called. */
export function startNamespaces(parts: NamespaceParts): () => void {
  const { store, clock, log } = parts;
  const waiting = new Map<string, () => void>();
  let stopped = false;

  const look = (name: string): void => {
    if (stopped || waiting.has(name)) return;
    const cancel = clock.after(0, () => void run(name));
    waiting.set(name, cancel);
  };
  const run = async (name: string): Promise<void> => {
    let again = false;
    try {
      again = await settleNamespace(parts, name);
    } catch (error) {
      if (stopped) return;
      again = !(error instanceof ApiError && error.status.reason === "NotFound");
      if (again)
        log.warn({ namespace: name, error }, "a namespace could not be brought into order, trying again");
    }
    waiting.delete(name);
    if (again && !stopped)
      waiting.set(
        name,
        clock.after(retryMs, () => void run(name)),
      );
  };

  const stops = [
    store.watch("namespaces", {}, ({ type, object }) => type !== "DELETED" && look(object.metadata.name)),
    ...["serviceaccounts", "configmaps"].map((resource) =>
      store.watch(resource, {}, ({ object }) => {
        const isOurs = object.metadata.name === (resource === "configmaps" ? rootCertificate : "default");
        if (isOurs) look(object.metadata.namespace ?? "");
      }),
    ),
  ];
  return () => {
    stopped = true;
    stops.forEach((stop) => stop());
    for (const cancel of waiting.values()) cancel();
  };
}

/** Whether it has to be looked at again. */
async function settleNamespace(parts: NamespaceParts, name: string): Promise<boolean> {
  const namespace = parts.store.get("namespaces", "", name);
  if (!namespace) return false;
  if (namespace.metadata.deletionTimestamp !== undefined) return !(await emptied(parts, namespace));
  await ensureContents(parts, name);
  return false;
}

async function ensureContents({ store, caPem }: NamespaceParts, namespace: string): Promise<void> {
  if (!store.get("serviceaccounts", namespace, "default")) {
    await create(store, "serviceaccounts", {
      apiVersion: "v1",
      kind: "ServiceAccount",
      metadata: { name: "default", namespace },
    });
  }
  const held = store.get("configmaps", namespace, rootCertificate);
  const data = { "ca.crt": caPem };
  if (!held) {
    await create(store, "configmaps", {
      apiVersion: "v1",
      kind: "ConfigMap",
      metadata: { name: rootCertificate, namespace },
      data,
    });
  } else if (recordOf(held["data"])["ca.crt"] !== caPem) {
    await store.patch("configmaps", namespace, rootCertificate, { data });
  }
}

async function create(store: ClusterStore, resource: string, object: NewObject): Promise<void> {
  try {
    await store.create(resource, object);
  } catch (error) {
    if (!(error instanceof ApiError) || error.status.reason !== "AlreadyExists") throw error;
  }
}

/** Deletes all that is in the namespace, and lets the namespace go when nothing is left. */
async function emptied({ store, registry }: NamespaceParts, namespace: ApiObject): Promise<boolean> {
  const { name } = namespace.metadata;
  const left = registry
    .kinds()
    .filter((kind) => kind.namespaced && kind.verbs.includes("list"))
    .flatMap((kind) =>
      store.list(kind.resource, { namespace: name }).items.map((object) => ({ kind, object })),
    );
  for (const { kind, object } of left) {
    if (object.metadata.deletionTimestamp !== undefined) continue;
    try {
      await store.delete(kind.resource, name, object.metadata.name, { propagationPolicy: "Background" });
    } catch (error) {
      if (!(error instanceof ApiError) || error.status.reason !== "NotFound") throw error;
    }
  }
  const remains = registry
    .kinds()
    .some(
      (kind) =>
        kind.namespaced &&
        kind.verbs.includes("list") &&
        store.list(kind.resource, { namespace: name }).items.length > 0,
    );
  if (remains) return false;
  await store.patch("namespaces", "", name, { spec: { finalizers: [] } });
  return true;
}
