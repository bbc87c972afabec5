// Cases of `validation` that are no objects: plain values, and parts of MeshConfig. Each is judged by the very check that judges
// it within a whole.

import type { Problem } from "#base";
import {
  defaultMeshConfig,
  makeProblem,
  validateMeshConfig,
  validateMeshNetworks,
  validateProxyConfig,
  type MeshConfig,
} from "#objects";

import {
  headerValueFault,
  matchHeaderNameFault,
  strictHeaderNameFault,
} from "../../src/objects/header-values.ts";
import { localitiesFault } from "../../src/objects/validate/locality.ts";
import { connectTimeoutFault, detectionTimeoutFault } from "../../src/objects/validate/mesh-config.ts";
import { providerFaults, providerServiceFault } from "../../src/objects/validate/providers.ts";
import {
  addressFault,
  cidrFault,
  durationFault,
  fqdnFault,
  gatewayHostFault,
  httpStatusFault,
  ipFault,
  portFault,
  portNameFault,
  trustDomainFault,
  wildcardHostFault,
  type Fault,
} from "../../src/objects/values.ts";

const checks: Readonly<Record<string, (value: never) => Fault>> = {
  "wildcard domain, VirtualService bound to gateway": (value: string | { domain: string; sni?: boolean }) =>
    typeof value === "string"
      ? gatewayHostFault(value, true)
      : gatewayHostFault(value.domain, value.sni ?? false),
  "proxy address host:port": addressFault,
  "HTTP header value (Envoy formatter syntax)": headerValueFault,
  "trust domain": trustDomainFault,
  "locality list": localitiesFault,
  "HTTP header name in a VirtualService header match (pseudo headers and @request.auth.claims.* allowed)":
    matchHeaderNameFault,
  "HTTP status in fault abort": httpStatusFault,
  "wildcard domain": wildcardHostFault,
  "strict HTTP header name": strictHeaderNameFault,
  FQDN: fqdnFault,
  "port number": portFault,
  "google.protobuf.Duration": durationFault,
  "IP address": ipFault,
  "port name": portNameFault,
  CIDR: cidrFault,
  "connect timeout": connectTimeoutFault,
  "protocol detection timeout": detectionTimeoutFault,
};

/** Undefined when no check has that name. */
export function plainValueProblems(predicate: string, value: unknown): readonly Problem[] | undefined {
  const check = checks[predicate];
  return check === undefined ? undefined : problemsOf(check(value as never));
}

function problemsOf(fault: Fault): readonly Problem[] {
  return fault === undefined ? [] : [makeProblem("MZ0201", fault)];
}

/** Undefined when nothing checks the path. */
export function meshFragmentProblems(path: string, fragment: unknown): readonly Problem[] | undefined {
  const provider = /^MeshConfig\.extensionProviders\[\]\.(\w+)$/.exec(path)?.[1];
  if (provider !== undefined)
    return providerFaults(provider, fragment as object).map(({ text }) => makeProblem("MZ0201", text));
  switch (path) {
    case "MeshConfig.extensionProviders[].*.service":
      return problemsOf(providerServiceFault(fragment as string));
    case "MeshConfig.defaultConfig":
      return validateProxyConfig(fragment as object);
    case "ProxyConfig.connectionSettings (MeshConfig.defaultConfig)":
      return meshWith({
        defaultConfig: { ...defaultMeshConfig.defaultConfig, connectionSettings: fragment as object },
      });
    case "MeshConfig.serviceSettings[].hosts":
      return meshWith({ serviceSettings: [{ hosts: fragment as string[] }] });
    case "MeshConfig.defaultTrafficPolicy":
      return meshWith({ defaultTrafficPolicy: fragment as object });
    case "MeshConfig.defaultInboundHttpRetryPolicy":
      return meshWith({ defaultInboundHttpRetryPolicy: fragment as object });
    case "MeshNetworks":
      return validateMeshNetworks({ networks: {}, ...(fragment as object) });
    default:
      return undefined;
  }
}

function meshWith(part: MeshConfig): readonly Problem[] {
  return validateMeshConfig({ ...defaultMeshConfig, ...part });
}
