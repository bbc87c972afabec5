// Plain checks of single values. Each answers undefined when the value is good, else one sentence: what was found and what
// is expected. Bounds and shapes are those of Istio's admission webhook, so that an object it takes is taken here.

import { isIP, isIPv6 } from "node:net";

import { parseDurationNs } from "./duration.ts";
import { isDnsLabel } from "./label-match.ts";
import { parseProtocol } from "./protocol.ts";

export type Fault = string | undefined;

export const show = (value: unknown): string => JSON.stringify(value) ?? "nothing";

export function portFault(port: unknown): Fault {
  if (typeof port === "number" && Number.isInteger(port) && port >= 1 && port <= 65535) return undefined;
  return `${show(port)} is not a port: expected 1 to 65535`;
}

/** Nanoseconds as Go counts them, and Istio with it; Envoy refuses what is longer. */
const durationNsMax = 2n ** 63n - 1n;

/** The mesh's own durations: at least 1 ms, in whole milliseconds. */
export function durationFault(text: unknown): Fault {
  const ns = typeof text === "string" ? parseDurationNs(text) : undefined;
  if (ns === undefined) return `${show(text)} is not a duration: expected a text such as 5s or 250ms`;
  if (ns < 1_000_000n) return `${show(text)} is too short: expected at least 1ms`;
  if (ns > durationNsMax) return `${show(text)} is too long: expected at most 292 years`;
  return ns % 1_000_000n === 0n ? undefined : `${show(text)} is too fine: expected whole milliseconds`;
}

export function percentFault(value: unknown): Fault {
  return typeof value === "number" && value >= 0 && value <= 100
    ? undefined
    : `${show(value)} is not a percentage: expected 0 to 100`;
}

function dnsLengthFault(name: string): Fault {
  if (name === "") return "the host name is empty";
  return name.length > 255
    ? `the host name has ${name.length} characters: at most 255 are allowed`
    : undefined;
}

function dnsLabelsFault(domain: string): Fault {
  const parts = domain.split(".");
  const top = parts.at(-1) ?? "";
  if (/^[+-]?\d+$/.test(top)) return `${show(domain)} is no host name: its last label is a number`;
  for (const [index, label] of parts.entries()) {
    // One final dot marks an absolute name.
    if (index === parts.length - 1 && label === "") return undefined;
    if (!isDnsLabel(label))
      return `${show(domain)} is no host name: the label ${show(label)} is not letters, digits and inner hyphens`;
  }
  return undefined;
}

/** A full host name without wildcard. */
export function fqdnFault(name: string): Fault {
  return dnsLengthFault(name) ?? dnsLabelsFault(name);
}

/** A host name whose first label may be `*` or begin with it. */
export function wildcardHostFault(name: string): Fault {
  const length = dnsLengthFault(name);
  if (length !== undefined) return length;
  const dot = name.indexOf(".");
  const first = dot < 0 ? name : name.slice(0, dot);
  if (first.length > 63 || !/^(?:\*|[a-zA-Z0-9*]?(?:[-a-zA-Z0-9]*[a-zA-Z0-9]))$/.test(first))
    return `${show(name)} is no host name: the label ${show(first)} is not letters, digits, inner hyphens or a leading *`;
  return dot < 0 ? undefined : dnsLabelsFault(name.slice(dot + 1));
}

/** As `wildcardHostFault`; an SNI may also be one that a gateway of the mesh makes: `outbound_.80_._.reviews.default.svc`. */
export function gatewayHostFault(name: string, sni: boolean): Fault {
  if (!sni || !name.startsWith("outbound_")) return wildcardHostFault(name);
  const [, port = "", , host] = name.split("_");
  const expected = "expected outbound_.PORT_._.HOST";
  if (host === undefined) return `${show(name)} is no SNI of the mesh: ${expected}`;
  if (!/\d/.test(port)) return `${show(name)} names no port: ${expected}`;
  return /[a-zA-Z]/.test(host) ? undefined : `${show(name)} names no host: ${expected}`;
}

