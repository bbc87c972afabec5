// EnvoyFilter: what users change in Envoy's own configuration, over the resources that the other builders made. A patch
// that does not fit Envoy's API is left out and reported; one that fits is taken as it is: Envoy has the last word.

import type { ObjectRef } from "#base";
import type { Read } from "#engine";
import { refOf, type EnvoyFilter, type EnvoyFilterEnvoyConfigObjectPatch } from "#objects";
import { tables, type ProxyTuning } from "#model";
import type { AddedKey, PatchedKey, ResourceType } from "#plan";
import { patchCluster } from "./cluster-patch.ts";
import { inlineExtensions } from "./extension-config.ts";
import { patchListener } from "./listener-patch.ts";
import { withOverlay } from "./overlay.ts";
import { decodeMessage, type Message } from "./proto/api.ts";
import { fromJson, JsonMismatch } from "./proto/json.ts";
import { messageNameOf, resource, type EnvoyResource, type Origin } from "./resource.ts";
import { patchDiscoveredHost, patchRoutes } from "./route-patch.ts";

/** A patch whose value is a message already. */
export interface ReadyPatch {
  readonly applyTo: string;
  readonly operation: string;
  readonly match: NonNullable<EnvoyFilterEnvoyConfigObjectPatch["match"]>;
  readonly value: Message;
  /** Where an HTTP filter goes that is added. */
  readonly filterClass?: string | undefined;
}

/** Why a patch of an EnvoyFilter is left out. */
export interface PatchMismatch {
  readonly object: ObjectRef;
  /** e.g. `spec.configPatches[0].patch.value.typed_config`. */
  readonly path: string;
  readonly text: string;
}

const messages: Readonly<Record<string, string>> = {
  CLUSTER: "envoy.config.cluster.v3.Cluster",
  LISTENER: "envoy.config.listener.v3.Listener",
  FILTER_CHAIN: "envoy.config.listener.v3.FilterChain",
  NETWORK_FILTER: "envoy.config.listener.v3.Filter",
  LISTENER_FILTER: "envoy.config.listener.v3.ListenerFilter",
  HTTP_FILTER: "envoy.extensions.filters.network.http_connection_manager.v3.HttpFilter",
  ROUTE_CONFIGURATION: "envoy.config.route.v3.RouteConfiguration",
  VIRTUAL_HOST: "envoy.config.route.v3.VirtualHost",
  HTTP_ROUTE: "envoy.config.route.v3.Route",
  EXTENSION_CONFIG: "envoy.config.core.v3.TypedExtensionConfig",
  BOOTSTRAP: "envoy.config.bootstrap.v3.Bootstrap",
};

/** The resource of a key with its patches over it. */
export function patchedResource(
  read: Read,
  type: ResourceType,
  key: PatchedKey,
  base: EnvoyResource | undefined,
): EnvoyResource | undefined {
  if (base === undefined) return undefined;
  const decoded = decodeMessage(messageNameOf(type), base.bytes);
  let message: Message | undefined = decoded;
  const origins: Origin[] = [];
  if (key.overlay !== undefined && type === "listener") {
    const over = withOverlay(read, message, key.overlay, {
      context: key.context,
      own: (key.base as { readonly tuning?: ProxyTuning }).tuning,
    });
    message = over.message;
    origins.push(...over.origins);
  }
  const extensions: Message[] = [];
  for (const { filter, at } of key.patches) {
    const row = read(tables.EnvoyFilter, filter);
    const patch = row?.spec?.configPatches?.[at];
    const ready = patch === undefined ? undefined : readyPatch(patch);
    if (row === undefined || ready === undefined || "text" in ready) continue;
    if (ready.applyTo === "EXTENSION_CONFIG") {
      extensions.push(ready.value);
      continue;
    }
    const before: Message = message;
    message = applied(type, before, ready);
    if (message === undefined) return undefined;
    if (message !== before) origins.push({ at: "", object: refOf(row), path: `spec.configPatches[${at}]` });
  }
  // MeshConfig's defaults change a listener without an object of their own.
  if (message === decoded && extensions.length === 0) return base;
  if (extensions.length > 0) message = inlineExtensions(message, extensions);
  // The name is the plan's: a patch that changes it would make a resource that nobody asked for.
  return resource(type, base.name, { ...message, ...nameOf(type, base.name) }, [...origins, ...base.origins]);
}

/** A cluster or listener that a patch adds. */
export function addedResource(
  read: Read,
  type: ResourceType,
  { filter, at }: AddedKey,
): EnvoyResource | undefined {
  const row = read(tables.EnvoyFilter, filter);
  const patch = row?.spec?.configPatches?.[at];
  const ready = patch === undefined ? undefined : readyPatch(patch);
  if (row === undefined || ready === undefined || "text" in ready) return undefined;
  const origin = { at: "", object: refOf(row), path: `spec.configPatches[${at}]` };
  return resource(type, String(ready.value["name"]), ready.value, [origin]);
}

/** What does not fit in an EnvoyFilter, for admission, the analyzer and people. */
export function envoyFilterMismatches(filter: EnvoyFilter): readonly PatchMismatch[] {
  return (filter.spec?.configPatches ?? []).flatMap((patch, at) => {
    const ready = readyPatch(patch);
    if (!("text" in ready)) return [];
    const below = ready.path === "" ? "" : `.${ready.path}`;
    return [
      { object: refOf(filter), path: `spec.configPatches[${at}].patch.value${below}`, text: ready.text },
    ];
  });
}

function readyPatch({
  applyTo = "INVALID",
  match,
  patch,
}: EnvoyFilterEnvoyConfigObjectPatch): ReadyPatch | { readonly path: string; readonly text: string } {
  const name = messages[applyTo];
  if (name === undefined) return { path: "", text: `applyTo ${applyTo} is not supported` };
  try {
    const value = fromJson(name, patch?.value ?? {});
    return {
      applyTo,
      operation: patch?.operation ?? "INVALID",
      match: match ?? {},
      value,
      filterClass: patch?.filterClass,
    };
  } catch (error) {
    if (error instanceof JsonMismatch) return { path: error.path, text: error.message };
    throw error;
  }
}

/** The message itself when nothing of it matched, undefined when it is to go. */
function applied(type: ResourceType, message: Message, patch: ReadyPatch): Message | undefined {
  switch (type) {
    case "cluster":
      return patchCluster(message, patch);
    case "listener":
      return patchListener(message, patch);
    case "route":
      return patchRoutes(message, patch);
    case "virtualHost":
      return patchDiscoveredHost(message, patch);
    default:
      return message;
  }
}

function nameOf(type: ResourceType, name: string): Message {
  return type === "endpoint" ? { clusterName: name } : { name };
}
