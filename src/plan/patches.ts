// EnvoyFilters in a plan: a resource that some patch may concern is planned under another key, which names the patches;
// everything else keeps its key and is shared as before. So a filter costs only those whom it is for.

import type { Read } from "#engine";
import { RE2JS } from "re2js";
import type {
  EnvoyFilterEnvoyConfigObjectMatch,
  EnvoyFilterEnvoyConfigObjectPatch,
  EnvoyFilterProxyMatch,
} from "#objects";
import { envoyFiltersOf, istioVersion, proxyFacts, tables, workloadOf } from "#model";
import { partsOfDiscovered } from "./discovered-tables.ts";
import { stableText } from "./keys.ts";
import { isEmptyOverlay, overlayFor, type Overlay } from "./overlays.ts";
import type { Chunk, Plan, Planned, ResourceType } from "./plan.ts";
import type { PatchedView } from "./views.ts";

export type PatchContext = "SIDECAR_OUTBOUND" | "SIDECAR_INBOUND" | "GATEWAY";

/** One of `spec.configPatches` of an EnvoyFilter. */
export interface PatchRef {
  /** Row key of the EnvoyFilter. */
  readonly filter: string;
  readonly at: number;
}

/** A resource with patches over it. */
export interface PatchedKey {
  readonly kind: "patched";
  readonly base: unknown;
  readonly context: PatchContext;
  readonly patches: readonly PatchRef[];
  /** What else is put over a listener, before the patches. */
  readonly overlay?: Overlay;
}

/** A whole cluster or listener that a patch adds. */
export interface AddedKey extends PatchRef {
  readonly kind: "added";
}

/** What is put over the resources of one type. */
interface Over {
  readonly patches: readonly KnownPatch[];
  readonly context: PatchContext;
  readonly overlay: Overlay;
}

interface KnownPatch extends PatchRef {
  readonly patch: EnvoyFilterEnvoyConfigObjectPatch;
}

const typeOf: Readonly<Record<string, ResourceType>> = {
  CLUSTER: "cluster",
  LISTENER: "listener",
  FILTER_CHAIN: "listener",
  NETWORK_FILTER: "listener",
  HTTP_FILTER: "listener",
  EXTENSION_CONFIG: "listener",
  LISTENER_FILTER: "listener",
  ROUTE_CONFIGURATION: "route",
  VIRTUAL_HOST: "route",
  HTTP_ROUTE: "route",
};

/** What applies to virtual hosts of a table applies to those that are resources; only new ones go into the table. */
const ofVirtualHosts = new Set(["VIRTUAL_HOST", "HTTP_ROUTE"]);

/** What applies to route tables applies to the tables inside of inbound listeners as well. */
const ofRoutes = new Set(["ROUTE_CONFIGURATION", "VIRTUAL_HOST", "HTTP_ROUTE"]);

/** The plan of a view with its EnvoyFilters in place. */
export function withPatches(read: Read, view: PatchedView, plan: Plan): Plan {
  const context = contextOf(view);
  const patches = patchesFor(read, view).filter(
    ({ patch }) => inContext(patch.match, context) && isForProxy(patch.match?.proxy, factsOf(view)),
  );
  const overlay = overlayFor(read, view);
  if (patches.length === 0 && isEmptyOverlay(overlay)) return plan;
  const types = Object.keys(plan) as ResourceType[];
  return Object.fromEntries(
    types.map((type) => {
      const over: Over = { patches, context, overlay: type === "listener" ? overlay : {} };
      return [type, patchedChunks(type, plan[type], over)];
    }),
  ) as unknown as Plan;
}

function contextOf(view: PatchedView): PatchContext {
  if (view.kind === "outbound") return "SIDECAR_OUTBOUND";
  return view.kind === "inbound" ? "SIDECAR_INBOUND" : "GATEWAY";
}

function patchesFor(read: Read, view: PatchedView): KnownPatch[] {
  const workload = view.kind === "outbound" ? view.scope : workloadOf(view.proxy);
  const { namespace, labels } = workload;
  return read(envoyFiltersOf, { namespace, labels }).flatMap((filter) =>
    (read(tables.EnvoyFilter, filter)?.spec?.configPatches ?? []).map((patch, at) => ({ filter, at, patch })),
  );
}

