// What the agent tells its Envoy of the workload by the environment, for the spans that it reports: configuration that many
// workloads share cannot name one of them.

export const traceEnvironment = {
  /** Istio's tags of spans, and the variables that hold their values. */
  tags: {
    "istio.canonical_revision": "MIZZEN_CANONICAL_REVISION",
    "istio.canonical_service": "MIZZEN_CANONICAL_SERVICE",
    "istio.cluster_id": "MIZZEN_CLUSTER_ID",
    "istio.mesh_id": "MIZZEN_MESH_ID",
    "istio.namespace": "MIZZEN_NAMESPACE",
  },
  /** OpenTelemetry's own variable: `service.name=...` and the like. */
  resource: "OTEL_RESOURCE_ATTRIBUTES",
  /** Datadog's own: the service's name, before what a listener says. */
  datadogService: "DD_SERVICE",
} as const;
