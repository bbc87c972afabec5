// MeshConfig as the builders take it: only the fields that they read, so that nothing else wakes them.

import type { Read } from "#engine";
import { readMesh, readTrustDomains, readTuning, type ProxyTuning } from "#model";
import type { FilterSettings } from "./filters.ts";
import type { MeshTls } from "./tls.ts";

/** @param own what Pods say for themselves of headers and connections */
export function readFilterSettings(read: Read, own?: ProxyTuning): FilterSettings {
  return {
    accessLogFile: readMesh(read, "accessLogFile"),
    accessLogFormat: readMesh(read, "accessLogFormat"),
    accessLogEncoding: readMesh(read, "accessLogEncoding"),
    pathNormalization: readMesh(read, "pathNormalization"),
    defaultConfig: readMesh(read, "defaultConfig"),
    tuning: readTuning(read, own),
  };
}

export function readMeshTls(read: Read): MeshTls {
  const mutual = readMesh(read, "meshMTLS");
  return {
    trustDomains: readTrustDomains(read),
    minProtocolVersion: mutual?.minProtocolVersion,
    cipherSuites: mutual?.cipherSuites,
    defaults: readMesh(read, "tlsDefaults"),
  };
}
