// Canary-first, measured: of 20 real Envoys of one view exactly one is shown what Envoy rejects, all others and newcomers are
// served the last good version, it is said wherever its owner may look, and what mends it flows at once. No root needed.

import assert from "node:assert/strict";
import { after, before, describe, test, type TestContext } from "node:test";
import { renderRef } from "#base";
import type { ApiObject, NewObject } from "#cluster";
import type { ControlPlane } from "../src/apps/control/control-plane.ts";
import { ClusterBench, debugOf, metricOf } from "./support/cluster-bench.ts";
import { DiscoveringEnvoy } from "./support/discovering-envoy.ts";
import { freePorts } from "./support/free-ports.ts";
import { withoutEnvoy } from "./support/envoy.ts";
import { pause, until } from "./support/real-clock.ts";

const envoysTotal = 20;
const servicesTotal = 12;
/** Long enough for all others to get what one has rejected, if they were to. */
const leakMs = 1_500;
/** Far below the minute after which what was rejected is tried again: what is mended waits for no timer. */
const correctedWithinMs = 20_000;
const virtualServices = "virtualservices.networking.istio.io";
const envoyFilters = "envoyfilters.networking.istio.io";

/** An object that can be right in ways that show in Envoy's dump, and wrong in a way that only Envoy finds. */
interface Mistake {
  readonly claim: string;
  readonly plural: string;
  readonly kind: string;
  readonly name: string;
  /** Envoy's service that rejects it. */
  readonly service: string;
  /** What Envoy says of it. */
  readonly says: RegExp;
  readonly right: (mark: string) => NewObject;
  readonly wrong: () => NewObject;
  /** Objects that change in the same moment and are right. */
  readonly company?: (mark: string) => readonly NewObject[];
}

const filter = (name: string, patch: object): NewObject => ({
  apiVersion: "networking.istio.io/v1alpha3",
  kind: "EnvoyFilter",
  metadata: { name, namespace: "default" },
  spec: { configPatches: [patch] },
});

const httpFilter = (name: string, type: string, fields: object = {}): NewObject =>
  filter("type", {
    applyTo: "HTTP_FILTER",
    match: {
      context: "SIDECAR_OUTBOUND",
      listener: { filterChain: { filter: { name: "envoy.filters.network.http_connection_manager" } } },
    },
    patch: {
      operation: "INSERT_FIRST",
      value: { name, typed_config: { "@type": `type.googleapis.com/${type}`, ...fields } },
    },
  });

const tlsType = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext";
const cipher = (suite: string, mark = ""): NewObject =>
  filter("cipher", {
    applyTo: "CLUSTER",
    match: { context: "SIDECAR_OUTBOUND", cluster: { service: "s1.default.svc.cluster.local" } },
    patch: {
      operation: "MERGE",
      value: {
        transport_socket: {
          name: "tls",
          typed_config: {
            "@type": tlsType,
            sni: mark,
            common_tls_context: { tls_params: { cipher_suites: [suite] } },
          },
        },
      },
    },
  });

const regex = (expression: string, port: number): NewObject =>
  filter("regex", {
    applyTo: "VIRTUAL_HOST",
    match: {
      context: "SIDECAR_OUTBOUND",
      routeConfiguration: { vhost: { name: `s2.default.svc.cluster.local:${port}` } },
    },
    patch: {
      operation: "MERGE",
      value: {
        routes: [{ match: { safe_regex: { regex: expression } }, direct_response: { status: 200 } }],
      },
    },
  });

/** The webhook would refuse a header of this name; what is in the API already can be worse than what it lets in. */
const virtualService = (at: number, mark: string, header = "end-user"): NewObject => ({
  apiVersion: "networking.istio.io/v1",
  kind: "VirtualService",
  metadata: { name: `s${at}`, namespace: "default" },
  spec: {
    hosts: [`s${at}`],
    http: [
      {
        match: [{ headers: { [header]: { exact: mark } } }],
        route: [{ destination: { host: `s${at}` } }],
      },
    ],
  },
});

