// What the parts of Envoy's bootstrap are made of.

import { xdsClusterName } from "#base";

export const staticClusters = {
  xds: xdsClusterName,
  sds: "sds-grpc",
  admin: "prometheus_stats",
  agent: "agent",
} as const;

export const http2Options = {
  "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
    "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
    explicit_http_config: {
      http2_protocol_options: { connection_keepalive: { interval: "30s", timeout: "10s" } },
    },
  },
};

/**
 * Envoy waits for a secret as long as it takes: without its certificate it can do nothing useful.
 * @param fetchTimeout how long it waits where it can do without, e.g. "5s"
 */
export function secretConfig(name: string, fetchTimeout = "0s"): object {
  return {
    name,
    sds_config: {
      resource_api_version: "V3",
      initial_fetch_timeout: fetchTimeout,
      api_config_source: {
        api_type: "DELTA_GRPC",
        transport_api_version: "V3",
        set_node_on_first_message_only: true,
        grpc_services: [{ envoy_grpc: { cluster_name: staticClusters.sds } }],
      },
    },
  };
}

export function assignment(name: string, address: object): object {
  return { cluster_name: name, endpoints: [{ lb_endpoints: [{ endpoint: { address } }] }] };
}

export function socket(address: string, port: number): object {
  return { socket_address: { address, port_value: port } };
}
