// ProxyConfig: the shape of its spec, as its YAML says it.

import type { KubeObject } from "./object.ts";
import type { WorkloadSelector } from "./selector.ts";

export type ProxyConfig = KubeObject<ProxyConfigSpec>;

export interface ProxyConfigSpec {
  readonly selector?: WorkloadSelector;
  readonly concurrency?: number;
  readonly environmentVariables?: Readonly<Record<string, string>>;
  readonly image?: ProxyImage;
}

export interface ProxyImage {
  readonly imageType?: string;
}