/** Only `*` and `*.suffix` are served; `*-suffix` is not. */
export function partialWildcardFault(host: string): Fault {
  if (!host.includes("*") || host.length === 1 || host.startsWith("*.")) return undefined;
  return `${show(host)} is a partial wildcard: expected * or *.suffix`;
}

export function ipFault(text: string): Fault {
  return isIP(text) === 0 ? `${show(text)} is not an IP address` : undefined;
}

/** An IP address, or a block in CIDR notation. */
export function cidrFault(text: string): Fault {
  const parts = text.split("/");
  if (parts.length === 1) return ipFault(text);
  const [address = "", bits = ""] = parts;
  const bitsMax = isIPv6(address) ? 128 : 32;
  const good =
    parts.length === 2 && isIP(address) !== 0 && /^(?:0|[1-9]\d*)$/.test(bits) && Number(bits) <= bitsMax;
  return good ? undefined : `${show(text)} is not a CIDR block: expected a text such as 10.0.0.0/16`;
}

/** `host:port`, the host a name or an IP address. */
export function addressFault(text: string): Fault {
  const split = splitHostPort(text);
  if (split === undefined) return `${show(text)} is not host:port`;
  const port = /^\d+$/.test(split.port) ? portFault(Number(split.port)) : `${show(split.port)} is not a port`;
  if (port !== undefined) return port;
  return fqdnFault(split.host) === undefined || isIP(split.host) !== 0
    ? undefined
    : `${show(split.host)} is neither a host name nor an IP address`;
}

/** Undefined when there is no port, or a bare IPv6 address. Brackets are taken off. */
export function splitHostPort(text: string): { readonly host: string; readonly port: string } | undefined {
  const bracketed = /^\[([^\]]*)\]:([^:]*)$/.exec(text);
  if (bracketed !== null) return { host: bracketed[1] ?? "", port: bracketed[2] ?? "" };
  const parts = text.split(":");
  return parts.length === 2 && !text.includes("[")
    ? { host: parts[0] ?? "", port: parts[1] ?? "" }
    : undefined;
}

export function trustDomainFault(domain: string): Fault {
  if (domain === "") return "the trust domain is empty";
  const parts = domain.split(".");
  for (const [index, label] of parts.entries()) {
    if (index === parts.length - 1 && label === "") return undefined;
    if (!isDnsLabel(label))
      return `${show(domain)} is no trust domain: the label ${show(label)} is not letters, digits and inner hyphens`;
  }
  return undefined;
}

/** As the kernel has it, which ends paths with a zero. */
const socketPathBytesMax = 107;

/** Text that becomes part of a header, where Envoy takes no line ends and no zero. */
export function lineFault(text: string): Fault {
  // oxlint-disable-next-line no-control-regex -- control characters are just what is refused
  return /[\u0000\r\n]/.test(text) ? `${show(text)} holds a line end or a zero` : undefined;
}

/** The path of a Unix socket, without `unix://`: absolute, or abstract with a leading @. */
export function unixPathFault(path: string): Fault {
  if (path === "") return "the path of the Unix socket is empty";
  if (Buffer.byteLength(path) > socketPathBytesMax)
    return `the path of the Unix socket has ${Buffer.byteLength(path)} bytes: at most ${socketPathBytesMax} are allowed`;
  if (path.startsWith("@")) return undefined;
  return path.startsWith("/") && !path.endsWith("/")
    ? undefined
    : `${show(path)} is not the absolute path of a socket`;
}

export function portNameFault(name: unknown): Fault {
  return typeof name === "string" && isDnsLabel(name)
    ? undefined
    : `${show(name)} is no port name: expected at most 63 letters, digits and inner hyphens`;
}

/** An absent protocol is found out from the traffic. */
export function protocolFault(text: string | undefined): Fault {
  if (!text || parseProtocol(text) !== "UnsupportedProtocol") return undefined;
  return `${show(text)} is no protocol of a port: expected HTTP, HTTP2, GRPC, GRPC-Web, HTTPS, TLS, TCP, MONGO, REDIS, MYSQL or UDP`;
}

export function httpStatusFault(status: unknown): Fault {
  return typeof status === "number" && status >= 200 && status < 600
    ? undefined
    : `${show(status)} is no final HTTP status: expected 200 to 599`;
}
