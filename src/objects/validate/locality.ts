// Load balancing by locality: weights, failover and their texts (`region/zone/subzone`).

import type { LocalityLoadBalancerSetting, ZoneAwareLoadBalancerSetting } from "../destination-rule.ts";
import { labels } from "../labels.ts";
import { eachOf, pathOf, type Report } from "../report.ts";
import { show, type Fault } from "../values.ts";

const topologyLabels: readonly string[] = [labels.region, labels.zone, labels.subzone];

/** `outliers` says whether outlier detection is set, without which nothing fails over. */
export function checkLocality(
  setting: LocalityLoadBalancerSetting | undefined,
  outliers: boolean,
  path: string,
  report: Report,
): void {
  if (setting === undefined) return;
  const { distribute = [], failover = [], failoverPriority = [] } = setting;
  if (distribute.length > 0 && failover.length > 0) {
    report.add("MZ0203", path, "distribute and failover are both set: keep one");
    return;
  }
  const topology = failoverPriority.find((label) => topologyLabels.includes(label));
  if (failover.length > 0 && topology !== undefined) {
    report.add(
      "MZ0203",
      path,
      `failover and the label ${topology} in failoverPriority both order regions: keep one`,
    );
    return;
  }
  eachOf(distribute, pathOf(path, "distribute"), ({ to = {} }, at) => {
    const weights = Object.values(to);
    if (weights.some((weight) => weight < 1 || weight > 100))
      report.add("MZ0201", pathOf(at, "to"), "each weight must be 1 to 100");
    else if (weights.reduce((sum, weight) => sum + weight, 0) !== 100)
      report.add("MZ0201", pathOf(at, "to"), "the weights must add up to 100");
    report.value(pathOf(at, "to"), localitiesFault(Object.keys(to)));
  });
  report.value(pathOf(path, "distribute"), localitiesFault(distribute.map(({ from }) => from ?? "")));
  checkFailover(setting, outliers, path, report);
}

export function checkZoneAware(
  setting: ZoneAwareLoadBalancerSetting | undefined,
  outliers: boolean,
  path: string,
  report: Report,
): void {
  if (setting === undefined) return;
  eachOf(setting.failoverPriority, pathOf(path, "failoverPriority"), (label, at) => {
    if (topologyLabels.includes(label))
      report.add("MZ0205", at, `${label} is taken into account by itself here`);
  });
  checkFailover(setting, outliers, path, report);
}

function checkFailover(
  { failover, failoverPriority }: Pick<LocalityLoadBalancerSetting, "failover" | "failoverPriority">,
  outliers: boolean,
  path: string,
  report: Report,
): void {
  if ((failover?.length || failoverPriority?.length) && !outliers)
    report.add(
      "MZ0250",
      path,
      "nothing fails over without outlierDetection, which finds out that endpoints fail",
    );
  eachOf(failover, pathOf(path, "failover"), ({ from = "", to = "" }, at) => {
    if (from === to) report.add("MZ0201", at, "from and to name the same region");
    if (`${from}${to}`.includes("/"))
      report.add("MZ0201", at, "only regions can be named here, without / and zone");
    if (`${from}${to}`.includes("*")) report.add("MZ0201", at, "a region cannot hold a wildcard here");
  });
}

/** Localities of one list must not overlap: `a`, `a/*` and `a/b` all claim `a/b`. */
export function localitiesFault(localities: readonly string[]): Fault {
  const seen: string[][] = [];
  for (const locality of localities) {
    const star = locality.indexOf("*");
    if (star >= 0 && star !== locality.length - 1)
      return `${show(locality)} has a wildcard that is not its end`;
    const parts = locality.split("/");
    if (parts.some((part) => part === "") || locality === "")
      return `${show(locality)} has an empty region, zone or subzone`;
    const scope = parts.at(-1) === "*" ? parts.slice(0, -1) : parts;
    const other = seen.find(
      (earlier) =>
        earlier.every((part, i) => scope[i] === part) || scope.every((part, i) => earlier[i] === part),
    );
    if (other !== undefined)
      return `${show(locality)} overlaps ${show(other.length === 0 ? "*" : other.join("/"))}`;
    seen.push(scope);
  }
  return undefined;
}
