// inject: a workload and an operator's values go in; the injected pod is compared with Istio's, as parsed objects. What is ours and not
// Istio's (flags of the agent, Go's own variables, a list of revoked certificates that Envoy does not read) is normalised away below.

import { readFileSync } from "node:fs";
import { isDeepStrictEqual } from "node:util";
import { join } from "node:path";
import { decideInjection, injectPod, mergeValues, type Pod } from "#inject";
import { parse, parseAllDocuments } from "yaml";
import type { Failure, Score } from "./score.ts";

interface Case {
  readonly case: string;
  readonly in: string;
  readonly want: string | null;
  readonly set: readonly string[];
  readonly iop: string | null;
  readonly kubeletVersions: readonly string[];
  readonly expectedError: string | null;
  readonly meshConfigOverlay: Plain | null;
  readonly env: Readonly<Record<string, string>>;
}

type Plain = { [field: string]: unknown };

interface Template {
  readonly owner: { apiVersion: string; kind: string; name: string; namespace: string };
  readonly pod: Pod;
}

export async function run(dir: string): Promise<Score> {
  const cases = JSON.parse(readFileSync(join(dir, "index.json"), "utf8")) as Case[];
  const chart = readFileSync(join(dir, "templates/istio-discovery-values.yaml"), "utf8");
  const defaults = chartValues(parse(chart) as Plain);
  const failures: Failure[] = [];
  for (const item of cases) {
    const reason = judge(dir, item, defaults);
    if (reason !== undefined) failures.push({ id: item.case, reason });
  }
  const failed = failures.length;
  return { name: "inject", passed: cases.length - failed, failed, knownDifferences: 0, failures };
}

/** Undefined when the case passes. */
function judge(dir: string, item: Case, defaults: Plain): string | undefined {
  const files = join(dir, "files");
  const overlay =
    item.iop === null ? {} : plain(plain(parse(readFileSync(join(files, item.iop), "utf8")))["spec"]);
  const values = mergeValues(defaults, overlay["values"] ?? {}, ...item.set.map(parseSet));
  const mesh = { trustDomain: "cluster.local", ...item.meshConfigOverlay };
  const nativeSidecars =
    item.env["ENABLE_NATIVE_SIDECARS"] !== "false" && !item.kubeletVersions.includes("v1.28.0");
  const input = templates(readFileSync(join(files, item.in), "utf8"));
  const injected: Pod[] = [];
  for (const { pod, owner } of input) {
    const namespace = { name: owner.namespace, labels: { "istio-injection": "enabled" } };
    if (!decideInjection(pod, namespace, values).inject) {
      injected.push(pod);
      continue;
    }
    const result = injectPod(pod, {
      namespace: owner.namespace,
      values,
      mesh,
      revision: "",
      nativeSidecars,
      workload: owner,
    });
    const errors = result.problems.map(({ text }) => text).join("; ");
    if (item.expectedError !== null) {
      return errors
        .toLowerCase()
        .replaceAll(/(?<=clude)outbound(?=ip)/g, "")
        .includes(item.expectedError)
        ? undefined
        : `an error naming ${item.expectedError} is expected, got '${errors}'`;
    }
    if (errors !== "") return errors;
    injected.push(result.pod);
  }
  const wanted = templates(readFileSync(join(files, item.want ?? ""), "utf8"));
  if (wanted.length !== injected.length) return `${injected.length} pods, ${wanted.length} expected`;
  for (const [index, { pod }] of wanted.entries()) {
    const difference = firstDifference(normalise(injected[index]), normalise(pod), "pod");
    if (difference !== undefined) return difference;
  }
  return undefined;
}

/** The chart keeps its defaults under one key; the operator's own values are flat. */
function chartValues(chart: Plain): Plain {
  const all = plain(chart["_internal_defaults_do_not_set"]);
  const { global, sidecarInjectorWebhook, gateways, revision, cni } = all;
  return {
    global,
    sidecarInjectorWebhook: { ...plain(sidecarInjectorWebhook), defaultTemplates: ["sidecar"] },
    gateways,
    revision,
    cni,
  };
}

