// WasmPlugin: the shape of its spec, as its YAML says it.

import type { KubeObject } from "./object.ts";
import type {
  PolicyTargetReference,
  WorkloadSide,
  WorkloadPortSelector,
  WorkloadSelector,
} from "./selector.ts";

export type WasmPlugin = KubeObject<WasmPluginSpec>;

export interface WasmPluginSpec {
  readonly selector?: WorkloadSelector;
  readonly targetRef?: PolicyTargetReference;
  readonly targetRefs?: readonly PolicyTargetReference[];
  readonly url: string;
  readonly sha256?: string;
  readonly imagePullPolicy?: PullPolicy;
  readonly imagePullSecret?: string;
  readonly verificationKey?: string;
  readonly pluginConfig?: Readonly<Record<string, unknown>>;
  readonly pluginName?: string;
  readonly phase?: PluginPhase;
  readonly priority?: number;
  readonly failStrategy?: FailStrategy;
  readonly vmConfig?: VmConfig;
  readonly match?: readonly WasmPluginTrafficSelector[];
  readonly type?: PluginType;
}

export interface WasmPluginTrafficSelector {
  readonly mode?: WorkloadSide;
  readonly ports?: readonly WorkloadPortSelector[];
}

export type PluginType = "UNSPECIFIED_PLUGIN_TYPE" | "HTTP" | "NETWORK";

export type PluginPhase = "UNSPECIFIED_PHASE" | "AUTHN" | "AUTHZ" | "STATS";

export type PullPolicy = "UNSPECIFIED_POLICY" | "IfNotPresent" | "Always";

export interface VmConfig {
  readonly env?: readonly WasmEnvVar[];
}

export interface WasmEnvVar {
  readonly name: string;
  readonly valueFrom?: EnvValueSource;
  readonly value?: string;
}

export type EnvValueSource = "INLINE" | "HOST";

export type FailStrategy = "FAIL_CLOSE" | "FAIL_OPEN" | "FAIL_RELOAD";
