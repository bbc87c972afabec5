export { builtInClasses, gatewayController } from "./classes.ts";
export { backendCertificateOf, type BackendCertificate } from "./certificates.ts";
export { deployedAccountOf } from "./deployed.ts";
export { gatewayFeatures } from "./features.ts";
export { ownerGatewayOf } from "./generated.ts";
export { isGenerated } from "./names.ts";
export { configuredCaScheme } from "./policies.ts";
export { parseParameter } from "./parameters.ts";
export type { StandingStatus } from "./status.ts";
export {
  controllerVersion,
  deploymentFactsOf,
  renderStatus,
  statusKeysOf,
  statusKinds,
  wantedStatusOf,
  type DeploymentFacts,
  type StatusKey,
  type StatusKind,
  type WantedStatus,
} from "./written.ts";
