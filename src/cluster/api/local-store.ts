// The ClusterStore of the cluster's own process: the same writes as over HTTPS, under the identity of the cluster.

import { internalContext } from "./context.ts";
import type { TokenIssuer } from "./auth/tokens.ts";
import { eventFor, filterOf } from "./http/lists.ts";
import { patched } from "./http/resources.ts";
import type { Objects, Target } from "./objects.ts";
import type { ApiObject, ClusterStore, ListOptions, ResourceName } from "./store.ts";

export function localStore(objects: Objects, tokens: TokenIssuer): ClusterStore {
  const { database, registry } = objects;

  function targetOf(resource: ResourceName, namespace: string): Target {
    const kind = registry.byResource(resource);
    return { kind, version: registry.versionOf(kind, kind.storageVersion), namespace };
  }

  function filterFor(resource: ResourceName, options: ListOptions): (object: ApiObject) => boolean {
    const target = targetOf(resource, options.namespace ?? "");
    return filterOf(target, options.labelSelector ?? "", options.fieldSelector ?? "");
  }

  return {
    get: (resource, namespace, name) => database.get(resource, namespace, name),
    list: (resource, options = {}) => ({
      items: database.list(resource, options.namespace).filter(filterFor(resource, options)),
      resourceVersion: String(database.revision),
    }),
    watch: (resource, options, onEvent) => {
      const filter = filterFor(resource, options);
      const { namespace, fromResourceVersion } = options;
      const from = fromResourceVersion === undefined ? database.revision : Number(fromResourceVersion);
      if (fromResourceVersion === undefined) {
        for (const object of database.list(resource, namespace).filter(filter))
          onEvent({ type: "ADDED", object });
      }
      return database.watch(resource, from, (change) => {
        if (namespace !== undefined && change.object.metadata.namespace !== namespace) return;
        const event = eventFor(change, filter);
        if (event) onEvent(event);
      });
    },
    create: (resource, object, options = {}) =>
      objects.create(
        targetOf(resource, object.metadata.namespace ?? ""),
        object,
        internalContext(options.fieldManager),
      ),
    update: async (resource, object, options = {}) => {
      const target = targetOf(resource, object.metadata.namespace ?? "");
      const context = internalContext(options.fieldManager);
      return (await objects.update(target, object.metadata.name, () => object, context)).object;
    },
    updateStatus: async (resource, object, options = {}) => {
      const target = targetOf(resource, object.metadata.namespace ?? "");
      const context = internalContext(options.fieldManager);
      return (
        await objects.update(target, object.metadata.name, () => object, context, { subresource: "status" })
      ).object;
    },
    patch: async (resource, namespace, name, patch, options = {}) => {
      const target = targetOf(resource, namespace);
      const context = internalContext(options.fieldManager);
      const { subresource } = options;
      const type = options.type ?? "merge";
      const change = (current: ApiObject | undefined): ApiObject => patched(current!, target, type, patch);
      return (await objects.update(target, name, change, context, { subresource })).object;
    },
    delete: async (resource, namespace, name, options = {}) =>
      (await objects.delete(targetOf(resource, namespace), name, options, internalContext())).object,
    issueToken: (ask) => tokens.issue(ask),
  };
}
