// AuthorizationPolicy: the shape of its spec, as its YAML says it.

import type { KubeObject } from "./object.ts";
import type { PolicyTargetReference, WorkloadSelector } from "./selector.ts";

export type AuthorizationPolicy = KubeObject<AuthorizationPolicySpec>;

export interface AuthorizationPolicySpec {
  readonly selector?: WorkloadSelector;
  readonly targetRef?: PolicyTargetReference;
  readonly targetRefs?: readonly PolicyTargetReference[];
  readonly rules?: readonly AuthorizationRule[];
  readonly action?: AuthorizationPolicyAction;
  readonly provider?: AuthorizationPolicyExtensionProvider;
}

export type AuthorizationPolicyAction = "ALLOW" | "DENY" | "AUDIT" | "CUSTOM";

export interface AuthorizationPolicyExtensionProvider {
  readonly name?: string;
}

export interface AuthorizationRule {
  readonly from?: readonly AuthorizationRuleFrom[];
  readonly to?: readonly AuthorizationRuleTo[];
  readonly when?: readonly AuthorizationCondition[];
}

export interface AuthorizationRuleFrom {
  readonly source?: AuthorizationSource;
}

export interface AuthorizationRuleTo {
  readonly operation?: AuthorizationOperation;
}

export interface AuthorizationSource {
  readonly principals?: readonly string[];
  readonly notPrincipals?: readonly string[];
  readonly requestPrincipals?: readonly string[];
  readonly notRequestPrincipals?: readonly string[];
  readonly namespaces?: readonly string[];
  readonly notNamespaces?: readonly string[];
  readonly serviceAccounts?: readonly string[];
  readonly notServiceAccounts?: readonly string[];
  readonly ipBlocks?: readonly string[];
  readonly notIpBlocks?: readonly string[];
  readonly remoteIpBlocks?: readonly string[];
  readonly notRemoteIpBlocks?: readonly string[];
  readonly trustDomains?: readonly string[];
  readonly notTrustDomains?: readonly string[];
}

export interface AuthorizationOperation {
  readonly hosts?: readonly string[];
  readonly notHosts?: readonly string[];
  readonly ports?: readonly string[];
  readonly notPorts?: readonly string[];
  readonly methods?: readonly string[];
  readonly notMethods?: readonly string[];
  readonly paths?: readonly string[];
  readonly notPaths?: readonly string[];
}

export interface AuthorizationCondition {
  readonly key: string;
  readonly values?: readonly string[];
  readonly notValues?: readonly string[];
}
