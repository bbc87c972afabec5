// What a pod's proxy goes by: MeshConfig's defaultConfig, over it the ProxyConfig objects that hold for the pod (the root
// namespace's, its own namespace's, the one that selects it), over these its own annotation `proxy.istio.io/config`.

import type { KubeObject, ProxyConfig } from "#objects";
import type { Plain } from "./pod.ts";
import { isPlain } from "./values.ts";

export interface PodFacts {
  readonly namespace: string;
  readonly rootNamespace: string;
  readonly labels: Readonly<Record<string, string>>;
}

/** The objects that hold for a pod, the weakest first; of several with equal reach the oldest alone, as in Istio. */
export function proxyConfigsFor(all: readonly ProxyConfig[], pod: PodFacts): readonly ProxyConfig[] {
  const { namespace, rootNamespace, labels } = pod;
  const here = all.filter(({ metadata }) => metadata.namespace === namespace).toSorted(oldestFirst);
  const ofRoot = all.filter(({ metadata }) => metadata.namespace === rootNamespace).toSorted(oldestFirst);
  const forMesh = ofRoot.find((one) => selectorOf(one) === undefined);
  const forNamespace =
    namespace === rootNamespace ? undefined : here.find((one) => selectorOf(one) === undefined);
  const forPod = here.find((one) => {
    const selector = selectorOf(one);
    return (
      selector !== undefined && Object.entries(selector).every(([name, value]) => labels[name] === value)
    );
  });
  return [forMesh, forNamespace, forPod].filter((one) => one !== undefined);
}

/** The later configurations over the earlier; environment variables (`proxyMetadata`) are merged one by one. */
export function mergeProxyConfigs(configs: readonly Plain[]): Plain {
  const merged: Plain = {};
  let metadata: Plain = {};
  for (const config of configs) {
    // One of the two names the service in traces: the later word goes before, whichever it is.
    if (config["tracingServiceName"] !== undefined) delete merged["serviceCluster"];
    if (config["serviceCluster"] !== undefined) delete merged["tracingServiceName"];
    Object.assign(merged, config);
    if (isPlain(config["proxyMetadata"])) metadata = { ...metadata, ...config["proxyMetadata"] };
  }
  if (Object.keys(metadata).length > 0) merged["proxyMetadata"] = metadata;
  return merged;
}

/** The fields of a ProxyConfig object under the names that MeshConfig's defaultConfig has for them. */
export function asDefaultConfig({ spec }: ProxyConfig): Plain {
  return {
    ...(spec?.concurrency === undefined ? {} : { concurrency: spec.concurrency }),
    ...(spec?.environmentVariables === undefined ? {} : { proxyMetadata: { ...spec.environmentVariables } }),
    ...(spec?.image === undefined ? {} : { image: { ...spec.image } }),
  };
}

function selectorOf({ spec }: ProxyConfig): Readonly<Record<string, string>> | undefined {
  const labels = spec?.selector?.matchLabels ?? {};
  return Object.keys(labels).length === 0 ? undefined : labels;
}

function oldestFirst({ metadata: a }: KubeObject, { metadata: b }: KubeObject): number {
  const ageOf = (text: string | undefined): string => text ?? "";
  if (a.creationTimestamp !== b.creationTimestamp)
    return ageOf(a.creationTimestamp) < ageOf(b.creationTimestamp) ? -1 : 1;
  return a.name < b.name ? -1 : 1;
}
