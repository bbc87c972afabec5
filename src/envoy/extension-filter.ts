// One TrafficExtension or WasmPlugin as a filter: Lua as it is written, Wasm in the runtime that the proxy's Envoy carries.

import { modulePathPrefix, xdsClusterName } from "#base";
import type { Read } from "#engine";
import type { TrafficExtension, VmConfig, WasmConfig, WasmPlugin } from "#objects";
import { failsOpen, fetchedModules, moduleSourceOf, type ModuleSource } from "#model";
import { outboundClusterName } from "#plan";
import type { Named } from "./list-patch.ts";
import { durationOf, typed, wrapped, type Message } from "./proto/api.ts";

const runtime = "envoy.wasm.runtime.v8";
const fetchTimeoutMs = 15_000;
/** A module of 32 MiB over a slow network. */
const handedOnTimeoutMs = 60_000;
/** A replica of the control plane that has just started may not have the module yet: about a minute of trying. */
const handedOnTries = 10;
const nowhere = "BlackHoleCluster";

/** What a filter works on: HTTP's requests, or a connection's bytes, whatever its protocol. */
export type ExtensionLayer = "http" | "network";

export interface ExtensionFilter {
  readonly layer: ExtensionLayer;
  readonly filter: Named;
  /** It ends every connection itself: nothing may stand behind it. */
  readonly isLast?: boolean;
}

/**
 * Undefined for a module that is fetched for the first time, or that cannot be had and fails open: then the chain goes without it.
 * One that fails closed has a filter in its place that lets nothing through. The object's status says why.
 */
export function extensionFilter(read: Read, row: TrafficExtension | WasmPlugin): ExtensionFilter | undefined {
  const { namespace = "", name } = row.metadata;
  const filterName = `${namespace}.${name}`;
  const { lua } = row.spec as { readonly lua?: { readonly inlineCode: string } };
  if (lua !== undefined)
    return {
      layer: "http",
      filter: {
        name: filterName,
        typedConfig: typed("envoy.extensions.filters.http.lua.v3.Lua", {
          defaultSourceCode: { inlineString: lua.inlineCode },
        }),
      },
    };
  const source = moduleSourceOf(read, row);
  if (source === undefined) return undefined;
  return filterOf(read, source, {
    name: filterName,
    layer: source.module.type === "NETWORK" ? "network" : "http",
  });
}

interface Placed {
  readonly name: string;
  readonly layer: ExtensionLayer;
}

function filterOf(read: Read, source: ModuleSource, place: Placed): ExtensionFilter | undefined {
  switch (source.kind) {
    case "file":
      return moduleFilter(place, source.module, { local: { filename: source.path } });
    case "service":
      return moduleFilter(place, source.module, {
        remote: {
          httpUri: {
            uri: source.module.url,
            cluster: outboundClusterName(source.port, "", source.host),
            timeout: durationOf(fetchTimeoutMs),
          },
          sha256: source.module.sha256,
        },
      });
    case "fetched": {
      const { sha256, failure } = read(fetchedModules, source.key) ?? {};
      if (sha256 !== undefined) return moduleFilter(place, source.module, handedOn(sha256));
      return failure === undefined || failsOpen(source.module) ? undefined : closedFilter(place);
    }
    case "refused":
      return failsOpen(source.module) ? undefined : closedFilter(place);
  }
}

/** From the control plane, over the connection by which the proxy gets its configuration. */
function handedOn(sha256: string): Message {
  return {
    remote: {
      httpUri: {
        uri: `https://${xdsClusterName}${modulePathPrefix}${sha256}`,
        cluster: xdsClusterName,
        timeout: durationOf(handedOnTimeoutMs),
      },
      sha256,
      retryPolicy: {
        retryBackOff: { baseInterval: durationOf(1_000), maxInterval: durationOf(10_000) },
        numRetries: wrapped(handedOnTries),
      },
    },
  };
}

/** In the place of a module that cannot be fetched: Istio's API has calls fail then, with a status of 500 or above. */
function closedFilter({ name, layer }: Placed): ExtensionFilter {
  if (layer === "http") {
    const abort = { httpStatus: 503, percentage: { numerator: 100, denominator: "HUNDRED" } };
    const typedConfig = typed("envoy.extensions.filters.http.fault.v3.HTTPFault", { abort });
    return { layer, filter: { name, typedConfig } };
  }
  // A proxy to nowhere. RBAC, which Istio takes here, looks at a connection when the client says something: a server that speaks
  // first is heard through it.
  const typedConfig = typed("envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy", {
    statPrefix: nowhere,
    cluster: nowhere,
  });
  return { layer, filter: { name, typedConfig }, isLast: true };
}

function moduleFilter({ name, layer }: Placed, module: WasmConfig, code: Message): ExtensionFilter {
  const { pluginName = "", pluginConfig, failStrategy = "FAIL_CLOSE", vmConfig } = module;
  const config = {
    name,
    rootId: pluginName,
    vmConfig: { vmId: "", runtime, code, ...environment(vmConfig) },
    ...(pluginConfig === undefined
      ? {}
      : { configuration: typed("google.protobuf.StringValue", { value: JSON.stringify(pluginConfig) }) }),
    failurePolicy: failStrategy === "FAIL_CLOSE" ? "FAIL_CLOSED" : failStrategy,
  };
  const typedConfig = typed(`envoy.extensions.filters.${layer}.wasm.v3.Wasm`, { config });
  return { layer, filter: { name, typedConfig } };
}

function environment(vm: VmConfig | undefined): Message {
  const all = vm?.env ?? [];
  if (all.length === 0) return {};
  return {
    environmentVariables: {
      hostEnvKeys: all.flatMap(({ name, valueFrom }) => (valueFrom === "HOST" ? [name] : [])),
      keyValues: Object.fromEntries(
        all.flatMap(({ name, valueFrom, value = "" }) => (valueFrom === "HOST" ? [] : [[name, value]])),
      ),
    },
  };
}
