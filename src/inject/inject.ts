// Pod in, pod with a sidecar out. The order of the steps, and who wins over whom, is Istio's: the template is laid over the pod, then the
// user's own `istio-proxy` container over the template, then probes, metrics and order are seen to.

import type { Problem } from "#base";
import type { ProxyConfig } from "#objects";
import { parse } from "yaml";
import { checkAnnotations } from "./annotations.ts";
import {
  annotation,
  holdsApplication,
  type InjectionContext,
  type InjectionMesh,
  statusPort,
} from "./context.ts";
import { customTemplate } from "./custom-template.ts";
import { gatewayTemplate } from "./gateway-template.ts";
import { mergePod } from "./merge.ts";
import {
  type Container,
  findContainer,
  initContainerName,
  type Plain,
  type Pod,
  proxyContainerName,
  validationContainerName,
} from "./pod.ts";
import { isTrue } from "./policy.ts";
import { rewriteProbes } from "./probes.ts";
import { asDefaultConfig, mergeProxyConfigs, proxyConfigsFor } from "./proxy-config.ts";
import { mergePrometheus } from "./prometheus.ts";
import { sidecarTemplate } from "./sidecar-template.ts";
import { type InjectionValues, isPlain } from "./values.ts";
import { type Workload, workloadOf } from "./workload.ts";

export interface InjectionSettings {
  readonly namespace: string;
  readonly values: InjectionValues;
  readonly mesh: InjectionMesh;
  /** The ProxyConfig objects of the mesh; those that hold for the pod are chosen here. */
  readonly proxyConfigs?: readonly ProxyConfig[];
  /** "" or "default" is the default revision. */
  readonly revision: string;
  /** Whether the nodes start init containers with `restartPolicy: Always` as sidecars (Kubernetes 1.29 or later). */
  readonly nativeSidecars: boolean;
  /** Who owns the pod, where the caller knows better than the pod's owner references. */
  readonly workload?: Workload;
}

export interface InjectionResult {
  /** The pod as it came when a problem is an error. */
  readonly pod: Pod;
  readonly problems: readonly Problem[];
}

const builtIn: Readonly<Record<string, (context: InjectionContext) => Pod>> = {
  sidecar: sidecarTemplate,
  gateway: gatewayTemplate,
};

/** Does not ask whether: that is `decideInjection`. The pod that is handed in stays as it is. */
export function injectPod(pod: Pod, settings: InjectionSettings): InjectionResult {
  // Later steps change containers in place, and merging shares those that no template touches.
  const context = contextOf(structuredClone(pod), settings);
  const problems = [...checkAnnotations(pod), ...context.problems];
  if (problems.length > 0) return { pod, problems };
  try {
    return { pod: build(context.context), problems: [] };
  } catch (cause) {
    if (!(cause instanceof SyntaxError)) throw cause;
    return { pod, problems: [templateProblem(cause.message)] };
  }
}

function contextOf(
  pod: Pod,
  settings: InjectionSettings,
): { context: InjectionContext; problems: Problem[] } {
  const { values, mesh, revision, namespace } = settings;
  const annotations = pod.metadata?.annotations ?? {};
  const problems: Problem[] = [];
  const own = parseOwnConfig(annotations["proxy.istio.io/config"], problems);
  const objects = proxyConfigsFor(settings.proxyConfigs ?? [], {
    namespace,
    rootNamespace: mesh.rootNamespace || values.global.istioNamespace,
    labels: pod.metadata?.labels ?? {},
  });
  const proxyConfig = mergeProxyConfigs([mesh.defaultConfig ?? {}, ...objects.map(asDefaultConfig), own]);
  const native = annotations["sidecar.istio.io/nativeSidecar"];
  const context: InjectionContext = {
    pod,
    workload: settings.workload ?? workloadOf(pod, namespace),
    values,
    mesh,
    proxyConfig,
    revision,
    nativeSidecar: native === undefined ? settings.nativeSidecars : isTrue(native),
  };
  return { context, problems };
}

function parseOwnConfig(text: string | undefined, problems: Problem[]): Plain {
  if (text === undefined) return {};
  const at = { path: "metadata.annotations[proxy.istio.io/config]" };
  try {
    const parsed: unknown = parse(text);
    if (isPlain(parsed)) return parsed;
    problems.push({
      code: "MZ0802",
      severity: "error",
      at,
      text: "proxy.istio.io/config is not a YAML object",
      fix: "write the fields of ProxyConfig, as `concurrency: 2`",
    });
  } catch (cause) {
    problems.push({
      code: "MZ0802",
      severity: "error",
      at,
      text: `proxy.istio.io/config is not YAML: ${String(cause)}`,
      fix: "write the fields of ProxyConfig, as `concurrency: 2`",
    });
  }
  return {};
}

function templateProblem(text: string): Problem {
  return {
    code: "MZ0803",
    severity: "error",
    at: { object: { kind: "ConfigMap", namespace: "", name: "istio-sidecar-injector" }, path: "data.values" },
    text,
    fix: "correct the template, or the annotation inject.istio.io/templates that names it",
  };
}

