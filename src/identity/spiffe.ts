// SPIFFE identities as Istio shapes them, `spiffe://<trust domain>/ns/<namespace>/sa/<service account>`, and the trust
// domains' other names. A principal is the same without `spiffe://`; policies write principals, often with wildcards.

export interface Identity {
  readonly trustDomain: string;
  readonly namespace: string;
  readonly serviceAccount: string;
}

export interface TrustDomains {
  readonly trustDomain: string;
  /** Former or foreign names whose identities count as this mesh's own. */
  readonly aliases: readonly string[];
}

const scheme = "spiffe://";

/** Parses an identity; undefined if the text has any other shape. Namespace and service account may be empty. */
export function parseSpiffeId(text: string): Identity | undefined {
  if (!text.startsWith(scheme)) return undefined;
  const [trustDomain, ns, namespace, sa, serviceAccount, ...rest] = text.slice(scheme.length).split("/");
  if (rest.length > 0 || ns !== "ns" || sa !== "sa") return undefined;
  if (trustDomain === undefined || namespace === undefined || serviceAccount === undefined) return undefined;
  return { trustDomain, namespace, serviceAccount };
}

/** Renders the identity; throws when namespace or service account is empty, since such an id would name nobody. */
export function renderSpiffeId(identity: Identity): string {
  if (identity.namespace === "" || identity.serviceAccount === "") {
    throw new Error("a SPIFFE id needs a namespace and a service account");
  }
  return scheme + renderPrincipal(identity);
}

/** `<trust domain>/ns/<namespace>/sa/<service account>`, as policies and metrics write it. */
export function renderPrincipal(identity: Identity): string {
  return `${identity.trustDomain}/ns/${identity.namespace}/sa/${identity.serviceAccount}`;
}

export function sameIdentity(one: Identity, other: Identity): boolean {
  return renderPrincipal(one) === renderPrincipal(other);
}

/**
 * Every id once, and beside each well-formed id its twin in every other trust domain. Texts of other shapes stay as they
 * are. Sorted, so that the same input gives the same bytes.
 */
export function expandTrustDomains(ids: Iterable<string>, trustDomains: readonly string[]): string[] {
  const expanded = new Set<string>();
  for (const id of ids) {
    expanded.add(id);
    const identity = parseSpiffeId(id);
    if (identity === undefined || identity.trustDomain === "") continue;
    for (const trustDomain of trustDomains)
      expanded.add(scheme + renderPrincipal({ ...identity, trustDomain }));
  }
  return [...expanded].toSorted();
}

/** The trust domain of a principal (without `spiffe://`); "" if the text is not of that shape. */
export function trustDomainOfPrincipal(principal: string): string {
  const parts = principal.split("/");
  return parts.length === principalParts ? (parts[0] ?? "") : "";
}

const principalParts = 5;

/** Puts another trust domain into a principal; undefined if the text is not of that shape. */
export function replaceTrustDomain(trustDomain: string, principal: string): string | undefined {
  const parts = principal.split("/");
  if (parts.length !== principalParts) return undefined;
  return [trustDomain, ...parts.slice(1)].join("/");
}

/** Whether a policy's principal says anything about the trust domain: a lone `*` there accepts every one. */
export function isTrustDomainEnforced(principal: string): boolean {
  return trustDomainOfPrincipal(principal) !== "*" && principal.split("/").length === principalParts;
}

/** Whether any of the texts matches the pattern: `*`, `prefix*`, `*suffix` or exact. An empty pattern matches nothing. */
export function matchesAny(pattern: string, texts: readonly string[]): boolean {
  return texts.some((text) => matchesText(pattern, text));
}

function matchesText(pattern: string, text: string): boolean {
  if (pattern === "") return false;
  if (pattern === "*") return true;
  if (pattern.endsWith("*")) return text.startsWith(pattern.slice(0, -1));
  if (pattern.startsWith("*")) return text.endsWith(pattern.slice(1));
  return pattern === text;
}

/**
 * The principals of a policy, each under every name of this mesh's trust domain, as Istio expands them: a principal of
 * the mesh (by its name or an alias) gets a twin for each name; foreign ones and those for any trust domain stay.
 */
export function expandPrincipalAliases(principals: readonly string[], domains: TrustDomains): string[] {
  const names = [domains.trustDomain, ...domains.aliases];
  const expanded = new Set<string>();
  for (const principal of principals) {
    const own = trustDomainOfPrincipal(principal);
    if (!isTrustDomainEnforced(principal) || !matchesAny(own, names)) {
      expanded.add(principal);
      continue;
    }
    for (const name of names) {
      // A wildcard that covers the name already says it; replacing would only narrow what the user wrote.
      expanded.add(matchesText(own, name) ? principal : (replaceTrustDomain(name, principal) ?? principal));
    }
  }
  return [...expanded];
}
