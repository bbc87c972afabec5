// TrafficExtension: the shape of its spec, as its YAML says it.

import type { KubeObject } from "./object.ts";
import type {
  PolicyTargetReference,
  WorkloadSide,
  WorkloadPortSelector,
  WorkloadSelector,
} from "./selector.ts";
import type { FailStrategy, PluginType, PullPolicy, VmConfig } from "./wasm-plugin.ts";

export type TrafficExtension = KubeObject<TrafficExtensionSpec>;

export interface TrafficExtensionSpec {
  readonly selector?: WorkloadSelector;
  readonly targetRefs?: readonly PolicyTargetReference[];
  readonly phase?: TrafficExtensionExecutionPhase;
  readonly priority?: number;
  readonly match?: readonly TrafficSelector[];
  readonly wasm?: WasmConfig;
  readonly lua?: LuaConfig;
}

export type TrafficExtensionExecutionPhase = "UNSPECIFIED" | "AUTHN" | "AUTHZ" | "STATS";

export interface WasmConfig {
  readonly url: string;
  readonly sha256?: string;
  readonly imagePullPolicy?: PullPolicy;
  readonly imagePullSecret?: string;
  readonly verificationKey?: string;
  readonly pluginConfig?: Readonly<Record<string, unknown>>;
  readonly pluginName?: string;
  readonly failStrategy?: FailStrategy;
  readonly vmConfig?: VmConfig;
  readonly type?: PluginType;
}

export interface LuaConfig {
  readonly inlineCode: string;
}

export interface TrafficSelector {
  readonly mode?: WorkloadSide;
  readonly ports?: readonly WorkloadPortSelector[];
}
