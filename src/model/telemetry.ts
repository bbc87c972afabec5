// Telemetry, as far as access logs: which providers write a line for a workload's calls, and for which of them.
//
// The mesh's object (root namespace), the namespace's and the workload's follow each other; of several on one level the oldest counts.
// Names of providers in a narrower one replace those of the wider; without any Telemetry MeshConfig's accessLogFile holds.

import type { ObjectRef } from "#base";
import { defineKeyedQuery, sameData } from "#engine";
import { refOf, type Telemetry, type TelemetryAccessLogging } from "#objects";
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
    const { rootNamespace } = read(environmentOf, "");
    const ofRoot = read(tables.Telemetry.by.namespace, rootNamespace).filter(saysOfLogs);
    const own =
      workload.namespace === rootNamespace
        ? ofRoot
        : read(tables.Telemetry.by.namespace, workload.namespace).filter(saysOfLogs);
    const levels = [
      oldest(ofRoot.filter((one) => !isForSome(one))),
      own === ofRoot ? undefined : oldest(own.filter((one) => !isForSome(one))),
      oldest(own.filter((one) => isForSome(one) && targets(one, workload))),
    ].filter((one) => one !== undefined);
    if (levels.length === 0) return undefined;
    const byDefault = readMesh(read, "defaultProviders")?.accessLogging ?? [];
    return { logs: mergedLogs(levels, byDefault, side), objects: levels.map(refOf) };
  },
  sameData,
);

function saysOfLogs({ spec }: Telemetry): boolean {
  return (spec?.accessLogging ?? []).length > 0;
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

function namesOf({ providers }: TelemetryAccessLogging): readonly string[] {
  return (providers ?? []).map(({ name }) => name);
}
