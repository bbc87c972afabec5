// What Istio's webhook checks of an EnvoyFilter beyond its schema.

import type {
  EnvoyFilter,
  EnvoyFilterEnvoyConfigObjectMatch,
  EnvoyFilterEnvoyConfigObjectPatch,
  EnvoyFilterSpec,
} from "../envoy-filter.ts";
import type { ProblemCode } from "../problems.ts";
import { renamedFilters } from "../filter-names.ts";
import { eachOf, pathOf, type Report } from "../report.ts";
import type { ValidationContext } from "../validate.ts";
import { regexFault } from "../regex.ts";
import { show } from "../values.ts";
import { checkSelectorLabels } from "./selectors.ts";

const listenerObjects = new Set(["LISTENER", "FILTER_CHAIN", "NETWORK_FILTER", "HTTP_FILTER"]);
const routeObjects = new Set(["ROUTE_CONFIGURATION", "VIRTUAL_HOST", "HTTP_ROUTE"]);
const connectionManagers = new Set([
  "envoy.filters.network.http_connection_manager",
  "envoy.http_connection_manager",
]);

export function checkEnvoyFilter(object: EnvoyFilter, context: ValidationContext, report: Report): void {
  const spec = object.spec ?? {};
  checkSelectorLabels(
    spec.workloadSelector?.labels,
    spec.workloadSelector !== undefined,
    "spec.workloadSelector",
    report,
  );
  eachOf(spec.configPatches, "spec.configPatches", (patch, path) => {
    if (patch.match?.context !== "WAYPOINT") checkPatch(patch, path, report);
  });
  // What is missing was told above; only whole patches can be judged.
  if (report.problems.some(({ severity }) => severity === "error")) return;
  for (const { path, text } of context.envoyFilter?.(object) ?? []) {
    const operation = patchAt(spec, path)?.patch?.operation;
    if (operation !== "REMOVE") report.add(mismatchCode(text), path, text);
  }
}

function patchAt(spec: EnvoyFilterSpec, path: string): EnvoyFilterEnvoyConfigObjectPatch | undefined {
  return spec.configPatches?.[Number(/\[(\d+)\]/.exec(path)?.[1])];
}

/** Fields, words and places that only other versions of Envoy or of the mesh know are left out, as in Istio; wrong values are refused. */
function mismatchCode(text: string): ProblemCode {
  if (text.endsWith("has no such field")) return "MZ0103";
  if (/ has no value \S+$/.test(text)) return "MZ0254";
  return text.endsWith("is not supported") ? "MZ0301" : "MZ0201";
}

function checkPatch(
  { applyTo, match, patch }: EnvoyFilterEnvoyConfigObjectPatch,
  path: string,
  report: Report,
): void {
  if (applyTo === undefined || applyTo === "INVALID") {
    report.add("MZ0202", pathOf(path, "applyTo"), "applyTo is missing");
    return;
  }
  const at = pathOf(path, "patch");
  if (patch?.operation === undefined || patch.operation === "INVALID") {
    report.add("MZ0202", pathOf(at, "operation"), "the operation is missing");
    return;
  }
  if (patch.operation !== "REMOVE" && patch.value === undefined) {
    report.add("MZ0202", pathOf(at, "value"), `operation ${patch.operation} needs a value`);
    return;
  }
  if (applyTo === "BOOTSTRAP" && patch.operation !== "MERGE")
    report.add("MZ0250", pathOf(at, "operation"), "a bootstrap is only merged with: the patch has no effect");
  checkVersion(match, pathOf(path, "match", "proxy", "proxyVersion"), report);
  checkMatch(applyTo, match, pathOf(path, "match"), report);
}

const versionLengthMax = 1024; // beyond it the version is not compared, as in Istio

function checkVersion(
  match: EnvoyFilterEnvoyConfigObjectMatch | undefined,
  path: string,
  report: Report,
): void {
  const version = match?.proxy?.proxyVersion;
  if (!version) return;
  if (version.length > versionLengthMax)
    report.add(
      "MZ0250",
      path,
      `the expression has ${version.length} characters: above ${versionLengthMax} it is ignored`,
    );
  else report.value(path, regexFault(version));
}

function checkMatch(
  applyTo: string,
  match: EnvoyFilterEnvoyConfigObjectMatch | undefined,
  path: string,
  report: Report,
): void {
  if (
    match?.listener === undefined &&
    match?.routeConfiguration === undefined &&
    match?.cluster === undefined
  )
    return;
  const wanted = listenerObjects.has(applyTo)
    ? "listener"
    : routeObjects.has(applyTo)
      ? "routeConfiguration"
      : applyTo === "CLUSTER"
        ? "cluster"
        : undefined;
  if (wanted === undefined) return;
  if (match[wanted] === undefined) {
    report.add("MZ0203", path, `applyTo ${applyTo} is matched by ${wanted}`);
    return;
  }
  const filter = match.listener?.filterChain?.filter;
  if (wanted !== "listener" || filter === undefined) return;
  const at = pathOf(path, "listener", "filterChain", "filter");
  if (applyTo === "LISTENER" || applyTo === "FILTER_CHAIN")
    report.add("MZ0250", at, `a match on filters has no effect with applyTo ${applyTo}`);
  if (!filter.name) report.add("MZ0202", pathOf(at, "name"), "the filter has no name");
  else if (filter.subFilter !== undefined) {
    if (applyTo !== "HTTP_FILTER")
      report.add("MZ0203", pathOf(at, "subFilter"), "subFilter is for applyTo HTTP_FILTER");
    else if (!connectionManagers.has(filter.name))
      report.add("MZ0203", pathOf(at, "name"), `subFilter needs the filter ${[...connectionManagers][0]}`);
    else if (!filter.subFilter.name)
      report.add("MZ0202", pathOf(at, "subFilter", "name"), "the filter has no name");
  }
  for (const [field, name] of [
    ["name", filter.name],
    ["subFilter.name", filter.subFilter?.name],
  ] as const) {
    const newer = name === undefined ? undefined : renamedFilters[name];
    if (newer !== undefined)
      report.add("MZ0251", pathOf(at, field), `${show(name)} is a former name of Envoy's: use ${newer}`);
  }
}
