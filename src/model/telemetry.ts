// Telemetry, as far as access logs (which providers write a line for a workload's calls, and for which of them) and metrics
// that are turned off.
//
// The mesh's object (root namespace), the namespace's and the workload's follow each other; of several on one level the oldest counts.
// Names of providers in a narrower one replace those of the wider; without any Telemetry MeshConfig's accessLogFile holds.

import type { ObjectRef } from "#base";
import { defineKeyedQuery, defineQuery, sameData, type Read } from "#engine";
import {
  celFault,
  refOf,
  type MetricSelectorIstioMetric,
  type Telemetry,
  type TelemetryAccessLogging,
} from "#objects";
import { environmentOf, readMesh } from "./mesh.ts";
import { oldestFirst, targets } from "./selectors.ts";
import { tables } from "./tables.ts";
import type { ExtensionSide } from "./traffic-extension.ts";
import { workloadText, type WorkloadKey } from "./workload.ts";

export interface LogSpec {
  /** The name of one of MeshConfig's extension providers, or the built-in `envoy`. */
  readonly provider: string;
  /** A CEL expression: only calls for which it holds are logged; "" for all. */
  readonly filter: string;
}

export interface WorkloadLogs {
  readonly logs: readonly LogSpec[];
  readonly objects: readonly ObjectRef[];
}

/** The provider that is there without being configured: Istio's name for the proxy's standard output. */
export const builtInLogProvider = "envoy";

/** The access logs of a workload on one side of its calls; undefined where no Telemetry says anything about them. */
export const accessLogsOf = defineKeyedQuery<
  { readonly workload: WorkloadKey; readonly side: ExtensionSide },
  WorkloadLogs | undefined
>(
  "accessLogsOf",
  ({ workload, side }) => `${side} ${workloadText(workload)}`,
  (read, { workload, side }) => {
    const levels = levelsOf(read, workload, saysOfLogs);
    const byDefault = readMesh(read, "defaultProviders")?.accessLogging ?? [];
    if (levels.length === 0) {
      const logs = byDefault.map((provider): LogSpec => ({ provider, filter: "" }));
      return logs.length === 0 ? undefined : { logs, objects: [] };
    }
    return { logs: mergedLogs(levels, byDefault, side), objects: levels.map(refOf) };
  },
  sameData,
);

export interface DisabledMetrics {
  /** In the order of the API; never ALL_METRICS. */
  readonly metrics: readonly IstioMetric[];
  readonly objects: readonly ObjectRef[];
}

export type IstioMetric = Exclude<MetricSelectorIstioMetric, "ALL_METRICS">;

/** The metrics that a workload does not count on one side of its calls; undefined where it counts all. */
export const disabledMetricsOf = defineKeyedQuery<
  { readonly workload: WorkloadKey; readonly side: ExtensionSide },
  DisabledMetrics | undefined
>(
  "disabledMetricsOf",
  ({ workload, side }) => `${side} ${workloadText(workload)}`,
  (read, { workload, side }) => {
    const levels = levelsOf(read, workload, saysOfMetrics);
    const counts = read(countsByDefault, "") || levels.some(namesPrometheus);
    const metrics = counts ? mergedMetrics(levels, side) : allMetrics;
    return metrics.length === 0 ? undefined : { metrics, objects: levels.map(refOf) };
  },
  sameData,
);

/** Whether metrics are counted where no Telemetry names a provider: MeshConfig may name others alone, that nobody counts for. */
const countsByDefault = defineQuery<boolean>("countsByDefault", (read) => {
  const names = readMesh(read, "defaultProviders")?.metrics ?? [];
  if (names.length === 0 || names.includes(metricsProvider)) return true;
  return (readMesh(read, "extensionProviders") ?? []).some(
    ({ name = "", prometheus }) => prometheus !== undefined && names.includes(name),
  );
});

function namesPrometheus({ spec }: Telemetry): boolean {
  return (spec?.metrics ?? []).some(({ providers = [] }) =>
    providers.some(({ name }) => name === metricsProvider),
  );
}

export type TagChange =
  | { readonly kind: "remove"; readonly name: string }
  /** A CEL expression. */
  | { readonly kind: "upsert"; readonly name: string; readonly value: string };

export interface MetricTags {
  /** Metrics in the order of the API, tags in order of name. */
  readonly changes: readonly { readonly metric: IstioMetric; readonly tags: readonly TagChange[] }[];
  readonly objects: readonly ObjectRef[];
}

/** What becomes of the tags of a workload's metrics on one side of its calls; undefined where they stay as they are. */
export const metricTagsOf = defineKeyedQuery<
  { readonly workload: WorkloadKey; readonly side: ExtensionSide },
  MetricTags | undefined
>(
  "metricTagsOf",
  ({ workload, side }) => `${side} ${workloadText(workload)}`,
  (read, { workload, side }) => {
    const levels = levelsOf(read, workload, saysOfMetrics);
    const changes = mergedTags(levels, side);
    return changes.length === 0 ? undefined : { changes, objects: levels.map(refOf) };
  },
  sameData,
);

/** The mesh's, the namespace's and the workload's Telemetry, of those that say something of a matter. */
export function levelsOf(
  read: Read,
  workload: WorkloadKey,
  says: (telemetry: Telemetry) => boolean,
): readonly Telemetry[] {
  const { rootNamespace } = read(environmentOf, "");
  const ofRoot = read(tables.Telemetry.by.namespace, rootNamespace).filter(says);
  const own =
    workload.namespace === rootNamespace
      ? ofRoot
      : read(tables.Telemetry.by.namespace, workload.namespace).filter(says);
  return [
    oldest(ofRoot.filter((one) => !isForSome(one))),
    own === ofRoot ? undefined : oldest(own.filter((one) => !isForSome(one))),
    oldest(own.filter((one) => isForSome(one) && targets(one, workload))),
  ].filter((one) => one !== undefined);
}

