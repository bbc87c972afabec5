// ServiceEntry: the shape of its spec, as its YAML says it.

import type { KubeObject } from "./object.ts";
import type { SidecarWorkloadSelector } from "./sidecar.ts";
import type { WorkloadEntrySpec } from "./workload-entry.ts";

export type ServiceEntry = KubeObject<ServiceEntrySpec, ServiceEntryStatus>;

export interface ServiceEntryStatus {
  /** Addresses that the mesh chose for hosts that name none. */
  readonly addresses?: readonly ServiceEntryAddress[];
}

export interface ServiceEntrySpec {
  readonly hosts: readonly string[];
  readonly addresses?: readonly string[];
  readonly ports?: readonly ServiceEntryPort[];
  readonly location?: ServiceEntryLocation;
  readonly resolution?: ServiceEntryResolution;
  readonly endpoints?: readonly WorkloadEntrySpec[];
  readonly workloadSelector?: SidecarWorkloadSelector;
  readonly exportTo?: readonly string[];
  readonly subjectAltNames?: readonly string[];
}

export type ServiceEntryLocation = "MESH_EXTERNAL" | "MESH_INTERNAL";

export type ServiceEntryResolution = "NONE" | "STATIC" | "DNS" | "DNS_ROUND_ROBIN" | "DYNAMIC_DNS";

export interface ServiceEntryPort {
  readonly number: number;
  readonly protocol?: string;
  readonly name: string;
  readonly targetPort?: number;
}

export interface ServiceEntryAddress {
  readonly value?: string;
  readonly host?: string;
}
