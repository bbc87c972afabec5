export type { Proxy, ProxyClass } from "./proxy.ts";
export { dnsCaptureField, istioVersion, proxyClassText, proxyFacts, selfDiscoveryField } from "./proxy.ts";
export type { ProxyTuning } from "./proxy-tuning.ts";
export { readOwnTuning, readTuning, tuningIn } from "./proxy-tuning.ts";
export type { ExtAuthzService } from "./authorization-policy.ts";
export { authorizationPoliciesOf, extAuthzServicesOf, policiesFor } from "./authorization-policy.ts";
export type { DecidingPolicies, MtlsMode, MtlsModes, WorkloadPort } from "./peer-authentication.ts";
export { mtlsModeOf, mtlsModesOf, namespaceMtlsModeOf, portMode } from "./peer-authentication.ts";
export { nobodysKeys, usableKeys } from "./jwks.ts";
export type { FetchedKeys, JwtRules, KeySource, ResolvedRule } from "./request-authentication.ts";
export {
  jwksServicesOf,
  jwksTable,
  jwksUris,
  jwtRulesOf,
  remoteUris,
  uriOf,
} from "./request-authentication.ts";
export { routers, type Router } from "./routers.ts";
export { rangeHas } from "./claims.ts";
export { keyNamesOf } from "./router-credentials.ts";
export type { SecretReader } from "./secret-readers.ts";
export { mayReadSecrets, secretReadersInQuestion, secretReaderTable } from "./secret-readers.ts";
export type { Labels } from "./selectors.ts";
export { oldestFirst, selects, targets } from "./selectors.ts";
export type { WorkloadKey } from "./workload.ts";
export { workloadOf, workloadText } from "./workload.ts";
export type { InboundPort, InboundScope, InboundTarget, Upstream } from "./inbound.ts";
export {
  inboundPortsOf,
  inboundScopeOf,
  inboundScopeText,
  inboundTargetsOf,
  ingressSidecarOf,
} from "./inbound.ts";
export { instanceAddresses, instanceAddressesField } from "./workload.ts";
export type { Environment, ForeignRoutes, ResolvedName, RouteDelivery, TableKind } from "./tables.ts";
export {
  defaultEnvironment,
  environmentRow,
  environmentTable,
  everything,
  meshConfigTable,
  meshRow,
  resolvedNamesTable,
  tableOf,
  tables,
} from "./tables.ts";
export type {
  ConfigMap,
  EndpointSlice,
  KubeServicePort,
  Namespace,
  Node,
  Pod,
  Secret,
  Service,
} from "./core-kinds.ts";
export { namespaceOf } from "./core-kinds.ts";
export type { WorldOptions } from "./world.ts";
export {
  environmentChange,
  meshConfigChange,
  meshConfigOf,
  meshNetworksChange,
  meshNetworksOf,
  objectChange,
  removalChange,
  worldChanges,
} from "./world.ts";
export {
  bySpecificity,
  fullHost,
  hostCovers,
  hostGroup,
  hostGroups,
  hostsMeet,
  isWildcard,
  wildcardsOf,
} from "./hosts.ts";
export type { PortWords, Protocol } from "./protocol.ts";
export { isHttp, isHttp2, isTls, listenerProtocol, parseProtocol, selectProtocol } from "./protocol.ts";
export type { MeshPort, MeshService, Resolution } from "./services.ts";
export {
  aliasesOf,
  byAge as byServiceAge,
  isExportedTo,
  kubeRowOf,
  serviceKey,
  serviceNamespaces,
  serviceOf,
  servicePorts,
  servicesOfHost,
  servicesOfNamespace,
  servicesOfPort,
  wantsAutoAddresses,
} from "./services.ts";
export type { NetworkGateway } from "./networks.ts";
export { gatewayNames, gatewaysOfNetwork, networksMatter } from "./networks.ts";
export type { AddressPair } from "./auto-address.ts";
export { chooseAddress, pairOf } from "./auto-address.ts";
export type { DnsName } from "./dns-names.ts";
export { dnsNamesOf } from "./dns-names.ts";
export { endpointSelector } from "./place-labels.ts";
export type { Endpoint } from "./endpoints.ts";
export { addressesOf, datagramEndpointsOf, endpointsOf, podFacts, serviceAccountsOf } from "./endpoints.ts";
export { meshBalancing } from "./mesh-balancing.ts";
export { localityLabels, networkLabel, nodeLabel, partOfLocality } from "./locality-labels.ts";
export type { DnsScope, Egress, Import, OutboundScope, Outlet, UnknownTraffic } from "./scope.ts";
export {
  anyClient,
  anyOutlet,
  egressAt,
  egressOf,
  isOwnOutlet,
  importsAll,
  isImported,
  isPublicMesh,
  isPublicNamespace,
  nodesMatter,
  outboundScopeOf,
  outletText,
  scopeText,
  unknownTrafficOf,
  visibleNamespaces,
  visibleService,
  visibleServices,
} from "./scope.ts";
export type { MergedRule, OriginatedCredential, RuleQuestion } from "./destination-rule.ts";
export {
  asksForLocality,
  clientTlsOf,
  failoverLabelsOf,
  failoverLabelsOfHost,
  mergedRule,
  namespaceNamesCredentials,
  selectedCredentials,
  namespacesWithRules,
  noRule,
  rulesFor,
  subsetNames,
} from "./destination-rule.ts";
export { asksOutside, persistsSessions, readRouteFilterNeeds } from "./route-filters.ts";
export type { RouteFacts, StreamRoutes } from "./virtual-service.ts";
export {
  destinationsOf,
  httpRoutesOf,
  hostsAside,
  routesToDynamicHosts,
  mayRoute,
  namespacesWithRoutes,
  ownersOf,
  routeFacts,
  routesFor,
  streamRoutesFor,
  streamRoutesOf,
  visibleRoutes,
} from "./virtual-service.ts";
export type { ClusterDiscovery } from "./cluster-discovery.ts";
export { clusterDiscoveryOf } from "./cluster-discovery.ts";
export {
  environmentOf,
  readMesh,
  readProxyDefaults,
  readCallersTrustDomains,
  readTrustDomains,
} from "./mesh.ts";
export type {
  GatewayConflict,
  GatewayListener,
  GatewayScope,
  MergedGateway,
  MergedServer,
  ServerKind,
} from "./gateway.ts";
export { gatewayScopeOf, gatewayScopeText, hostsForNamespace, mergedGatewayOf } from "./gateway.ts";
export type { Credential, KeyPair, NamedSecret, TrustedCa } from "./credentials.ts";
export { configuredCaOf, keyPairOf, namedSecret, trustedCaOf, uselessness } from "./credentials.ts";
export type { GatewayBinding } from "./gateway-routes.ts";
export {
  boundRoutes,
  datagramRouteOf,
  destinationKey,
  gatewayServices,
  routesDynamically,
} from "./gateway-routes.ts";
export type { ExtensionPhase, ExtensionRef, ExtensionSide } from "./traffic-extension.ts";
export {
  extensionPhases,
  extensionPorts,
  extensionRow,
  extensionsOf,
  moduleServicesOf,
  phaseOf,
} from "./traffic-extension.ts";
export type { FetchedModule, FetchedUrl, ModuleRequest, ModuleSource } from "./wasm-module.ts";
export { failsOpen, fetchedModules, moduleRequests, moduleSourceOf } from "./wasm-module.ts";
export type { DisabledMetrics, IstioMetric, LogSpec, WorkloadLogs } from "./telemetry.ts";
export { accessLogsOf, builtInLogProvider, disabledMetricsOf, metricTagsOf } from "./telemetry.ts";
export type { MetricTags, TagChange } from "./telemetry.ts";
export type { ProviderService, WorkloadTracing } from "./tracing.ts";
export {
  logServiceSettings,
  providerService,
  secretServiceOf,
  tracedByTelemetry,
  tracingOf,
} from "./tracing.ts";
export { envoyFiltersOf } from "./envoy-filter.ts";
export { gatewayProblemsOf } from "./gateway-problems.ts";
export { objectProblemsOf, problemsKey } from "./object-problems.ts";
export * from "./gateway-api/index.ts";
export * from "./ingress/index.ts";
