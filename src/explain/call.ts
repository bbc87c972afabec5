// A call that somebody might make: one request on one new connection.

export interface Call {
  /** Which way it enters the proxy: captured by 15006, captured by 15001, or straight at a gateway's port. */
  readonly direction: "inbound" | "outbound" | "gateway";
  /** The destination as the connection is opened. */
  readonly address: string;
  readonly port: number;
  readonly protocol: "http" | "http2" | "tcp";
  readonly tls: "plaintext" | "tls" | "mtls";
  readonly sni: string;
  /** What ALPN offers; "" when nothing. */
  readonly alpn: string;
  readonly method: string;
  readonly scheme: string;
  /** The Host header or :authority. */
  readonly host: string;
  /** With the query string, as on the request line. */
  readonly path: string;
  /** Other headers, names in lower case. */
  readonly headers: Readonly<Record<string, string>>;
  /** The caller's SPIFFE id when it shows a certificate of the mesh; "" otherwise. */
  readonly principal: string;
  readonly sourceAddress: string;
  /** What its token says, once the proxy has found it valid. */
  readonly claims?: Readonly<Record<string, unknown>>;
}

const alpnOfMutualTls = { http: "istio-http/1.1", http2: "istio-h2", tcp: "istio" } as const;
const alpnOfTls = { http: "http/1.1", http2: "h2", tcp: "" } as const;

/** Fills what a call leaves open: a plain GET of "/", SNI from the host for TLS, and the ALPN that a client offers. */
export function callOf(partial: Partial<Call> & Pick<Call, "direction" | "port">): Call {
  const protocol = partial.protocol ?? "http";
  const tls = partial.tls ?? "plaintext";
  const host = partial.host ?? "";
  const offered = tls === "mtls" ? alpnOfMutualTls[protocol] : tls === "tls" ? alpnOfTls[protocol] : "";
  return {
    // An address that no service has: who leaves it open does not care.
    address: "192.0.2.1",
    method: "GET",
    scheme: tls === "tls" ? "https" : "http",
    path: "/",
    headers: {},
    principal: "",
    sourceAddress: "192.0.2.2",
    ...partial,
    protocol,
    tls,
    host,
    sni: partial.sni ?? (tls === "tls" ? host : ""),
    alpn: partial.alpn ?? offered,
  };
}
