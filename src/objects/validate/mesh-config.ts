// What Istio checks of MeshConfig, its proxy part and MeshNetworks beyond their schemas.

import { isIP } from "node:net";

import type { OutlierDetection } from "../destination-rule.ts";
import { parseDurationMs } from "../duration.ts";
import { isDnsLabel } from "../label-match.ts";
import { clusterDiscoveryVariable } from "../labels.ts";
import type { MeshConfig } from "../mesh-config-shape.ts";
import type { MeshNetworks } from "../mesh-networks.ts";
import type { MeshProxyConfig } from "../mesh-proxy-config.ts";
import { eachEntry, eachOf, pathOf, type Report } from "../report.ts";
import {
  addressFault,
  cidrFault,
  durationFault,
  fqdnFault,
  ipFault,
  portFault,
  show,
  trustDomainFault,
  wildcardHostFault,
  type Fault,
} from "../values.ts";
import { checkRetries } from "./http-route.ts";
import { checkLocality, checkZoneAware } from "./locality.ts";
import { checkProviders } from "./providers.ts";
import { isCurve } from "./server-tls.ts";
import { checkClientTls, checkConnectionPool, checkOutliers } from "./traffic-policy.ts";

const connectTimeoutMaxMs = 30_000;

export function connectTimeoutFault(text: unknown): Fault {
  const fault = durationFault(text);
  if (fault !== undefined) return fault;
  return (parseDurationMs(String(text)) ?? 0) > connectTimeoutMaxMs
    ? `${show(text)} is too long: expected at most 30s`
    : undefined;
}

/** 0s turns detection off. */
export function detectionTimeoutFault(text: unknown): Fault {
  const ms = typeof text === "string" ? parseDurationMs(text) : undefined;
  if (ms === undefined) return durationFault(text);
  return Number.isInteger(ms) ? undefined : `${show(text)} is too fine: expected whole milliseconds`;
}

export function checkMeshConfig(mesh: MeshConfig, path: string, report: Report): void {
  report.value(pathOf(path, "proxyListenPort"), portFault(mesh.proxyListenPort));
  report.value(pathOf(path, "connectTimeout"), connectTimeoutFault(mesh.connectTimeout));
  report.value(
    pathOf(path, "protocolDetectionTimeout"),
    detectionTimeoutFault(mesh.protocolDetectionTimeout ?? "0s"),
  );
  if (mesh.defaultConfig === undefined)
    report.add("MZ0202", pathOf(path, "defaultConfig"), "defaultConfig is missing");
  else checkProxyConfig(mesh.defaultConfig, pathOf(path, "defaultConfig"), report);
  checkLocality(mesh.localityLbSetting, true, pathOf(path, "localityLbSetting"), report);
  checkZoneAware(mesh.zoneAwareLbSetting, true, pathOf(path, "zoneAwareLbSetting"), report);
  eachOf(mesh.serviceSettings, pathOf(path, "serviceSettings"), ({ hosts }, at) =>
    eachOf(hosts, pathOf(at, "hosts"), (host, where) => report.value(where, wildcardHostFault(host))),
  );
  report.value(pathOf(path, "trustDomain"), trustDomainFault(mesh.trustDomain ?? ""));
  eachOf(mesh.trustDomainAliases, pathOf(path, "trustDomainAliases"), (alias, at) =>
    report.value(at, trustDomainFault(alias)),
  );
  checkProviders(mesh.extensionProviders, pathOf(path, "extensionProviders"), report);
  checkTlsDefaults(mesh, path, report);
  const policy = pathOf(path, "defaultTrafficPolicy");
  checkConnectionPool(mesh.defaultTrafficPolicy?.connectionPool, pathOf(policy, "connectionPool"), report);
  checkOutliers(
    mesh.defaultTrafficPolicy?.outlierDetection as OutlierDetection | undefined,
    pathOf(policy, "outlierDetection"),
    report,
  );
  eachOf(mesh.caCertificates, pathOf(path, "caCertificates"), ({ pem = "", trustDomains }, at) => {
    if (pem !== "" && !/-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----/.test(pem))
      report.add("MZ0254", pathOf(at, "pem"), "the text holds no certificate in PEM, so it adds no root");
    eachOf(trustDomains, pathOf(at, "trustDomains"), (domain, where) =>
      report.value(where, trustDomainFault(domain)),
    );
  });
  const visibility = pathOf(path, "serviceEntryVisibility");
  eachOf(mesh.serviceEntryVisibility?.policies, pathOf(visibility, "policies"), ({ matchingRules }, at) =>
    eachOf(matchingRules, pathOf(at, "matchingRules"), ({ namespaceSelector }, where) => {
      if (namespaceSelector === undefined)
        report.add("MZ0254", where, "the rule selects nothing, so its policy holds for no ServiceEntry");
    }),
  );
  checkInboundRetries(mesh, pathOf(path, "defaultInboundHttpRetryPolicy"), report);
}

