// Envoy's names of extensions before and since its version 1.14. EnvoyFilters of that age still match by the former ones.

/** By the former name. */
export const renamedFilters: Readonly<Record<string, string>> = {
  ...Object.fromEntries(
    [
      "buffer",
      "cors",
      "csrf",
      "dynamo",
      "fault",
      "grpc_http1_bridge",
      "grpc_json_transcoder",
      "grpc_web",
      "gzip",
      "ip_tagging",
      "lua",
      "router",
      "squash",
    ].map((name) => [`envoy.${name}`, `envoy.filters.http.${name}`]),
  ),
  ...Object.fromEntries(
    ["client_ssl_auth", "echo", "http_connection_manager", "mongo_proxy", "redis_proxy", "tcp_proxy"].map(
      (name) => [`envoy.${name}`, `envoy.filters.network.${name}`],
    ),
  ),
  "envoy.health_check": "envoy.filters.http.health_check",
  "envoy.rate_limit": "envoy.filters.http.ratelimit",
  "envoy.ratelimit": "envoy.filters.network.ratelimit",
  "envoy.ext_authz": "envoy.filters.http.ext_authz",
  "envoy.http_ext_authz": "envoy.filters.http.ext_authz",
};

/** The name that Envoy uses today. */
export function presentFilterName(name: string): string {
  return renamedFilters[name] ?? name;
}
