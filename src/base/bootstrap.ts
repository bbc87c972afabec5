// What injection hands to the agent of a pod for Envoy's bootstrap.

/** A variable of the agent's environment: JSON of Envoy's Bootstrap that goes over what the agent renders. */
export const bootstrapOverlayVariable = "MIZZEN_BOOTSTRAP_OVERLAY";

/** The bootstrap's cluster of the service that proxies tell of every request; Istio's name. */
export const accessLogServiceCluster = "envoy_accesslog_service";

/** The bootstrap's cluster of the collector of spans that ProxyConfig names by its address, by the tracer; Istio's names. */
export const tracerClusters = { zipkin: "zipkin", datadog: "datadog_agent" } as const;

export type BootstrapTracer = keyof typeof tracerClusters;

/** The field of a proxy's metadata that names the tracer for which its bootstrap has that cluster. */
export const tracerField = "BOOTSTRAP_TRACER";

export function isBootstrapTracer(name: string | undefined): name is BootstrapTracer {
  return name !== undefined && Object.hasOwn(tracerClusters, name);
}

/** The field of a proxy's metadata that says `true` where its bootstrap has that cluster. */
export const accessLogServiceField = "ENVOY_ACCESS_LOG_SERVICE";
