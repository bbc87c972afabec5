export type { Proxy, ProxyClass } from "./proxy.ts";
export { proxyClassText } from "./proxy.ts";
export { authorizationPoliciesOf, policiesFor } from "./authorization-policy.ts";
export type { DecidingPolicies, MtlsMode, MtlsModes, WorkloadPort } from "./peer-authentication.ts";
export { mtlsModeOf, mtlsModesOf, namespaceMtlsModeOf, portMode } from "./peer-authentication.ts";
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
export { environmentOf, readMesh, readProxyDefaults, readTrustDomains } from "./mesh.ts";
