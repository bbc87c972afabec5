// The yardstick: the least that two Envoys need for mutual TLS between them, written by hand.

import { join } from "node:path";

export interface PlainOptions {
  readonly adminPort: number;
  /** With the certificates. */
  readonly folder: string;
  readonly listen: { readonly address: string; readonly port: number };
  readonly to: { readonly address: string; readonly port: number };
  /** Which side of the connection is mutual TLS. */
  readonly tls: "listener" | "cluster";
}

export function plainBootstrap({ adminPort, folder, listen, to, tls }: PlainOptions): object {
  const file = (name: string): object => ({ filename: join(folder, name) });
  const context = {
    tls_certificates: [{ certificate_chain: file("leaf.pem"), private_key: file("leaf.key") }],
    validation_context: { trusted_ca: file("root.pem") },
  };
  const socket = (direction: "Downstream" | "Upstream"): object => ({
    name: "envoy.transport_sockets.tls",
    typed_config: {
      "@type": `type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.${direction}TlsContext`,
      common_tls_context: context,
      ...(direction === "Downstream" ? { require_client_certificate: true } : {}),
    },
  });
  const manager = {
    "@type":
      "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
    stat_prefix: "plain",
    route_config: {
      virtual_hosts: [
        { name: "all", domains: ["*"], routes: [{ match: { prefix: "/" }, route: { cluster: "next" } }] },
      ],
    },
    http_filters: [
      {
        name: "envoy.filters.http.router",
        typed_config: { "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router" },
      },
    ],
  };
  return {
    admin: { address: address("127.0.0.1", adminPort) },
    static_resources: {
      listeners: [
        {
          name: "in",
          address: address(listen.address, listen.port),
          filter_chains: [
            {
              filters: [{ name: "envoy.filters.network.http_connection_manager", typed_config: manager }],
              ...(tls === "listener" ? { transport_socket: socket("Downstream") } : {}),
            },
          ],
        },
      ],
      clusters: [
        {
          name: "next",
          type: "STATIC",
          load_assignment: {
            cluster_name: "next",
            endpoints: [{ lb_endpoints: [{ endpoint: { address: address(to.address, to.port) } }] }],
          },
          ...(tls === "cluster" ? { transport_socket: socket("Upstream") } : {}),
        },
      ],
    },
  };
}

function address(host: string, port: number): object {
  return { socket_address: { address: host, port_value: port } };
}