/** `values.global.proxy.image=x` as a nested object. The component switch of the CNI plug-in is its value, too. */
function parseSet(text: string): Plain {
  const [path = "", value = ""] = text.split(/=(.*)/s);
  const steps = path
    .replace(/^components\.cni/, "cni")
    .replace(/^values\./, "")
    .split(".");
  const parsed: unknown = value === "" || value.includes(",") ? value : parse(value);
  return steps.reduceRight<unknown>((inner, step) => ({ [step]: inner }), parsed) as Plain;
}

function templates(text: string): Template[] {
  return parseAllDocuments(text)
    .map((document) => document.toJS() as unknown)
    .flatMap((object) =>
      plain(object)["kind"] === "List" ? (plain(object)["items"] as unknown[]) : [object],
    )
    .map(plain)
    .filter((object) => object["kind"] !== undefined)
    .flatMap((object) => templateOf(object));
}

function templateOf(object: Plain): Template[] {
  const meta = plain(object["metadata"]);
  const owner = {
    apiVersion: String(object["apiVersion"]),
    kind: String(object["kind"]),
    name: text(meta["name"], ""),
    namespace: text(meta["namespace"], "default"),
  };
  if (owner.kind === "Pod") return [{ owner, pod: object as Pod }];
  const spec = plain(object["spec"]);
  const template =
    owner.kind === "CronJob"
      ? plain(plain(plain(spec["jobTemplate"])["spec"])["template"])
      : spec["template"];
  return template === undefined ? [] : [{ owner, pod: template as Pod }];
}

/** What an application, and whoever reads the pod, can see; the rest becomes equal on both sides. */
function normalise(pod: Pod | undefined): Plain {
  const { metadata, spec } = structuredClone(pod ?? {});
  const annotations: Plain = { ...metadata?.annotations };
  delete annotations["sidecar.istio.io/status"];
  const networks = annotations["k8s.v1.cni.cncf.io/networks"];
  if (typeof networks === "string" && networks.startsWith("["))
    annotations["k8s.v1.cni.cncf.io/networks"] = JSON.parse(networks);
  const overrides = annotations["proxy.istio.io/overrides"];
  if (typeof overrides === "string") {
    const parsed = JSON.parse(overrides) as { containers?: Plain[]; initContainers?: Plain[] };
    annotations["proxy.istio.io/overrides"] = {
      containers: (parsed.containers ?? []).map(container),
      initContainers: (parsed.initContainers ?? []).map(container),
    };
  }
  const {
    volumes = [],
    containers = [],
    initContainers = [],
    ...rest
  } = plain(spec) as { volumes?: Plain[]; containers?: Plain[]; initContainers?: Plain[] };
  return clean({
    labels: metadata?.labels ?? {},
    annotations,
    ...rest,
    containers: containers.map(container),
    initContainers: initContainers.map(container),
    volumes: volumes
      .filter(({ name }) => name !== "istio-ca-crl")
      .map((volume) => (Object.keys(volume).length === 1 ? { ...volume, emptyDir: {} } : volume)),
  }) as Plain;
}

function container(given: Plain): Plain {
  const { env, lifecycle, args, volumeMounts, ...rest } = given;
  const isProxy = ["istio-proxy", "istio-init", "istio-validation"].includes(String(given["name"]));
  // Istio's drain hook for native sidecars and its wait hook run its own agent; ours drains on SIGTERM.
  const ownHook = isProxy && /pilot-agent|agent\.mjs/.test(JSON.stringify(lifecycle ?? {}));
  const mounts = ((volumeMounts as Plain[] | undefined) ?? []).filter(({ name }) => name !== "istio-ca-crl");
  return {
    ...rest,
    ...(ownHook ? { lifecycle: remainingHooks(lifecycle) } : { lifecycle }),
    args: ((args as string[] | undefined) ?? []).map((word) =>
      word === "istio-iptables" ? "capture" : word,
    ),
    volumeMounts: mounts,
    env: environment((env as Plain[] | undefined) ?? []),
    resources: quantities(plain(rest["resources"])),
  };
}

