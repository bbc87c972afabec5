// Proxies whose Pods tune them differ from others in some resources alone: there the tuning is in the key. Whoever says nothing
// keeps the keys that everyone shares.

import type { Read } from "#engine";
import { readOwnTuning, tracedByTelemetry, workloadOf, type ProxyTuning } from "#model";
import { stableText } from "./keys.ts";
import type { Chunk, Plan, Planned, ResourceType } from "./plan.ts";
import type { PatchedView } from "./views.ts";

/** The plan of a view with the tuning of its proxies in place. */
export function withTuning(read: Read, view: PatchedView, plan: Plan): Plan {
  const tuning = readTuningOf(read, view);
  if (tuning === undefined) return plan;
  const types = Object.keys(plan) as ResourceType[];
  return Object.fromEntries(
    types.map((type) => {
      const part = partFor(type, tuning);
      return [type, part === undefined ? plan[type] : plan[type].map((chunk) => tuned(chunk, part))];
    }),
  ) as unknown as Plan;
}

/** A Telemetry that says anything of tracing goes before what the bootstrap names. */
function readTuningOf(read: Read, view: PatchedView): ProxyTuning | undefined {
  const own = view.kind === "outbound" ? view.tuning : readOwnTuning(read, view.proxy);
  if (own?.tracesBy === undefined) return own;
  const workload = view.kind === "outbound" ? view.scope : workloadOf(view.proxy);
  if (!read(tracedByTelemetry, { namespace: workload.namespace, labels: workload.labels })) return own;
  const { tracesBy: _replaced, ...rest } = own;
  return Object.keys(rest).length === 0 ? undefined : rest;
}

/** Only what the resources of a type depend on, so that proxies share whatever their tuning does not touch. */
function partFor(type: ResourceType, tuning: ProxyTuning): ProxyTuning | undefined {
  const { proxyHeaders, connectionSettings } = tuning;
  switch (type) {
    case "listener":
      return tuning;
    case "cluster":
      return joined({
        proxyHeaders: picked(proxyHeaders, ["preserveHttp1HeaderCase"]),
        // Connection settings are replaced as a whole, so that those without a limit take away the mesh's.
        connectionSettings:
          connectionSettings === undefined
            ? undefined
            : (picked(connectionSettings, ["clusterPerConnectionBufferLimitBytes"]) ?? {}),
      });
    case "route":
    case "virtualHost":
      return joined({ proxyHeaders: picked(proxyHeaders, ["attemptCount", "xForwardedHost"]) });
    case "endpoint":
    case "secret":
      return undefined;
  }
}

function joined({
  proxyHeaders,
  connectionSettings,
}: {
  readonly proxyHeaders?: ProxyTuning["proxyHeaders"] | undefined;
  readonly connectionSettings?: ProxyTuning["connectionSettings"] | undefined;
}): ProxyTuning | undefined {
  if (proxyHeaders === undefined && connectionSettings === undefined) return undefined;
  return {
    ...(proxyHeaders === undefined ? {} : { proxyHeaders }),
    ...(connectionSettings === undefined ? {} : { connectionSettings }),
  };
}

function picked<T extends object>(settings: T | undefined, names: readonly (keyof T)[]): T | undefined {
  const found = names.filter((name) => settings?.[name] !== undefined);
  if (settings === undefined || found.length === 0) return undefined;
  return Object.fromEntries(found.map((name) => [name, settings[name]])) as T;
}

/** Chunks come from memoized queries and are compared by identity: each has one counterpart for each tuning. */
const tunedChunks = new WeakMap<Chunk, Map<string, Chunk>>();
/** The same for what is planned, so that a change in a chunk makes anew what changed alone. */
const tunedEntries = new WeakMap<Planned, Map<string, Planned>>();

function tuned(chunk: Chunk, tuning: ProxyTuning): Chunk {
  const text = stableText(tuning);
  return counterpart(tunedChunks, chunk, text, () => ({
    ...chunk,
    entries: chunk.entries.map((entry) =>
      counterpart(tunedEntries, entry, text, () => ({ ...entry, key: { ...(entry.key as object), tuning } })),
    ),
  }));
}

function counterpart<T extends object>(
  of: WeakMap<T, Map<string, T>>,
  one: T,
  text: string,
  make: () => T,
): T {
  let known = of.get(one);
  if (known === undefined) of.set(one, (known = new Map<string, T>()));
  let found = known.get(text);
  if (found === undefined) known.set(text, (found = make()));
  return found;
}
