// MeshConfig as the builders take it: only the fields that they read, so that nothing else wakes them.

import type { Read } from "#engine";
import {
  readMesh,
  secretServiceOf,
  readCallersTrustDomains,
  readTuning,
  type MergedRule,
  type ProxyTuning,
} from "#model";
import { outboundClusterName } from "#plan";
import type { FilterSettings } from "./filters.ts";
import type { MeshTls } from "./tls.ts";
import { policyFor, type PortPolicy } from "./traffic-policy.ts";

/** @param own what Pods say for themselves of headers and connections */
export function readFilterSettings(read: Read, own?: ProxyTuning): FilterSettings {
  return {
    accessLogFile: readMesh(read, "accessLogFile"),
    accessLogFormat: readMesh(read, "accessLogFormat"),
    accessLogEncoding: readMesh(read, "accessLogEncoding"),
    disableEnvoyListenerLog: readMesh(read, "disableEnvoyListenerLog"),
    pathNormalization: readMesh(read, "pathNormalization"),
    defaultConfig: readMesh(read, "defaultConfig"),
    tuning: readTuning(read, own),
    ...(own?.logsToService === true ? { logsToService: true } : {}),
  };
}

/** The policy of one port in one subset; what rules leave open is as MeshConfig's `defaultTrafficPolicy` says, block by block. */
export function readPolicy(read: Read, rule: MergedRule, subset: string, port: number): PortPolicy {
  const policy = policyFor(rule, subset, port);
  const { connectionPool, outlierDetection } = readMesh(read, "defaultTrafficPolicy") ?? {};
  if (connectionPool === undefined && outlierDetection === undefined) return policy;
  return {
    ...policy,
    connectionPool: policy.connectionPool ?? connectionPool,
    outlierDetection: policy.outlierDetection ?? outlierDetection,
  };
}

export function readMeshTls(read: Read): MeshTls {
  const mutual = readMesh(read, "meshMTLS");
  return {
    trustDomains: readCallersTrustDomains(read),
    minProtocolVersion: mutual?.minProtocolVersion,
    cipherSuites: mutual?.cipherSuites,
    defaults: readMesh(read, "tlsDefaults"),
  };
}

export function readSecretService(read: Read): MeshTls["secretService"] {
  const service = read(secretServiceOf, "");
  if (service === undefined) return undefined;
  const { host, port } = service;
  return { host, cluster: outboundClusterName(port, "", host) };
}
