// What Envoy's JWT filter says of a call: which claims its token makes, or that it is refused. Times are not looked at: a
// configuration says nothing about when a call is made.

import { createPublicKey, verify, type webcrypto } from "node:crypto";
import type { Call } from "./call.ts";
import { headerValue, stringMatches } from "./route.ts";
import type { HttpConnectionManager, MetadataMatcher, ValueMatcher } from "./shapes.ts";

export type Claims = Readonly<Record<string, unknown>>;

export type TokenVerdict =
  | { readonly kind: "passes"; readonly claims: Claims }
  | { readonly kind: "refused"; readonly text: string };

interface Requirement {
  readonly providerName?: string;
  readonly allowMissing?: object;
  readonly requiresAny?: { readonly requirements?: readonly Requirement[] };
  readonly requiresAll?: { readonly requirements?: readonly Requirement[] };
}

interface Provider {
  readonly issuer?: string;
  readonly audiences?: readonly string[];
  readonly localJwks?: { readonly inlineString?: string };
  readonly fromHeaders?: readonly { readonly name: string; readonly valuePrefix?: string }[];
  readonly fromParams?: readonly string[];
  readonly fromCookies?: readonly string[];
  readonly normalizePayloadInMetadata?: { readonly spaceDelimitedClaims?: readonly string[] };
}

interface JwtAuthentication {
  readonly providers?: Readonly<Record<string, Provider>>;
  readonly rules?: readonly { readonly requires?: Requirement }[];
}

/** What one provider finds in the call. */
type Found =
  | { readonly kind: "missing" }
  | { readonly kind: "invalid"; readonly text: string }
  | { readonly kind: "valid"; readonly claims: Claims };

export function tokenVerdict(manager: HttpConnectionManager, call: Call): TokenVerdict {
  const filter = (manager.httpFilters ?? []).find(
    (one) => one.typedConfig?.["@type"]?.includes(".http.jwt_authn.") === true,
  );
  const config = filter?.typedConfig as JwtAuthentication | undefined;
  const requires = config?.rules?.[0]?.requires;
  if (config === undefined || requires === undefined) return { kind: "passes", claims: {} };
  const found = new Map(
    Object.entries(config.providers ?? {}).map(([name, provider]) => [name, look(provider, call)]),
  );
  const refusal = [...found.values()].find(({ kind }) => kind === "invalid");
  if (!holds(requires, found))
    return {
      kind: "refused",
      text: refusal?.kind === "invalid" ? refusal.text : "the token is missing",
    };
  const valid = [...found.values()].find((one) => one.kind === "valid");
  return { kind: "passes", claims: valid?.kind === "valid" ? valid.claims : {} };
}

function holds(requirement: Requirement, found: ReadonlyMap<string, Found>): boolean {
  if (requirement.requiresAll !== undefined)
    return (requirement.requiresAll.requirements ?? []).every((one) => holds(one, found));
  if (requirement.requiresAny !== undefined) {
    const ones = requirement.requiresAny.requirements ?? [];
    if (ones.some((one) => one.allowMissing === undefined && holds(one, found))) return true;
    // "Missing" is judged by the providers beside it: a token that is there and wrong is not missing.
    const names = ones.flatMap(({ providerName }) => providerName ?? []);
    return (
      ones.some(({ allowMissing }) => allowMissing !== undefined) &&
      names.every((name) => found.get(name)?.kind === "missing")
    );
  }
  return found.get(requirement.providerName ?? "")?.kind === "valid";
}

function look(provider: Provider, call: Call): Found {
  const token = tokenOf(provider, call);
  if (token === undefined) return { kind: "missing" };
  const [head = "", body = "", signature = ""] = token.split(".");
  const header = parsed(head);
  const claims = parsed(body);
  if (header === undefined || claims === undefined)
    return { kind: "invalid", text: "the token is malformed" };
  if (provider.issuer !== undefined && provider.issuer !== "" && claims["iss"] !== provider.issuer)
    return { kind: "invalid", text: `the issuer ${String(claims["iss"])} is not known` };
  const audiences = provider.audiences ?? [];
  const given = [claims["aud"]].flat();
  if (audiences.length > 0 && !given.some((audience) => audiences.includes(String(audience))))
    return { kind: "invalid", text: "the token is for another audience" };
  const keys = parsedKeys(provider.localJwks?.inlineString);
  const signed = Buffer.from(`${head}.${body}`);
  const isGood = keys
    .filter(({ kid }) => kid === undefined || header["kid"] === undefined || kid === header["kid"])
    .some((key) => isSignedBy(key, signed, Buffer.from(signature, "base64url")));
  return isGood
    ? { kind: "valid", claims: withLists(claims, provider) }
    : { kind: "invalid", text: "no key of the issuer made the signature" };
}

