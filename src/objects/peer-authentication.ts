// PeerAuthentication: the shape of its spec, as its YAML says it.

import type { KubeObject } from "./object.ts";
import type { WorkloadSelector } from "./selector.ts";

export type PeerAuthentication = KubeObject<PeerAuthenticationSpec>;

export interface PeerAuthenticationSpec {
  readonly selector?: WorkloadSelector;
  readonly mtls?: PeerAuthenticationMutualTLS;
  readonly portLevelMtls?: Readonly<Record<string, PeerAuthenticationMutualTLS>>;
}

export interface PeerAuthenticationMutualTLS {
  readonly mode?: PeerAuthenticationMutualTLSMode;
}

export type PeerAuthenticationMutualTLSMode = "UNSET" | "DISABLE" | "PERMISSIVE" | "STRICT";
