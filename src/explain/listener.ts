// Which listener and which filter chain a connection meets, as Envoy decides it.

import type { Call } from "./call.ts";
import { inRange } from "./cidr.ts";
import type { CidrRange, FilterChain, FilterChainMatch, Listener, PortPredicate } from "./shapes.ts";

/** The listener for a captured or direct connection: exact address, then the wildcard of the port, then virtualOutbound. */
export function findListener(listeners: readonly Listener[], call: Call): Listener | undefined {
  if (call.direction === "inbound") return listeners.find((listener) => listener.name === "virtualInbound");
  return (
    listeners.find((listener) => bindsTo(listener, call.address, call.port)) ??
    listeners.find((listener) => bindsTo(listener, "0.0.0.0", call.port)) ??
    listeners.find((listener) => listener.name === "virtualOutbound")
  );
}

function bindsTo(listener: Listener, address: string, port: number): boolean {
  const additional = (listener.additionalAddresses ?? []).map((extra) => extra.address?.socketAddress);
  return [listener.address?.socketAddress, ...additional].some(
    (socket) => socket?.address === address && socket.protocol !== "UDP" && socket.portValue === port,
  );
}

/** What the listener filters learn from the first bytes: these, and nothing else, are what chains are matched on. */
export interface Inspected {
  readonly transportProtocol: "tls" | "raw_buffer";
  readonly sni: string;
  readonly applicationProtocol: string;
}

/** Runs the inspectors that the listener has for this port over the call's first bytes. */
export function inspect(listener: Listener, call: Call): Inspected {
  const inspectsTls = hasInspector(listener, "tls_inspector", call.port);
  const inspectsHttp = hasInspector(listener, "http_inspector", call.port);
  if (call.tls !== "plaintext") {
    if (!inspectsTls) return { transportProtocol: "raw_buffer", sni: "", applicationProtocol: "" };
    return { transportProtocol: "tls", sni: call.sni, applicationProtocol: call.alpn };
  }
  const seen = call.protocol === "http" ? "http/1.1" : call.protocol === "http2" ? "h2c" : "";
  return { transportProtocol: "raw_buffer", sni: "", applicationProtocol: inspectsHttp ? seen : "" };
}

function hasInspector(listener: Listener, kind: string, port: number): boolean {
  return (listener.listenerFilters ?? []).some(
    (filter) =>
      filter.typedConfig?.["@type"]?.includes(`.${kind}.`) === true &&
      !(filter.filterDisabled !== undefined && holds(filter.filterDisabled, port)),
  );
}

function holds(predicate: PortPredicate, port: number): boolean {
  if (predicate.anyMatch === true) return true;
  if (predicate.orMatch !== undefined)
    return (predicate.orMatch.rules ?? []).some((rule) => holds(rule, port));
  if (predicate.andMatch !== undefined)
    return (predicate.andMatch.rules ?? []).every((rule) => holds(rule, port));
  if (predicate.notMatch !== undefined) return !holds(predicate.notMatch, port);
  const range = predicate.destinationPortRange;
  return range !== undefined && port >= (range.start ?? 0) && port < (range.end ?? 0);
}

export type ChainFound =
  | { readonly kind: "found"; readonly chain: FilterChain }
  | { readonly kind: "none" }
  | { readonly kind: "ambiguous"; readonly chains: readonly FilterChain[] };

/**
 * Envoy's sieve: criterion after criterion keeps only the best matches. A chain that names a criterion beats one that
 * is silent about it, for good: Envoy does not come back to the silent ones when a later criterion fails.
 */
export function findFilterChain(listener: Listener, call: Call, seen: Inspected): ChainFound {
  let chains = listener.filterChains ?? [];
  chains = sieve(
    chains,
    (match) => match.destinationPort?.value,
    (port) => (port === call.port ? 1 : 0),
  );
  chains = sieve(
    chains,
    (match) => match.prefixRanges,
    (ranges) => bestPrefix(ranges, call.address),
  );
  chains = sieve(
    chains,
    (match) => match.serverNames,
    (names) => bestServerName(names, seen.sni),
  );
  chains = sieve(
    chains,
    (match) => match.transportProtocol,
    (protocol) => (protocol === seen.transportProtocol ? 1 : 0),
  );
  chains = sieve(
    chains,
    (match) => match.applicationProtocols,
    (protocols) => (protocols.includes(seen.applicationProtocol) ? 1 : 0),
  );
  const [first, ...others] = chains;
  if (others.length > 0) return { kind: "ambiguous", chains };
  const chain = first ?? listener.defaultFilterChain;
  return chain === undefined ? { kind: "none" } : { kind: "found", chain };
}

/** Keeps the chains of the highest rank above 0; where there is none, those that do not name the criterion. */
function sieve<T>(
  chains: readonly FilterChain[],
  criterionOf: (match: FilterChainMatch) => T | undefined,
  rank: (criterion: T) => number,
): readonly FilterChain[] {
  let best = 0;
  let kept: FilterChain[] = [];
  const silent: FilterChain[] = [];
  for (const chain of chains) {
    const criterion = criterionOf(chain.filterChainMatch ?? {});
    if (isUnset(criterion)) {
      silent.push(chain);
      continue;
    }
    const rankHere = rank(criterion as T);
    if (rankHere === 0 || rankHere < best) continue;
    if (rankHere > best) kept = [];
    best = rankHere;
    kept.push(chain);
  }
  return best > 0 ? kept : silent;
}

function isUnset(criterion: unknown): boolean {
  return criterion === undefined || criterion === "" || (Array.isArray(criterion) && criterion.length === 0);
}

function bestPrefix(ranges: readonly CidrRange[], address: string): number {
  let best = 0;
  for (const range of ranges) {
    // A rank of 0 means no match, so that a /0 that matches ranks 1.
    if (inRange(address, range)) best = Math.max(best, (range.prefixLen?.value ?? 0) + 1);
  }
  return best;
}

function bestServerName(names: readonly string[], sni: string): number {
  let best = 0;
  for (const name of names) {
    if (name === sni) return Number.MAX_SAFE_INTEGER;
    if (name.startsWith("*.") && sni.endsWith(name.slice(1)) && sni.length > name.length - 1) {
      best = Math.max(best, name.length);
    }
  }
  return best;
}
