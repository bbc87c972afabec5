// xds-simulation: objects, a proxy and a call go in; the explainer says from the generated resources which cluster or
// error the call meets. `cluster` and `error` are what is scored; names of listeners and chains are not.

import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { Engine } from "#engine";
import { snapshotOf } from "#envoy";
import { configurationOf, simulate, type Call, type ProxyConfiguration, type Trace } from "#explain";
import { worldChanges, type ProxyClass } from "#model";
import type { KubeObject } from "#objects";
import { parseAllDocuments } from "yaml";
import type { Failure, Score } from "./score.ts";

interface Case {
  readonly id: string;
  readonly proxy: {
    readonly type: "sidecar" | "gateway";
    readonly namespace: string;
    readonly ipAddresses: readonly string[];
    readonly labels?: Readonly<Record<string, string>>;
    readonly nodeMetadata?: Readonly<Record<string, unknown>>;
  };
  readonly meshConfig?: Readonly<Record<string, unknown>>;
  readonly features?: Readonly<Record<string, unknown>>;
  readonly calls?: readonly CaseCall[];
  readonly routeConfig?: string;
  readonly expectVirtualHosts?: Readonly<Record<string, readonly string[]>> | null;
}

interface CaseCall {
  readonly name: string;
  readonly call: {
    readonly address?: string;
    readonly port: number;
    readonly protocol?: "http" | "http2" | "tcp";
    readonly tls?: "plaintext" | "tls" | "mtls";
    readonly alpn?: string;
    readonly host?: string;
    readonly sni?: string;
    readonly path?: string;
    readonly mode: "inbound" | "outbound-or-gateway";
    readonly mtlsSecretConfigName?: string;
  };
  readonly expect: { readonly cluster?: string; readonly error?: string; readonly strict?: boolean };
}

export async function run(dir: string): Promise<Score> {
  const index = JSON.parse(readFileSync(join(dir, "index.json"), "utf8")) as readonly {
    id: string;
    dir: string;
  }[];
  const failures: Failure[] = [];
  let passed = 0;
  for (const { id, dir: folder } of index) {
    const reasons = judge(join(dir, folder));
    if (reasons.length === 0) passed++;
    else failures.push({ id, reason: reasons.join("; ") });
  }
  return { name: "xds-simulation", passed, failed: failures.length, knownDifferences: 0, failures };
}

/** Why a case fails; empty when it passes. */
function judge(folder: string): readonly string[] {
  const given = JSON.parse(readFileSync(join(folder, "case.json"), "utf8")) as Case;
  let configuration: ProxyConfiguration;
  try {
    configuration = configurationFor(folder, given);
  } catch (error) {
    return [`no configuration: ${(error as Error).message} ${String((error as Error).cause ?? "")}`];
  }
  if (given.routeConfig !== undefined)
    return judgeRoutes(configuration, given.routeConfig, given.expectVirtualHosts);
  return (given.calls ?? []).flatMap((call) => judgeCall(configuration, given, call));
}

function configurationFor(folder: string, given: Case): ProxyConfiguration {
  const objects = ["config.yaml", "kube.yaml"].flatMap((file) => objectsIn(join(folder, file)));
  const engine = new Engine();
  engine.apply(
    worldChanges(objects, {
      rootNamespace: "istio-system",
      clusterDomain: "cluster.local",
      mesh: given.meshConfig ?? {},
      // Ours by default lets a namespace route its own calls alone (docs/decisions/0043); the cases are of Istio's way.
      foreignRoutes: "all-clients",
    }),
  );
  const snapshot = snapshotOf(engine, classOf(given));
  return configurationOf(Object.values(snapshot).flat());
}

function objectsIn(file: string): readonly KubeObject[] {
  if (!existsSync(file)) return [];
  return parseAllDocuments(readFileSync(file, "utf8"))
    .map((document) => document.toJS() as KubeObject | null)
    .filter((object) => object !== null)
    .map((object) => ({ ...object, metadata: { namespace: "default", ...object.metadata } }));
}

function classOf({ proxy }: Case): ProxyClass {
  const metadata = Object.entries(proxy.nodeMetadata ?? {}).filter(([, value]) => typeof value === "string");
  return {
    kind: proxy.type === "gateway" ? "router" : "sidecar",
    namespace: proxy.namespace,
    labels: proxy.labels ?? {},
    serviceAccount: "default",
    network: "",
    locality: "",
    clusterId: "Kubernetes",
    dnsDomain: `${proxy.namespace}.svc.cluster.local`,
    interception: "REDIRECT",
    envoyVersion: "1.40.0",
    // No Pod stands behind these proxies: endpoints name them by address.
    metadata: { ...Object.fromEntries(metadata), INSTANCE_IPS: proxy.ipAddresses.join(",") } as Record<
      string,
      string
    >,
  };
}

function judgeCall(
  configuration: ProxyConfiguration,
  given: Case,
  { name, call, expect }: CaseCall,
): readonly string[] {
  const { mode, mtlsSecretConfigName, ...rest } = call;
  const direction: Call["direction"] =
    mode === "inbound" ? "inbound" : given.proxy.type === "gateway" ? "gateway" : "outbound";
  const trace = simulate(configuration, { ...rest, direction }, mtlsSecretConfigName);
  const got = answerOf(trace);
  const wantError = expect.error ?? "";
  const wantCluster = expect.cluster === undefined ? undefined : canonical(expect.cluster);
  const wrong: string[] = [];
  if (got.error !== wantError) wrong.push(`error ${got.error || "none"}, expected ${wantError || "none"}`);
  if (wantCluster !== undefined && canonical(got.cluster) !== wantCluster) {
    wrong.push(`cluster ${got.cluster || "none"}, expected ${expect.cluster}`);
  }
  const at = `${trace.listener ?? "-"}/${trace.filterChain ?? "-"}/${trace.virtualHost ?? "-"}`;
  return wrong.length === 0 ? [] : [`${name}: ${wrong.join(", ")} (${at})`];
}

function answerOf(trace: Trace): { readonly error: string; readonly cluster: string } {
  const { outcome } = trace;
  if (outcome.kind === "refuse") return { error: outcome.error, cluster: "" };
  return { error: "", cluster: outcome.kind === "forward" ? (outcome.to[0]?.cluster ?? "") : "" };
}

/** The cases come from a harness with an empty cluster domain: `productpage.default` is `productpage.default.svc.cluster.local`. */
function canonical(cluster: string): string {
  return cluster.replace(/\.svc\.cluster\.local$/, "");
}

function judgeRoutes(
  configuration: ProxyConfiguration,
  name: string,
  expected: Case["expectVirtualHosts"],
): readonly string[] {
  const table = configuration.routes.get(name);
  if (expected === null || expected === undefined) return [];
  const wrong: string[] = [];
  for (const [domain, clusters] of Object.entries(expected)) {
    const virtualHost = (table?.virtualHosts ?? []).find((host) => host.domains?.includes(domain));
    const got = (virtualHost?.routes ?? [])
      .flatMap(({ route }) => [
        route?.cluster ?? "",
        ...(route?.weightedClusters?.clusters ?? []).map((one) => one.name),
      ])
      .filter((cluster) => cluster !== "")
      .toSorted();
    if (JSON.stringify(got) !== JSON.stringify([...(clusters ?? [])].toSorted())) {
      wrong.push(`${domain}: ${JSON.stringify(got)}, expected ${JSON.stringify(clusters)}`);
    }
  }
  return wrong;
}
