// The protocol of a port: what its `appProtocol` or its name says, or "auto", which Envoy finds out by sniffing.

export type Protocol =
  | "http"
  | "http2"
  | "grpc"
  | "grpc-web"
  | "http-proxy"
  | "https"
  | "tls"
  | "tcp"
  | "mongo"
  | "mysql"
  | "redis"
  | "udp"
  | "auto";

const byWord: Readonly<Record<string, Protocol>> = {
  http: "http",
  http2: "http2",
  h2c: "http2",
  grpc: "grpc",
  "grpc-web": "grpc-web",
  http_proxy: "http-proxy",
  https: "https",
  tls: "tls",
  tcp: "tcp",
  mongo: "mongo",
  mysql: "mysql",
  redis: "redis",
  udp: "udp",
};

/** Kubernetes' own standard names for `appProtocol`. */
const byAppProtocol: Readonly<Record<string, Protocol>> = {
  "kubernetes.io/h2c": "http2",
  "kubernetes.io/ws": "http",
  "kubernetes.io/wss": "https",
};

/** Ports whose servers speak first, where sniffing would wait: Istio takes them for TCP when nothing says more. */
const serverFirstPorts: ReadonlySet<number> = new Set([25, 53, 3306, 27017]);

/** Parses a protocol's name as Gateways and ServiceEntries write it; "auto" for "" and for what Istio does not know. */
export function parseProtocol(text: string | undefined): Protocol {
  return byWord[(text ?? "").toLowerCase()] ?? "auto";
}

export interface PortWords {
  readonly port: number;
  readonly name?: string;
  /** The transport: "TCP", "UDP" or "SCTP". */
  readonly protocol?: string;
  readonly appProtocol?: string;
}

/** The protocol of a Kubernetes port, selected as Istio does: transport, then `appProtocol`, then the name's first word. */
export function selectProtocol({ port, name, protocol, appProtocol }: PortWords): Protocol {
  if (protocol === "UDP") return "udp";
  if (appProtocol !== undefined) {
    const chosen = byAppProtocol[appProtocol.toLowerCase()] ?? parseProtocol(appProtocol);
    return chosen === "udp" ? "auto" : chosen;
  }
  const word = (name ?? "").toLowerCase();
  const named =
    word === "grpc-web" || word.startsWith("grpc-web-") ? "grpc-web" : parseProtocol(word.split("-")[0]);
  if (named !== "auto" && named !== "udp") return named;
  return serverFirstPorts.has(port) ? "tcp" : "auto";
}

export function isHttp(protocol: Protocol): boolean {
  return (
    protocol === "http" ||
    protocol === "http2" ||
    protocol === "grpc" ||
    protocol === "grpc-web" ||
    protocol === "http-proxy"
  );
}

export function isHttp2(protocol: Protocol): boolean {
  return protocol === "http2" || protocol === "grpc" || protocol === "grpc-web";
}

/** TLS that the application itself speaks: routed by SNI, never opened. */
export function isTls(protocol: Protocol): boolean {
  return protocol === "https" || protocol === "tls";
}

/** How a listener must treat the port. */
export function listenerProtocol(protocol: Protocol): "http" | "tcp" | "auto" | "none" {
  if (isHttp(protocol)) return "http";
  if (protocol === "auto") return "auto";
  return protocol === "udp" ? "none" : "tcp";
}
