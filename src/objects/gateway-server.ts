// What a server of an Istio Gateway is: HTTP or not, who ends its TLS.

import type { GatewayServer } from "./gateway.ts";
import { isHttp, parseProtocol } from "./protocol.ts";

type Server = Pick<GatewayServer, "port" | "tls">;

/** TLS goes through as it is, by SNI. */
export function isPassthroughServer(server: Server): boolean {
  return server.tls?.mode === "PASSTHROUGH" || server.tls?.mode === "AUTO_PASSTHROUGH";
}

/** It has TLS settings that are more than the redirect of a plain HTTP server. */
export function isTlsServer(server: Server): boolean {
  return server.tls !== undefined && !isHttp(parseProtocol(server.port.protocol));
}

/** HTTP is read here, after TLS was ended or in plaintext. */
export function isHttpServer(server: Server): boolean {
  const protocol = parseProtocol(server.port.protocol);
  return isHttp(protocol) || (protocol === "HTTPS" && !isPassthroughServer(server));
}

export function isHttpsServerWithTermination(server: Server): boolean {
  return (
    server.tls !== undefined &&
    parseProtocol(server.port.protocol) === "HTTPS" &&
    !isPassthroughServer(server)
  );
}

export function isTcpServerWithTermination(server: Server): boolean {
  const protocol = parseProtocol(server.port.protocol);
  return !isPassthroughServer(server) && !isHttp(protocol) && protocol !== "HTTPS";
}

export function mayUpgradeToHttp3(server: Server, quicListeners: boolean): boolean {
  return quicListeners && parseProtocol(server.port.protocol) === "HTTPS" && !isPassthroughServer(server);
}