function saysOfLogs({ spec }: Telemetry): boolean {
  return (spec?.accessLogging ?? []).length > 0;
}

function saysOfMetrics({ spec }: Telemetry): boolean {
  return (spec?.metrics ?? []).length > 0;
}

function isForSome({ spec }: Telemetry): boolean {
  return (
    Object.keys(spec?.selector?.matchLabels ?? {}).length > 0 ||
    (spec?.targetRefs ?? []).length > 0 ||
    spec?.targetRef !== undefined
  );
}

function oldest(rows: readonly Telemetry[]): Telemetry | undefined {
  return rows.toSorted(oldestFirst)[0];
}

function mergedLogs(
  levels: readonly Telemetry[],
  byDefault: readonly string[],
  side: ExtensionSide,
): readonly LogSpec[] {
  let names = byDefault.length > 0 ? byDefault : [builtInLogProvider];
  const states = new Map<string, { disabled: boolean; filter: string }>();
  for (const { spec } of levels) {
    const entries = spec?.accessLogging ?? [];
    const named = entries.flatMap(namesOf);
    if (named.length > 0) names = [...new Set(named)];
    for (const entry of entries) {
      const mode = entry.match?.mode ?? "CLIENT_AND_SERVER";
      if (mode !== "CLIENT_AND_SERVER" && mode !== side) continue;
      const own = namesOf(entry);
      for (const name of own.length > 0 ? own : names) {
        const before = states.get(name);
        const filter = entry.filter?.expression ?? before?.filter ?? "";
        states.set(name, { disabled: entry.disabled ?? false, filter });
      }
    }
  }
  return names.flatMap((provider) => {
    const state = states.get(provider);
    return state === undefined || state.disabled ? [] : [{ provider, filter: state.filter }];
  });
}

/** Prometheus is the one provider there is; what names others alone is not about its metrics. */
const metricsProvider = "prometheus";

const allMetrics: readonly IstioMetric[] = [
  "REQUEST_COUNT",
  "REQUEST_DURATION",
  "REQUEST_SIZE",
  "RESPONSE_SIZE",
  "TCP_OPENED_CONNECTIONS",
  "TCP_CLOSED_CONNECTIONS",
  "TCP_SENT_BYTES",
  "TCP_RECEIVED_BYTES",
  "GRPC_REQUEST_MESSAGES",
  "GRPC_RESPONSE_MESSAGES",
];

/** Names that Prometheus takes for labels. */
const labelName = /^[a-zA-Z_][a-zA-Z0-9_]*$/;

function mergedTags(levels: readonly Telemetry[], side: ExtensionSide): MetricTags["changes"] {
  const byMetric = new Map<IstioMetric, Map<string, TagChange>>();
  const entries = levels.flatMap(({ spec }) => spec?.metrics ?? []);
  for (const { providers = [], overrides = [] } of entries) {
    if (providers.length > 0 && !providers.some(({ name }) => name === metricsProvider)) continue;
    for (const { match, tagOverrides = {} } of overrides) {
      const mode = match?.mode ?? "CLIENT_AND_SERVER";
      if (match?.customMetric !== undefined || (mode !== "CLIENT_AND_SERVER" && mode !== side)) continue;
      const metric = match?.metric ?? "ALL_METRICS";
      for (const one of metric === "ALL_METRICS" ? allMetrics : [metric]) {
        const tags = byMetric.get(one) ?? new Map<string, TagChange>();
        for (const [name, { operation = "UPSERT", value = "" }] of Object.entries(tagOverrides)) {
          if (operation === "REMOVE") tags.set(name, { kind: "remove", name });
          // An expression that Envoy cannot read would cost the proxy its listener.
          else if (labelName.test(name) && celFault(value) === undefined && !value.includes(")%"))
            tags.set(name, { kind: "upsert", name, value });
        }
        if (tags.size > 0) byMetric.set(one, tags);
      }
    }
  }
  return allMetrics.flatMap((metric) => {
    const tags = [...(byMetric.get(metric)?.values() ?? [])].toSorted((a, b) => (a.name < b.name ? -1 : 1));
    return tags.length === 0 ? [] : [{ metric, tags }];
  });
}

function mergedMetrics(levels: readonly Telemetry[], side: ExtensionSide): readonly IstioMetric[] {
  const disabled = new Set<IstioMetric>();
  const entries = levels.flatMap(({ spec }) => spec?.metrics ?? []);
  for (const { providers = [], overrides = [] } of entries) {
    if (providers.length > 0 && !providers.some(({ name }) => name === metricsProvider)) continue;
    for (const { match, disabled: off } of overrides) {
      const mode = match?.mode ?? "CLIENT_AND_SERVER";
      if (off === undefined || match?.customMetric !== undefined) continue;
      if (mode !== "CLIENT_AND_SERVER" && mode !== side) continue;
      const metric = match?.metric ?? "ALL_METRICS";
      for (const one of metric === "ALL_METRICS" ? allMetrics : [metric]) {
        if (off) disabled.add(one);
        else disabled.delete(one);
      }
    }
  }
  return allMetrics.filter((metric) => disabled.has(metric));
}

function namesOf({ providers }: TelemetryAccessLogging): readonly string[] {
  return (providers ?? []).map(({ name }) => name);
}