function inContext(match: EnvoyFilterEnvoyConfigObjectMatch | undefined, context: PatchContext): boolean {
  const asked = match?.context ?? "ANY";
  return asked === "ANY" || asked === context;
}

/** Longer expressions are not compared, as in Istio. */
const versionLengthMax = 1_024;

/** What is known of the proxies of a view. */
function factsOf(view: PatchedView): Readonly<Record<string, string>> {
  return view.kind === "outbound" ? (view.scope.facts ?? {}) : proxyFacts(view.proxy);
}

/** Whether a patch is for proxies like this: by the version of Istio that they stand for, and by what is known of them. */
export function isForProxy(
  match: EnvoyFilterProxyMatch | undefined,
  facts: Readonly<Record<string, string>>,
): boolean {
  const version = match?.proxyVersion ?? "";
  if (version !== "" && version.length <= versionLengthMax && !versionMatches(version)) return false;
  // What is not known of a proxy is not what the filter asks for: a patch for some must not reach all.
  return Object.entries(match?.metadata ?? {}).every(([name, value]) => facts[name] === value);
}

function versionMatches(expression: string): boolean {
  try {
    // Found anywhere, as Go's MatchString does.
    return RE2JS.compile(expression).matcher(istioVersion).find();
  } catch {
    return false;
  }
}

function patchedChunks(
  type: ResourceType,
  chunks: readonly Chunk[],
  { patches, context, overlay }: Over,
): readonly Chunk[] {
  const relevant = patches.filter(({ patch }) => concernsType(patch, type, context));
  if (relevant.length === 0 && isEmptyOverlay(overlay)) return chunks;
  const text = stableText([type, context, relevant, overlay]);
  const over: Over = { patches: relevant, context, overlay };
  const patched = chunks.map((chunk) => patchedChunk(type, chunk, over, text));
  const added = addedEntries(type, chunks, relevant, context);
  return added.length === 0 ? patched : [...patched, { id: "envoy-filters", entries: added }];
}

function concernsType(
  { applyTo = "INVALID", patch }: EnvoyFilterEnvoyConfigObjectPatch,
  type: ResourceType,
  context: PatchContext,
): boolean {
  if (type === "virtualHost")
    return ofVirtualHosts.has(applyTo) && !(applyTo === "VIRTUAL_HOST" && patch?.operation === "ADD");
  return (
    typeOf[applyTo] === type ||
    (type === "listener" && context === "SIDECAR_INBOUND" && ofRoutes.has(applyTo))
  );
}

/** Chunks already patched, so that an unchanged one is the identical chunk again. */
const setsKeptMax = 8;
const patchedBefore = new WeakMap<Chunk, Map<string, Chunk>>();

function patchedChunk(type: ResourceType, chunk: Chunk, over: Over, text: string): Chunk {
  let known = patchedBefore.get(chunk);
  if (known === undefined) patchedBefore.set(chunk, (known = new Map()));
  let result = known.get(text);
  if (result === undefined) {
    const entries = chunk.entries.flatMap((entry) => patchedEntry(type, entry, over));
    const same =
      entries.every((entry, at) => entry === chunk.entries[at]) && entries.length === chunk.entries.length;
    result = same ? chunk : { ...chunk, entries };
    // Filters change seldom: only the newest sets of them are worth keeping, one for each of a few kinds of clients.
    if (known.size >= setsKeptMax) known.clear();
    known.set(text, result);
  }
  return result;
}