function mistakes(port: number): readonly Mistake[] {
  return [
    {
      claim: "an EnvoyFilter with a filter of a wrong type",
      ...{ plural: envoyFilters, kind: "EnvoyFilter", name: "type", service: "lds" },
      says: /filter/i,
      right: (mark) => httpFilter(mark, "envoy.extensions.filters.http.cors.v3.Cors"),
      wrong: () =>
        httpFilter("wrong", "envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy", {
          stat_prefix: "x",
          cluster: "x",
        }),
    },
    {
      claim: "an EnvoyFilter with an unknown cipher",
      ...{ plural: envoyFilters, kind: "EnvoyFilter", name: "cipher", service: "cds" },
      says: /NO-SUCH-CIPHER/,
      right: (mark) => cipher("ECDHE-RSA-AES128-GCM-SHA256", mark),
      wrong: () => cipher("NO-SUCH-CIPHER"),
    },
    {
      claim: "an EnvoyFilter with a bad regex",
      ...{ plural: envoyFilters, kind: "EnvoyFilter", name: "regex", service: "vhds" },
      says: /missing \)/,
      right: (mark) => regex(`/${mark}.*`, port),
      wrong: () => regex("/(unclosed", port),
    },
    {
      claim: "one bad virtual host among a batch of good ones",
      ...{ plural: virtualServices, kind: "VirtualService", name: "s5", service: "vhds" },
      says: /./,
      right: (mark) => virtualService(5, mark),
      wrong: () => virtualService(5, "wrong", "no\nheader"),
      company: (mark) => [3, 4, 6, 7, 8, 9, 10, 11].map((at) => virtualService(at, `${mark}-${at}`)),
    },
  ];
}

