// Routes and matches of a VirtualService that no request reaches, because earlier ones take them all.

import { pathOf, type Report } from "../report.ts";
import type { HTTPMatchRequest, StringMatch, VirtualServiceSpec } from "../virtual-service.ts";

interface Rule {
  readonly name?: string;
  readonly match?: readonly object[];
}

export function checkReach(spec: VirtualServiceSpec, report: Report): void {
  checkRules(spec.http, "spec.http", report);
  checkPrefixes(spec, report);
  checkRules(spec.tls, "spec.tls", report);
  checkRules(spec.tcp, "spec.tcp", report);
}

function checkRules(rules: readonly Rule[] | undefined, path: string, report: Report): void {
  const taken = new Map<string, string>();
  let takesAll: string | undefined;
  for (const [index, rule] of (rules ?? []).entries()) {
    const at = pathOf(path, index);
    const matches = rule.match ?? [];
    if (takesAll !== undefined) {
      report.add("MZ0252", at, `it is never reached: ${takesAll} has no match and takes every request`);
      if (matches.length === 0) takesAll = at;
      continue;
    }
    if (matches.length === 0) takesAll = at;
    let repeated = 0;
    for (const [matchIndex, match] of matches.entries()) {
      const key = keyOf(match);
      const before = taken.get(key);
      if (before === undefined) taken.set(key, at);
      else {
        repeated++;
        report.add("MZ0253", pathOf(pathOf(at, "match"), matchIndex), `the same match stands in ${before}`);
      }
    }
    if (matches.length > 0 && repeated === matches.length)
      report.add("MZ0252", at, "it is never reached: earlier routes have all its matches");
  }
}

/** The match without its name, with sorted keys. */
function keyOf(match: object): string {
  const { name: _name, ...rest } = match as { readonly name?: string };
  return JSON.stringify(rest, (_key, value: unknown) =>
    typeof value === "object" && value !== null && !Array.isArray(value)
      ? Object.fromEntries(Object.entries(value).toSorted(([one], [other]) => (one < other ? -1 : 1)))
      : value,
  );
}

interface PrefixMatch {
  readonly match: HTTPMatchRequest;
  readonly prefix: string;
  readonly path: string;
}

/** A shorter prefix before a longer one takes its requests, if it asks for no more. */
function checkPrefixes(spec: VirtualServiceSpec, report: Report): void {
  const earlier: PrefixMatch[] = [];
  for (const [index, route] of (spec.http ?? []).entries()) {
    for (const [matchIndex, match] of (route.match ?? []).entries()) {
      const prefix = match.uri?.prefix;
      if (!prefix) continue;
      const later = { match, prefix, path: pathOf(pathOf(pathOf("spec.http", index), "match"), matchIndex) };
      for (const other of earlier)
        if (other.prefix !== prefix && covers(other, later))
          report.add(
            "MZ0253",
            later.path,
            `the prefix ${prefix} is already taken by ${other.prefix} of ${other.path}`,
          );
      earlier.push(later);
    }
  }
}

function covers(wide: PrefixMatch, narrow: PrefixMatch): boolean {
  if (!narrow.prefix.startsWith(wide.prefix) || wide.match.port !== narrow.match.port) return false;
  const texts = (match: HTTPMatchRequest) => [
    match.method === undefined ? "exact:GET" : said(match.method),
    said(match.authority),
  ];
  const wideTexts = texts(wide.match);
  if (!texts(narrow.match).every((text, index) => wideTexts[index]!.startsWith(text))) return false;
  return (["headers", "queryParams", "withoutHeaders"] as const).every((field) =>
    coversMap(wide.match[field], narrow.match[field]),
  );
}

type Matches = Readonly<Record<string, StringMatch>> | undefined;

function coversMap(wide: Matches, narrow: Matches): boolean {
  const entries = Object.entries(wide ?? {});
  if (entries.length !== Object.keys(narrow ?? {}).length) return false;
  return entries.every(
    ([key, value]) => narrow?.[key] !== undefined && said(value).startsWith(said(narrow[key])),
  );
}

function said(match: StringMatch | undefined): string {
  return match?.exact ? `exact:${match.exact}` : match?.prefix ? `prefix:${match.prefix}` : "";
}