function patchedEntry(type: ResourceType, entry: Planned, { patches, context, overlay }: Over): Planned[] {
  const own = patches.filter(({ patch }) => concernsName(type, entry.name, patch.match));
  const isWhole = ({ applyTo }: EnvoyFilterEnvoyConfigObjectPatch): boolean =>
    applyTo === "CLUSTER" || applyTo === "LISTENER";
  if (own.some(({ patch }) => isWhole(patch) && patch.patch?.operation === "REMOVE")) return [];
  const changing = own.filter(({ patch }) => !(isWhole(patch) && patch.patch?.operation === "ADD"));
  // A configuration for an extension does nothing by itself: only a filter that asks for it does.
  const isIdle = changing.every(({ patch }) => patch.applyTo === "EXTENSION_CONFIG");
  if (isIdle && isEmptyOverlay(overlay)) return [entry];
  const key: PatchedKey = {
    kind: "patched",
    base: entry.key,
    context,
    patches: changing.map(({ filter, at }) => ({ filter, at })),
    ...(isEmptyOverlay(overlay) ? {} : { overlay }),
  };
  return [{ name: entry.name, key }];
}

function addedEntries(
  type: ResourceType,
  chunks: readonly Chunk[],
  patches: readonly KnownPatch[],
  context: PatchContext,
): Planned<AddedKey>[] {
  const taken = new Set(chunks.flatMap(({ entries }) => entries.map(({ name }) => name)));
  return patches.flatMap(({ filter, at, patch }) => {
    const { applyTo, match, patch: change } = patch;
    const name = change?.value?.["name"];
    const whole =
      (applyTo === "CLUSTER" && type === "cluster") || (applyTo === "LISTENER" && type === "listener");
    // Without a context a new resource is the outbound side's, so that a sidecar does not get it twice.
    const here = context !== "SIDECAR_INBOUND" || match?.context === "SIDECAR_INBOUND";
    if (!whole || !here || change?.operation !== "ADD" || typeof name !== "string" || taken.has(name))
      return [];
    taken.add(name);
    return [{ name, key: { kind: "added", filter, at } }];
  });
}

/** Whether a patch may concern a resource by its name; what is inside of it is looked at when it is built. */
function concernsName(
  type: ResourceType,
  name: string,
  match: EnvoyFilterEnvoyConfigObjectMatch | undefined,
): boolean {
  if (type === "cluster") return clusterMatches(name, match?.cluster);
  if (type === "route") return routeMatches(name, match?.routeConfiguration);
  if (type === "virtualHost") {
    const { table, host } = partsOfDiscovered(name);
    const wanted = match?.routeConfiguration?.vhost?.name ?? "";
    return (wanted === "" || wanted === host) && routeMatches(table, match?.routeConfiguration);
  }
  const listener = match?.listener;
  if (listener === undefined) return true;
  if (listener.name !== undefined && listener.name !== "" && listener.name !== name) return false;
  const port = listener.portNumber ?? 0;
  return port === 0 || name === "virtualInbound" || name.endsWith(`_${port}`);
}

function clusterMatches(name: string, match: EnvoyFilterEnvoyConfigObjectMatch["cluster"]): boolean {
  if (match === undefined) return true;
  if (match.name !== undefined && match.name !== "") return match.name === name;
  const [direction, port = "", subset = "", host = ""] = name.split("|");
  return (
    (match.portNumber === undefined || match.portNumber === 0 || String(match.portNumber) === port) &&
    (match.subset === undefined || match.subset === "" || match.subset === subset) &&
    (direction === "inbound" || match.service === undefined || match.service === "" || match.service === host)
  );
}

function routeMatches(name: string, match: EnvoyFilterEnvoyConfigObjectMatch["routeConfiguration"]): boolean {
  if (match === undefined) return true;
  if (match.name !== undefined && match.name !== "" && match.name !== name) return false;
  const parts = /^https?\.(\d+)(?:\.([^.]+)\.([^.]+)\.([^.]+))?/.exec(name);
  const port = parts?.[1] ?? name.slice(name.lastIndexOf(":") + 1);
  if (match.portNumber !== undefined && match.portNumber !== 0 && String(match.portNumber) !== port)
    return false;
  const [, , portName, gateway, namespace] = parts ?? [];
  if (portName === undefined) return true;
  return (
    (match.portName === undefined || match.portName === "" || match.portName === portName) &&
    (match.gateway === undefined || match.gateway === "" || match.gateway === `${namespace}/${gateway}`)
  );
}
