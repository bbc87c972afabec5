// MeshConfig and the environment as queries: one for each part that others depend on, so that a change of one
// setting does not wake the readers of another.

import { defineQuery, sameData, type Read } from "#engine";
import type { MeshConfig, MeshProxyConfig } from "#objects";
import {
  defaultEnvironment,
  environmentRow,
  environmentTable,
  meshConfigTable,
  meshRow,
  type Environment,
} from "./tables.ts";

export const environmentOf = defineQuery<Environment>(
  "environment",
  (read) => read(environmentTable, environmentRow) ?? defaultEnvironment,
  sameData,
);

/** Istio's defaults for what MeshConfig leaves open (install charts and `mesh.DefaultMeshConfig`). */
const defaults = {
  trustDomain: "cluster.local",
  enableAutoMtls: true,
  connectTimeout: "10s",
  protocolDetectionTimeout: "0s",
  accessLogFile: "",
  accessLogEncoding: "TEXT",
  outboundTrafficPolicy: { mode: "ALLOW_ANY" },
  dnsRefreshRate: "60s",
} as const satisfies MeshConfig;

/** One field of MeshConfig, with Istio's default: `read(meshField, "trustDomain")`. */
const meshField = defineQuery<unknown>(
  "meshField",
  (read, name) => {
    const mesh = read(meshConfigTable, meshRow) as Readonly<Record<string, unknown>> | undefined;
    return mesh?.[name] ?? (defaults as Readonly<Record<string, unknown>>)[name];
  },
  sameData,
);

export function readMesh<Name extends keyof MeshConfig>(
  read: Read,
  name: Name,
): Name extends keyof typeof defaults ? NonNullable<MeshConfig[Name]> : MeshConfig[Name] {
  return read(meshField, name) as Name extends keyof typeof defaults
    ? NonNullable<MeshConfig[Name]>
    : MeshConfig[Name];
}

export function readProxyDefaults(read: Read): MeshProxyConfig {
  return readMesh(read, "defaultConfig") ?? {};
}

/** The trust domain and its aliases, the own one first. */
export function readTrustDomains(read: Read): readonly string[] {
  return [...new Set([readMesh(read, "trustDomain"), ...(readMesh(read, "trustDomainAliases") ?? [])])];
}

/** Those that callers may belong to: with the ones that added roots are for, as in Istio. */
export function readCallersTrustDomains(read: Read): readonly string[] {
  const added = (readMesh(read, "caCertificates") ?? []).flatMap(({ trustDomains = [] }) => trustDomains);
  return [...new Set([...readTrustDomains(read), ...added])];
}
