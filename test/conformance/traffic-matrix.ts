// traffic-matrix: configuration for echo workloads and calls between them, through real Envoys in a standalone mesh.
// `npm run scores -- traffic-matrix/gateway,sniffing` runs the cases whose ids begin so.

import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { parseAllDocuments, stringify } from "yaml";
import type { Result } from "../e2e/echoes.ts";
import { whyNoEndToEnd } from "../e2e/able.ts";
import { startMesh } from "../e2e/mesh.ts";
import { carryOut, filled, type Case, type CaseCall, type Pair } from "./traffic-calls.ts";
import { checkFailure } from "./traffic-checks.ts";
import { gatewayNamespace, layGround, namespace, type Ground, type PortRow } from "./traffic-ground.ts";
import type { Failure, Score } from "./score.ts";

/** Istio's own suite retries up to 30 s; a mesh on one machine settles sooner. */
const convergeMs = 12_000;
/** A call that is to fail could be made before what makes it fail has arrived. */
const settleMs = 400;

/** `SCORES_TRACE=1` says what becomes of each case as it goes: a whole run takes minutes. */
const trace = process.env["SCORES_TRACE"] === undefined ? (): void => {} : console.log;

export async function run(dir: string, filter = ""): Promise<Score> {
  const reason = whyNoEndToEnd();
  if (reason !== undefined) {
    const failures = [{ id: "traffic-matrix", reason: `cannot run here: ${reason}` }];
    return { name: "traffic-matrix", passed: 0, failed: 1, knownDifferences: 0, failures };
  }
  const cases = casesIn(dir).filter(
    ({ id, skippedUpstream }) => !skippedUpstream && filter.split(",").some((one) => id.startsWith(one)),
  );
  const ports = JSON.parse(readFileSync(join(dir, "ports.json"), "utf8")) as readonly PortRow[];
  const mesh = await startMesh({ name: "matrix", port: 18_490 });
  try {
    const ground = await layGround(mesh, ports);
    const failures: Failure[] = [];
    for (const given of cases) {
      const why = await judge(ground, given);
      trace(`${given.id}: ${why ?? "passes"}`);
      if (why !== undefined) failures.push({ id: given.id, reason: why });
    }
    const passed = cases.length - failures.length;
    return { name: "traffic-matrix", passed, failed: failures.length, knownDifferences: 0, failures };
  } finally {
    await mesh.down();
  }
}

function casesIn(dir: string): Case[] {
  return readdirSync(dir)
    .filter((file) => file.endsWith(".json") && file !== "ports.json")
    .toSorted()
    .flatMap((file) => JSON.parse(readFileSync(join(dir, file), "utf8")) as readonly Case[]);
}

/** Why a case fails; undefined when every pair of it passes. */
async function judge(ground: Ground, given: Case): Promise<string | undefined> {
  const restore = await prepare(ground, given);
  try {
    for (const pair of pairsOf(given)) {
      const reason = await judgePair(ground, given, pair);
      if (reason !== undefined) return `${pair.from} -> ${pair.to[0]}: ${reason}`;
    }
    return undefined;
  } finally {
    await restore();
  }
}

/** The gateway of this family reads the PROXY protocol, as its Pod says. */
async function prepare({ mesh }: Ground, { family }: Case): Promise<() => Promise<void>> {
  if (family !== "proxy-protocol-gateway") return async () => undefined;
  const set = async (value: string | null): Promise<void> => {
    const annotations = { "proxy.istio.io/config": value };
    const patch = JSON.stringify({ spec: { template: { metadata: { annotations } } } });
    const gateway = ["deployment/istio-ingressgateway", "-n", gatewayNamespace];
    await mesh.kubectl(["patch", ...gateway, "--type=merge", "-p", patch]);
    await mesh.kubectl(["rollout", "status", ...gateway, "--timeout=60s"]);
  };
  await set(JSON.stringify({ gatewayTopology: { proxyProtocol: {} } }));
  return () => set(null);
}

/** Workloads with a sidecar behind a Service that has an address. */
const regular = ["a", "b", "c", "tproxy"];
const injected = [...regular, "vm", "headless", "statefulset"];

