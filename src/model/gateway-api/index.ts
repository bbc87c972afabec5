export { builtInClasses, gatewayClassOf, gatewayController, type GatewayClassFacts } from "./classes.ts";
export { deployedName, isDeployed } from "./addresses.ts";
export type { Finding, Findings } from "./findings.ts";
export { classStatusOf, gatewayStatusOf, listenerSetStatusOf, type GatewayStatus } from "./gateway-status.ts";
export { allListenersOf } from "./parents.ts";
export { backendStatusOf, backendTlsPolicyOf } from "./policies.ts";
export { routeKinds, type RouteKey, type RouteKind } from "./references.ts";
export { routeStatusOf, type ParentStatus } from "./routes.ts";
export { isGenerated } from "./names.ts";
export {
  renderConditions,
  renderGatewayStatus,
  renderListenerSetStatus,
  renderPolicyStatus,
  renderRouteStatus,
  type StandingStatus,
  type StatusMoment,
} from "./status.ts";