describe("canary-first", { skip: withoutEnvoy }, () => {
  const bench = new ClusterBench();
  const envoys: DiscoveringEnvoy[] = [];
  let controlPlane: ControlPlane;
  let port = 0;

  before(async () => {
    [port = 0] = await freePorts(1);
    await bench.start();
    await bench.put("configmaps", {
      apiVersion: "v1",
      kind: "ConfigMap",
      metadata: { name: "istio", namespace: "istio-d" },
      data: { mesh: "enableAutoMtls: false" },
    });
    for (let at = 0; at < servicesTotal; at++)
      await bench.put("services", {
        apiVersion: "v1",
        kind: "Service",
        metadata: { name: `s${at}`, namespace: "default" },
        spec: { selector: { app: `s${at}` }, ports: [{ name: "http", port, targetPort: 8080 }] },
      });
    controlPlane = bench.controlPlane(bench.kubeconfig);
    await controlPlane.start();
    for (let at = 0; at < envoysTotal; at++) await addEnvoy();
  });
  after(async () => {
    for (const envoy of envoys) await envoy.close();
    await bench.close();
  });

  async function addEnvoy(): Promise<DiscoveringEnvoy> {
    const name = `sleep-${envoys.length}`;
    await bench.makePod(name, "sleep", { "sidecar.istio.io/interceptionMode": "NONE" });
    const envoy = await DiscoveringEnvoy.start(
      bench.directory,
      controlPlane.ports.plaintext ?? 0,
      `${name}.default`,
    );
    envoys.push(envoy);
    await until(`Envoy ${envoys.length} is live`, () => envoy.isLive());
    return envoy;
  }

  /** Waits until all Envoys hold and use what bears a mark; gives the milliseconds that this took. */
  async function allHold(mark: string): Promise<number> {
    const fromMs = performance.now();
    for (const envoy of envoys)
      await until(`${mark} is everywhere`, async () => (await envoy.dump()).includes(mark));
    return performance.now() - fromMs;
  }

  const counts = (): Promise<number[]> => Promise.all(envoys.map((envoy) => envoy.rejections()));

  test(`${envoysTotal} Envoys hold the world`, async () => {
    assert.deepEqual(
      await counts(),
      envoys.map(() => 0),
    );
  });

  test("four mistakes that only Envoy finds", async (t) => {
    for (const mistake of mistakes(port)) {
      await t.test(
        `${mistake.claim} reaches one of ${envoysTotal} Envoys, and its correction all`,
        (context) => holds(mistake, context),
      );
    }
  });

  async function holds(mistake: Mistake, context: TestContext): Promise<void> {
    const { plural, name, right, wrong, company } = mistake;
    const [first, second, third] = [`first-${name}`, `second-${name}`, `third-${name}`];
    for (const object of [right(first), ...(company?.(first) ?? [])]) await bench.put(plural, object);
    await allHold(first);
    const before = await counts();
    for (const object of [wrong(), ...(company?.(second) ?? [])]) await bench.put(plural, object);
    await saidEverywhere(mistake);
    for (const object of company?.(second) ?? [])
      await allHold(`${second}-${object.metadata.name?.slice(1)}`);
    await pause(leakMs);
    const after = await counts();
    const hit = after.filter((count, at) => count > (before[at] ?? 0)).length;
    assert.equal(hit, 1, `rejections ${before.join(" ")}, then ${after.join(" ")}`);
    const newcomer = await addEnvoy();
    await until("a newcomer has the last good version", async () => (await newcomer.dump()).includes(first));
    assert.equal(await newcomer.rejections(), 0);
    await allHold(first);
    const fromMs = performance.now();
    await bench.put(plural, right(third));
    await allHold(third);
    const tookMs = performance.now() - fromMs;
    context.diagnostic(
      `rejected by ${hit} of ${before.length}; corrected, it is with all ${envoys.length} after ${Math.round(tookMs)} ms`,
    );
    assert.ok(tookMs < correctedWithinMs);
    await cleared(mistake);
  }

  /** Status condition, event, metrics, and what `mizzen ps` reads: each names the object and the reason. */
  async function saidEverywhere({ plural, kind, name, service, says }: Mistake): Promise<void> {
    const object = renderRef({ kind, namespace: "default", name });
    await until(`the status of ${object}`, () => {
      const condition = conditionOf(plural, name);
      return condition?.status === "False" && says.test(condition.message ?? "");
    });
    await until(`an event about ${object}`, () =>
      bench.api.store
        .list("events")
        .items.some(
          (event) =>
            (event["involvedObject"] as { name?: string }).name === name &&
            event["reason"] === "RejectedByProxy" &&
            says.test(String(event["message"])),
        ),
    );
    await until("mizzen ps", async () => {
      const text = JSON.stringify(await debugOf(controlPlane, "syncz"));
      return text.includes(object) && says.test(text);
    });
    assert.ok((await metricOf(controlPlane, "pilot_total_xds_rejects", `type="${service}"`)) > 0);
    assert.equal(await metricOf(controlPlane, `pilot_xds_${service}_reject`), 1);
    assert.equal(await metricOf(controlPlane, "pilot_rejected_objects", `name="${name}"`), 1);
  }

  async function cleared({ plural, name, service }: Mistake): Promise<void> {
    await until("the status is well again", () => conditionOf(plural, name)?.status === "True");
    assert.equal(await metricOf(controlPlane, `pilot_xds_${service}_reject`), 0);
    assert.equal(await metricOf(controlPlane, "pilot_rejected_objects", `name="${name}"`), 0);
    assert.deepEqual(await debugOf(controlPlane, "rejectz"), []);
  }

  function conditionOf(plural: string, name: string): { status?: string; message?: string } | undefined {
    const object = bench.api.store.get(plural, "default", name) as
      | (ApiObject & { status?: { conditions?: { type?: string; status?: string; message?: string }[] } })
      | undefined;
    return object?.status?.conditions?.find(({ type }) => type === "Programmed");
  }
});
