// How far an object has come: which proxies of this replica are to have something of it, and which of them have it as it is
// now. Asked for by people (`mizzen wait`), of every replica, since each knows its own proxies alone.

import type { ObjectRef } from "#base";
import type { Engine } from "#engine";
import { tables, type TableKind } from "#model";
import type { Mesh, Subscriber } from "#xds";

export interface Distribution {
  /** The generation that this replica goes by; absent while it does not know the object. */
  readonly generation?: number;
  /** Proxies that are to have a resource which is made from the object. */
  readonly proxies: number;
  /** Those of them that have all of these as they are now. */
  readonly holding: number;
  /** Node ids of some of the others. */
  readonly waiting: readonly string[];
}

const waitingNamedMax = 20;

export function distributionOf<C, V>(engine: Engine, mesh: Mesh<C, V>, object: ObjectRef): Distribution {
  const { kind, namespace, name } = object;
  const row = Object.hasOwn(tables, kind)
    ? engine.rows(tables[kind as TableKind] as typeof tables.Sidecar).get(`${namespace}/${name}`)
    : undefined;
  const states = new Map<Subscriber, boolean>();
  for (const use of row === undefined ? [] : mesh.resourcesFrom(object)) {
    for (const proxy of use.view.subscribers) {
      if (!proxy.wants(use.type, use.name)) continue;
      states.set(proxy, (states.get(proxy) ?? true) && proxy.hasTaken(use.type, use.name, use.version));
    }
  }
  const waiting = [...states].filter(([, holding]) => !holding).map(([proxy]) => proxy.id);
  return {
    ...(row === undefined ? {} : { generation: row.metadata.generation ?? 0 }),
    proxies: states.size,
    holding: states.size - waiting.length,
    waiting: waiting.toSorted().slice(0, waitingNamedMax),
  };
}
