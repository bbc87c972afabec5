// One TrafficExtension or WasmPlugin as an HTTP filter: Lua as it is written, Wasm in the runtime that the proxy's Envoy carries.

import { modulePathPrefix, xdsClusterName } from "#base";
import type { Read } from "#engine";
import type { TrafficExtension, VmConfig, WasmConfig, WasmPlugin } from "#objects";
import { fetchedModules, moduleSourceOf } from "#model";
import { outboundClusterName } from "#plan";
import type { Named } from "./list-patch.ts";
import { durationOf, typed, wrapped, type Message } from "./proto/api.ts";

const runtime = "envoy.wasm.runtime.v8";
const fetchTimeoutMs = 15_000;
/** A module of 32 MiB over a slow network. */
const handedOnTimeoutMs = 60_000;
/** A replica of the control plane that has just started may not have the module yet: about a minute of trying. */
const handedOnTries = 10;

/** Undefined for a module that cannot be had: then the chain goes without it, and the object's status says why. */
export function extensionFilter(read: Read, row: TrafficExtension | WasmPlugin): Named | undefined {
  const { namespace = "", name } = row.metadata;
  const filterName = `${namespace}.${name}`;
  const { lua } = row.spec as { readonly lua?: { readonly inlineCode: string } };
  if (lua !== undefined)
    return {
      name: filterName,
      typedConfig: typed("envoy.extensions.filters.http.lua.v3.Lua", {
        defaultSourceCode: { inlineString: lua.inlineCode },
      }),
    };
  const source = moduleSourceOf(read, row);
  switch (source?.kind) {
    case "file":
      return moduleFilter(filterName, source.module, { local: { filename: source.path } });
    case "service":
      return moduleFilter(filterName, source.module, {
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
      if (sha256 !== undefined) return moduleFilter(filterName, source.module, handedOn(sha256));
      const isClosed = failure !== undefined && source.module.failStrategy !== "FAIL_OPEN";
      return isClosed ? closedFilter(filterName) : undefined;
    }
    default:
      return undefined;
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
function closedFilter(name: string): Named {
  return {
    name,
    typedConfig: typed("envoy.extensions.filters.http.fault.v3.HTTPFault", {
      abort: { httpStatus: 503, percentage: { numerator: 100, denominator: "HUNDRED" } },
    }),
  };
}

function moduleFilter(filterName: string, module: WasmConfig, code: Message): Named {
  const { pluginName = "", pluginConfig, failStrategy = "FAIL_CLOSE", vmConfig } = module;
  return {
    name: filterName,
    typedConfig: typed("envoy.extensions.filters.http.wasm.v3.Wasm", {
      config: {
        name: filterName,
        rootId: pluginName,
        vmConfig: { vmId: "", runtime, code, ...environment(vmConfig) },
        ...(pluginConfig === undefined
          ? {}
          : { configuration: typed("google.protobuf.StringValue", { value: JSON.stringify(pluginConfig) }) }),
        failurePolicy: failStrategy === "FAIL_CLOSE" ? "FAIL_CLOSED" : failStrategy,
      },
    }),
  };
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