function checkTlsDefaults(mesh: MeshConfig, path: string, report: Report): void {
  if (mesh.meshMTLS?.ecdhCurves !== undefined)
    report.add(
      "MZ0205",
      pathOf(path, "meshMTLS", "ecdhCurves"),
      "the curves of mutual TLS within the mesh are fixed",
    );
  const seen = new Set<string>();
  eachOf(mesh.tlsDefaults?.ecdhCurves, pathOf(path, "tlsDefaults", "ecdhCurves"), (curve, at) => {
    if (!isCurve(curve)) report.add("MZ0250", at, `${show(curve)} is no curve here and is ignored`);
    else if (seen.has(curve)) report.add("MZ0250", at, `${show(curve)} stands twice`);
    seen.add(curve);
  });
}

/** Only attempts, retryOn and backoff mean something where there is a single host. */
function checkInboundRetries(mesh: MeshConfig, path: string, report: Report): void {
  const retries = mesh.defaultInboundHttpRetryPolicy;
  if (retries === undefined) return;
  checkRetries(retries, path, report);
  if (!retries.attempts && retries.backoff !== undefined)
    report.add("MZ0203", pathOf(path, "backoff"), "attempts 0 turns retries off: backoff contradicts it");
  for (const field of ["perTryTimeout", "retryRemoteLocalities", "retryIgnorePreviousHosts"] as const)
    if (retries[field] !== undefined)
      report.add("MZ0250", pathOf(path, field), "an inbound request goes to the one local application");
}

/** Each field must have its value: the defaults give it. */
export function checkProxyConfig(config: MeshProxyConfig, path: string, report: Report): void {
  for (const field of ["configPath", "binaryPath"] as const)
    if (!config[field]) report.add("MZ0202", pathOf(path, field), `${field} is missing`);
  if (!config.serviceCluster && config.tracingServiceName === undefined)
    report.add("MZ0202", pathOf(path, "serviceCluster"), "serviceCluster or tracingServiceName is missing");
  const drain = config.drainDuration;
  report.value(pathOf(path, "drainDuration"), durationFault(drain) ?? secondsFault(drain));
  const address = config.discoveryAddress ?? "";
  report.value(
    pathOf(path, "discoveryAddress"),
    address === "" ? "the address of the control plane is missing" : addressFault(address),
  );
  checkTracing(config, pathOf(path, "tracing"), report);
  const addresses = {
    statsdUdpAddress: config.statsdUdpAddress,
    envoyMetricsServiceAddress: config.envoyMetricsServiceAddress,
    "envoyMetricsService.address": config.envoyMetricsService?.address,
    "envoyAccessLogService.address": config.envoyAccessLogService?.address,
  };
  for (const [field, value] of Object.entries(addresses))
    if (value) report.value(`${path === "" ? "" : `${path}.`}${field}`, addressFault(value));
  const discovery = config.proxyMetadata?.[clusterDiscoveryVariable];
  if (discovery !== undefined && discovery !== "eager" && discovery !== "on-demand")
    report.add(
      "MZ0201",
      pathOf(path, `proxyMetadata.${clusterDiscoveryVariable}`),
      `${show(discovery)} is neither eager nor on-demand`,
    );
  if (config.proxyMetadata?.["ISTIO_META_DNS_AUTO_ALLOCATE"] !== undefined)
    report.add(
      "MZ0251",
      pathOf(path, "proxyMetadata.ISTIO_META_DNS_AUTO_ALLOCATE"),
      "addresses are allocated by the control plane now: remove it",
    );
  for (const field of ["proxyAdminPort", "statusPort"] as const)
    report.value(pathOf(path, field), portFault(config[field]));
  if (config.controlPlaneAuthPolicy === "INHERIT")
    report.add("MZ0201", pathOf(path, "controlPlaneAuthPolicy"), "expected NONE or MUTUAL_TLS");
  checkKeyProvider(config, pathOf(path, "privateKeyProvider"), report);
  checkTuning(config, path, report);
}

/** What a Pod may say for itself as well, and what Envoy would refuse whole listeners and clusters for. */
export function checkTuning(
  { connectionSettings, proxyHeaders }: MeshProxyConfig,
  path: string,
  report: Report,
): void {
  checkConnectionSettings(connectionSettings, pathOf(path, "connectionSettings"), report);
  const server = proxyHeaders?.server?.value ?? "";
  report.value(pathOf(path, "proxyHeaders", "server", "value"), plainHeaderFault(server));
}

