export type { Identity, TrustDomains } from "./spiffe.ts";
export {
  expandPrincipalAliases,
  expandTrustDomains,
  isTrustDomainEnforced,
  matchesAny,
  parseSpiffeId,
  renderPrincipal,
  renderSpiffeId,
  replaceTrustDomain,
  sameIdentity,
  trustDomainOfPrincipal,
} from "./spiffe.ts";
export type { AuthorityMaterial, AuthorityOptions, SignOptions } from "./authority.ts";
export {
  CertificateAuthority,
  createSelfSignedMaterial,
  RefusedRequest,
  rootTtlSeconds,
  workloadTtlMaxSeconds,
  workloadTtlSeconds,
} from "./authority.ts";
export { mergeBundles, sameBundle } from "./bundle.ts";
export { splitPem } from "./keys.ts";
export { certificatesComplaint, keyPairComplaint, revocationsComplaint } from "./credential-pem.ts";
