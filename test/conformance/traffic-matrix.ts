// traffic-matrix: configuration for echo workloads and calls between them, through real Envoys in a standalone mesh.
// Families run here: see `families`; the others are said to have no runner yet.

import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { deployEchoes, order, podIp, type EchoPortSpec, type Order, type Result } from "../e2e/echoes.ts";
import { whyNoEndToEnd } from "../e2e/able.ts";
import { startMesh, type Mesh } from "../e2e/mesh.ts";
import { checkFailure, type Check } from "./traffic-checks.ts";
import type { Failure, Score } from "./score.ts";

export const families = ["virtualservice"];

interface Case {
  readonly id: string;
  readonly name: string;
  readonly mode: "every-src-dst-pair" | "fixed";
  readonly config: string;
  readonly toN?: number;
  readonly call?: CaseCall;
  readonly calls?: readonly CaseCall[];
  readonly dynamicCheck?: { readonly describe?: string };
  readonly skippedUpstream?: unknown;
}

interface CaseCall {
  readonly name?: string;
  readonly from?: string;
  readonly opts: {
    readonly to?: string;
    readonly port?: { readonly name?: string };
    readonly scheme?: string;
    readonly count?: number;
    readonly timeoutMs?: number;
    readonly http?: {
      readonly path?: string;
      readonly method?: string;
      readonly headers?: Readonly<Record<string, string>>;
      readonly http2?: boolean;
      readonly followRedirects?: boolean;
    };
    readonly check?: Check;
  };
}

interface PortRow {
  readonly name: string;
  readonly protocol: string;
  readonly servicePort: number | null;
  readonly workloadPort: number;
  readonly serverFirst?: boolean;
  readonly localhostIP?: boolean;
  readonly instanceIP?: boolean;
  readonly tLS?: boolean;
  readonly mTLS?: boolean;
  readonly proxyProtocol?: boolean;
}

const namespace = "echo1";
const apps = ["a", "b", "c"];
/** Who calls whom, with the further targets of cases that want several. */
const pairs = [
  { from: "a", to: ["b", "c", "a"] },
  { from: "b", to: ["c", "a", "b"] },
  { from: "c", to: ["a", "b", "c"] },
];
/** Istio's own suite retries up to 30 s; a mesh on one machine settles sooner. */
const convergeMs = 8_000;

export async function run(dir: string): Promise<Score> {
  const reason = whyNoEndToEnd();
  if (reason !== undefined) {
    const failures = [{ id: "traffic-matrix", reason: `cannot run here: ${reason}` }];
    return { name: "traffic-matrix", passed: 0, failed: 1, knownDifferences: 0, failures };
  }
  const mesh = await startMesh({ name: "matrix", port: 18_490 });
  try {
    await deployWorkloads(mesh, dir);
    return await runFamilies(mesh, dir);
  } finally {
    await mesh.down();
  }
}

async function deployWorkloads(mesh: Mesh, dir: string): Promise<void> {
  const rows = JSON.parse(readFileSync(join(dir, "ports.json"), "utf8")) as readonly PortRow[];
  const ports = rows.filter((row) => !row.tLS && !row.mTLS && !row.proxyProtocol).map(portOf);
  await mesh.kubectl(["create", "namespace", namespace]);
  await mesh.kubectl(["label", "namespace", namespace, "istio-injection=enabled"]);
  await deployEchoes(
    mesh,
    apps.map((name) => ({ name, namespace, ports })),
  );
}

function portOf(row: PortRow): EchoPortSpec {
  const flag = row.localhostIP
    ? "http-localhost"
    : row.instanceIP
      ? "http-pod-ip"
      : row.protocol !== "TCP"
        ? "http"
        : row.serverFirst
          ? "tcp-server-first"
          : "tcp";
  return { name: row.name, servicePort: row.servicePort, workloadPort: row.workloadPort, flag };
}