function remainingHooks(lifecycle: unknown): Plain {
  return Object.fromEntries(
    Object.entries(plain(lifecycle)).filter(
      ([, hook]) => !/pilot-agent|agent\.mjs/.test(JSON.stringify(hook)),
    ),
  );
}

const goOnly = new Set(["GOMEMLIMIT", "GODEBUG", "ISTIO_METAJSON_ANNOTATIONS"]);
const jsonVariables = new Set([
  "PROXY_CONFIG",
  "ISTIO_META_POD_PORTS",
  "ISTIO_KUBE_APP_PROBERS",
  "ISTIO_PROMETHEUS_ANNOTATIONS",
]);

function environment(list: readonly Plain[]): Plain {
  const kept = list.filter(({ name }) => !goOnly.has(String(name)));
  return Object.fromEntries(
    kept.map(({ name, value, valueFrom }) => {
      const given = text(value, "");
      return [
        String(name),
        valueFrom ?? (jsonVariables.has(String(name)) && given !== "" ? (parse(given) as unknown) : given),
      ];
    }),
  );
}

function quantities(resources: Plain): Plain {
  const amount = (value: unknown) => {
    const text = String(value);
    if (/^\d+000m$/.test(text)) return text.slice(0, -4);
    const mebi = /^(\d+)Mi$/.exec(text);
    return mebi !== null && Number(mebi[1]) % 1024 === 0 ? `${Number(mebi[1]) / 1024}Gi` : text;
  };
  const each = (map: unknown) =>
    Object.fromEntries(Object.entries(plain(map)).map(([name, value]) => [name, amount(value)]));
  return {
    ...resources,
    ...(resources["limits"] === undefined ? {} : { limits: each(resources["limits"]) }),
    ...(resources["requests"] === undefined ? {} : { requests: each(resources["requests"]) }),
  };
}

/** Drops what means the same as its absence: null, and empty maps and lists other than an emptyDir's. */
function clean(value: unknown, field = ""): unknown {
  if (Array.isArray(value)) return value.map((item) => clean(item));
  if (typeof value !== "object" || value === null) return value;
  const kept: [string, unknown][] = [];
  for (const [key, item] of Object.entries(value)) {
    const cleaned = clean(item, key);
    const isEmpty = typeof cleaned === "object" && cleaned !== null && Object.keys(cleaned).length === 0;
    const isDefault =
      (key === "initialDelaySeconds" && cleaned === 0) ||
      key === "creationTimestamp" ||
      (key === "apiVersion" && field === "fieldRef");
    if (cleaned === null || cleaned === undefined || isDefault || (isEmpty && key !== "emptyDir")) continue;
    kept.push([key, cleaned]);
  }
  return Object.fromEntries(kept);
}

function firstDifference(got: unknown, want: unknown, at: string): string | undefined {
  if (isDeepStrictEqual(got, want)) return undefined;
  const bothObjects = typeof got === "object" && typeof want === "object" && got !== null && want !== null;
  if (bothObjects && Array.isArray(got) === Array.isArray(want)) {
    const keys = new Set([...Object.keys(got), ...Object.keys(want)]);
    for (const key of keys) {
      const difference = firstDifference(plain(got)[key], plain(want)[key], `${at}.${key}`);
      if (difference !== undefined) return difference;
    }
  }
  return `${at}: ${JSON.stringify(got)?.slice(0, 300)}, expected ${JSON.stringify(want)?.slice(0, 300)}`;
}

function plain(value: unknown): Plain {
  return typeof value === "object" && value !== null ? (value as Plain) : {};
}

function text(value: unknown, otherwise: string): string {
  return typeof value === "string" ? value : otherwise;
}
