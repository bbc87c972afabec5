// authz-builder: AuthorizationPolicies go in, Envoy's RBAC filters come out. Compared after normalising what has no
// meaning: nesting of single-element sets, defaults that are written or left out, prefixes of empty shadow rules.

import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { isDeepStrictEqual } from "node:util";
import { Engine } from "#engine";
import { decodeMessage, encodeMessage, httpRbacFilters, tcpRbacFilters, type Message } from "#envoy";
import { policiesFor, worldChanges } from "#model";
import type { AuthorizationPolicy, MeshConfig } from "#objects";
import { parse, parseAllDocuments } from "yaml";
import { anyFromJson } from "../../src/envoy/proto/json.ts";
import type { RbacInput } from "../../src/envoy/rbac.ts";
import { readRbac } from "../../src/envoy/rbac-input.ts";
import type { Failure, Score } from "./score.ts";

interface Case {
  readonly case: string;
  readonly dir: string;
  readonly protocol: "HTTP" | "TCP";
  readonly input: string;
  readonly trustDomains: readonly string[];
  readonly meshConfig: string | null;
  readonly services: readonly { readonly hostname: string; readonly namespace: string }[];
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
  const input = {
    policies: policiesFor(ofAction, given.workload),
    trustDomains: given.trustDomains,
    providers: providersOf(folder, given, objects),
  };
  const built = given.protocol === "HTTP" ? httpRbacFilters(input) : tcpRbacFilters(input);
  const expected = given.outputs
    .map((file) => join(folder, file))
    .filter((path) => existsSync(path))
    .map((path): unknown => parse(readFileSync(path, "utf8")));
  if (built.length !== expected.length) return `${built.length} filters instead of ${expected.length}`;
  const wrong = expected.findIndex(
    (filter, at) => !isDeepStrictEqual(normal(asMessage(built[at])), normal(asMessage(fromYaml(filter)))),
  );
  return wrong < 0 ? undefined : `filter ${wrong + 1} differs`;
}

/** The providers of the case's MeshConfig whose service is in its registry. */
function providersOf(
  folder: string,
  given: Case,
  objects: readonly AuthorizationPolicy[],
): RbacInput["providers"] {
  if (given.meshConfig === null) return {};
  const mesh = parse(readFileSync(join(folder, given.meshConfig), "utf8")) as MeshConfig;
  const services = given.services.map(({ hostname, namespace }) => ({
    apiVersion: "v1",
    kind: "Service",
    metadata: { name: hostname.split(".")[0] ?? "", namespace },
    spec: { ports: [{ port: 9000 }] },
  }));
  const engine = new Engine();
  engine.apply(worldChanges([...objects, ...services], { mesh }));
  return readRbac((source, key) => engine.get(source, key), given.workload).providers ?? {};
}

function fromYaml(filter: unknown): unknown {
  const { name, typedConfig } = filter as { readonly name: string; readonly typedConfig: unknown };
  return { name, typedConfig: anyFromJson(typedConfig) };
}

/** As Envoy would read it: written to bytes and back, so that only what is said counts. */
function asMessage(filter: unknown): unknown {
  const { name, typedConfig } = filter as { readonly name: string; readonly typedConfig: Message };
  const config = typedConfig as Message & { readonly "@type": string };
  const type = config["@type"].slice(config["@type"].lastIndexOf("/") + 1);
  return { name, type, config: decodeMessage(type, encodeMessage(type, config)) };
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
  if (field === undefined || field === false || field === "") return true;
  if (name === "action") return field === "ALLOW";
  if (name === "policies") return Object.keys(field as object).length === 0;
  return name === "shadowRulesStatPrefix" && message["shadowRules"] === undefined;
}

function plainNumber(field: unknown): unknown {
  return typeof field === "object" && field !== null ? (field as { value?: unknown }).value : field;
}
