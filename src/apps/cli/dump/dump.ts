// Envoy's /config_dump, as far as the views read it. Of any Envoy, an Istio sidecar's included.

import { NotSoError } from "../command.ts";

export type Plain = { readonly [field: string]: unknown };

export interface ConfigDump {
  readonly bootstrap: Plain | undefined;
  readonly clusters: readonly Plain[];
  readonly listeners: readonly Plain[];
  readonly routes: readonly Plain[];
  readonly endpoints: readonly Plain[];
  readonly secrets: readonly {
    readonly name: string;
    readonly state: "ACTIVE" | "WARMING";
    readonly secret: Plain;
  }[];
}

/** Throws NotSoError when the text is no configuration dump. */
export function parseDump(text: string): ConfigDump {
  let parsed: unknown;
  try {
    parsed = JSON.parse(text);
  } catch (cause) {
    throw new NotSoError("this is no JSON; the answer of Envoy's /config_dump is expected", { cause });
  }
  const configs = listOf(plain(parsed)["configs"]);
  if (configs.length === 0)
    throw new NotSoError("this holds no 'configs'; the answer of Envoy's /config_dump is expected");
  const part = (name: string): Plain =>
    plain(configs.find((config) => textOf(config["@type"]).endsWith(`.${name}`)));
  const clusters = part("ClustersConfigDump");
  const listeners = part("ListenersConfigDump");
  const routes = part("RoutesConfigDump");
  const endpoints = part("EndpointsConfigDump");
  const secrets = part("SecretsConfigDump");
  const all = (from: Plain, lists: readonly string[], field: string): Plain[] =>
    lists
      .flatMap((list) => listOf(from[list]))
      .map((entry) => plain(entry[field]))
      .filter((resource) => Object.keys(resource).length > 0);
  return {
    bootstrap: part("BootstrapConfigDump")["bootstrap"] as Plain | undefined,
    clusters: all(
      clusters,
      ["static_clusters", "dynamic_active_clusters", "dynamic_warming_clusters"],
      "cluster",
    ),
    listeners: [
      ...all(listeners, ["static_listeners"], "listener"),
      ...listOf(listeners["dynamic_listeners"])
        .map((entry) => plain(plain(entry["active_state"] ?? entry["warming_state"])["listener"]))
        .filter((listener) => Object.keys(listener).length > 0),
    ],
    routes: all(routes, ["static_route_configs", "dynamic_route_configs"], "route_config"),
    endpoints: all(endpoints, ["static_endpoint_configs", "dynamic_endpoint_configs"], "endpoint_config"),
    secrets: [
      ...secretsIn(secrets, "dynamic_active_secrets", "ACTIVE"),
      ...secretsIn(secrets, "dynamic_warming_secrets", "WARMING"),
      ...secretsIn(secrets, "static_secrets", "ACTIVE"),
    ],
  };
}

function secretsIn(from: Plain, list: string, state: "ACTIVE" | "WARMING"): ConfigDump["secrets"] {
  return listOf(from[list]).map((entry) => ({
    name: textOf(entry["name"]),
    state,
    secret: plain(entry["secret"]),
  }));
}

export function plain(value: unknown): Plain {
  return typeof value === "object" && value !== null && !Array.isArray(value) ? (value as Plain) : {};
}

export function listOf(value: unknown): Plain[] {
  return Array.isArray(value) ? value.map(plain) : [];
}

export function textOf(value: unknown): string {
  return typeof value === "string" ? value : typeof value === "number" ? String(value) : "";
}

/** The value at a path of fields, or undefined. */
export function at(value: unknown, ...path: readonly string[]): unknown {
  return path.reduce<unknown>((inner, step) => plain(inner)[step], value);
}
