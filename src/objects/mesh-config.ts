// MeshConfig: the mesh-wide settings of ConfigMap `istio`, their defaults, and how YAML is laid over them.

import type { Problem } from "#base";

import type { MeshConfig } from "./mesh-config-shape.ts";
import type { MeshNetworks } from "./mesh-networks.ts";
import type { MeshProxyConfig } from "./mesh-proxy-config.ts";
import { makeProblem } from "./problems.ts";
import { openReport } from "./report.ts";
import { checkSchema, meshSchemaOf } from "./schema.ts";
import { checkMeshConfig, checkMeshNetworks, checkProxyConfig, checkTuning } from "./validate/mesh-config.ts";
import { parseYamlValue } from "./yaml-value.ts";

/** The namespace of the control plane, which is the root namespace of policies too. */
export const controlPlaneNamespace = "istio-d";

/** Istio's defaults, but for our namespace and paths of our own. */
export const defaultProxyConfig: MeshProxyConfig = {
  configPath: "./etc/istio/proxy",
  binaryPath: "/usr/local/bin/envoy",
  serviceCluster: "istio-proxy",
  drainDuration: "45s",
  terminationDrainDuration: "5s",
  proxyAdminPort: 15000,
  controlPlaneAuthPolicy: "MUTUAL_TLS",
  discoveryAddress: `istiod.${controlPlaneNamespace}.svc:15012`,
  statNameLength: 189,
  statusPort: 15020,
};

/** The settings that hold when the ConfigMap says nothing. All fields here are present in every parsed MeshConfig. */
export const defaultMeshConfig = {
  enableTracing: true,
  accessLogFile: "",
  accessLogFormat: "",
  accessLogEncoding: "TEXT",
  enableEnvoyAccessLogService: false,
  protocolDetectionTimeout: "0s",
  ingressService: "istio-ingressgateway",
  ingressControllerMode: "STRICT",
  ingressClass: "istio",
  trustDomain: "cluster.local",
  trustDomainAliases: [],
  enableAutoMtls: true,
  outboundTrafficPolicy: { mode: "ALLOW_ANY" },
  inboundTrafficPolicy: { mode: "PASSTHROUGH" },
  localityLbSetting: { enabled: true },
  defaultConfig: defaultProxyConfig,
  rootNamespace: controlPlaneNamespace,
  proxyListenPort: 15001,
  proxyInboundListenPort: 15006,
  connectTimeout: "10s",
  defaultServiceExportTo: ["*"],
  defaultVirtualServiceExportTo: ["*"],
  defaultDestinationRuleExportTo: ["*"],
  dnsRefreshRate: "60s",
  enablePrometheusMerge: true,
  defaultProviders: {},
  extensionProviders: [
    { name: "prometheus", prometheus: {} },
    { name: "stackdriver", stackdriver: {} },
    { name: "envoy", envoyFileAccessLog: { path: "/dev/stdout" } },
  ],
} as const satisfies MeshConfig;

/** A MeshConfig with every default filled in. */
export type EffectiveMeshConfig = MeshConfig & Required<Pick<MeshConfig, keyof typeof defaultMeshConfig>>;

export interface ParsedMeshConfig {
  readonly mesh: EffectiveMeshConfig;
  /** With errors among them `mesh` is the base: a wrong text changes nothing. */
  readonly problems: readonly Problem[];
}

/**
 * Lays the YAML over a base (the defaults unless given). A field replaces the base's; `defaultConfig` is merged field by field and
 * its `proxyMetadata` key by key; `extensionProviders` replace those of the same name.
 */
export function parseMeshConfig(
  text: string,
  base: EffectiveMeshConfig = defaultMeshConfig,
): ParsedMeshConfig {
  const parsed = parseObject(text);
  if (parsed.problem !== undefined) return { mesh: base, problems: [parsed.problem] };
  const given = parsed.value as MeshConfig;
  const report = openReport();
  checkSchema(given, meshSchemaOf("MeshConfig"), "", report);
  if (report.problems.some(({ severity }) => severity === "error"))
    return { mesh: base, problems: report.problems };
  const mesh: EffectiveMeshConfig = {
    ...base,
    ...given,
    defaultConfig: mergeProxyConfig(base.defaultConfig, given.defaultConfig ?? {}),
    defaultProviders: { ...base.defaultProviders, ...given.defaultProviders },
    extensionProviders: mergeByName(base.extensionProviders, given.extensionProviders ?? []),
    trustDomainAliases: [...new Set([...base.trustDomainAliases, ...(given.trustDomainAliases ?? [])])],
  };
  checkMeshConfig(mesh, "", report);
  const failed = report.problems.some(({ severity }) => severity === "error");
  return { mesh: failed ? base : mesh, problems: report.problems };
}

