// What an operator may set about injection. The names are those of Istio's Helm values, so that the values people have carry over;
// they stand in the ConfigMap `istio-sidecar-injector` under the key `values`, as YAML or JSON, and what is absent there is as here.

import { ports } from "#base";
import type { Plain } from "./pod.ts";

export interface InjectionValues {
  readonly revision: string;
  readonly cni: { readonly enabled: boolean; readonly provider: string };
  readonly gateways: { readonly securityContext: Plain };
  readonly global: GlobalValues;
  readonly sidecarInjectorWebhook: {
    readonly rewriteAppHTTPProbe: boolean;
    readonly enableNamespacesByDefault: boolean;
    readonly injectedAnnotations: Readonly<Record<string, string>>;
    readonly neverInjectSelector: readonly LabelSelector[];
    readonly alwaysInjectSelector: readonly LabelSelector[];
    /** Names of the templates of a pod that names none itself. */
    readonly defaultTemplates: readonly string[];
    /** Templates by name, as YAML. `sidecar` and `gateway` go on top of the built-in ones, others stand alone. */
    readonly templates: Readonly<Record<string, string>>;
  };
}

export interface LabelSelector {
  readonly matchLabels?: Readonly<Record<string, string>>;
  readonly matchExpressions?: readonly {
    readonly key: string;
    readonly operator: string;
    readonly values?: readonly string[];
  }[];
}

export interface GlobalValues {
  readonly hub: string;
  readonly tag: string;
  readonly istioNamespace: string;
  readonly imagePullPolicy: string;
  readonly imagePullSecrets: readonly string[];
  readonly caAddress: string;
  readonly pilotCertProvider: string;
  readonly trustDomain: string;
  readonly meshID: string;
  readonly network: string;
  readonly mountMtlsCerts: boolean;
  readonly logAsJson: boolean;
  readonly logging: { readonly level: string };
  readonly multiCluster: { readonly clusterName: string };
  readonly sds: { readonly token: { readonly aud: string } };
  readonly proxy: ProxyValues;
  readonly proxy_init: { readonly image: string; readonly forceApplyIptables: boolean };
}

export interface ProxyValues {
  readonly image: string;
  readonly autoInject: string;
  readonly clusterDomain: string;
  readonly logLevel: string;
  readonly componentLogLevel: string;
  readonly includeIPRanges: string;
  readonly excludeIPRanges: string;
  readonly includeInboundPorts: string;
  readonly excludeInboundPorts: string;
  readonly includeOutboundPorts: string;
  readonly excludeOutboundPorts: string;
  readonly privileged: boolean;
  readonly capNetBindService: string;
  readonly holdApplicationUntilProxyStarts: boolean;
  readonly statusPort: number;
  readonly readinessInitialDelaySeconds: number;
  readonly readinessPeriodSeconds: number;
  readonly readinessFailureThreshold: number;
  readonly startupProbe: { readonly enabled: boolean; readonly failureThreshold: number };
  readonly resources: Plain;
  readonly seccompProfile: Plain;
  readonly lifecycle?: Plain;
  readonly outlierLogPath: string;
}

export const defaultValues: InjectionValues = {
  revision: "",
  cni: { enabled: false, provider: "default" },
  gateways: { securityContext: {} },
  sidecarInjectorWebhook: {
    rewriteAppHTTPProbe: true,
    enableNamespacesByDefault: false,
    injectedAnnotations: {},
    neverInjectSelector: [],
    alwaysInjectSelector: [],
    defaultTemplates: ["sidecar"],
    templates: {},
  },
  global: {
    hub: "mizzen",
    tag: "0.1.0",
    istioNamespace: "istio-d",
    imagePullPolicy: "",
    imagePullSecrets: [],
    caAddress: "",
    pilotCertProvider: "istiod",
    trustDomain: "",
    meshID: "",
    network: "",
    mountMtlsCerts: false,
    logAsJson: false,
    logging: { level: "default:info" },
    multiCluster: { clusterName: "" },
    sds: { token: { aud: "istio-ca" } },
    proxy: {
      image: "proxyv2",
      autoInject: "enabled",
      clusterDomain: "cluster.local",
      logLevel: "warning",
      componentLogLevel: "misc:error",
      includeIPRanges: "*",
      excludeIPRanges: "",
      includeInboundPorts: "*",
      excludeInboundPorts: "",
      includeOutboundPorts: "",
      excludeOutboundPorts: "",
      privileged: false,
      capNetBindService: "",
      holdApplicationUntilProxyStarts: false,
      statusPort: ports.agent,
      readinessInitialDelaySeconds: 0,
      readinessPeriodSeconds: 15,
      readinessFailureThreshold: 4,
      startupProbe: { enabled: true, failureThreshold: 600 },
      resources: { requests: { cpu: "100m", memory: "128Mi" }, limits: { cpu: "2", memory: "512Mi" } },
      seccompProfile: {},
      outlierLogPath: "",
    },
    proxy_init: { image: "proxyv2", forceApplyIptables: false },
  },
};

/** Values over the defaults: objects are merged, lists and scalars replaced, a null removes a default (as Helm reads it). */
export function mergeValues(...overlays: readonly unknown[]): InjectionValues {
  return overlays.reduce<unknown>(mergeDeep, defaultValues) as InjectionValues;
}

function mergeDeep(base: unknown, overlay: unknown): unknown {
  if (overlay === undefined) return base;
  if (!isPlain(base) || !isPlain(overlay)) return overlay;
  const merged: Plain = { ...base };
  for (const [key, value] of Object.entries(overlay)) {
    if (value === null) delete merged[key];
    else merged[key] = mergeDeep(base[key], value);
  }
  return merged;
}

export function isPlain(value: unknown): value is Plain {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