async function runFamilies(mesh: Mesh, dir: string): Promise<Score> {
  const ports = JSON.parse(readFileSync(join(dir, "ports.json"), "utf8")) as readonly PortRow[];
  const addresses = new Map<string, string>();
  for (const app of apps) addresses.set(app, await podIp(mesh, namespace, `app=${app}`));
  const failures: Failure[] = [];
  let passed = 0;
  for (const family of families) {
    const file = join(dir, `${family}.json`);
    if (!existsSync(file)) continue;
    for (const given of JSON.parse(readFileSync(file, "utf8")) as readonly Case[]) {
      if (given.skippedUpstream) continue;
      const reason = await judge({ mesh, addresses, ports }, given);
      if (reason === undefined) passed++;
      else failures.push({ id: given.id, reason });
    }
  }
  return { name: "traffic-matrix", passed, failed: failures.length, knownDifferences: 0, failures };
}

interface Ground {
  readonly mesh: Mesh;
  readonly addresses: ReadonlyMap<string, string>;
  readonly ports: readonly PortRow[];
}

/** Why a case fails; undefined when every pair of it passes. */
async function judge(ground: Ground, given: Case): Promise<string | undefined> {
  const chosen = given.mode === "fixed" ? [{ from: "a", to: ["b", "c", "a"] }] : pairs;
  for (const pair of chosen) {
    const reason = await judgePair(ground, given, pair.from, pair.to);
    if (reason !== undefined) return `${pair.from} -> ${pair.to[0]}: ${reason}`;
  }
  return undefined;
}

async function judgePair(
  ground: Ground,
  given: Case,
  from: string,
  to: readonly string[],
): Promise<string | undefined> {
  const config = given.config.replaceAll(/\$\{(DST\d?|NS)\}/g, (_, name: string) =>
    name === "NS" ? namespace : (to[Number(name.slice(3) || 1) - 1] ?? ""),
  );
  try {
    await ground.mesh.kubectl(["apply", "-n", namespace, "-f", "-"], config);
  } catch (error) {
    return (error as Error).message;
  }
  try {
    for (const call of given.calls ?? (given.call ? [given.call] : [])) {
      const reason = await converge(() => judgeCall(ground, given, call, from, to));
      if (reason !== undefined) return call.name === undefined ? reason : `${call.name}: ${reason}`;
    }
    return undefined;
  } finally {
    await ground.mesh.kubectl(["delete", "-n", namespace, "-f", "-", "--wait=false"], config);
  }
}

async function converge(ask: () => Promise<string | undefined>): Promise<string | undefined> {
  const until = Date.now() + convergeMs;
  for (;;) {
    const reason = await ask();
    if (reason === undefined || Date.now() > until) return reason;
    await new Promise((resolve) => setTimeout(resolve, 150));
  }
}

async function judgeCall(
  ground: Ground,
  given: Case,
  { opts, from: caller }: CaseCall,
  from: string,
  to: readonly string[],
): Promise<string | undefined> {
  const target = opts.to ?? to[0] ?? "";
  const port = ground.ports.find((row) => row.name === (opts.port?.name ?? "http"));
  const scheme = opts.scheme ?? "http";
  const what: Order = {
    url: `${scheme}://${target}:${port?.servicePort}${(opts.http?.path ?? "/").split("#")[0]}`,
    count: opts.count ?? 1,
    method: opts.http?.method ?? "GET",
    // A caller of port 80 sends no port in Host, as HTTP clients do.
    headers: { ...opts.http?.headers },
    timeoutMs: opts.timeoutMs ?? 5_000,
    ...(opts.http?.http2 === undefined ? {} : { http2: opts.http.http2 }),
    ...(opts.http?.followRedirects === undefined ? {} : { followRedirects: opts.http.followRedirects }),
  };
  const results = await order(ground.mesh, ground.addresses.get(caller ?? from) ?? "", what);
  if (given.dynamicCheck?.describe?.includes("weights") === true) return weightsFailure(given, to, results);
  return checkFailure(opts.check ?? { check: "OK" }, results);
}

/** Hits per destination within 10 of the configured weights out of 100. */
function weightsFailure(given: Case, to: readonly string[], results: readonly Result[]): string | undefined {
  const weights = [...given.config.matchAll(/weight:\s*(\d+)/g)].map((match) => Number(match[1]));
  const hits = to.map((app) => results.filter((result) => result.body.includes(`"service":"${app}"`)).length);
  const wrong = weights.some((weight, at) => Math.abs(weight - (hits[at] ?? 0)) > 10);
  return wrong ? `hits ${hits.join("/")}, expected ${weights.join("/")}` : undefined;
}