function build(context: InjectionContext): Pod {
  const { pod, values } = context;
  const template = templatesOf(context).reduce<Pod>(
    (patch, name) => mergePod(patch, render(name, context)),
    {},
  );
  const merged = reapplyOwn(mergePod(moveProxy(pod, template), template), template, pod);
  mergePrometheus(merged, context.mesh.enablePrometheusMerge ?? true);
  // The annotations of the merged pod, as a template may turn the rewriting off.
  const asked = merged.metadata?.annotations?.["sidecar.istio.io/rewriteAppHTTPProbers"];
  if (asked === undefined ? values.sidecarInjectorWebhook.rewriteAppHTTPProbe : isTrue(asked))
    rewriteProbes(merged, statusPort(context));
  reorder(merged, holdsApplication(context));
  return annotate(merged, template, context);
}

function templatesOf(context: InjectionContext): readonly string[] {
  const named = annotation(context, "inject.istio.io/templates")
    ?.split(",")
    .map((name) => name.trim());
  const names = named ?? context.values.sidecarInjectorWebhook.defaultTemplates;
  return [...new Set(names.filter((name) => name !== ""))];
}

function render(name: string, context: InjectionContext): Pod {
  const own = context.values.sidecarInjectorWebhook.templates[name];
  const base = builtIn[name]?.(context);
  if (base === undefined && own === undefined) {
    const known = [
      ...Object.keys(builtIn),
      ...Object.keys(context.values.sidecarInjectorWebhook.templates),
    ].join(", ");
    throw new SyntaxError(`there is no injection template ${name}; there are ${known}`);
  }
  const overlay = own === undefined ? {} : customTemplate(name, own, context);
  return base === undefined ? overlay : mergePod(base, overlay);
}

/** A user's `istio-proxy` stands where the template puts it: for a native sidecar among the init containers. */
function moveProxy(pod: Pod, template: Pod): Pod {
  const isNative = template.spec?.initContainers?.some(({ name }) => name === proxyContainerName) ?? false;
  const containers = pod.spec?.containers ?? [];
  const own = containers.find(({ name }) => name === proxyContainerName);
  if (!isNative || own === undefined) return pod;
  return {
    ...pod,
    spec: {
      ...pod.spec,
      containers: containers.filter((container) => container !== own),
      initContainers: [...(pod.spec?.initContainers ?? []), own],
    },
  };
}

/** What the user wrote about an injected container wins over the template. `image: auto` asks for the template's image. */
function reapplyOwn(merged: Pod, template: Pod, original: Pod): Pod {
  const overrides: { initContainers?: Container[]; containers?: Container[] } = {};
  let result = merged;
  for (const field of ["containers", "initContainers"] as const) {
    const own = (template.spec?.[field] ?? [])
      .map(({ name }) => findContainer(original, name))
      .filter((container) => container !== undefined)
      .map(({ image, ...container }) =>
        image === "auto" || image === undefined ? container : { ...container, image },
      )
      // Containers of the application that a template only adds to are merged already.
      .filter(({ name }) => [proxyContainerName, initContainerName, validationContainerName].includes(name));
    if (own.length === 0) continue;
    overrides[field] = own;
    result = mergePod(result, { spec: { [field]: own } });
  }
  if (Object.keys(overrides).length === 0) return result;
  const annotations = {
    ...result.metadata?.annotations,
    "proxy.istio.io/overrides": JSON.stringify(overrides),
  };
  return { ...result, metadata: { ...result.metadata, annotations } };
}

/**
 * A native sidecar comes first, after capture is set up, so that later init containers are in the mesh. Otherwise capture comes last, as
 * nothing would answer before the proxy runs, and the proxy last too, so that tools default to the application, unless it holds it back.
 */
function reorder(pod: Pod, holds: boolean): void {
  const spec = pod.spec;
  if (spec === undefined) return;
  if (spec.containers !== undefined)
    spec.containers = move(spec.containers, [proxyContainerName], holds ? "first" : "last");
  if (spec.initContainers === undefined) return;
  const isNative = spec.initContainers.some(({ name }) => name === proxyContainerName);
  if (isNative) {
    spec.initContainers = move(
      spec.initContainers,
      [initContainerName, validationContainerName, proxyContainerName],
      "first",
    );
  } else {
    spec.initContainers = move(
      move(spec.initContainers, [validationContainerName], "first"),
      [initContainerName],
      "last",
    );
  }
}

function move(containers: readonly Container[], names: readonly string[], to: "first" | "last"): Container[] {
  const moved = names.flatMap((name) => containers.filter((container) => container.name === name));
  const rest = containers.filter(({ name }) => !names.includes(name));
  return to === "first" ? [...moved, ...rest] : [...rest, ...moved];
}

function annotate(pod: Pod, template: Pod, context: InjectionContext): Pod {
  const names = (items: readonly { name: string }[] | undefined) => items?.map(({ name }) => name) ?? null;
  const status = {
    initContainers: names(template.spec?.initContainers),
    containers: names(template.spec?.containers),
    volumes: names(template.spec?.volumes),
    imagePullSecrets: names(template.spec?.imagePullSecrets),
    revision: context.revision || "default",
  };
  const { network } = context.values.global;
  const hasNetwork = network === "" || pod.metadata?.labels?.["topology.istio.io/network"] !== undefined;
  return {
    ...pod,
    metadata: {
      ...pod.metadata,
      labels: { ...pod.metadata?.labels, ...(hasNetwork ? {} : { "topology.istio.io/network": network }) },
      annotations: {
        ...pod.metadata?.annotations,
        ...context.values.sidecarInjectorWebhook.injectedAnnotations,
        "sidecar.istio.io/status": JSON.stringify(status),
      },
    },
  };
}
