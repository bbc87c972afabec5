// What objects put over the listeners of the workloads that they choose, beside EnvoyFilters and before them: extensions, the
// access logs of Telemetry, and the metrics that it turns off.

import type { Read } from "#engine";
import {
  accessLogsOf,
  anyOutlet,
  disabledMetricsOf,
  extensionPorts,
  extensionRow,
  extensionsOf,
  metricTagsOf,
  outboundScopeOf,
  serviceOf,
  tracingOf,
  visibleService,
  workloadOf,
  type DisabledMetrics,
  type MetricTags,
  type ExtensionRef,
  type ExtensionSide,
  type WorkloadKey,
  type WorkloadLogs,
  type WorkloadTracing,
} from "#model";
import type { PatchedView, View } from "./views.ts";

export interface Overlay {
  /** In the order in which they run. */
  readonly extensions?: readonly ExtensionRef[];
  readonly logs?: WorkloadLogs;
  readonly uncounted?: DisabledMetrics;
  readonly tracing?: WorkloadTracing;
  readonly tags?: MetricTags;
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
  const tags = read(metricTagsOf, { workload, side });
  const tracing = reachedTracing(read, view, read(tracingOf, { workload, side }));
  return {
    ...(extensions.length === 0 ? {} : { extensions }),
    ...(logs === undefined ? {} : { logs }),
    ...(uncounted === undefined ? {} : { uncounted }),
    ...(tracing === undefined ? {} : { tracing }),
    ...(tags === undefined ? {} : { tags }),
  };
}

/** Envoy refuses a listener whose tracer's cluster it does not have: a collector that a Sidecar does not import gets nothing. */
function reachedTracing(
  read: Read,
  view: PatchedView,
  tracing: WorkloadTracing | undefined,
): WorkloadTracing | undefined {
  if (tracing === undefined) return undefined;
  const { key, host, port } = tracing.service;
  if (read(serviceOf, key)?.ports.some((one) => one.port === port) !== true) return undefined;
  // A gateway gets the clusters of what its telemetry goes to.
  if (view.kind === "gateway") return tracing;
  const scope = view.kind === "outbound" ? view.scope : read(outboundScopeOf, view.proxy);
  const seen = read(visibleService, { outlet: { scope, port: anyOutlet }, host });
  return seen === undefined ? undefined : tracing;
}

export function sideOf(view: View): ExtensionSide {
  return view.kind === "inbound" ? "SERVER" : "CLIENT";
}

export function isEmptyOverlay(overlay: Overlay): boolean {
  return Object.values(overlay).every((part) => part === undefined);
}
