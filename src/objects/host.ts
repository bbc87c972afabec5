// Host names with wildcards, as Istio's API reads them: `*` stands first, alone or before a suffix. Case matters.

/** Whether a name begins with a wildcard. */
export function isWildcard(host: string): boolean {
  return host.startsWith("*");
}

/** Whether some name is meant by both: the relation is symmetric. */
export function hostMatches(one: string, other: string): boolean {
  if (!isWildcard(one)) return isWildcard(other) ? one.endsWith(other.slice(1)) : one === other;
  if (!isWildcard(other)) return other.endsWith(one.slice(1));
  const [short, long] = one.length < other.length ? [one, other] : [other, one];
  return long.slice(1).endsWith(short.slice(1));
}

/** Whether all that `host` means is meant by `of` too. */
export function hostSubsetOf(host: string, of: string): boolean {
  if (!isWildcard(of)) return host === of;
  if (isWildcard(host)) return host.length >= of.length && host.slice(1).endsWith(of.slice(1));
  return host.endsWith(of.slice(1));
}

/** Orders by specificity: plain names before wildcards, longer before shorter, then by the alphabet. */
export function compareHosts(one: string, other: string): number {
  const wildcards = Number(isWildcard(one)) - Number(isWildcard(other));
  if (wildcards !== 0) return wildcards;
  if (one.length !== other.length) return other.length - one.length;
  return one < other ? -1 : one > other ? 1 : 0;
}

/** Whether `one` is no less specific than `other`; two empty names count as such. */
export function moreSpecificHost(one: string, other: string): boolean {
  return one === "" && other === "" ? true : compareHosts(one, other) < 0;
}

/** What both lists mean, in the order of the first; of each overlapping pair the narrower name. */
export function intersectHosts(hosts: readonly string[], others: readonly string[]): string[] {
  const result = new Set<string>();
  for (const host of hosts)
    for (const other of others) {
      if (hostSubsetOf(host, other)) result.add(host);
      else if (hostSubsetOf(other, host)) result.add(other);
    }
  return [...result];
}

/** The names among `namespace/host` and `host` that concern a namespace, without the namespace. */
export function hostsForNamespace(hosts: readonly string[], namespace: string): string[] {
  return hosts.flatMap((entry) => {
    const slash = entry.indexOf("/");
    if (slash < 0) return [entry];
    const owner = entry.slice(0, slash);
    return owner === namespace || owner === "*" ? [entry.slice(slash + 1)] : [];
  });
}

/** The most specific of the candidates that `host` is a subset of, or undefined. */
export function mostSpecificHost(host: string, candidates: Iterable<string>): string | undefined {
  let best: string | undefined;
  for (const candidate of candidates) {
    if (!hostSubsetOf(host, candidate)) continue;
    if (best === undefined || compareHosts(candidate, best) < 0) best = candidate;
  }
  return best;
}

/**
 * The full name of a short one, seen from a namespace: `reviews` in `default` is `reviews.default.svc.cluster.local`.
 * Names with a dot, wildcards and IP addresses are full already.
 */
export function resolveShortName(host: string, namespace: string, domain: string): string {
  if (host === "" || host.includes(".") || host.includes(":") || isWildcard(host)) return host;
  return `${host}.${namespace}.svc.${domain}`;
}

/**
 * `namespace/name` of a Gateway as a VirtualService of a namespace names it: `./name`, `name`, `namespace/name`, or the
 * legacy `name.namespace.svc...`.
 */
export function resolveGatewayName(gateway: string, namespace: string): string {
  const slash = gateway.indexOf("/");
  if (slash >= 0) {
    return gateway.startsWith("./") ? `${namespace}/${gateway.slice(2)}` : gateway;
  }
  const [name = "", owner] = gateway.split(".");
  return owner === undefined ? `${namespace}/${name}` : `${owner}/${name}`;
}

/**
 * The names, besides `host` itself, under which the DNS of a proxy answers for a service: absolute, each with its final dot. A
 * service of another domain than the proxy's gets no short names, for nobody could tell two of them apart.
 */
export function alternateHosts(
  host: string,
  service: { readonly shortName: string; readonly namespace: string },
  proxy: { readonly namespace: string; readonly domain: string },
): string[] {
  if (host.endsWith(".")) return [];
  const names = new Set([`${host}.`]);
  if (proxy.domain !== "" && host.endsWith(proxy.domain)) {
    names.add(`${service.shortName}.${service.namespace}.`);
    if (proxy.namespace === service.namespace) names.add(`${service.shortName}.`);
    names.add(`${service.shortName}.${service.namespace}.${proxy.domain.split(".")[0] ?? ""}.`);
  }
  return [...names];
}
