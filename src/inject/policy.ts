// Whether a pod gets a sidecar. The rules and their order are Istio's:
// https://istio.io/latest/docs/setup/additional-setup/sidecar-injection/#controlling-the-injection-policy

import type { Pod } from "./pod.ts";
import type { InjectionValues, LabelSelector } from "./values.ts";

export interface InjectionDecision {
  readonly inject: boolean;
  /** One clause, for logs and for whoever asks why. */
  readonly reason: string;
}

/** Namespaces of the cluster's own machinery: a sidecar there could cut the cluster off from itself. */
const systemNamespaces: ReadonlySet<string> = new Set([
  "kube-system",
  "kube-public",
  "kube-node-lease",
  "local-path-storage",
]);

/** `namespaceLabels` are those of the pod's namespace; the webhook's selectors have usually looked at them already. */
export function decideInjection(
  pod: Pod,
  namespace: { readonly name: string; readonly labels: Readonly<Record<string, string>> },
  values: InjectionValues,
): InjectionDecision {
  const labels = pod.metadata?.labels ?? {};
  const annotations = pod.metadata?.annotations ?? {};
  if (pod.spec?.hostNetwork === true)
    return no("it uses the host's network, whose traffic a sidecar must not capture");
  if (systemNamespaces.has(namespace.name))
    return no(`${namespace.name} is a namespace of the cluster itself`);
  if (annotations["sidecar.istio.io/status"] !== undefined) return no("it has a sidecar already");

  const asked = labels["sidecar.istio.io/inject"] ?? annotations["sidecar.istio.io/inject"];
  if (asked !== undefined && asked !== "") {
    return isTrue(asked)
      ? yes(`sidecar.istio.io/inject is ${asked}`)
      : no(`sidecar.istio.io/inject is ${asked}`);
  }
  const webhook = values.sidecarInjectorWebhook;
  if (webhook.neverInjectSelector.some((selector) => selects(selector, labels)))
    return no("a neverInjectSelector matches its labels");
  if (webhook.alwaysInjectSelector.some((selector) => selects(selector, labels)))
    return yes("an alwaysInjectSelector matches its labels");
  return decideByNamespace(labels, namespace, values);
}

function decideByNamespace(
  podLabels: Readonly<Record<string, string>>,
  namespace: { readonly name: string; readonly labels: Readonly<Record<string, string>> },
  values: InjectionValues,
): InjectionDecision {
  const injection = namespace.labels["istio-injection"];
  const revision = podLabels["istio.io/rev"] ?? namespace.labels["istio.io/rev"];
  if (injection === "enabled") return yes(`namespace ${namespace.name} has istio-injection=enabled`);
  if (injection === "disabled") return no(`namespace ${namespace.name} has istio-injection=disabled`);
  if (revision !== undefined) return yes(`istio.io/rev is ${revision}`);
  if (values.sidecarInjectorWebhook.enableNamespacesByDefault)
    return yes("namespaces are injected unless they say otherwise");
  return no(`namespace ${namespace.name} is not labelled istio-injection=enabled or istio.io/rev`);
}

function yes(reason: string): InjectionDecision {
  return { inject: true, reason };
}

function no(reason: string): InjectionDecision {
  return { inject: false, reason };
}

/** The words for true that Istio took over from YAML 1.1. */
export function isTrue(text: string): boolean {
  return ["y", "yes", "true", "on", "1", "t"].includes(text.toLowerCase());
}

function selects(selector: LabelSelector, labels: Readonly<Record<string, string>>): boolean {
  const exact = Object.entries(selector.matchLabels ?? {});
  const expressions = selector.matchExpressions ?? [];
  // An empty selector here would take or leave every pod by mistake; Istio ignores it too.
  if (exact.length === 0 && expressions.length === 0) return false;
  return (
    exact.every(([key, value]) => labels[key] === value) &&
    expressions.every(({ key, operator, values = [] }) => {
      const value = labels[key];
      if (operator === "Exists") return value !== undefined;
      if (operator === "DoesNotExist") return value === undefined;
      if (operator === "In") return value !== undefined && values.includes(value);
      if (operator === "NotIn") return value === undefined || !values.includes(value);
      return false;
    })
  );
}
