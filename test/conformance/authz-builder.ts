// authz-builder: AuthorizationPolicies go in, Envoy's RBAC filters come out. Compared after normalising what has no
// meaning: nesting of single-element sets, defaults that are written or left out, prefixes of empty shadow rules.

import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { isDeepStrictEqual } from "node:util";
import { httpRbacFilters, tcpRbacFilters } from "#envoy";
import { policiesFor } from "#model";
import type { AuthorizationPolicy } from "#objects";
import { parse, parseAllDocuments } from "yaml";
import type { Failure, Score } from "./score.ts";

interface Case {
  readonly case: string;
  readonly dir: string;
  readonly protocol: "HTTP" | "TCP";
  readonly input: string;
  readonly trustDomains: readonly string[];
  readonly builder: "default" | "custom";
  readonly workload: { readonly namespace: string; readonly labels: Readonly<Record<string, string>> };
  readonly outputs: readonly string[];
}

export async function run(dir: string): Promise<Score> {
  const cases = JSON.parse(readFileSync(join(dir, "index.json"), "utf8")) as readonly Case[];
  const failures: Failure[] = [];
  for (const given of cases) {
    const reason = judge(join(dir, given.dir), given);
    if (reason !== undefined) failures.push({ id: given.case, reason });
  }
  return {
    name: "authz-builder",
    passed: cases.length - failures.length,
    failed: failures.length,
    knownDifferences: 0,
    failures,
  };
}

function judge(folder: string, given: Case): string | undefined {
  const objects = parseAllDocuments(readFileSync(join(folder, given.input), "utf8"))
    .map((document): unknown => document.toJS())
    .filter((object): object is AuthorizationPolicy => object !== null);
  const ofAction = objects.filter(({ spec }) => (spec?.action === "CUSTOM") === (given.builder === "custom"));
  const input = { policies: policiesFor(ofAction, given.workload), trustDomains: given.trustDomains };
  const built = given.protocol === "HTTP" ? httpRbacFilters(input) : tcpRbacFilters(input);
  const expected = given.outputs
    .map((file) => join(folder, file))
    .filter((path) => existsSync(path))
    .map((path): unknown => parse(readFileSync(path, "utf8")));
  if (built.length !== expected.length) return `${built.length} filters instead of ${expected.length}`;
  const wrong = expected.findIndex((filter, at) => !isDeepStrictEqual(normal(built[at]), normal(filter)));
  return wrong < 0 ? undefined : `filter ${wrong + 1} differs`;
}

function normal(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(normal);
  if (typeof value !== "object" || value === null) return value;
  const message = value as Readonly<Record<string, unknown>>;
  const single = singleOf(message);
  if (single !== undefined) return normal(single);
  return Object.fromEntries(
    Object.entries(message)
      .filter(([name, field]) => !hasNoMeaning(name, field, message))
      .map(([name, field]) => [name, name === "prefixLen" ? plainNumber(field) : normal(field)]),
  );
}

/** The only element of a set of one. */
function singleOf(message: Readonly<Record<string, unknown>>): unknown {
  for (const [set, list] of [
    ["andRules", "rules"],
    ["orRules", "rules"],
    ["andIds", "ids"],
    ["orIds", "ids"],
  ] as const) {
    const elements = (message[set] as Readonly<Record<string, unknown[]>> | undefined)?.[list];
    if (elements?.length === 1) return elements[0];
  }
  return undefined;
}

function hasNoMeaning(name: string, field: unknown, message: Readonly<Record<string, unknown>>): boolean {
  if (field === undefined) return true;
  if (name === "action") return field === "ALLOW";
  if (name === "policies") return Object.keys(field as object).length === 0;
  return name === "shadowRulesStatPrefix" && message["shadowRules"] === undefined;
}

function plainNumber(field: unknown): unknown {
  return typeof field === "object" && field !== null ? (field as { value?: unknown }).value : field;
}