const headerValueMax = 256;

function plainHeaderFault(value: string): Fault {
  if (value.length > headerValueMax) return `it is longer than ${headerValueMax} characters`;
  return /^[\t\u0020-\u007e\u0080-\u00ff]*$/.test(value)
    ? undefined
    : `${show(value)} holds a character that no header may hold`;
}

function secondsFault(text: unknown): Fault {
  return Number.isInteger((parseDurationMs(String(text)) ?? 0) / 1000)
    ? undefined
    : `${show(text)} is too fine: expected whole seconds`;
}

function checkTracing({ tracing }: MeshProxyConfig, path: string, report: Report): void {
  if (tracing === undefined) return;
  // The agent fills in the address of its machine.
  const address = (text: string | undefined) => addressFault((text ?? "").replace("$(HOST_IP)", "127.0.0.1"));
  for (const field of ["zipkin", "datadog", "lightstep"] as const)
    if (tracing[field] !== undefined)
      report.value(pathOf(path, `${field}.address`), address(tracing[field].address));
  if (tracing.lightstep !== undefined && !tracing.lightstep.accessToken)
    report.add("MZ0202", pathOf(path, "lightstep", "accessToken"), "the access token is missing");
  checkClientTls(tracing.tlsSettings, "", pathOf(path, "tlsSettings"), report);
  eachEntry(tracing.customTags, pathOf(path, "customTags"), (_name, tag, at) => {
    if (tag === null) report.add("MZ0202", at, "the tag has no value");
  });
}

function checkKeyProvider({ privateKeyProvider }: MeshProxyConfig, path: string, report: Report): void {
  if (privateKeyProvider === undefined) return;
  const { cryptomb, qat } = privateKeyProvider;
  if (cryptomb === undefined && qat === undefined) report.add("MZ0202", path, "set cryptomb or qat");
  for (const [name, provider] of Object.entries({ cryptomb, qat }))
    if (provider !== undefined && !parseDurationMs(provider.pollDelay ?? ""))
      report.add("MZ0202", pathOf(path, `${name}.pollDelay`), "expected a duration above 0");
}

/** The smallest value of each number; of HTTP/2's windows it is that of RFC 9113. */
const smallest: Readonly<Record<string, number>> = {
  listenerPerConnectionBufferLimitBytes: 0,
  clusterPerConnectionBufferLimitBytes: 0,
  httpMaxConcurrentStreams: 1,
  http2InitialStreamWindowSize: 65_535,
  http2InitialConnectionWindowSize: 65_535,
  listenerConnectionLimit: 1,
  globalDownstreamConnectionLimit: 1,
};

const int32Max = 2_147_483_647;

function checkConnectionSettings(
  settings: MeshProxyConfig["connectionSettings"],
  path: string,
  report: Report,
): void {
  eachEntry(settings as Readonly<Record<string, unknown>> | undefined, path, (field, value, at) => {
    const least = smallest[field];
    if (typeof value === "number" && least !== undefined && value < least)
      report.add("MZ0201", at, `${value} is too small: expected at least ${least}`);
    if (typeof value === "number" && value > int32Max)
      report.add("MZ0201", at, `${value} is too large: expected at most ${int32Max}`);
    if (typeof value === "string" && (parseDurationMs(value) ?? 0) < 0)
      report.add("MZ0201", at, `${show(value)} is negative`);
  });
}

export function checkMeshNetworks({ networks }: MeshNetworks, report: Report): void {
  eachEntry(networks, "networks", (_name, network, path) => {
    eachOf(network.endpoints, pathOf(path, "endpoints"), ({ fromCidr, fromRegistry }, at) => {
      if (fromCidr !== undefined) report.value(pathOf(at, "fromCidr"), cidrFault(fromCidr));
      if (fromRegistry !== undefined && !isDnsLabel(fromRegistry))
        report.add("MZ0201", pathOf(at, "fromRegistry"), `${show(fromRegistry)} is no name of a registry`);
    });
    eachOf(network.gateways, pathOf(path, "gateways"), ({ registryServiceName, address, port }, at) => {
      if (registryServiceName !== undefined)
        report.value(pathOf(at, "registryServiceName"), fqdnFault(registryServiceName));
      if (address !== undefined && isIP(address) === 0)
        report.value(pathOf(at, "address"), fqdnFault(address) === undefined ? undefined : ipFault(address));
      report.value(pathOf(at, "port"), portFault(port));
    });
  });
}
