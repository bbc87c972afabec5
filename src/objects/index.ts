export type { KubeObject, ObjectMeta, OwnerReference } from "./object.ts";
export { objectKey, refOf } from "./object.ts";
export type * from "./virtual-service.ts";
export type * from "./destination-rule.ts";
export type * from "./gateway.ts";
export type * from "./service-entry.ts";
export type * from "./workload-entry.ts";
export type * from "./workload-group.ts";
export { machineAccount, machineLabels } from "./workload-group.ts";
export type * from "./sidecar.ts";
export type * from "./envoy-filter.ts";
export type * from "./proxy-config.ts";
export type * from "./wasm-plugin.ts";
export type * from "./traffic-extension.ts";
export type * from "./peer-authentication.ts";
export type * from "./request-authentication.ts";
export type * from "./authorization-policy.ts";
export type * from "./telemetry.ts";
export type * from "./selector.ts";
export type * from "./mesh-config-shape.ts";
export type * from "./mesh-proxy-config.ts";
export type * from "./mesh-networks.ts";
export type * from "./gateway-api.ts";
export type * from "./ingress.ts";
export type { KindInfo } from "./kinds.ts";
export { groupOf, kindInfo, kindOf, kinds, resourceName, versionOf } from "./kinds.ts";
export { annotations, clusterDiscoveryVariable, labels, localityOfLabels } from "./labels.ts";
export { healthyCondition, machineAnnotations, machineEntryName } from "./machines.ts";
export {
  alternateHosts,
  compareHosts,
  hostMatches,
  hostsForNamespace,
  hostSubsetOf,
  intersectHosts,
  isWildcard,
  moreSpecificHost,
  mostSpecificHost,
  resolveGatewayName,
  resolveShortName,
} from "./host.ts";
export type { Protocol } from "./protocol.ts";
export { isHttp, isHttp2, isTcp, isTls, parseProtocol, protocolOfPort } from "./protocol.ts";
export { parseDurationMs, parseDurationNs, renderDuration } from "./duration.ts";
export {
  isDnsLabel,
  labelProblems,
  labelsSubsetOf,
  renderLabels,
  selectorMatches,
  serviceSelects,
} from "./label-match.ts";
export type { RoutingClaim } from "./claims.ts";
export { parseRoutingClaim } from "./claims.ts";
export {
  isHttpServer,
  isHttpsServerWithTermination,
  isPassthroughServer,
  isTcpServerWithTermination,
  isTlsServer,
  mayUpgradeToHttp3,
} from "./gateway-server.ts";
export { matchesConflict, mergeDelegateRoutes, mergeMatches } from "./delegate.ts";
export { sortRoutesByPrecedence } from "./route-order.ts";
export type { JwksServer } from "./jwks-uri.ts";
export { parseJwksUri } from "./jwks-uri.ts";
export { parseImageReference, parseModuleUrl, type ImageReference, type ModuleUrl } from "./module-url.ts";
export { regexFault } from "./regex.ts";
export { conditionFault, isPathTemplate, isTemplateLiteral, pathTemplateFault } from "./policy-values.ts";
export type { ProblemCode, ProblemRow } from "./problems.ts";
export { presentFilterName } from "./filter-names.ts";
export { makeProblem, problemTable } from "./problems.ts";
export { isCipher, isCurve } from "./validate/server-tls.ts";
export { canAuthorize } from "./validate/providers.ts";
export type { ValidationContext } from "./validate.ts";
export { admissionProblems, hasErrors, validateObject } from "./validate.ts";
export { schemaKinds } from "./schema.ts";
export type { EffectiveMeshConfig, ParsedMeshConfig } from "./mesh-config.ts";
export {
  controlPlaneNamespace,
  defaultMeshConfig,
  defaultProxyConfig,
  mergeProxyConfig,
  parseMeshConfig,
  parseMeshNetworks,
  parseProxyConfig,
  validateMeshConfig,
  validateMeshNetworks,
  validateProxyConfig,
} from "./mesh-config.ts";
export type { FieldStatus } from "./field-marks.ts";
export type { FieldRow } from "./fields.ts";
export {
  fieldStatus,
  fieldTable,
  renderFieldTable,
  unsupportedFieldWarnings,
  unsupportedMeshFields,
} from "./fields.ts";
export type { Manifest, ManifestDocument, ManifestProblem, Position } from "./manifest.ts";
export { parseManifest, placeProblem, renderPosition } from "./manifest.ts";
export { celFault } from "./validate/cel-syntax.ts";
export { parseYamlValue } from "./yaml-value.ts";
