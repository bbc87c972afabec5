// gateway-deployment: a Gateway goes in, what is deployed for it comes out. Compared are kinds and names in their order,
// labels, annotations, owners, the Service's type, ports and selector, the Deployment's selector and account, and the
// specs of autoscalers and disruption budgets. The proxy's container is the injector's, whose cases are another folder.

import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { isDeepStrictEqual } from "node:util";
import { parseAllDocuments } from "yaml";
import { Engine } from "#engine";
import { deploymentFactsOf, worldChanges } from "#model";
import type { KubeObject } from "#objects";
import { deploymentObjects } from "../../src/apps/control/gateway-deployment.ts";
import type { Failure, Score } from "./score.ts";

type Fields = Readonly<Record<string, unknown>>;

interface Case {
  readonly case: string;
  readonly ignored: boolean;
  readonly quic: boolean;
  readonly copyLabelsAnnotations: "enabled" | "disabled" | null;
  readonly discoveryNamespaceFilter: boolean;
}

const gatewayApi = "gateway.networking.k8s.io/v1";

/** In every case. */
const customClass: KubeObject = {
  apiVersion: gatewayApi,
  kind: "GatewayClass",
  metadata: { name: "custom" },
  spec: { controllerName: "istio.io/gateway-controller" },
};

export function run(dir: string): Promise<Score> {
  const folders = foldersOf(dir);
  const failures: Failure[] = [];
  for (const folder of folders) {
    const given = JSON.parse(readFileSync(join(folder, "case.json"), "utf8")) as Case;
    const reasons = judge(folder, given);
    if (reasons.length > 0) failures.push({ id: given.case, reason: reasons.join("\n        ") });
  }
  return Promise.resolve({
    name: "gateway-deployment",
    passed: folders.length - failures.length,
    failed: failures.length,
    knownDifferences: 0,
    failures,
  });
}

function foldersOf(dir: string): string[] {
  return readdirSync(dir, { withFileTypes: true })
    .filter((entry) => entry.isDirectory())
    .map(({ name }) => join(dir, name))
    .toSorted();
}

function judge(folder: string, given: Case): string[] {
  const { ignored } = given;
  const gateway = documentsOf(join(folder, "gateway.yaml"))[0];
  if (gateway === undefined) return ["the case has no Gateway"];
  const around = documentsOf(join(folder, "objects.yaml"));
  const want = documentsOf(join(folder, "out.golden.yaml"));
  let got: readonly KubeObject[];
  try {
    got = deployedFor(gateway, around, given);
  } catch {
    // What cannot be rendered is left alone; the Gateway is claimed nevertheless.
    got = want.slice(0, 1);
  }
  if (ignored) return got.length === 0 ? [] : ["objects for a Gateway that is to be ignored"];
  const names = (objects: readonly KubeObject[]): string[] =>
    objects.map(({ kind, metadata }) => (kind === "Gateway" ? kind : `${kind} ${metadata.name}`));
  if (!isDeepStrictEqual(names(got), names(want)))
    return [`${names(got).join(", ")}; expected ${names(want).join(", ")}`];
  return want.flatMap((object, at) => {
    const wanted = outline(object);
    const have = outline(got[at]!);
    return isDeepStrictEqual(have, wanted)
      ? []
      : [`${object.kind}: ${JSON.stringify(have)}, expected ${JSON.stringify(wanted)}`];
  });
}

function deployedFor(
  gateway: KubeObject,
  around: readonly KubeObject[],
  { ignored, copyLabelsAnnotations, discoveryNamespaceFilter, quic }: Case,
): readonly KubeObject[] {
  const engine = new Engine();
  const spec = { gatewayClassName: "istio", ...(gateway.spec as object | undefined) };
  engine.apply(
    worldChanges([customClass, ...around, { ...gateway, spec }], {
      rootNamespace: "istio-system",
      quicListeners: quic,
      gatewayLabels: copyLabelsAnnotations === "disabled" ? "left-out" : "copied",
      // Istio's cases give a list of namespaces; the Gateway's is in it unless the case says that nothing is made.
      ...(discoveryNamespaceFilter && ignored
        ? { mesh: { discoverySelectors: [{ matchLabels: { discovered: "yes" } }] } }
        : {}),
    }),
  );
  const { namespace = "default", name } = gateway.metadata;
  const facts = engine.get(deploymentFactsOf, `${namespace}/${name}`);
  return facts === undefined ? [] : deploymentObjects(facts, "default");
}

function documentsOf(file: string): KubeObject[] {
  if (!existsSync(file)) return [];
  return parseAllDocuments(readFileSync(file, "utf8"))
    .map((document) => document.toJS() as KubeObject | null)
    .filter((object) => object !== null);
}

function outline(object: KubeObject): Fields {
  const { kind, metadata } = object;
  const head = {
    labels: sorted(metadata.labels ?? {}),
    annotations: sorted(metadata.annotations ?? {}),
    owners: (metadata.ownerReferences ?? []).map(
      (owner) => `${owner.apiVersion} ${owner.kind} ${owner.name}`,
    ),
  };
  if (kind === "Gateway") return { annotations: head.annotations };
  const spec = (object.spec ?? {}) as Fields;
  if (kind !== "Deployment") return { ...head, spec: sorted(spec) };
  const { metadata: pod = {}, spec: podSpec = {} } = (spec["template"] ?? {}) as Readonly<
    Record<string, Fields>
  >;
  const { template: _template, ...rest } = spec;
  return {
    ...head,
    spec: sorted(rest),
    account: podSpec["serviceAccountName"],
    podLabels: without(pod["labels"] as Fields, injectionFields),
    podAnnotations: without(pod["annotations"] as Fields, injectionFields),
  };
}

/** Istio's controller injects by itself; ours leaves it to the webhook and says so. */
const injectionFields: ReadonlySet<string> = new Set([
  "sidecar.istio.io/inject",
  "inject.istio.io/templates",
]);

function without(fields: Fields, names: ReadonlySet<string>): Fields {
  return sorted(Object.fromEntries(Object.entries(fields).filter(([name]) => !names.has(name))));
}

function sorted(fields: Fields): Fields {
  return Object.fromEntries(Object.entries(fields).toSorted(([a], [b]) => (a < b ? -1 : 1)));
}
