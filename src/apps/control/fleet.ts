// The replicas of the control plane and the proxies of the mesh, counted from what the API says of them.

import type { Engine } from "#engine";
import { tables, type Pod } from "#model";
import type { Fleet } from "#xds";

/** Counting looks at every Pod: so often at most. */
const countedForMs = 5_000;

export class FleetCount {
  readonly #engine: Engine;
  readonly #service: { readonly namespace: string; readonly name: string };
  #fleet: Fleet = { replicas: 0, proxies: 0 };
  #countedAtMs = -Infinity;

  /** @param service the control plane's own: its ready endpoints are the replicas */
  constructor(engine: Engine, service: { readonly namespace: string; readonly name: string }) {
    this.#engine = engine;
    this.#service = service;
  }

  at(nowMs: number): Fleet {
    if (nowMs - this.#countedAtMs >= countedForMs) {
      this.#countedAtMs = nowMs;
      const replicas = this.#countReplicas();
      this.#fleet = { replicas, proxies: replicas < 2 ? 0 : this.#countProxies() };
    }
    return this.#fleet;
  }

  #countReplicas(): number {
    const { namespace, name } = this.#service;
    const addresses = new Set<string>();
    for (const { metadata, endpoints } of this.#engine.rows(tables.EndpointSlice).values()) {
      if (metadata.namespace !== namespace) continue;
      if (metadata.labels?.["kubernetes.io/service-name"] !== name) continue;
      for (const { addresses: own, conditions } of endpoints ?? []) {
        if (conditions?.ready !== false) for (const address of own) addresses.add(address);
      }
    }
    return addresses.size;
  }

  #countProxies(): number {
    let count = 0;
    for (const pod of this.#engine.rows(tables.Pod).values()) if (hasProxy(pod)) count++;
    return count;
  }
}

function hasProxy({ spec, status }: Pod): boolean {
  const containers = [...(spec?.containers ?? []), ...(spec?.initContainers ?? [])];
  return status?.phase === "Running" && containers.some(({ name }) => name === "istio-proxy");
}
