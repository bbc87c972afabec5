// `@request.auth.claims...`: a header name in a VirtualService match that stands for a claim of the caller's JWT.

const prefix = "@request.auth.claims";

export interface RoutingClaim {
  readonly separator: "dot" | "brackets";
  /** The path into the claims: `["nested", "group"]`. */
  readonly claims: readonly string[];
}

/** Undefined when the name is an ordinary header. `@request.auth.claims.a.b` and `@request.auth.claims[a][b]` are the two forms. */
export function parseRoutingClaim(header: string): RoutingClaim | undefined {
  if (!header.toLowerCase().startsWith(prefix)) return undefined;
  const rest = header.slice(prefix.length);
  if (rest.startsWith(".") && rest.length > 1) return { separator: "dot", claims: rest.slice(1).split(".") };
  if (rest.startsWith("[") && rest.endsWith("]") && rest.length > 2)
    return { separator: "brackets", claims: rest.slice(1, -1).split("][") };
  return undefined;
}
