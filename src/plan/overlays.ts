// What objects put over the listeners of the workloads that they choose, beside EnvoyFilters and before them: extensions, the
// access logs of Telemetry, and the metrics that it turns off.

import type { Read } from "#engine";
import {
  accessLogsOf,
  disabledMetricsOf,
  extensionPorts,
  extensionRow,
  extensionsOf,
  workloadOf,
  type DisabledMetrics,
  type ExtensionRef,
  type ExtensionSide,
  type WorkloadKey,
  type WorkloadLogs,
} from "#model";
import type { View } from "./views.ts";

export interface Overlay {
  /** In the order in which they run. */
  readonly extensions?: readonly ExtensionRef[];
  readonly logs?: WorkloadLogs;
  readonly uncounted?: DisabledMetrics;
}

/** Empty for a view that nothing is put over. */
export function overlayFor(read: Read, view: View): Overlay {
  // A client without a proxy runs no filters.
  if (view.kind === "proxyless") return {};
  const workload: WorkloadKey =
    view.kind === "outbound"
      ? { namespace: view.scope.namespace, labels: view.scope.labels }
      : workloadOf(view.proxy);
  const side = sideOf(view);
  const extensions = read(extensionsOf, workload).filter((ref) => {
    const row = extensionRow(read, ref);
    return row !== undefined && extensionPorts(row, side)?.length !== 0;
  });
  const logs = read(accessLogsOf, { workload, side });
  const uncounted = read(disabledMetricsOf, { workload, side });
  return {
    ...(extensions.length === 0 ? {} : { extensions }),
    ...(logs === undefined ? {} : { logs }),
    ...(uncounted === undefined ? {} : { uncounted }),
  };
}

export function sideOf(view: View): ExtensionSide {
  return view.kind === "inbound" ? "SERVER" : "CLIENT";
}

export function isEmptyOverlay({ extensions, logs, uncounted }: Overlay): boolean {
  return extensions === undefined && logs === undefined && uncounted === undefined;
}
