// Two texts that go over Envoy's bootstrap made one, since Envoy takes a single one.

import { parse } from "yaml";

/**
 * The second text over the first, both YAML or JSON of one message: objects field by field, lists one after the other, all
 * else replaced, as protocol buffers merge. Fields have to be written in one way: the first is brought into the second's.
 */
export function layered(under: string, over: string): string {
  return JSON.stringify(merged(camelCased(parse(under)), camelCased(parse(over))));
}

function merged(under: unknown, over: unknown): unknown {
  if (Array.isArray(under) && Array.isArray(over)) return [...(under as unknown[]), ...(over as unknown[])];
  if (!isObject(under) || !isObject(over) || under["@type"] !== over["@type"]) return over;
  const fields = Object.entries(over).map(([name, value]) => [name, merged(under[name], value)] as const);
  return { ...under, ...Object.fromEntries(fields) };
}

/** Names of Envoy's extensions hold dots and stay: they are keys of maps. */
function camelCased(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(camelCased);
  if (!isObject(value)) return value;
  const name = (key: string): string =>
    key.includes(".") ? key : key.replace(/_([a-z0-9])/g, (_, letter: string) => letter.toUpperCase());
  return Object.fromEntries(Object.entries(value).map(([key, inner]) => [name(key), camelCased(inner)]));
}

function isObject(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
