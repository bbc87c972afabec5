// How the chains of one inbound port are told apart. Mesh proxies offer ALPN of their own, so mutual TLS is never taken
// for TLS that an application speaks itself.

import { meshAlpn } from "./tls.ts";

export interface ChainMatch {
  /** What the TLS inspector found. */
  readonly transport: "tls" | "raw_buffer";
  /** Any of these was offered (TLS) or found by the HTTP inspector (plaintext); empty matches all. */
  readonly alpn: readonly string[];
  readonly protocol: "http" | "tcp";
  /** The chain ends the TLS itself. */
  readonly tls: boolean;
}

const plaintextHttp = ["http/1.0", "http/1.1", "h2c"];

const plainHttp: ChainMatch = { transport: "raw_buffer", alpn: [], protocol: "http", tls: false };
const plainTcp: ChainMatch = { transport: "raw_buffer", alpn: [], protocol: "tcp", tls: false };
const sniffedHttp: ChainMatch = { ...plainHttp, alpn: plaintextHttp };
/** TLS of the application's own. */
const foreignTls: ChainMatch = { transport: "tls", alpn: [], protocol: "tcp", tls: false };

/** The chains of a port by its mutual-TLS mode and protocol, as Istio lays them out. */
const matches: Readonly<
  Record<
    "DISABLE" | "PERMISSIVE" | "STRICT",
    Readonly<Record<"http" | "tcp" | "auto", readonly ChainMatch[]>>
  >
> = {
  DISABLE: { http: [plainHttp], tcp: [plainTcp], auto: [sniffedHttp, plainTcp] },
  PERMISSIVE: {
    http: [mutual("http", meshAlpn.all), plainHttp],
    tcp: [mutual("tcp", meshAlpn.all), foreignTls, plainTcp],
    auto: [mutual("http", meshAlpn.http), sniffedHttp, mutual("tcp", meshAlpn.tcp), plainTcp, foreignTls],
  },
  STRICT: {
    http: [mutual("http", [])],
    tcp: [mutual("tcp", [])],
    auto: [mutual("http", meshAlpn.http), mutual("tcp", [])],
  },
};

export function chainMatches(
  mode: "DISABLE" | "PERMISSIVE" | "STRICT",
  protocol: "http" | "tcp" | "auto",
): readonly ChainMatch[] {
  return matches[mode][protocol];
}

function mutual(protocol: "http" | "tcp", alpn: readonly string[]): ChainMatch {
  return { transport: "tls", alpn, protocol, tls: true };
}
