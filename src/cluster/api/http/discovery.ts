// Discovery: which groups, versions and kinds there are, in the old form (one document a version) and the aggregated one.

import { noSuchPath } from "../errors.ts";
import { apiVersionOf } from "../kinds/kind.ts";
import type { Kind } from "../kinds/kind.ts";
import type { Registry } from "../registry.ts";
import type { Call } from "./call.ts";

const aggregatedType = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";

function wantsAggregated(call: Call): boolean {
  return call.accept.split(",").some((part) => {
    const fields = part.split(";").map((field) => field.trim());
    return (
      fields.includes("as=APIGroupDiscoveryList") &&
      fields.includes("v=v2") &&
      fields[0] === "application/json"
    );
  });
}

/** Answers /api, /api/v1, /apis, /apis/<group> and /apis/<group>/<version>; false for other paths. */
export function serveDiscovery(call: Call, registry: Registry): boolean {
  const parts = call.path.split("/").filter((part) => part !== "");
  if (parts[0] === "api" && parts.length === 1)
    return serveRoot(call, registry, [{ name: "", versions: ["v1"] }]);
  if (parts[0] === "apis" && parts.length === 1) return serveRoot(call, registry, registry.groups());
  if (parts[0] === "api" && parts.length === 2) return serveVersion(call, registry, "", parts[1]!);
  if (parts[0] === "apis" && parts.length === 2) return serveGroup(call, registry, parts[1]!);
  if (parts[0] === "apis" && parts.length === 3) return serveVersion(call, registry, parts[1]!, parts[2]!);
  return false;
}

type Group = ReturnType<Registry["groups"]>[number];

function serveRoot(call: Call, registry: Registry, groups: readonly Group[]): boolean {
  if (wantsAggregated(call)) {
    const items = groups.map((group) => aggregatedGroup(registry, group));
    const list = { kind: "APIGroupDiscoveryList", apiVersion: "apidiscovery.k8s.io/v2", metadata: {}, items };
    call.begin(200, aggregatedType);
    call.response.end(JSON.stringify(list));
    return true;
  }
  if (groups[0]?.name === "") {
    const serverAddressByClientCIDRs = [
      { clientCIDR: "0.0.0.0/0", serverAddress: call.request.headers.host ?? "" },
    ];
    call.json(200, { kind: "APIVersions", versions: ["v1"], serverAddressByClientCIDRs });
  } else call.json(200, { kind: "APIGroupList", apiVersion: "v1", groups: groups.map(groupOf) });
  return true;
}

function groupOf({ name, versions }: Group): Record<string, unknown> {
  const entries = versions.map((version) => ({ groupVersion: `${name}/${version}`, version }));
  return { name, versions: entries, preferredVersion: entries[0] };
}

function serveGroup(call: Call, registry: Registry, name: string): boolean {
  const group = registry.groups().find((one) => one.name === name);
  if (!group) throw noSuchPath();
  call.json(200, { kind: "APIGroup", apiVersion: "v1", ...groupOf(group) });
  return true;
}

function serveVersion(call: Call, registry: Registry, group: string, version: string): boolean {
  const kinds = kindsOf(registry, group, version);
  if (kinds.length === 0) throw noSuchPath();
  const resources = kinds.flatMap((kind) => resourcesOf(kind, version));
  call.json(200, {
    kind: "APIResourceList",
    apiVersion: "v1",
    groupVersion: apiVersionOf(group, version),
    resources,
  });
  return true;
}

function kindsOf(registry: Registry, group: string, version: string): Kind[] {
  return registry
    .kinds()
    .filter((kind) => kind.group === group && kind.versions.some((one) => one.name === version && one.served))
    .sort((a, b) => (a.plural < b.plural ? -1 : 1));
}

interface Subresource {
  readonly name: string;
  readonly kind: string;
  readonly verbs: readonly string[];
  readonly group?: string;
  readonly version?: string;
}

function subresourcesOf(kind: Kind, versionName: string): Subresource[] {
  const version = kind.versions.find((one) => one.name === versionName);
  const verbs = ["get", "patch", "update"];
  return [
    ...kind.subresources,
    ...(version?.scale ? [{ name: "scale", kind: "Scale", verbs, group: "autoscaling", version: "v1" }] : []),
    ...(version?.status ? [{ name: "status", kind: kind.kind, verbs }] : []),
  ];
}

function resourcesOf(kind: Kind, version: string): unknown[] {
  const { namespaced } = kind;
  const main = {
    name: kind.plural,
    singularName: kind.singular,
    namespaced,
    kind: kind.kind,
    verbs: kind.verbs,
    ...(kind.shortNames.length > 0 ? { shortNames: kind.shortNames } : {}),
    ...(kind.categories.length > 0 ? { categories: kind.categories } : {}),
  };
  const subresources = subresourcesOf(kind, version).map(({ name, ...rest }) => ({
    name: `${kind.plural}/${name}`,
    singularName: "",
    namespaced,
    ...rest,
  }));
  return [main, ...subresources];
}

function aggregatedGroup(registry: Registry, { name, versions }: Group): unknown {
  return {
    metadata: { name, creationTimestamp: null },
    versions: versions.map((version) => ({
      version,
      freshness: "Current",
      resources: kindsOf(registry, name, version).map((kind) => ({
        resource: kind.plural,
        responseKind: { group: kind.group, version, kind: kind.kind },
        scope: kind.namespaced ? "Namespaced" : "Cluster",
        singularResource: kind.singular,
        verbs: kind.verbs,
        shortNames: kind.shortNames.length > 0 ? kind.shortNames : undefined,
        categories: kind.categories.length > 0 ? kind.categories : undefined,
        subresources: subresourcesOf(kind, version).map((one) => ({
          subresource: one.name,
          responseKind: { group: one.group ?? kind.group, version: one.version ?? version, kind: one.kind },
          verbs: one.verbs,
        })),
      })),
    })),
  };
}
