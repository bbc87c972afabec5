// TrafficExtensions and WasmPlugins: which of them a workload's proxy runs, on which side, and in which order.

import { defineKeyedQuery, sameData, type Read } from "#engine";
import type { TrafficExtension, WasmPlugin } from "#objects";
import { environmentOf } from "./mesh.ts";
import { targets } from "./selectors.ts";
import { tables } from "./tables.ts";
import { moduleSourceOf } from "./wasm-module.ts";
import { workloadText, type WorkloadKey } from "./workload.ts";

export interface ExtensionRef {
  readonly kind: "TrafficExtension" | "WasmPlugin";
  /** Row key. */
  readonly key: string;
}

/** The side of a call that a listener is on; a gateway is on the client's. */
export type ExtensionSide = "CLIENT" | "SERVER";

/** Where among the filters of the mesh an extension stands; the order is that of the chain. */
export const extensionPhases = ["AUTHN", "AUTHZ", "STATS", "UNSPECIFIED"] as const;
export type ExtensionPhase = (typeof extensionPhases)[number];

/** Those of the root namespace and the workload's own that choose it, in the order in which they run. */
export const extensionsOf = defineKeyedQuery<WorkloadKey, readonly ExtensionRef[]>(
  "extensionsOf",
  workloadText,
  (read, workload) => {
    const { rootNamespace } = read(environmentOf, "");
    const places = [...new Set([rootNamespace, workload.namespace])];
    const found = places.flatMap((place) => [
      ...read(tables.TrafficExtension.by.namespace, place).map((row) =>
        ranked("TrafficExtension", place, row),
      ),
      ...read(tables.WasmPlugin.by.namespace, place).map((row) => ranked("WasmPlugin", place, row)),
    ]);
    return found
      .filter(({ row }) => targets(row, workload))
      .toSorted(inOrder)
      .map(({ ref }) => ref);
  },
  sameData,
);

export function extensionRow(
  read: Read,
  { kind, key }: ExtensionRef,
): TrafficExtension | WasmPlugin | undefined {
  return kind === "WasmPlugin" ? read(tables.WasmPlugin, key) : read(tables.TrafficExtension, key);
}

/** Services that a workload's proxy fetches modules from, as `namespace/host`. */
export const moduleServicesOf = defineKeyedQuery<WorkloadKey, readonly string[]>(
  "moduleServicesOf",
  workloadText,
  (read, workload) =>
    read(extensionsOf, workload).flatMap((ref) => {
      const row = extensionRow(read, ref);
      const source = row === undefined ? undefined : moduleSourceOf(read, row);
      return source?.kind === "service" ? [source.service] : [];
    }),
  sameData,
);

interface Ranked {
  readonly ref: ExtensionRef;
  readonly row: TrafficExtension | WasmPlugin;
}

function ranked(kind: ExtensionRef["kind"], place: string, row: Ranked["row"]): Ranked {
  return { ref: { kind, key: `${place}/${row.metadata.name}` }, row };
}

/** By phase, in a phase the higher priority first, and equals by name and namespace, as Istio has it. */
function inOrder(a: Ranked, b: Ranked): number {
  const phase = (one: Ranked): number => extensionPhases.indexOf(phaseOf(one.row));
  const byText = (x: string, y: string): number => (x < y ? -1 : x > y ? 1 : 0);
  return (
    phase(a) - phase(b) ||
    (b.row.spec?.priority ?? 0) - (a.row.spec?.priority ?? 0) ||
    byText(a.row.metadata.name, b.row.metadata.name) ||
    byText(a.ref.key, b.ref.key)
  );
}

export function phaseOf({ spec }: TrafficExtension | WasmPlugin): ExtensionPhase {
  const phase = spec?.phase ?? "UNSPECIFIED";
  return phase === "UNSPECIFIED_PHASE" ? "UNSPECIFIED" : phase;
}

/** The ports for which an extension runs on a side: undefined for all, none when it does not run there. */
export function extensionPorts(
  { spec }: TrafficExtension | WasmPlugin,
  side: ExtensionSide,
): readonly number[] | undefined {
  const matches = spec?.match ?? [];
  if (matches.length === 0) return undefined;
  const fitting = matches.filter(({ mode = "UNDEFINED" }) =>
    ["UNDEFINED", "CLIENT_AND_SERVER", side].includes(mode),
  );
  if (fitting.some(({ ports }) => (ports ?? []).length === 0)) return undefined;
  return fitting.flatMap(({ ports }) => (ports ?? []).map(({ number }) => number));
}
