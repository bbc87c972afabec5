// Which JWT rules hold for a workload, and where the keys of their issuers come from.

import type { ObjectRef } from "#base";
import { defineKeyedQuery, defineQuery, defineTable, sameData, type Read } from "#engine";
import { parseJwksUri, refOf, type JWTRule, type RequestAuthentication } from "#objects";
import { usableKeys } from "./jwks.ts";
import { environmentOf } from "./mesh.ts";
import { oldestFirst, targets } from "./selectors.ts";
import { servicesOfHost, serviceOf } from "./services.ts";
import { everything, tables } from "./tables.ts";
import { workloadText, type WorkloadKey } from "./workload.ts";

/** What was fetched from a `jwksUri`, by the URL: an input like any object. */
export interface FetchedKeys {
  /** The key set as it was got; absent until the first success. */
  readonly jwks?: string;
  /** Why the last attempt failed; absent after a success. */
  readonly failure?: string;
}

export const jwksTable = defineTable<FetchedKeys>("Jwks");

/** Where the proxy finds the keys of an issuer. */
export type KeySource =
  | { readonly kind: "inline"; readonly jwks: string }
  /** A service of the mesh that speaks plain HTTP to its callers: the proxy asks it itself. */
  | { readonly kind: "service"; readonly service: string; readonly host: string; readonly port: number }
  /** Not fetched yet, or not to be had: no token of the issuer is valid. */
  | { readonly kind: "none" };

export interface ResolvedRule {
  readonly rule: JWTRule;
  readonly keys: KeySource;
}

export interface JwtRules {
  /** In the order of their issuers, as Istio has them; equals in the order of their objects. */
  readonly rules: readonly ResolvedRule[];
  readonly objects: readonly ObjectRef[];
}

/** The rules of the root namespace's RequestAuthentications and of the workload's own that choose it. */
export const jwtRulesOf = defineKeyedQuery<WorkloadKey, JwtRules>(
  "jwtRulesOf",
  workloadText,
  (read, workload) => {
    const { rootNamespace } = read(environmentOf, "");
    const chosen = [...new Set([rootNamespace, workload.namespace])]
      .flatMap((namespace) =>
        read(tables.RequestAuthentication.by.namespace, namespace).toSorted(oldestFirst),
      )
      .filter((policy) => targets(policy, workload));
    const rules = chosen
      .flatMap(({ spec }) => spec?.jwtRules ?? [])
      .toSorted((a, b) => (issuerOf(a) < issuerOf(b) ? -1 : issuerOf(a) > issuerOf(b) ? 1 : 0));
    return {
      rules: rules.map((rule) => ({ rule, keys: keysOf(read, rule) })),
      objects: chosen.map(refOf),
    };
  },
  sameData,
);

/** Services whose keys a workload's proxy asks for itself, as `namespace/host`. */
export const jwksServicesOf = defineKeyedQuery<WorkloadKey, readonly string[]>(
  "jwksServicesOf",
  workloadText,
  (read, workload) =>
    read(jwtRulesOf, workload).rules.flatMap(({ keys }) => (keys.kind === "service" ? [keys.service] : [])),
  sameData,
);

/** The URLs that the control plane fetches keys from: those of no service of the mesh. */
export const jwksUris = defineQuery<readonly string[]>(
  "jwksUris",
  (read) => {
    const uris = read(tables.RequestAuthentication.by.remote, everything).flatMap(remoteUris);
    return [...new Set(uris)].filter((uri) => serviceBehind(read, uri) === undefined).toSorted();
  },
  sameData,
);

/** Where the rules of an object fetch keys from. */
export function remoteUris({ spec }: RequestAuthentication): readonly string[] {
  return (spec?.jwtRules ?? []).flatMap((rule) => {
    const uri = uriOf(rule);
    return uri === "" || (rule.jwks ?? "") !== "" ? [] : [uri];
  });
}

function issuerOf({ issuer = "" }: JWTRule): string {
  return issuer;
}

/** The CRD admits both spellings. */
export function uriOf(rule: JWTRule): string {
  return rule.jwksUri ?? (rule as { readonly jwks_uri?: string }).jwks_uri ?? "";
}

function keysOf(read: Read, rule: JWTRule): KeySource {
  if (rule.jwks !== undefined && rule.jwks !== "") return inline(rule.jwks);
  const uri = uriOf(rule);
  const service = serviceBehind(read, uri);
  if (service !== undefined) return service;
  return inline(read(jwksTable, uri)?.jwks ?? "");
}

function inline(text: string): KeySource {
  const jwks = usableKeys(text);
  return jwks === undefined ? { kind: "none" } : { kind: "inline", jwks };
}

/**
 * The service of the mesh that a URL of plain HTTP names. Keys over TLS are fetched by the control plane even so: towards a
 * service of the mesh the proxy would speak the mesh's TLS, and not the one that the URL means.
 */
function serviceBehind(read: Read, uri: string): Extract<KeySource, { kind: "service" }> | undefined {
  const server = parseJwksUri(uri);
  if (server === undefined || server.tls) return undefined;
  const key = read(servicesOfHost, server.host)[0];
  const service = key === undefined ? undefined : read(serviceOf, key);
  const isServed = service?.ports.some(({ port }) => port === server.port) === true;
  return key !== undefined && isServed
    ? { kind: "service", service: key, host: server.host, port: server.port }
    : undefined;
}
