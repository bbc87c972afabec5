// How lists merge: by which keys an item is the same item. Custom resources say it in their schemas (x-kubernetes-list-type); for
// the built-in kinds it stands here, as Kubernetes' types have it.

import type { Kind } from "../kinds/kind.ts";
import { resolveSchema } from "../schema/schema.ts";
import type { Schema } from "../schema/schema.ts";

export type ListMerge =
  | { readonly kind: "atomic" }
  | { readonly kind: "set" }
  | { readonly kind: "map"; readonly keys: readonly string[] };

const atomic: ListMerge = { kind: "atomic" };
const set: ListMerge = { kind: "set" };
const map = (...keys: string[]): ListMerge => ({ kind: "map", keys });

// By field name, or parent.field where a name means different lists. The first key is the strategic merge patch's.
const builtinLists: Readonly<Record<string, ListMerge>> = {
  containers: map("name"),
  initContainers: map("name"),
  ephemeralContainers: map("name"),
  volumes: map("name"),
  env: map("name"),
  "containers.ports": map("containerPort", "protocol"),
  "initContainers.ports": map("containerPort", "protocol"),
  "ephemeralContainers.ports": map("containerPort", "protocol"),
  "spec.ports": map("port", "protocol"),
  volumeMounts: map("mountPath"),
  volumeDevices: map("devicePath"),
  imagePullSecrets: map("name"),
  secrets: map("name"),
  hostAliases: map("ip"),
  topologySpreadConstraints: map("topologyKey", "whenUnsatisfiable"),
  schedulingGates: map("name"),
  conditions: map("type"),
  ownerReferences: map("uid"),
  finalizers: set,
  webhooks: map("name"),
  "status.addresses": map("type"),
  podIPs: map("ip"),
  hostIPs: map("ip"),
  taints: map("key", "effect"),
  validations: atomic,
};

/** Keys whose absence means this value, when items are compared. */
export const keyDefaults: Readonly<Record<string, string>> = { protocol: "TCP" };

/** Answers, for the list at a path of field names, how it merges. */
export type ListRules = (path: readonly string[], schema: Schema | undefined) => ListMerge;

export function listRulesOf(kind: Kind): ListRules {
  return kind.custom ? customRules : builtinRules;
}

function builtinRules(path: readonly string[]): ListMerge {
  const name = path.at(-1) ?? "";
  const parent = path.at(-2) ?? "";
  return builtinLists[`${parent}.${name}`] ?? builtinLists[name] ?? atomic;
}

function customRules(path: readonly string[], schema: Schema | undefined): ListMerge {
  if (path[0] === "metadata") return builtinRules(path);
  switch (schema?.["x-kubernetes-list-type"]) {
    case "map":
      return { kind: "map", keys: schema["x-kubernetes-list-map-keys"] ?? [] };
    case "set":
      return set;
    default:
      return atomic;
  }
}

/** The schema one field further down, as far as there is one. */
export function schemaBelow(schema: Schema | undefined, name: string): Schema | undefined {
  if (schema === undefined) return undefined;
  const resolved = resolveSchema(schema);
  const property = resolved.properties?.[name];
  if (property) return resolveSchema(property);
  return typeof resolved.additionalProperties === "object"
    ? resolveSchema(resolved.additionalProperties)
    : undefined;
}

export function itemSchema(schema: Schema | undefined): Schema | undefined {
  return schema?.items && resolveSchema(schema.items);
}
