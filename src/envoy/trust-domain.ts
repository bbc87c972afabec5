// Trust-domain aliases in policies: while a mesh moves from one trust domain to another, callers bear ids of both.

/**
 * The values of an attribute with those added that an alias makes equal. Only principals and trust domains name one.
 * @param trustDomains the mesh's own and its aliases; none means that values stay as they are
 */
export function withAliases(
  key: string,
  values: readonly string[],
  trustDomains: readonly string[],
): readonly string[] {
  if (trustDomains.length === 0) return values;
  if (key === "source.principal") return values.flatMap((value) => principalsOf(value, trustDomains));
  if (key !== "source.trustDomain") return values;
  return [...new Set(values.flatMap((value) => (trustDomains.includes(value) ? trustDomains : [value])))];
}

/** `domain/ns/N/sa/A` once for each trust domain; `cluster.local` always means the mesh's own. */
function principalsOf(principal: string, trustDomains: readonly string[]): readonly string[] {
  const [domain = "", ...rest] = principal.split("/");
  if (rest.length !== 4 || domain === "*") return [principal];
  if (domain !== "cluster.local" && !trustDomains.some((own) => alike(own, domain))) return [principal];
  const all = trustDomains.map((own) => (endsAs(own, domain) ? principal : [own, ...rest].join("/")));
  return [...new Set(all)];
}

function alike(own: string, domain: string): boolean {
  return (
    own === domain || endsAs(own, domain) || (domain.endsWith("*") && own.startsWith(domain.slice(0, -1)))
  );
}

/** Whether `domain` is `*x` and the trust domain ends so. */
function endsAs(own: string, domain: string): boolean {
  return domain.startsWith("*") && own.endsWith(domain.slice(1));
}
