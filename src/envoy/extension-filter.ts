// One TrafficExtension or WasmPlugin as an HTTP filter: Lua as it is written, Wasm in the runtime that the proxy's Envoy carries.

import type { Read } from "#engine";
import type { TrafficExtension, VmConfig, WasmPlugin } from "#objects";
import { moduleSourceOf } from "#model";
import { outboundClusterName } from "#plan";
import type { Named } from "./list-patch.ts";
import { durationOf, typed, type Message } from "./proto/api.ts";

const runtime = "envoy.wasm.runtime.v8";
const fetchTimeoutMs = 15_000;

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
  if (source?.kind !== "file" && source?.kind !== "service") return undefined;
  const { pluginName = "", pluginConfig, failStrategy, vmConfig } = source.module;
  const code: Message =
    source.kind === "file"
      ? { local: { filename: source.path } }
      : {
          remote: {
            httpUri: {
              uri: source.module.url,
              cluster: outboundClusterName(source.port, "", source.host),
              timeout: durationOf(fetchTimeoutMs),
            },
            sha256: source.module.sha256,
          },
        };
  const config = {
    name: filterName,
    rootId: pluginName,
    vmConfig: { vmId: "", runtime, code, ...environment(vmConfig) },
    ...(pluginConfig === undefined
      ? {}
      : { configuration: typed("google.protobuf.StringValue", { value: JSON.stringify(pluginConfig) }) }),
    failurePolicy: failStrategy ?? "FAIL_CLOSE",
  };
  const failurePolicy = config.failurePolicy === "FAIL_CLOSE" ? "FAIL_CLOSED" : config.failurePolicy;
  return {
    name: filterName,
    typedConfig: typed("envoy.extensions.filters.http.wasm.v3.Wasm", {
      config: { ...config, failurePolicy },
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
