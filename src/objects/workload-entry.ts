// WorkloadEntry: the shape of its spec, as its YAML says it.

import type { KubeObject } from "./object.ts";

export type WorkloadEntry = KubeObject<WorkloadEntrySpec, WorkloadEntryStatus>;

export interface WorkloadEntryStatus {
  readonly conditions?: readonly WorkloadEntryCondition[];
}

export interface WorkloadEntryCondition {
  readonly type: string;
  readonly status: string;
  readonly reason?: string;
  readonly message?: string;
  readonly lastProbeTime?: string;
  readonly lastTransitionTime?: string;
}

export interface WorkloadEntrySpec {
  readonly address?: string;
  readonly ports?: Readonly<Record<string, number>>;
  readonly labels?: Readonly<Record<string, string>>;
  readonly network?: string;
  readonly locality?: string;
  readonly weight?: number;
  readonly serviceAccount?: string;
}
