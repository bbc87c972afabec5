// Where the module of a WasmPlugin or a TrafficExtension comes from, as far as a stock Envoy can get it.

import type { Read } from "#engine";
import { parseJwksUri, type TrafficExtension, type WasmConfig, type WasmPlugin } from "#objects";
import { serviceOf, servicesOfHost } from "./services.ts";

export type ModuleSource =
  | { readonly kind: "file"; readonly path: string; readonly module: WasmConfig }
  | {
      readonly kind: "service";
      /** `namespace/host`. */
      readonly service: string;
      readonly host: string;
      readonly port: number;
      readonly module: WasmConfig;
    }
  /** Nobody can fetch it: in words. */
  | { readonly kind: "refused"; readonly path: string; readonly text: string };

/** Undefined for an extension without a module. */
export function moduleSourceOf(read: Read, row: TrafficExtension | WasmPlugin): ModuleSource | undefined {
  const { wasm } = (row.spec ?? {}) as { readonly wasm?: WasmConfig };
  const module = row.kind === "WasmPlugin" ? (row.spec as WasmConfig | undefined) : wasm;
  if (module === undefined) return undefined;
  const at = row.kind === "WasmPlugin" ? "spec" : "spec.wasm";
  const refused = (field: string, text: string): ModuleSource => ({
    kind: "refused",
    path: `${at}.${field}`,
    text,
  });
  if (module.type === "NETWORK") return refused("type", "Modules for TCP connections are not run");
  if (module.url.startsWith("file://"))
    return { kind: "file", path: module.url.slice("file://".length), module };
  const server = parseJwksUri(module.url);
  if (server === undefined)
    return refused("url", "Modules of OCI images are not fetched: give a file:// or an http:// URL");
  if (server.tls)
    return refused("url", "Modules are not fetched over TLS: give an http:// URL of a service of the mesh");
  const key = read(servicesOfHost, server.host)[0];
  const isServed =
    key !== undefined && read(serviceOf, key)?.ports.some(({ port }) => port === server.port) === true;
  if (!isServed) return refused("url", `No service of the mesh is ${server.host}:${server.port}`);
  if ((module.sha256 ?? "") === "")
    return refused("sha256", "A module that is fetched needs its sha256, which Envoy checks");
  return { kind: "service", service: key, host: server.host, port: server.port, module };
}
