// What Istio's webhook checks of a RequestAuthentication and a PeerAuthentication beyond their schemas.

import { strictHeaderNameFault } from "../header-values.ts";
import { parseJwksUri } from "../jwks-uri.ts";
import type { PeerAuthenticationSpec } from "../peer-authentication.ts";
import { eachOf, pathOf, type Report } from "../report.ts";
import type { JWTRule, RequestAuthenticationSpec } from "../request-authentication.ts";
import { durationFault, portFault, show } from "../values.ts";
import { checkSelectorLabels, checkTargets } from "./selectors.ts";

export function checkRequestAuthentication(spec: RequestAuthenticationSpec, report: Report): void {
  checkTargets(spec, "spec", report);
  eachOf(spec.jwtRules, "spec.jwtRules", (rule, path) => checkJwtRule(rule, path, report));
}

function checkJwtRule(rule: JWTRule, path: string, report: Report): void {
  eachOf(rule.audiences, pathOf(path, "audiences"), (audience, at) => {
    if (audience === "") report.add("MZ0201", at, "an empty audience matches no token");
  });
  // Both spellings reach the mesh: the CRD admits them.
  const uri = rule.jwksUri ?? (rule as { readonly jwks_uri?: string }).jwks_uri;
  if (!rule.issuer && !uri) report.add("MZ0202", pathOf(path, "issuer"), "the issuer is missing");
  if (uri && parseJwksUri(uri) === undefined)
    report.add("MZ0201", pathOf(path, "jwksUri"), `${show(uri)} is not an http or https URL`);
  if (rule.jwks) checkJwks(rule.jwks, pathOf(path, "jwks"), report);
  eachOf(rule.fromHeaders, pathOf(path, "fromHeaders"), ({ name }, at) => {
    if (!name) report.add("MZ0202", pathOf(at, "name"), "the header has no name");
  });
  for (const field of ["fromParams", "fromCookies"] as const)
    eachOf(rule[field], pathOf(path, field), (name, at) => {
      if (name === "") report.add("MZ0201", at, "the name is empty");
    });
  eachOf(rule.outputClaimToHeaders, pathOf(path, "outputClaimToHeaders"), ({ header, claim }, at) => {
    if (!header || !claim) report.add("MZ0202", at, "header and claim are both needed");
    else report.value(pathOf(at, "header"), strictHeaderNameFault(header));
  });
  if (rule.timeout !== undefined) report.value(pathOf(path, "timeout"), durationFault(rule.timeout));
}

/** A key set, or a single key, as RFC 7517 writes it. */
function checkJwks(text: string, path: string, report: Report): void {
  const keys = parseKeys(text);
  if (keys === undefined) {
    report.add("MZ0201", path, "the text is not a JSON Web Key Set");
    return;
  }
  for (const [index, key] of keys.entries())
    if (key["kty"] === "oct" || key["d"] !== undefined)
      report.add(
        "MZ0254",
        path,
        `the key ${index} is a private or shared one: only public keys are needed, and every proxy gets this text`,
      );
}

const keyMembers: Readonly<Record<string, readonly string[]>> = {
  RSA: ["n", "e"],
  EC: ["crv", "x", "y"],
  OKP: ["crv", "x"],
  oct: ["k"],
};

function parseKeys(text: string): readonly Readonly<Record<string, unknown>>[] | undefined {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    return undefined;
  }
  if (typeof value !== "object" || value === null) return undefined;
  const keys: unknown = "keys" in value ? value.keys : [value];
  if (!Array.isArray(keys)) return undefined;
  const good = keys.every((key: unknown) => {
    if (typeof key !== "object" || key === null) return false;
    const members = keyMembers[String((key as Record<string, unknown>)["kty"])];
    return members?.every((member) => typeof (key as Record<string, unknown>)[member] === "string") ?? false;
  });
  return good ? (keys as Readonly<Record<string, unknown>>[]) : undefined;
}

export function checkPeerAuthentication(spec: PeerAuthenticationSpec, report: Report): void {
  const ports = spec.portLevelMtls;
  const selects = Object.keys(spec.selector?.matchLabels ?? {}).length > 0;
  if (ports !== undefined && Object.keys(ports).length === 0)
    report.add("MZ0202", "spec.portLevelMtls", "portLevelMtls is empty: remove it");
  else if (ports !== undefined && !selects)
    report.add("MZ0203", "spec.portLevelMtls", "portLevelMtls needs a selector: ports are a workload's");
  for (const port of Object.keys(ports ?? {}))
    report.value(pathOf("spec.portLevelMtls", port), portFault(/^\d+$/.test(port) ? Number(port) : port));
  checkSelectorLabels(spec.selector?.matchLabels, spec.selector !== undefined, "spec.selector", report);
}