function pairsOf(given: Case): readonly Pair[] {
  if (given.mode === "fixed") return [{ from: "a", to: ["b", "c", "a"] }];
  if (given.via === "ingress-gateway") {
    const matchers = given.targetMatchers ?? [];
    const targets = matchers.includes("And")
      ? ["b"]
      : matchers.includes("RegularPod")
        ? ["b", "tproxy"]
        : // The cases' ports are those of Services with an address: not of headless ones.
          ["b", "tproxy", "vm", "naked"];
    return targets.map((to) => ({ from: "ingress-gateway", to: [to] }));
  }
  // A call of a headless Service is one of the Pod's own address.
  if (given.family === "selfcall") return [...regular, "vm"].map((name) => ({ from: name, to: [name] }));
  if (given.family === "sniffing")
    return injected.flatMap((from) => [...injected, "naked"].map((to) => ({ from, to: [to] })));
  const circle = [
    { from: "a", to: ["b", "c", "a"] },
    { from: "b", to: ["c", "a", "b"] },
    { from: "c", to: ["a", "b", "c"] },
  ];
  return given.targetMatchers?.includes("NotTProxy") === true || given.toN !== undefined
    ? circle
    : [...circle, { from: "tproxy", to: ["vm", "a", "b"] }, { from: "vm", to: ["tproxy", "a", "b"] }];
}

async function judgePair(ground: Ground, given: Case, pair: Pair): Promise<string | undefined> {
  const config = configOf(ground, given, pair);
  try {
    if (config !== "") await ground.mesh.kubectl(["apply", "-f", "-"], config);
  } catch (error) {
    return (error as Error).message;
  }
  try {
    if (config !== "") await pause(settleMs);
    for (const call of given.calls ?? (given.call ? [given.call] : [])) {
      const reason = await converge(() => judgeCall(ground, given, call, pair));
      if (reason !== undefined) return call.name === undefined ? reason : `${call.name}: ${reason}`;
    }
    return undefined;
  } finally {
    if (config !== "") await ground.mesh.kubectl(["delete", "-f", "-", "--wait=false"], config);
  }
}

/** The case's objects, each in its namespace; what Istio keeps in its system's namespace is the gateways' here. */
function configOf(ground: Ground, given: Case, pair: Pair): string {
  const objects = parseAllDocuments(filled(ground, given.config ?? "", pair))
    .map((document) => document.toJS() as ConfigObject | null)
    .filter((object) => object !== null);
  return objects
    .map((object) => {
      const of = object.metadata.namespace ?? namespace;
      const metadata = { ...object.metadata, namespace: of === "istio-system" ? gatewayNamespace : of };
      return stringify({ ...object, metadata, ...(object.kind === "Secret" ? secretOf(ground) : {}) });
    })
    .join("---\n");
}

interface ConfigObject {
  readonly kind: string;
  readonly metadata: { readonly name: string; readonly namespace?: string };
}

/** The cases leave the certificate to whoever runs them. */
function secretOf({ certificate }: Ground): { readonly data: Readonly<Record<string, string>> } {
  const encoded = (text: string): string => Buffer.from(text).toString("base64");
  return {
    data: {
      "tls.crt": encoded(certificate.chain),
      "tls.key": encoded(certificate.key),
      "ca.crt": encoded(certificate.root),
    },
  };
}

async function converge(ask: () => Promise<string | undefined>): Promise<string | undefined> {
  const until = Date.now() + convergeMs;
  for (;;) {
    const reason = await ask();
    if (reason === undefined || Date.now() > until) return reason;
    await pause(150);
  }
}

function pause(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

async function judgeCall(
  ground: Ground,
  given: Case,
  call: CaseCall,
  pair: Pair,
): Promise<string | undefined> {
  const { called, results } = await carryOut(ground, given, call, pair);
  const words = given.dynamicCheck?.describe ?? "";
  if (words.includes("weights")) return weightsFailure(given, pair.to, results);
  if (words !== "") return checkFailure({ check: "custom", describe: words }, results, called);
  return checkFailure(call.opts.check ?? { check: "OK" }, results, called);
}

/** Hits per destination within 10 of the configured weights out of 100. */
function weightsFailure(given: Case, to: readonly string[], results: readonly Result[]): string | undefined {
  const weights = [...(given.config ?? "").matchAll(/weight:\s*(\d+)/g)].map((match) => Number(match[1]));
  const hits = to.map((app) => results.filter((result) => result.body.includes(`"service":"${app}"`)).length);
  const wrong = weights.some((weight, at) => Math.abs(weight - (hits[at] ?? 0)) > 10);
  return wrong ? `hits ${hits.join("/")}, expected ${weights.join("/")}` : undefined;
}
