// One scenario: objects, requests, and what each gets, with the reason. Several witnesses answer the same file: the
// explainer (scenarios.test.ts), Envoy's own validation of the configuration, and real Envoys (test/e2e/scenarios.e2e.ts).

import { globSync, readFileSync } from "node:fs";
import { join } from "node:path";
import type { KubeObject } from "#objects";
import { parse } from "yaml";

export interface Scenario {
  /** `<kind>/<claim>`, from the file's place. */
  readonly name: string;
  readonly objects: readonly KubeObject[];
  readonly requests: readonly ScenarioRequest[];
}

export interface ScenarioRequest {
  readonly from: Workload;
  readonly send: Sent;
  readonly gets: Expected;
  readonly because: string;
  /** What the server has to have seen, and what the caller's application: only real Envoys are asked for these. */
  readonly seen?: Seen;
  readonly answer?: Answered;
}

/** Headers by name in lower case; null where there may be none of the name. */
type Headers = Readonly<Record<string, string | null>>;

export interface Seen {
  readonly url?: string;
  readonly host?: string;
  readonly method?: string;
  readonly headers?: Headers;
}

export interface Answered {
  readonly headers?: Headers;
  readonly body?: string;
}

/** `default/reviews-v1`: an echo of Service `reviews` with the label `version: v1`. */
export interface Workload {
  readonly namespace: string;
  readonly name: string;
  readonly service: string;
  readonly version: string;
}

export interface Sent {
  readonly method: string;
  readonly url: URL;
  readonly headers: Readonly<Record<string, string>>;
}

export type Expected =
  /** Answered by these workloads, by weight out of 100. */
  | { readonly kind: "answered"; readonly by: ReadonlyMap<string, number> }
  /** Answered by one of these workloads, and the same for all requests that are alike. */
  | { readonly kind: "one-of"; readonly names: readonly string[] }
  | { readonly kind: "status"; readonly status: number }
  /** No HTTP answer at all. */
  | { readonly kind: "refused" };

/** The ports of every scenario's echoes. */
export const scenarioPorts = [
  { name: "http", servicePort: 9080, workloadPort: 8080, flag: "http" },
  { name: "tcp-raw", servicePort: 9000, workloadPort: 9001, flag: "tcp" },
] as const;

export function scenarios(): readonly Scenario[] {
  const files = globSync("*/*.yaml", { cwd: import.meta.dirname }).toSorted();
  return files.map((file) =>
    parseScenario(file.replace(/\.yaml$/, ""), readFileSync(join(import.meta.dirname, file), "utf8")),
  );
}

interface ScenarioFile {
  readonly objects: readonly KubeObject[];
  readonly requests: readonly {
    readonly from: string;
    readonly send: string;
    readonly gets: string | number;
    readonly because: string;
    readonly seen?: Seen;
    readonly answer?: Answered;
  }[];
}

export function parseScenario(name: string, text: string): Scenario {
  const file = parse(text) as ScenarioFile;
  return {
    name,
    objects: (file.objects ?? []).map((object) => ({
      ...object,
      metadata: { namespace: "default", ...object.metadata },
    })),
    requests: file.requests.map((request) => ({
      from: parseWorkload(request.from),
      send: parseSent(request.send),
      gets: parseExpected(String(request.gets)),
      because: request.because,
      ...(request.seen === undefined ? {} : { seen: request.seen }),
      ...(request.answer === undefined ? {} : { answer: request.answer }),
    })),
  };
}

/** `reviews-v1`, `default/reviews-v1` or `default/sleep`; without a version it is v1. */
export function parseWorkload(text: string): Workload {
  const [namespace, name] = text.includes("/") ? (text.split("/") as [string, string]) : ["default", text];
  const version = /-(v\d+)$/.exec(name)?.[1] ?? "v1";
  return { namespace, name, service: name.replace(/-v\d+$/, ""), version };
}

/** `GET http://reviews:9080/path with end-user jason, x-a b`. */
function parseSent(text: string): Sent {
  const [, method, url, rest] = /^(\S+) (\S+)(?: with (.*))?$/.exec(text) ?? [];
  if (method === undefined || url === undefined)
    throw new Error(`send: '${text}' is not 'METHOD URL [with NAME VALUE, ...]'`);
  const pairs = (rest ?? "").split(", ").filter((pair) => pair !== "");
  const headers = Object.fromEntries(
    pairs.map((pair) => [pair.split(" ")[0], pair.split(" ").slice(1).join(" ")]),
  );
  return { method, url: new URL(url), headers: headers as Record<string, string> };
}

/** `200 from reviews-v1`, `200 from reviews-v1 80, reviews-v2 20`, `200 from one of reviews-v1, reviews-v2`, `403`, `refused`. */
function parseExpected(text: string): Expected {
  if (text === "refused") return { kind: "refused" };
  const [, from] = /^200 from (.*)$/.exec(text) ?? [];
  if (from === undefined) return { kind: "status", status: Number(text) };
  const [, choice] = /^one of (.*)$/.exec(from) ?? [];
  if (choice !== undefined)
    return { kind: "one-of", names: choice.split(", ").map((name) => workloadText(parseWorkload(name))) };
  const shares = from.split(", ").map((share) => share.split(" "));
  return {
    kind: "answered",
    by: new Map(
      shares.map(([name = "", weight]) => [workloadText(parseWorkload(name)), Number(weight ?? 100)]),
    ),
  };
}

export function workloadText({ namespace, name }: Workload): string {
  return `${namespace}/${name}`;
}

/** Every workload that a scenario calls from or expects an answer of, and all versions its subsets name. */
export function workloadsOf(all: readonly Scenario[]): readonly Workload[] {
  const names = new Set<string>([
    "default/sleep",
    "default/reviews-v1",
    "default/reviews-v2",
    "default/reviews-v3",
    "default/ratings",
    "other/client",
  ]);
  for (const { requests } of all) {
    for (const { from, gets } of requests) {
      names.add(workloadText(from));
      if (gets.kind === "one-of") for (const name of gets.names) names.add(name);
      if (gets.kind === "answered") for (const name of gets.by.keys()) names.add(name);
    }
  }
  return [...names].toSorted().map(parseWorkload);
}
