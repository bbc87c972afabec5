// WorkloadGroup: the shape of its spec, as its YAML says it.

import { labels as labelNames } from "./labels.ts";
import type { KubeObject } from "./object.ts";
import type { WorkloadEntrySpec } from "./workload-entry.ts";

export type WorkloadGroup = KubeObject<WorkloadGroupSpec>;

export interface WorkloadGroupSpec {
  readonly metadata?: WorkloadGroupObjectMeta;
  readonly template: WorkloadEntrySpec;
  readonly probe?: ReadinessProbe;
}

export interface WorkloadGroupObjectMeta {
  readonly labels?: Readonly<Record<string, string>>;
  readonly annotations?: Readonly<Record<string, string>>;
}

export interface ReadinessProbe {
  readonly initialDelaySeconds?: number;
  readonly timeoutSeconds?: number;
  readonly periodSeconds?: number;
  readonly successThreshold?: number;
  readonly failureThreshold?: number;
  readonly httpGet?: HTTPHealthCheckConfig;
  readonly tcpSocket?: TCPHealthCheckConfig;
  readonly exec?: ExecHealthCheckConfig;
  readonly grpc?: GrpcHealthCheckConfig;
}

export interface HTTPHealthCheckConfig {
  readonly path?: string;
  readonly port: number;
  readonly host?: string;
  readonly scheme?: string;
  readonly httpHeaders?: readonly HTTPHeader[];
}

export interface GrpcHealthCheckConfig {
  readonly port?: number;
  readonly service?: string;
}

export interface HTTPHeader {
  readonly name?: string;
  readonly value?: string;
}

export interface TCPHealthCheckConfig {
  readonly host?: string;
  readonly port: number;
}

export interface ExecHealthCheckConfig {
  readonly command: readonly string[];
}

/** The service account that machines of a group have to prove. */
export function machineAccount({ spec }: WorkloadGroup): string {
  const account = spec?.template.serviceAccount ?? "";
  return account === "" ? "default" : account;
}

/** The labels of a group's machines. */
export function machineLabels({ spec }: WorkloadGroup): Readonly<Record<string, string>> {
  return { ...spec?.metadata?.labels, ...spec?.template.labels, [labelNames.tlsMode]: "istio" };
}
