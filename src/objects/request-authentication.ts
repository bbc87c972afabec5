// RequestAuthentication: the shape of its spec, as its YAML says it.

import type { KubeObject } from "./object.ts";
import type { PolicyTargetReference, WorkloadSelector } from "./selector.ts";

export type RequestAuthentication = KubeObject<RequestAuthenticationSpec>;

export interface RequestAuthenticationSpec {
  readonly selector?: WorkloadSelector;
  readonly targetRef?: PolicyTargetReference;
  readonly targetRefs?: readonly PolicyTargetReference[];
  readonly jwtRules?: readonly JWTRule[];
}

export interface JWTRule {
  readonly issuer?: string;
  readonly audiences?: readonly string[];
  readonly jwksUri?: string;
  readonly jwks?: string;
  readonly fromHeaders?: readonly JWTHeader[];
  readonly fromParams?: readonly string[];
  readonly outputPayloadToHeader?: string;
  readonly fromCookies?: readonly string[];
  readonly forwardOriginalToken?: boolean;
  readonly outputClaimToHeaders?: readonly ClaimToHeader[];
  readonly timeout?: string;
  readonly spaceDelimitedClaims?: readonly string[];
  readonly presence?: "OPTIONAL" | "REQUIRED";
}

export interface JWTHeader {
  readonly name: string;
  readonly prefix?: string;
}

export interface ClaimToHeader {
  readonly header: string;
  readonly claim: string;
}
