// Where the module of a WasmPlugin or a TrafficExtension comes from: a file of the proxy's container, a service of the mesh that the
// proxy asks itself, or the control plane, which fetches it from a registry or a web server and hands it on.

import { defineQuery, defineTable, sameData, type Read } from "#engine";
import {
  parseModuleUrl,
  type ModuleUrl,
  type TrafficExtension,
  type WasmConfig,
  type WasmPlugin,
} from "#objects";
import { serviceOf, servicesOfHost } from "./services.ts";
import { everything, tables } from "./tables.ts";

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
  /** The control plane fetches it: what came of that is in the table of fetched modules. */
  | {
      readonly kind: "fetched";
      readonly key: string;
      readonly from: FetchedUrl;
      /** Of the URL, in the object. */
      readonly path: string;
      readonly module: WasmConfig;
    }
  /** Nobody can fetch it. */
  | { readonly kind: "refused"; readonly path: string; readonly module: WasmConfig };

export type FetchedUrl = Exclude<ModuleUrl, { readonly kind: "file" }>;

/** What came of fetching an object's module, by `Kind/namespace/name`: an input like any object. */
export interface FetchedModule {
  /** Of the module's bytes, which the control plane serves; absent until the first success. */
  readonly sha256?: string;
  /** Why the last attempt failed; absent after a success. */
  readonly failure?: string;
}

export const fetchedModules = defineTable<FetchedModule>("FetchedModule");

/** Undefined for an extension without a module. */
export function moduleSourceOf(read: Read, row: TrafficExtension | WasmPlugin): ModuleSource | undefined {
  const { wasm } = (row.spec ?? {}) as { readonly wasm?: WasmConfig };
  const module = row.kind === "WasmPlugin" ? (row.spec as WasmConfig | undefined) : wasm;
  if (module === undefined) return undefined;
  const at = row.kind === "WasmPlugin" ? "spec" : "spec.wasm";
  const from = parseModuleUrl(module.url);
  if (from === undefined) return { kind: "refused", path: `${at}.url`, module };
  if (from.kind === "file") return { kind: "file", path: from.path, module };
  const service = from.kind === "http" && !from.tls ? serviceServing(read, from.host, from.port) : undefined;
  // Envoy takes nothing that it fetches without its sum.
  if (from.kind === "http" && service !== undefined && (module.sha256 ?? "") !== "")
    return { kind: "service", service, host: from.host, port: from.port, module };
  const { namespace = "", name } = row.metadata;
  return { kind: "fetched", key: `${row.kind}/${namespace}/${name}`, from, path: `${at}.url`, module };
}

function serviceServing(read: Read, host: string, port: number): string | undefined {
  const key = read(servicesOfHost, host)[0];
  const service = key === undefined ? undefined : read(serviceOf, key);
  return service?.ports.some((one) => one.port === port) === true ? key : undefined;
}

/** What an extension without its module does to what it would see. */
export function failsOpen({ failStrategy }: WasmConfig): boolean {
  return failStrategy === "FAIL_OPEN";
}

/** A module that the control plane is to fetch, as the object asks for it. */
export interface ModuleRequest {
  /** `Kind/namespace/name`. */
  readonly key: string;
  readonly namespace: string;
  readonly from: FetchedUrl;
  /** "" where none is given. Of an image it is the manifest's, of another module its own. */
  readonly sha256: string;
  /** The name of a Secret of the object's namespace; "" for none. */
  readonly secret: string;
  /** Whether each change of the object fetches anew, or what was fetched once for the URL is kept. */
  readonly policy: "always" | "if-not-present";
  readonly generation: number;
}

/** What is to be fetched, in the order of the objects. */
export const moduleRequests = defineQuery<readonly ModuleRequest[]>(
  "moduleRequests",
  (read) => {
    const rows = [
      ...read(tables.WasmPlugin.by.remote, everything),
      ...read(tables.TrafficExtension.by.remote, everything),
    ];
    return rows
      .flatMap((row) => requestOf(read, row))
      .toSorted((a, b) => (a.key < b.key ? -1 : a.key > b.key ? 1 : 0));
  },
  sameData,
);

function requestOf(read: Read, row: TrafficExtension | WasmPlugin): ModuleRequest[] {
  const source = moduleSourceOf(read, row);
  if (source?.kind !== "fetched") return [];
  const { key, from, module } = source;
  return [
    {
      key,
      namespace: row.metadata.namespace ?? "",
      from,
      sha256: module.sha256 ?? "",
      // Istio uses it for images alone.
      secret: from.kind === "image" ? (module.imagePullSecret ?? "") : "",
      policy: pullPolicyOf(from, module),
      generation: row.metadata.generation ?? 0,
    },
  ];
}

/** Istio's default: an image whose tag is `latest`, or that names none, is fetched anew. */
function pullPolicyOf(from: FetchedUrl, { imagePullPolicy }: WasmConfig): ModuleRequest["policy"] {
  if (imagePullPolicy === "Always") return "always";
  if (imagePullPolicy === "IfNotPresent") return "if-not-present";
  return from.kind === "image" && from.image.tag === "latest" ? "always" : "if-not-present";
}