/** `proxyMetadata` and `proxyHeaders` are merged key by key, everything else is replaced. */
export function mergeProxyConfig(base: MeshProxyConfig, over: MeshProxyConfig): MeshProxyConfig {
  const merged: MeshProxyConfig = { ...base, ...over };
  return {
    ...merged,
    ...(base.proxyMetadata && over.proxyMetadata
      ? { proxyMetadata: { ...base.proxyMetadata, ...over.proxyMetadata } }
      : {}),
    ...(base.proxyHeaders && over.proxyHeaders
      ? { proxyHeaders: { ...base.proxyHeaders, ...over.proxyHeaders } }
      : {}),
  };
}

function mergeByName<T extends { readonly name?: string }>(base: readonly T[], over: readonly T[]): T[] {
  const merged = new Map(base.map((item) => [item.name, item]));
  for (const item of over) merged.set(item.name, item);
  return [...merged.values()];
}

/** The YAML of the annotation `proxy.istio.io/config`, laid over a base. */
export function parseProxyConfig(
  text: string,
  base: MeshProxyConfig,
): { readonly config: MeshProxyConfig; readonly problems: readonly Problem[] } {
  const parsed = parseObject(text);
  if (parsed.problem !== undefined) return { config: base, problems: [parsed.problem] };
  const report = openReport();
  checkSchema(parsed.value, meshSchemaOf("ProxyConfig"), "", report);
  if (report.problems.length === 0) checkTuning(parsed.value as MeshProxyConfig, "", report);
  if (report.problems.some(({ severity }) => severity === "error"))
    return { config: base, problems: report.problems };
  return { config: mergeProxyConfig(base, parsed.value as MeshProxyConfig), problems: report.problems };
}

/** The YAML of the key `meshNetworks`; no networks when it is empty or wrong. */
export function parseMeshNetworks(text: string): {
  readonly networks: MeshNetworks;
  readonly problems: readonly Problem[];
} {
  const parsed = parseObject(text);
  if (parsed.problem !== undefined) return { networks: { networks: {} }, problems: [parsed.problem] };
  const networks: MeshNetworks = { networks: {}, ...(parsed.value as Partial<MeshNetworks>) };
  const problems = validateMeshNetworks(networks);
  return {
    networks: problems.some(({ severity }) => severity === "error") ? { networks: {} } : networks,
    problems,
  };
}

/** Schema and rules of a whole MeshConfig, defaults filled in. */
export function validateMeshConfig(mesh: MeshConfig): readonly Problem[] {
  const report = openReport();
  checkSchema(mesh, meshSchemaOf("MeshConfig"), "", report);
  if (!report.problems.some(({ code }) => code === "MZ0101")) checkMeshConfig(mesh, "", report);
  return report.problems;
}

export function validateProxyConfig(config: MeshProxyConfig): readonly Problem[] {
  const report = openReport();
  checkSchema(config, meshSchemaOf("ProxyConfig"), "", report);
  if (!report.problems.some(({ code }) => code === "MZ0101")) checkProxyConfig(config, "", report);
  return report.problems;
}

export function validateMeshNetworks(networks: MeshNetworks): readonly Problem[] {
  const report = openReport();
  checkSchema(networks, meshSchemaOf("MeshNetworks"), "", report);
  if (!report.problems.some(({ code }) => code === "MZ0101")) checkMeshNetworks(networks, report);
  return report.problems;
}

function parseObject(text: string): { readonly value: object; readonly problem?: Problem } {
  const parsed = parseYamlValue(text);
  if ("fault" in parsed) return { value: {}, problem: makeProblem("MZ0001", parsed.fault) };
  const value = parsed.value ?? {};
  if (typeof value === "object" && !Array.isArray(value)) return { value };
  return { value: {}, problem: makeProblem("MZ0002", "the text holds no fields") };
}
