// A proxy for HTTP beside each application, where MeshConfig's proxyHttpPort asks for one.

import { defineKeyedQuery, sameData } from "#engine";
import { readMesh, routesToDynamicHosts, scopeText, type OutboundScope } from "#model";
import { outboundListenerName, type OutboundListenerKey, type OutboundRouteKey } from "./keys.ts";
import { loopback, unknownCluster, type PortChunks } from "./outbound-ports.ts";

/** The table of the proxy for HTTP, by Istio's name. */
const httpProxyTable = "http_proxy";

const noPort: PortChunks = {
  listener: { id: "http-proxy", entries: [] },
  route: { id: "http-proxy", entries: [] },
};

/**
 * MeshConfig's proxyHttpPort: at this port of the loopback interface applications find a proxy for HTTP, to every service that their
 * Sidecar's catch-all listener imports. One table has them all, so that each change of a service or a route encodes it anew.
 */
export const httpProxyChunks = defineKeyedQuery<OutboundScope, PortChunks>(
  "httpProxyChunks",
  scopeText,
  (read, scope) => {
    const port = readMesh(read, "proxyHttpPort") ?? 0;
    if (port === 0) return noPort;
    const unknownTo = read(unknownCluster, scope);
    const dynamic = read(routesToDynamicHosts, "") ? { dynamic: true as const } : {};
    const listener: OutboundListenerKey = {
      kind: "outbound",
      bind: loopback,
      port,
      bindToPort: true,
      // These filters do nothing but for routes that ask for them: any route may be in the table.
      parts: [{ kind: "http", route: httpProxyTable, sessions: true, asks: true, ...dynamic }],
      unknownTo,
    };
    const outlet = { scope, port: 0 };
    const route: OutboundRouteKey = {
      kind: "outbound",
      outlet,
      port,
      host: "",
      everyPort: httpProxyTable,
      unknownTo,
    };
    const name = outboundListenerName({ bind: loopback, port });
    return {
      listener: { id: noPort.listener.id, entries: [{ name, key: listener }] },
      route: { id: noPort.route.id, entries: [{ name: httpProxyTable, key: route }] },
    };
  },
  sameData,
);
