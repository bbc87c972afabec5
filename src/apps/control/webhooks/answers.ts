// The two questions that the webhooks answer, as functions of the request alone: does this pod get a sidecar, is this object sound.

import { renderProblem, type Logger, type Problem } from "#base";
import {
  decideInjection,
  injectPod,
  withBootstrapOverlay,
  type InjectedProxy,
  type InjectionSettings,
  type Pod,
} from "#inject";
import type { KubeObject } from "#objects";
import jsonPatch from "fast-json-patch";
import { type AdmissionRequest, type AdmissionResponse, allow, fieldOf, refuse } from "./review.ts";

/** What injection goes by at the moment, from the ConfigMaps `istio` and `istio-sidecar-injector`. */
export type InjectionConfig = Omit<InjectionSettings, "namespace" | "workload">;

export interface Answers {
  /** The labels of a namespace; undefined when it is not known (yet): then its labels count as none. */
  readonly namespaceLabels: (name: string) => Readonly<Record<string, string>> | undefined;
  readonly injectionConfig: () => InjectionConfig;
  /** What EnvoyFilters lay over the bootstrap of a proxy, when any do. */
  readonly bootstrapOverlay?: (proxy: InjectedProxy) => object | undefined;
  /** Errors refuse the object, warnings are shown to whoever applies it. */
  readonly validateObject: (object: KubeObject) => readonly Problem[];
  readonly log: Logger;
  /** Counts under Istio's metric names. */
  readonly count?: (metric: WebhookMetric, labels: Readonly<Record<string, string>>) => void;
}

export type WebhookMetric =
  | "sidecar_injection_requests_total"
  | "sidecar_injection_success_total"
  | "sidecar_injection_failure_total"
  | "sidecar_injection_skip_total"
  | "galley_validation_passed"
  | "galley_validation_failed";

/** The API server cuts a warning off at about this length. */
const warningLengthMax = 256;

export function answerInject(request: AdmissionRequest, answers: Answers): AdmissionResponse {
  const { log, count } = answers;
  count?.("sidecar_injection_requests_total", {});
  if (request.kind.kind !== "Pod" || request.operation !== "CREATE") return allow(request);
  const pod = request.object as Pod;
  const namespace = request.namespace ?? pod.metadata?.namespace ?? "default";
  const config = answers.injectionConfig();
  const labels = answers.namespaceLabels(namespace) ?? {};
  const fields = { namespace, pod: pod.metadata?.name ?? pod.metadata?.generateName ?? "" };

  const decision = decideInjection(pod, { name: namespace, labels }, config.values);
  if (!decision.inject) {
    count?.("sidecar_injection_skip_total", {});
    log.debug({ ...fields, reason: decision.reason }, "no sidecar injected");
    return allow(request, warningsFor(request.object as KubeObject, answers));
  }
  const { pod: made, problems } = injectPod(pod, { ...config, namespace });
  if (problems.length > 0) {
    count?.("sidecar_injection_failure_total", {});
    const text = problems.map(renderProblem).join("; ");
    log.warn({ ...fields, problems: text }, "the sidecar cannot be injected");
    return refuse(request, text);
  }
  count?.("sidecar_injection_success_total", {});
  log.info({ ...fields, reason: decision.reason }, "sidecar injected");
  const { pod: injected, tooLong } = withBootstrapOverlay(made, namespace, (proxy) =>
    answers.bootstrapOverlay?.(proxy),
  );
  const warning =
    "the BOOTSTRAP patches of EnvoyFilters are too long together for a pod: it goes without them";
  if (tooLong) log.warn(fields, warning);
  const patch = Buffer.from(JSON.stringify(jsonPatch.compare(pod, injected))).toString("base64");
  return {
    ...allow(request, [...warningsFor(request.object as KubeObject, answers), ...(tooLong ? [warning] : [])]),
    patchType: "JSONPatch",
    patch,
  };
}

export function answerValidate(request: AdmissionRequest, answers: Answers): AdmissionResponse {
  if (request.operation === "DELETE" || request.object === undefined || request.object === null)
    return allow(request);
  const object = request.object as KubeObject;
  const problems = answers.validateObject(object);
  const warnings = problems.filter(({ severity }) => severity === "warning").map(renderWarning);
  const errors = problems.filter(({ severity }) => severity === "error");
  const { group, version, kind } = request.kind;
  if (errors.length === 0) {
    answers.count?.("galley_validation_passed", { group, version, resource: kind });
    return allow(request, warnings);
  }
  answers.count?.("galley_validation_failed", {
    group,
    version,
    resource: kind,
    reason: errors[0]?.code ?? "",
  });
  const name = fieldOf(fieldOf(object, "metadata"), "name");
  answers.log.info(
    { kind, namespace: request.namespace, name, problems: errors.map(({ code }) => code) },
    "object refused",
  );
  return refuse(request, errors.map(renderWithoutObject).join("; "), warnings);
}

/** Who makes a Pod by hand is warned here; whoever makes a Deployment was warned there, and its Pods' maker does not listen. */
function warningsFor(pod: KubeObject, answers: Answers): readonly string[] {
  if ((pod.metadata.ownerReferences ?? []).length > 0) return [];
  const problems = answers.validateObject(pod);
  return problems.filter(({ severity }) => severity === "warning").map(renderWarning);
}

function renderWarning(problem: Problem): string {
  const text = renderWithoutObject(problem);
  return text.length <= warningLengthMax ? text : `${text.slice(0, warningLengthMax - 3)}...`;
}

/** Whoever applies the object knows which it is. */
function renderWithoutObject(problem: Problem): string {
  return renderProblem({ ...problem, at: problem.at.path === undefined ? {} : { path: problem.at.path } });
}
