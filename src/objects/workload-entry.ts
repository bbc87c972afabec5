// WorkloadEntry: the shape of its spec, as its YAML says it.

import type { KubeObject } from "./object.ts";

export type WorkloadEntry = KubeObject<WorkloadEntrySpec>;

export interface WorkloadEntrySpec {
  readonly address?: string;
  readonly ports?: Readonly<Record<string, number>>;
  readonly labels?: Readonly<Record<string, string>>;
  readonly network?: string;
  readonly locality?: string;
  readonly weight?: number;
  readonly serviceAccount?: string;
}