/** Texts that are lists written with blanks, as lists. */
function withLists(claims: Claims, { normalizePayloadInMetadata: normalize }: Provider): Claims {
  const names = (normalize?.spaceDelimitedClaims ?? []).filter((name) => typeof claims[name] === "string");
  return { ...claims, ...Object.fromEntries(names.map((name) => [name, String(claims[name]).split(" ")])) };
}

function tokenOf(
  { fromHeaders = [], fromParams = [], fromCookies = [] }: Provider,
  call: Call,
): string | undefined {
  const open = fromHeaders.length + fromParams.length + fromCookies.length === 0;
  const headers = open ? [{ name: "authorization", valuePrefix: "Bearer " }] : fromHeaders;
  for (const { name, valuePrefix = "" } of headers) {
    const value = headerValue(name, call);
    if (value?.startsWith(valuePrefix) === true) return value.slice(valuePrefix.length);
  }
  const query = new URLSearchParams(call.path.split("?")[1] ?? "");
  for (const name of open ? ["access_token"] : fromParams) {
    const value = query.get(name);
    if (value !== null) return value;
  }
  const cookies = (headerValue("cookie", call) ?? "").split("; ");
  for (const name of fromCookies) {
    const cookie = cookies.find((one) => one.startsWith(`${name}=`));
    if (cookie !== undefined) return cookie.slice(name.length + 1);
  }
  return undefined;
}

function parsed(part: string): Claims | undefined {
  try {
    return JSON.parse(Buffer.from(part, "base64url").toString()) as Claims;
  } catch {
    return undefined;
  }
}

type NamedKey = webcrypto.JsonWebKey & { readonly kid?: string };

function parsedKeys(text = "{}"): readonly NamedKey[] {
  try {
    const { keys = [] } = JSON.parse(text) as { readonly keys?: readonly NamedKey[] };
    return keys;
  } catch {
    return [];
  }
}

function isSignedBy(key: NamedKey, data: Uint8Array, signature: Uint8Array): boolean {
  try {
    const publicKey = createPublicKey({ key, format: "jwk" });
    return key.kty === "EC"
      ? verify("sha256", data, { key: publicKey, dsaEncoding: "ieee-p1363" }, signature)
      : verify(key.kty === "OKP" ? null : "sha256", data, publicKey, signature);
  } catch {
    return false;
  }
}

/** Whether the claims of a call's token fit a matcher of the JWT filter's metadata. */
export function claimsMatch(
  { filter, path = [], value = {}, invert }: MetadataMatcher,
  claims: Claims,
): boolean {
  const [root, ...keys] = path.map(({ key }) => key);
  let found: unknown = filter === "envoy.filters.http.jwt_authn" && root === "payload" ? claims : undefined;
  for (const key of keys)
    found = typeof found === "object" && found !== null ? (found as Record<string, unknown>)[key] : undefined;
  return valueMatches(value, found) !== (invert === true);
}

function valueMatches(matcher: ValueMatcher, value: unknown): boolean {
  if (matcher.orMatch !== undefined)
    return (matcher.orMatch.valueMatchers ?? []).some((one) => valueMatches(one, value));
  if (matcher.listMatch !== undefined) {
    const { oneOf } = matcher.listMatch;
    return Array.isArray(value) && oneOf !== undefined && value.some((one) => valueMatches(oneOf, one));
  }
  if (matcher.stringMatch !== undefined)
    return typeof value === "string" && stringMatches(matcher.stringMatch, value);
  return matcher.presentMatch === true && value !== undefined;
}
