// What is put over a listener beside EnvoyFilters: extensions among the HTTP filters, the access logs that Telemetry asks for, and the
// end of the metrics that it turns off.

import type { Read } from "#engine";
import { refOf } from "#objects";
import { extensionPorts, extensionRow, phaseOf, type ExtensionPhase, type ExtensionRef } from "#model";
import type { Overlay, PatchContext } from "#plan";
import { extensionFilter } from "./extension-filter.ts";
import { chainsChanged, changeManagers, destinationPort, placeOf } from "./listener-patch.ts";
import { listOf, type Named } from "./list-patch.ts";
import { providerLogs, withLogs } from "./provider-logs.ts";
import { withoutMetrics } from "./disabled-metrics.ts";
import { withMetricTags } from "./metric-tags.ts";
import { withTracing } from "./tracing.ts";
import type { Message } from "./proto/api.ts";
import type { Origin } from "./resource.ts";

export interface Overlaid {
  readonly message: Message;
  readonly origins: readonly Origin[];
}

export function withOverlay(
  read: Read,
  listener: Message,
  overlay: Overlay,
  context: PatchContext,
): Overlaid {
  const { extensions = [], logs, uncounted, tracing, tags } = overlay;
  const origins: Origin[] = [];
  let message = listener;
  if (extensions.length > 0) {
    const before = message;
    const used = new Set<ExtensionRef>();
    message = withExtensions(read, message, { extensions, context, used });
    if (message !== before)
      for (const ref of used) origins.push({ at: "", object: refOf(extensionRow(read, ref)!), path: "spec" });
  }
  if (logs !== undefined) {
    const before = message;
    message = withLogs(message, (place) => providerLogs(read, logs.logs, place));
    if (message !== before)
      origins.push(...logs.objects.map((object) => ({ at: "", object, path: "spec.accessLogging" })));
  }
  if (uncounted !== undefined) {
    const before = message;
    message = withoutMetrics(message, uncounted.metrics);
    if (message !== before)
      origins.push(...uncounted.objects.map((object) => ({ at: "", object, path: "spec.metrics" })));
  }
  if (tags !== undefined) {
    const before = message;
    message = withMetricTags(message, tags);
    if (message !== before)
      origins.push(...tags.objects.map((object) => ({ at: "", object, path: "spec.metrics" })));
  }
  if (tracing !== undefined) {
    const before = message;
    message = withTracing(read, message, tracing);
    if (message !== before)
      origins.push(...tracing.objects.map((object) => ({ at: "", object, path: "spec.tracing" })));
  }
  return { message, origins };
}

interface Extending {
  readonly extensions: readonly ExtensionRef[];
  readonly context: PatchContext;
  /** Those that stand in some chain. */
  readonly used: Set<ExtensionRef>;
}

function withExtensions(read: Read, listener: Message, { extensions, context, used }: Extending): Message {
  const side = context === "SIDECAR_INBOUND" ? "SERVER" : "CLIENT";
  const built = extensions.flatMap((ref) => {
    const row = extensionRow(read, ref);
    const filter = row === undefined ? undefined : extensionFilter(read, row);
    return row === undefined || filter === undefined
      ? []
      : [{ ref, filter, phase: phaseOf(row), ports: extensionPorts(row, side) }];
  });
  const listens = portOf(listener);
  return chainsChanged(listener, (chain) => {
    const port =
      side === "SERVER" && listener["name"] === "virtualInbound" ? destinationPort(chain) : listens;
    const fitting = built.filter(({ ports }) => ports === undefined || ports.includes(port));
    if (fitting.length === 0) return chain;
    return changeManagers(chain, (manager) => {
      for (const { ref } of fitting) used.add(ref);
      return { ...manager, httpFilters: withFilters(listOf<Named>(manager, "httpFilters"), fitting) };
    });
  });
}

/** Before authentication, between it and authorization, before what counts, and before the end: Istio's places. */
function withFilters(
  filters: readonly Named[],
  added: readonly { readonly filter: Named; readonly phase: ExtensionPhase }[],
): readonly Named[] {
  const places: Readonly<Record<ExtensionPhase, number>> = {
    AUTHN: 0,
    AUTHZ: placeOf("AUTHN", filters),
    STATS: placeOf("STATS", filters),
    UNSPECIFIED: placeOf(undefined, filters),
  };
  const at = (position: number): Named[] =>
    added.filter(({ phase }) => places[phase] === position).map(({ filter }) => filter);
  return [...filters.flatMap((filter, position) => [...at(position), filter]), ...at(filters.length)];
}

function portOf(listener: Message): number {
  const address = listener["address"] as
    | { readonly socketAddress?: { readonly portValue?: number } }
    | undefined;
  return address?.socketAddress?.portValue ?? 0;
}
