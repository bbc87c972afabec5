// BOOTSTRAP patches of EnvoyFilters: one overlay, in the JSON form of Envoy's Bootstrap, for the pod's agent to have Envoy
// lay over the bootstrap with which it starts.

import type { Read } from "#engine";
import { envoyFiltersOf, istioVersion, tables, type WorkloadKey } from "#model";
import { isForProxy } from "#plan";
import type protobuf from "protobufjs";
import { hasMessageType, messageType } from "./proto/api.ts";
import { camelCase, fromJson, JsonMismatch } from "./proto/json.ts";

type Json = Readonly<Record<string, unknown>>;

const bootstrapName = "envoy.config.bootstrap.v3.Bootstrap";

/**
 * The patches for a workload's next start, merged as protocol buffers merge; undefined without any. Contexts count as for
 * other patches, by whether the proxy is a gateway. What does not fit Envoy's API is left out: its writer was told.
 */
export function bootstrapOverlay(
  read: Read,
  workload: WorkloadKey,
  proxy: { readonly isGateway: boolean; readonly facts: Readonly<Record<string, string>> },
): Json | undefined {
  const facts = { ...proxy.facts, NAMESPACE: workload.namespace, ISTIO_VERSION: istioVersion };
  const values = read(envoyFiltersOf, workload)
    .flatMap((filter) => read(tables.EnvoyFilter, filter)?.spec?.configPatches ?? [])
    .filter(({ applyTo, patch, match }) => {
      const context = match?.context ?? "ANY";
      const fits = context === "ANY" || (context === "GATEWAY") === proxy.isGateway;
      return (
        applyTo === "BOOTSTRAP" && patch?.operation === "MERGE" && fits && isForProxy(match?.proxy, facts)
      );
    })
    .map(({ patch }) => patch?.value ?? {})
    .filter(isBootstrap);
  const [first, ...more] = values;
  return first === undefined ? undefined : more.reduce(mergedBootstraps, canonical(bootstrapName, first));
}

function isBootstrap(value: unknown): value is Json {
  try {
    fromJson(bootstrapName, value);
    return true;
  } catch (error) {
    if (error instanceof JsonMismatch) return false;
    throw error;
  }
}

function mergedBootstraps(under: Json, over: Json): Json {
  return mergeJson(bootstrapName, under, canonical(bootstrapName, over));
}

/** The same with the fields' names as the API has them in camel case, at every depth. */
function canonical(name: string, value: Json): Json {
  const fields = Object.entries(value).map(([key, inner]) => {
    const field = messageType(name).fields[camelCase(key)];
    return [field?.name ?? key, field === undefined ? inner : canonicalField(field, inner)] as const;
  });
  return Object.fromEntries(fields);
}

function canonicalField(field: protobuf.Field, value: unknown): unknown {
  const of = (one: unknown): unknown => {
    const name = nestedName(field, one);
    if (name === undefined || !isObject(one)) return one;
    const { "@type": type, ...fields } = one;
    return type === undefined ? canonical(name, fields) : { "@type": type, ...canonical(name, fields) };
  };
  if (field.map && isObject(value))
    return Object.fromEntries(Object.entries(value).map(([key, one]) => [key, of(one)]));
  return Array.isArray(value) ? value.map(of) : of(value);
}

function mergeJson(name: string, under: Json, over: Json): Json {
  const type = messageType(name);
  const merged: Record<string, unknown> = { ...under };
  for (const [key, value] of Object.entries(over)) {
    const field = type.fields[key];
    for (const sibling of field?.partOf?.fieldsArray ?? [])
      if (sibling.name !== key) delete merged[sibling.name];
    merged[key] = field === undefined ? value : mergeField(field, merged[key], value);
  }
  return merged;
}

function mergeField(field: protobuf.Field, under: unknown, over: unknown): unknown {
  if (Array.isArray(under) && Array.isArray(over)) return [...under, ...over];
  if (!isObject(under) || !isObject(over)) return over;
  if (field.map) return { ...under, ...over };
  const name = nestedName(field, over);
  // An Any of another type takes the place of the one before it.
  if (name === undefined || under["@type"] !== over["@type"]) return over;
  return mergeJson(name, under, over);
}

/** The message that a field holds, by its "@type" where it holds any; undefined for values and types that are not known. */
function nestedName(field: protobuf.Field, value: unknown): string | undefined {
  const resolved = field.resolvedType ?? field.resolve().resolvedType;
  if (resolved === null || "values" in resolved) return undefined;
  const name = resolved.fullName.replace(/^\./, "");
  if (name !== "google.protobuf.Any") return name.startsWith("google.protobuf.") ? undefined : name;
  const url = isObject(value) ? value["@type"] : undefined;
  const inner = typeof url === "string" ? url.slice(url.lastIndexOf("/") + 1) : "";
  const isPlain =
    !hasMessageType(inner) || inner.endsWith(".TypedStruct") || inner.startsWith("google.protobuf.");
  return isPlain ? undefined : inner;
}

function isObject(value: unknown): value is Json {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
