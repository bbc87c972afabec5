// What is put over a listener beside EnvoyFilters: extensions among the HTTP filters, the access logs that Telemetry asks for, and the
// end of the metrics that it turns off.

import type { Read } from "#engine";
import { refOf } from "#objects";
import {
  extensionPorts,
  extensionRow,
  phaseOf,
  type ExtensionPhase,
  type ExtensionRef,
  type ProxyTuning,
} from "#model";
import type { Overlay, PatchContext } from "#plan";
import { extensionFilter, type ExtensionFilter } from "./extension-filter.ts";
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

/** @param own what the proxies' Pods say for themselves */
export function withOverlay(
  read: Read,
  listener: Message,
  overlay: Overlay,
  { context, own }: { readonly context: PatchContext; readonly own?: ProxyTuning | undefined },
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
    message = withTracing(read, message, tracing, own);
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
  const built = extensions.flatMap((ref): readonly Built[] => {
    const row = extensionRow(read, ref);
    const made = row === undefined ? undefined : extensionFilter(read, row);
    return row === undefined || made === undefined
      ? []
      : [{ ...made, ref, phase: phaseOf(row), ports: extensionPorts(row, side) }];
  });
  const { portValue: listens = 0, protocol } = addressOf(listener);
  return chainsChanged(listener, (chain) => {
    const port =
      side === "SERVER" && listener["name"] === "virtualInbound" ? destinationPort(chain) : listens;
    const fitting = built.filter(({ ports }) => ports === undefined || ports.includes(port));
    const onHttp = fitting.filter(({ layer }) => layer === "http");
    // QUIC's connections have no bytes for such filters to see.
    const onNetwork = protocol === "UDP" ? [] : fitting.filter(({ layer }) => layer === "network");
    const withHttp =
      onHttp.length === 0
        ? chain
        : changeManagers(chain, (manager) => {
            for (const { ref } of onHttp) used.add(ref);
            return { ...manager, httpFilters: withFilters(listOf<Named>(manager, "httpFilters"), onHttp) };
          });
    if (onNetwork.length === 0) return withHttp;
    for (const { ref } of onNetwork) used.add(ref);
    return { ...withHttp, filters: withNetworkFilters(listOf<Named>(withHttp, "filters"), onNetwork) };
  });
}

interface Built extends ExtensionFilter {
  readonly ref: ExtensionRef;
  readonly phase: ExtensionPhase;
  readonly ports: readonly number[] | undefined;
}

const authorizingConnections: ReadonlySet<string> = new Set([
  "envoy.filters.network.rbac",
  "envoy.filters.network.ext_authz",
]);

/** Before and after the mesh's own authorization of connections: Istio's places. */
function withNetworkFilters(filters: readonly Named[], added: readonly Built[]): readonly Named[] {
  const place = filters.findLastIndex(({ name }) => authorizingConnections.has(name ?? "")) + 1;
  const isEarly = ({ phase }: Built): boolean => phase === "AUTHN" || phase === "AUTHZ";
  const early = added.filter(isEarly).map(({ filter }) => filter);
  const late = added.filter((one) => !isEarly(one)).map(({ filter }) => filter);
  const all = [...early, ...filters.slice(0, place), ...late, ...filters.slice(place)];
  const end = added.find(({ isLast }) => isLast === true);
  return end === undefined ? all : all.slice(0, all.indexOf(end.filter) + 1);
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

function addressOf(listener: Message): { readonly portValue?: number; readonly protocol?: unknown } {
  const address = listener["address"] as
    | { readonly socketAddress?: { readonly portValue?: number; readonly protocol?: unknown } }
    | undefined;
  return address?.socketAddress ?? {};
}
