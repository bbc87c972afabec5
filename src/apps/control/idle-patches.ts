// EnvoyFilters that touch nothing: seen from the proxies that this replica serves, since what a patch meets is known only once
// resources are built.

import type { ObjectRef, Problem } from "#base";
import type { Engine } from "#engine";
import { envoyFiltersOf, tables, workloadOf, type ProxyClass } from "#model";
import { makeProblem, type EnvoyFilterEnvoyConfigObjectPatch } from "#objects";
import type { View } from "#plan";
import type { Mesh } from "#xds";

/** The patches of an EnvoyFilter that are for a connected proxy and have changed nothing. */
export function idlePatches(
  engine: Engine,
  mesh: Mesh<ProxyClass, View>,
  object: ObjectRef,
): readonly Problem[] {
  if (object.kind !== "EnvoyFilter") return [];
  const key = `${object.namespace}/${object.name}`;
  const patches = engine.rows(tables.EnvoyFilter).get(key)?.spec?.configPatches ?? [];
  const candidates = patches.flatMap((patch, at) => (leavesTraces(patch) ? [{ patch, at }] : []));
  if (candidates.length === 0) return [];
  const chosen = [...mesh.classes()].filter((proxy) =>
    engine.get(envoyFiltersOf, workloadOf(proxy)).includes(key),
  );
  const asked = candidates.filter(({ patch }) => chosen.some((proxy) => isOfContext(proxy, patch)));
  if (asked.length === 0) return [];
  const touched = new Set(mesh.resourcesFrom(object).flatMap(({ paths }) => paths));
  return asked.flatMap(({ at }) => {
    const path = `spec.configPatches[${at}]`;
    return touched.has(path)
      ? []
      : [makeProblem("MZ0609", "The patch changes nothing at the connected proxies.", { object, path })];
  });
}

/** What is taken away whole leaves nothing that could tell, and a configuration is used by another patch. */
function leavesTraces({ applyTo, patch }: EnvoyFilterEnvoyConfigObjectPatch): boolean {
  return patch?.operation !== "REMOVE" && applyTo !== "EXTENSION_CONFIG" && applyTo !== "BOOTSTRAP";
}

function isOfContext({ kind }: ProxyClass, { match }: EnvoyFilterEnvoyConfigObjectPatch): boolean {
  switch (match?.context ?? "ANY") {
    case "ANY":
      return true;
    case "GATEWAY":
      return kind === "router";
    case "SIDECAR_INBOUND":
    case "SIDECAR_OUTBOUND":
      return kind === "sidecar";
    default:
      return false;
  }
}
