// Which protocol a port speaks, as its name, `appProtocol` or `protocol` says; the names are Istio's.

export type Protocol =
  | "GRPC"
  | "GRPC-Web"
  | "HTTP"
  | "HTTP_PROXY"
  | "HTTP2"
  | "HTTPS"
  | "TCP"
  | "TLS"
  | "UDP"
  | "Mongo"
  | "Redis"
  | "MySQL"
  /** Nothing was said: the proxy looks at the first bytes. */
  | "UnsupportedProtocol";

const byName: Readonly<Record<string, Protocol>> = {
  tcp: "TCP",
  udp: "UDP",
  grpc: "GRPC",
  "grpc-web": "GRPC-Web",
  http: "HTTP",
  http_proxy: "HTTP_PROXY",
  http2: "HTTP2",
  https: "HTTPS",
  tls: "TLS",
  mongo: "Mongo",
  redis: "Redis",
  mysql: "MySQL",
};

/** Case does not matter; an unknown word is "UnsupportedProtocol". */
export function parseProtocol(text: string): Protocol {
  const name = text.toLowerCase();
  return Object.hasOwn(byName, name) ? byName[name]! : "UnsupportedProtocol";
}

export function isHttp(protocol: Protocol): boolean {
  return ["HTTP", "HTTP2", "HTTP_PROXY", "GRPC", "GRPC-Web"].includes(protocol);
}

/** HTTP/2 from the first byte, without upgrade. */
export function isHttp2(protocol: Protocol): boolean {
  return ["HTTP2", "GRPC", "GRPC-Web"].includes(protocol);
}

export function isTcp(protocol: Protocol): boolean {
  return ["TCP", "HTTPS", "TLS", "Mongo", "Redis", "MySQL"].includes(protocol);
}

/** TLS that the mesh does not end: its SNI can be read. */
export function isTls(protocol: Protocol): boolean {
  return protocol === "HTTPS" || protocol === "TLS";
}

// On these ports the server speaks first, so that looking at the client's first bytes would wait for ever.
const serverFirstPorts = new Set([25, 53, 3306, 27017]);

const appProtocols: Readonly<Record<string, Protocol>> = {
  "kubernetes.io/h2c": "HTTP2",
  "kubernetes.io/ws": "HTTP",
  "kubernetes.io/wss": "HTTPS",
};

/** The protocol of a port of a Kubernetes Service: `appProtocol` before the name's prefix (`http-api`), before well-known numbers. */
export function protocolOfPort(port: {
  readonly port: number;
  readonly name?: string;
  readonly protocol?: string;
  readonly appProtocol?: string | null;
}): Protocol {
  if (port.protocol === "UDP") return "UDP";
  const said = port.appProtocol ?? port.name ?? "";
  if (typeof port.appProtocol === "string" && Object.hasOwn(appProtocols, said)) return appProtocols[said]!;
  if (said.toLowerCase().startsWith("grpc-web")) return "GRPC-Web";
  const protocol = parseProtocol(said.split("-")[0] ?? "");
  return protocol === "UnsupportedProtocol" && serverFirstPorts.has(port.port) ? "TCP" : protocol;
}
