// All that a template reads: the pod as it came, what the mesh and the operator say, and the words for both.

import { proxyContainerName, type Plain, type Pod } from "./pod.ts";
import type { InjectionValues } from "./values.ts";
import type { Workload } from "./workload.ts";

/** The part of MeshConfig that injection reads; names as in MeshConfig. */
export interface InjectionMesh {
  readonly rootNamespace?: string;
  readonly trustDomain?: string;
  readonly enablePrometheusMerge?: boolean;
  readonly proxyListenPort?: number;
  readonly proxyInboundListenPort?: number;
  readonly inboundTrafficPolicy?: { readonly mode?: string };
  readonly extensionProviders?: readonly {
    readonly opentelemetry?: { readonly serviceAttributeEnrichment?: string };
  }[];
  /** MeshConfig.defaultConfig: a ProxyConfig. */
  readonly defaultConfig?: Plain;
}

export interface InjectionContext {
  readonly pod: Pod;
  readonly workload: Workload;
  readonly values: InjectionValues;
  readonly mesh: InjectionMesh;
  /** The mesh's defaultConfig under the pod's own annotation `proxy.istio.io/config`. */
  readonly proxyConfig: Plain;
  /** "" is the default revision. */
  readonly revision: string;
  readonly nativeSidecar: boolean;
}

export function annotation(context: InjectionContext, name: string): string | undefined {
  return context.pod.metadata?.annotations?.[name];
}

export function label(context: InjectionContext, name: string): string | undefined {
  return context.pod.metadata?.labels?.[name];
}

/** The annotation's text, or the operator's value when the pod says nothing. */
export function choose(
  context: InjectionContext,
  name: string,
  otherwise: string | number | boolean,
): string {
  return annotation(context, name) ?? String(otherwise);
}

/** REDIRECT, TPROXY or NONE. */
export function interceptionMode(context: InjectionContext): string {
  const configured = context.proxyConfig["interceptionMode"];
  return choose(
    context,
    "sidecar.istio.io/interceptionMode",
    typeof configured === "string" ? configured : "REDIRECT",
  );
}

/** Where the agent serves health and metrics; 0 when it does not. */
export function statusPort(context: InjectionContext): number {
  const configured = context.proxyConfig["statusPort"];
  const otherwise = typeof configured === "number" ? configured : context.values.global.proxy.statusPort;
  return Number(choose(context, "status.sidecar.istio.io/port", otherwise));
}

/** ProxyConfig.proxyMetadata: environment of the proxy, by name. */
export function proxyMetadata(context: InjectionContext): Readonly<Record<string, string>> {
  const metadata = context.proxyConfig["proxyMetadata"];
  if (typeof metadata !== "object" || metadata === null) return {};
  return Object.fromEntries(Object.entries(metadata).map(([name, value]) => [name, String(value)]));
}

export function holdsApplication(context: InjectionContext): boolean {
  const configured = context.proxyConfig["holdApplicationUntilProxyStarts"];
  return typeof configured === "boolean"
    ? configured
    : context.values.global.proxy.holdApplicationUntilProxyStarts;
}

export function trustDomain(context: InjectionContext): string {
  return (
    context.mesh.trustDomain || context.values.global.trustDomain || context.values.global.proxy.clusterDomain
  );
}

/** The names of the containers that are the user's own. */
export function applicationContainers(pod: Pod): string[] {
  return (pod.spec?.containers ?? []).map(({ name }) => name).filter((name) => name !== proxyContainerName);
}

/** The image under the operator's hub and tag, unless `named` is a whole image name already. */
export function image(context: InjectionContext, otherwise: string): string {
  const { hub, tag } = context.values.global;
  const named = choose(context, "sidecar.istio.io/proxyImage", otherwise);
  return named.includes("/") ? named : `${hub}/${named}:${tag}${imageVariant(context)}`;
}

/** The end of the tag for another build of the image, as Istio's `debug` and `distroless`; "" for the usual one. */
function imageVariant(context: InjectionContext): string {
  const configured = context.proxyConfig["image"] as { readonly imageType?: string } | undefined;
  const type = choose(context, "sidecar.istio.io/proxyImageType", configured?.imageType ?? "");
  return type === "" || type === "default" || context.values.global.tag.endsWith(`-${type}`)
    ? ""
    : `-${type}`;
}
