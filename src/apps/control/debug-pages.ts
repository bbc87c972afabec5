// What 15014/debug shows: proxies, services, configuration, and what is sent to one proxy.

import { renderRef } from "#base";
import type { Engine } from "#engine";
import { decodeMessage, messageNameOf } from "#envoy";
import { tables, type TableKind } from "#model";
import { resourceTypes, type ResourceType } from "#plan";
import type { AdsServer, AdsSession, Mesh } from "#xds";
import { distributionOf } from "./distribution.ts";
import type { DebugPage } from "./monitoring.ts";

export interface DebugOptions<C, V> {
  readonly engine: Engine;
  readonly mesh: Mesh<C, V>;
  readonly ads: AdsServer<C, V>;
}

/** Kubernetes kinds that `configz` leaves out: what people write is Istio's. */
const notConfiguration: ReadonlySet<string> = new Set<TableKind>([
  "Service",
  "EndpointSlice",
  "Pod",
  "Namespace",
  "Node",
  "Secret",
  "ConfigMap",
]);

export function debugPages<C, V>({
  engine,
  mesh,
  ads,
}: DebugOptions<C, V>): Readonly<Record<string, DebugPage>> {
  const dump = (types: readonly ResourceType[]): DebugPage => {
    return (query) => {
      const session = ads.sessionOf(query.get("proxyID") ?? "");
      return session === undefined ? undefined : resourcesOf(session, types);
    };
  };
  return {
    syncz: () => ads.status(),
    rejectz: () => mesh.rejections(),
    distributionz: (query) => {
      const of = (name: string): string => query.get(name) ?? "";
      return distributionOf(engine, mesh, {
        kind: of("kind"),
        namespace: of("namespace"),
        name: of("name"),
      });
    },
    registryz: () => [...engine.rows(tables.Service).values()],
    endpointz: () => [...engine.rows(tables.EndpointSlice).values()],
    configz: () =>
      Object.entries(tables).flatMap(([kind, table]) =>
        notConfiguration.has(kind) ? [] : [...engine.rows(table as typeof tables.Sidecar).values()],
      ),
    originz: (query) => {
      const session = ads.sessionOf(query.get("proxyID") ?? "");
      return session === undefined ? {} : originsOf(session);
    },
    edsz: dump(["endpoint"]),
    // Keys of secrets stay out of every dump.
    config_dump: dump(resourceTypes.filter((type) => type !== "secret")),
    enginez: () => ({
      revision: engine.revision,
      computed: engine.computedTotal,
      nodes: engine.nodesHeld,
      views: mesh.viewCount,
      resources: mesh.resourceCounts(),
      woken: mesh.wokenTotal,
    }),
  };
}

/** By type and name, the objects that each resource of a proxy is made from. */
function originsOf(session: AdsSession): object {
  const shown = resourceTypes.map((type) => {
    const lines = session.views.flatMap((view) =>
      [...view.names(type)].map((name) => {
        const entry = view.entry(type, name);
        const origins = (entry?.current ?? entry?.good)?.origins ?? [];
        const texts = origins.map(({ object, path, at }) =>
          [renderRef(object), path, at === "" ? undefined : `at ${at}`]
            .filter((part) => part !== undefined)
            .join(" "),
        );
        return [name, [...new Set(texts)]] as const;
      }),
    );
    return [type, Object.fromEntries(lines)] as const;
  });
  return Object.fromEntries(shown);
}

/** What the control plane wants the proxy to have, decoded, with the versions that it holds. */
function resourcesOf(session: AdsSession, types: readonly ResourceType[]): object {
  const shown = types.map((type) => {
    const held = session.held(type);
    const resources = session.views.flatMap((view) =>
      [...view.names(type)].flatMap((name) => {
        const entry = view.entry(type, name);
        const resource = entry?.current ?? entry?.good;
        if (resource === undefined) return [];
        return [
          {
            name,
            version: resource.version,
            held: held.get(name),
            rejected: entry?.rejection?.reason,
            origins: resource.origins,
            resource: decodeMessage(messageNameOf(type), resource.bytes),
          },
        ];
      }),
    );
    return [type, resources] as const;
  });
  return { proxy: session.id, ...Object.fromEntries(shown) };
}
