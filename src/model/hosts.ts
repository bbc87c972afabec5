// Names of hosts: completing short ones, matching wildcards, and which of several is the most specific.

/**
 * Completes a name without a dot in the namespace it was written in, as Istio does: "reviews" becomes
 * "reviews.default.svc.cluster.local", while "reviews.default" stays as it is.
 */
export function fullHost(host: string, namespace: string, clusterDomain: string): string {
  return isShort(host) ? `${host}.${namespace}.svc.${clusterDomain}` : host;
}

/** The group of a host in an index, which cannot know the cluster's domain: short names carry their namespace. */
export function hostGroup(host: string, namespace: string): string {
  return isShort(host) ? `${namespace}/${host}` : host;
}

/** The groups under which objects may name this full host: the host itself and, for a cluster's own, its short name. */
export function hostGroups(host: string, clusterDomain: string): readonly string[] {
  const suffix = `.svc.${clusterDomain}`;
  if (!host.endsWith(suffix)) return [host];
  const [name, namespace, ...rest] = host.slice(0, -suffix.length).split(".");
  return rest.length === 0 && namespace !== undefined ? [host, `${namespace}/${name}`] : [host];
}

export function isWildcard(host: string): boolean {
  return host.startsWith("*");
}

/** Does the pattern ("*", "*.example.com", or a plain name) cover the host, which may be a wildcard itself? */
export function hostCovers(pattern: string, host: string): boolean {
  if (pattern === "*" || pattern === host) return true;
  return isWildcard(pattern) && host.replace(/^\*/, "").endsWith(pattern.slice(1));
}

/** Is there a name that both cover? */
export function hostsMeet(a: string, b: string): boolean {
  return hostCovers(a, b) || hostCovers(b, a);
}

/** The wildcards that cover a host, most specific first: "*.b.c", "*.c", "*". */
export function wildcardsOf(host: string): readonly string[] {
  const labels = host.replace(/^\*\.?/, "").split(".");
  const first = isWildcard(host) ? 0 : 1;
  const suffixes = labels.slice(first).map((_label, at) => `*.${labels.slice(first + at).join(".")}`);
  return host === "*" ? ["*"] : [...suffixes, "*"];
}

/** Most specific first: exact names, then longer wildcards; equals by text. */
export function bySpecificity(a: string, b: string): number {
  if (isWildcard(a) !== isWildcard(b)) return isWildcard(a) ? 1 : -1;
  if (a.length !== b.length) return b.length - a.length;
  return a < b ? -1 : a > b ? 1 : 0;
}

function isShort(host: string): boolean {
  return host !== "" && !host.includes(".") && !isWildcard(host);
}
