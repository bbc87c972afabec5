// Where the keys of a JWT issuer are fetched from.

export interface JwksServer {
  readonly host: string;
  readonly scheme: "http" | "https";
  readonly port: number;
  readonly tls: boolean;
}

/** Undefined when the text is not an http or https URL. */
export function parseJwksUri(text: string): JwksServer | undefined {
  if (!URL.canParse(text)) return undefined;
  const url = new URL(text);
  const scheme = url.protocol.slice(0, -1);
  if (scheme !== "http" && scheme !== "https") return undefined;
  const tls = scheme === "https";
  return { host: url.hostname, scheme, port: url.port === "" ? (tls ? 443 : 80) : Number(url.port), tls };
}
