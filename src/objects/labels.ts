// The labels and annotations by which people steer the mesh, under Istio's and Kubernetes' names.

export const labels = {
  /** Namespace: `enabled` injects the sidecar into its pods. */
  injection: "istio-injection",
  /** Namespace, Pod: the revision of the control plane. */
  revision: "istio.io/rev",
  /** MutatingWebhookConfiguration: a name for a revision. */
  tag: "istio.io/tag",
  /** Pod: overrides the namespace (also as an annotation, deprecated). */
  inject: "sidecar.istio.io/inject",
  /** Pod: `istio` when its sidecar ends mutual TLS. */
  tlsMode: "security.istio.io/tlsMode",
  canonicalName: "service.istio.io/canonical-name",
  canonicalRevision: "service.istio.io/canonical-revision",
  workloadName: "service.istio.io/workload-name",
  network: "topology.istio.io/network",
  cluster: "topology.istio.io/cluster",
  locality: "topology.istio.io/locality",
  subzone: "topology.istio.io/subzone",
  gatewayPort: "networking.istio.io/gatewayPort",
  gatewayManaged: "gateway.istio.io/managed",
  gatewayName: "gateway.networking.k8s.io/gateway-name",
  gatewayClassName: "gateway.networking.k8s.io/gateway-class-name",
  dataplaneMode: "istio.io/dataplane-mode",
  useWaypoint: "istio.io/use-waypoint",
  useWaypointNamespace: "istio.io/use-waypoint-namespace",
  ingressUseWaypoint: "istio.io/ingress-use-waypoint",
  waypointFor: "istio.io/waypoint-for",
  enableAutoallocateIp: "networking.istio.io/enable-autoallocate-ip",
  app: "app",
  version: "version",
  appName: "app.kubernetes.io/name",
  appVersion: "app.kubernetes.io/version",
  region: "topology.kubernetes.io/region",
  zone: "topology.kubernetes.io/zone",
  serviceName: "kubernetes.io/service-name",
  namespaceName: "kubernetes.io/metadata.name",
  /** Namespace: `on-demand` or `eager`, how its sidecars get clusters. Mizzen's own. */
  clusterDiscovery: "mizzen.io/cluster-discovery",
} as const;

/**
 * `region/zone/subzone` of a workload whose own labels say it; undefined where none does. Istio's older name counts where the newer is not
 * there. Values of labels hold no "/": separators may be written as dots.
 */
export function localityOfLabels(all: Readonly<Record<string, string>>): string | undefined {
  const label = all[labels.locality] ?? all[olderLocality];
  if (label === undefined || label === "") return undefined;
  return label.includes("/") ? label : label.replaceAll(".", "/");
}

const olderLocality = "istio-locality";

export const annotations = {
  mergeMetrics: "prometheus.istio.io/merge-metrics",
  prometheusScrape: "prometheus.io/scrape",
  prometheusPort: "prometheus.io/port",
  prometheusPath: "prometheus.io/path",
  prometheusScheme: "prometheus.io/scheme",
  exportTo: "networking.istio.io/exportTo",
  inject: "sidecar.istio.io/inject",
  status: "sidecar.istio.io/status",
  rewriteAppHttpProbers: "sidecar.istio.io/rewriteAppHTTPProbers",
  discoveryAddress: "sidecar.istio.io/discoveryAddress",
  proxyImage: "sidecar.istio.io/proxyImage",
  proxyImageType: "sidecar.istio.io/proxyImageType",
  proxyCpu: "sidecar.istio.io/proxyCPU",
  proxyCpuLimit: "sidecar.istio.io/proxyCPULimit",
  proxyMemory: "sidecar.istio.io/proxyMemory",
  proxyMemoryLimit: "sidecar.istio.io/proxyMemoryLimit",
  interceptionMode: "sidecar.istio.io/interceptionMode",
  bootstrapOverride: "sidecar.istio.io/bootstrapOverride",
  statsInclusionPrefixes: "sidecar.istio.io/statsInclusionPrefixes",
  statsInclusionSuffixes: "sidecar.istio.io/statsInclusionSuffixes",
  statsInclusionRegexps: "sidecar.istio.io/statsInclusionRegexps",
  statsHistogramBuckets: "sidecar.istio.io/statsHistogramBuckets",
  userVolume: "sidecar.istio.io/userVolume",
  userVolumeMount: "sidecar.istio.io/userVolumeMount",
  statusPort: "status.sidecar.istio.io/port",
  logLevel: "sidecar.istio.io/logLevel",
  componentLogLevel: "sidecar.istio.io/componentLogLevel",
  agentLogLevel: "sidecar.istio.io/agentLogLevel",
  nativeSidecar: "sidecar.istio.io/nativeSidecar",
  readinessInitialDelaySeconds: "readiness.status.sidecar.istio.io/initialDelaySeconds",
  readinessPeriodSeconds: "readiness.status.sidecar.istio.io/periodSeconds",
  readinessFailureThreshold: "readiness.status.sidecar.istio.io/failureThreshold",
  readinessApplicationPorts: "readiness.status.sidecar.istio.io/applicationPorts",
  nodeSelector: "traffic.istio.io/nodeSelector",
  includeOutboundIpRanges: "traffic.sidecar.istio.io/includeOutboundIPRanges",
  excludeOutboundIpRanges: "traffic.sidecar.istio.io/excludeOutboundIPRanges",
  includeInboundPorts: "traffic.sidecar.istio.io/includeInboundPorts",
  excludeInboundPorts: "traffic.sidecar.istio.io/excludeInboundPorts",
  includeOutboundPorts: "traffic.sidecar.istio.io/includeOutboundPorts",
  excludeOutboundPorts: "traffic.sidecar.istio.io/excludeOutboundPorts",
  excludeInterfaces: "traffic.sidecar.istio.io/excludeInterfaces",
  kubevirtInterfaces: "traffic.sidecar.istio.io/kubevirtInterfaces",
  rerouteVirtualInterfaces: "istio.io/reroute-virtual-interfaces",
  ingressClass: "kubernetes.io/ingress.class",
  analyzeSuppress: "galley.istio.io/analyze-suppress",
  proxyConfig: "proxy.istio.io/config",
  proxyOverrides: "proxy.istio.io/overrides",
  dryRun: "istio.io/dry-run",
  injectTemplates: "inject.istio.io/templates",
  extraStatTags: "sidecar.istio.io/extraStatTags",
  trafficDistribution: "networking.istio.io/traffic-distribution",
  serviceType: "networking.istio.io/service-type",
  controlPlaneClusters: "topology.istio.io/controlPlaneClusters",
  /** Pod: as the label of the namespace, which it overrides. Mizzen's own. */
  clusterDiscovery: "mizzen.io/cluster-discovery",
} as const;

/** In MeshConfig's `defaultConfig.proxyMetadata`, a map that Istio leaves open: as the label `clusterDiscovery`. */
export const clusterDiscoveryVariable = "CLUSTER_DISCOVERY";
