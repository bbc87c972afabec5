// The traffic policy of a DestinationRule, parts of which stand in Sidecars and MeshConfig too.

import type {
  ClientTLSSettings,
  ConnectionPoolSettings,
  ConsistentHash,
  LoadBalancerSettings,
  OutlierDetection,
  TrafficPolicy,
} from "../destination-rule.ts";
import { parseDurationMs } from "../duration.ts";
import { eachOf, pathOf, type Report } from "../report.ts";
import { durationFault, fqdnFault, ipFault, lineFault, percentFault, portFault, show } from "../values.ts";
import { checkLocality, checkZoneAware } from "./locality.ts";

const policyFields = ["outlierDetection", "connectionPool", "loadBalancer", "tls"] as const;

export function checkTrafficPolicy(
  policy: TrafficPolicy | undefined,
  namespace: string,
  path: string,
  report: Report,
): void {
  if (policy === undefined) return;
  const fields = [...policyFields, "portLevelSettings", "tunnel", "proxyProtocol", "retryBudget"] as const;
  if (fields.every((field) => policy[field] === undefined)) {
    report.add("MZ0202", path, `the policy is empty: set one of ${fields.join(", ")}`);
    return;
  }
  if (policy.tunnel !== undefined && policy.proxyProtocol !== undefined)
    report.add("MZ0203", path, "tunnel and proxyProtocol are both set: keep one");
  checkParts(policy, namespace, path, report);
  eachOf(policy.portLevelSettings, pathOf(path, "portLevelSettings"), (settings, at) => {
    if (settings.port === undefined)
      report.add("MZ0202", pathOf(at, "port"), "the port that the settings are for is missing");
    else if (settings.port.number !== undefined)
      report.value(pathOf(at, "port", "number"), portFault(settings.port.number));
    if (policyFields.every((field) => settings[field] === undefined))
      report.add("MZ0202", at, `the settings are empty: set one of ${policyFields.join(", ")}`);
    checkParts(settings, namespace, at, report);
  });
  checkTunnel(policy, path, report);
}

type Parts = Pick<TrafficPolicy, (typeof policyFields)[number]>;

function checkParts(parts: Parts, namespace: string, path: string, report: Report): void {
  checkOutliers(parts.outlierDetection, pathOf(path, "outlierDetection"), report);
  checkConnectionPool(parts.connectionPool, pathOf(path, "connectionPool"), report);
  checkLoadBalancer(
    parts.loadBalancer,
    parts.outlierDetection !== undefined,
    pathOf(path, "loadBalancer"),
    report,
  );
  checkClientTls(parts.tls, namespace, pathOf(path, "tls"), report);
}

function checkTunnel({ tunnel }: TrafficPolicy, parent: string, report: Report): void {
  if (tunnel === undefined) return;
  const path = pathOf(parent, "tunnel");
  if (tunnel.protocol && !["CONNECT", "POST"].includes(tunnel.protocol))
    report.add(
      "MZ0201",
      pathOf(path, "protocol"),
      `${show(tunnel.protocol)} is not a way to tunnel: expected CONNECT or POST`,
    );
  const host = tunnel.targetHost ?? "";
  if (fqdnFault(host) !== undefined && ipFault(host) !== undefined)
    report.add(
      "MZ0201",
      pathOf(path, "targetHost"),
      `${show(host)} is neither a host name nor an IP address`,
    );
  report.value(pathOf(path, "targetPort"), portFault(tunnel.targetPort));
}

export function checkOutliers(outliers: OutlierDetection | undefined, path: string, report: Report): void {
  if (outliers === undefined) return;
  checkDurations(outliers, ["baseEjectionTime", "interval"], path, report);
  if (outliers.consecutiveErrors)
    report.add(
      "MZ0251",
      pathOf(path, "consecutiveErrors"),
      "consecutiveErrors is deprecated: use consecutiveGatewayErrors or consecutive5xxErrors",
    );
  if (outliers.splitExternalLocalOriginErrors !== true && (outliers.consecutiveLocalOriginFailures ?? 0) > 0)
    report.add(
      "MZ0203",
      pathOf(path, "consecutiveLocalOriginFailures"),
      "local failures are only counted when splitExternalLocalOriginErrors is true",
    );
  for (const field of ["maxEjectionPercent", "minHealthPercent"] as const)
    if (outliers[field] !== undefined) report.value(pathOf(path, field), percentFault(outliers[field]));
}

/** Checks those of an object's fields that hold durations and are set. */
export function checkDurations<T extends object>(
  object: T,
  fields: readonly (keyof T & string)[],
  path: string,
  report: Report,
): void {
  for (const field of fields)
    if (object[field] !== undefined) report.value(pathOf(path, field), durationFault(object[field]));
}

function checkNotNegative<T extends object>(
  object: T,
  fields: readonly (keyof T & string)[],
  path: string,
  report: Report,
): void {
  for (const field of fields) {
    const value: unknown = object[field];
    if (typeof value === "number" && value < 0)
      report.add("MZ0201", pathOf(path, field), `${value} is negative`);
  }
}

export function checkConnectionPool(
  pool: ConnectionPoolSettings | undefined,
  path: string,
  report: Report,
): void {
  if (pool === undefined) return;
  const { http, tcp } = pool;
  if (http === undefined && tcp === undefined)
    report.add("MZ0202", path, "the connection pool is empty: set http or tcp");
  if (http !== undefined) checkHttpPool(http, pathOf(path, "http"), report);
  if (tcp === undefined) return;
  const at = pathOf(path, "tcp");
  checkNotNegative(tcp, ["maxConnections"], at, report);
  checkDurations(tcp, ["connectTimeout", "maxConnectionDuration"], at, report);
  // 0s turns the idle time-out off.
  if (tcp.idleTimeout !== undefined && Math.trunc(parseDurationMs(tcp.idleTimeout) ?? 1) !== 0)
    checkDurations(tcp, ["idleTimeout"], at, report);
  if (tcp.tcpKeepalive !== undefined)
    checkDurations(tcp.tcpKeepalive, ["time", "interval"], pathOf(at, "tcpKeepalive"), report);
}

/** What HTTP/2 can say. */
const streamsMax = 2_147_483_647;
/** Envoy's own bound. One ring above it would keep a proxy from ever hearing of clusters again. */
const ringSizeMax = 8_388_608;
/** As long as TLS lets a server name be. */
const serverNameBytesMax = 255;

function checkHttpPool(
  http: NonNullable<ConnectionPoolSettings["http"]>,
  path: string,
  report: Report,
): void {
  checkNotNegative(
    http,
    [
      "http1MaxPendingRequests",
      "http2MaxRequests",
      "maxRequestsPerConnection",
      "maxRetries",
      "maxConcurrentStreams",
    ],
    path,
    report,
  );
  checkDurations(http, ["idleTimeout"], path, report);
  if ((http.maxConcurrentStreams ?? 0) > streamsMax)
    report.add(
      "MZ0201",
      pathOf(path, "maxConcurrentStreams"),
      `${http.maxConcurrentStreams} is too many: at most ${streamsMax} are allowed`,
    );
  if (http.h2UpgradePolicy === "UPGRADE" && http.useClientProtocol === true)
    report.add(
      "MZ0203",
      path,
      "h2UpgradePolicy UPGRADE and useClientProtocol both choose the protocol: keep one",
    );
  if (http.http2KeepAlive === undefined) return;
  const at = pathOf(path, "http2KeepAlive");
  for (const field of ["interval", "timeout"] as const)
    if (http.http2KeepAlive[field] === undefined)
      report.add("MZ0202", pathOf(at, field), `${field} is missing`);
  checkDurations(http.http2KeepAlive, ["interval", "timeout"], at, report);
}

// Envoy's bound of a Maglev table.
const maglevSizeMax = 5_000_011;

function checkLoadBalancer(
  settings: LoadBalancerSettings | undefined,
  outliers: boolean,
  path: string,
  report: Report,
): void {
  if (settings === undefined) return;
  if (settings.consistentHash !== undefined)
    checkHash(settings.consistentHash, pathOf(path, "consistentHash"), report);
  if (settings.localityLbSetting !== undefined && settings.zoneAwareLbSetting !== undefined)
    report.add("MZ0203", path, "localityLbSetting and zoneAwareLbSetting are both set: keep one");
  checkLocality(settings.localityLbSetting, outliers, pathOf(path, "localityLbSetting"), report);
  checkZoneAware(settings.zoneAwareLbSetting, outliers, pathOf(path, "zoneAwareLbSetting"), report);
  const { warmup } = settings;
  if (warmup === undefined) return;
  const at = pathOf(path, "warmup");
  if (warmup.duration === undefined) report.add("MZ0202", pathOf(at, "duration"), "duration is missing");
  checkDurations(warmup, ["duration"], at, report);
  if (warmup.minimumPercent !== undefined)
    report.value(pathOf(at, "minimumPercent"), percentFault(warmup.minimumPercent));
  if (warmup.aggression !== undefined && warmup.aggression <= 0)
    report.add("MZ0201", pathOf(at, "aggression"), `${warmup.aggression} is not above 0`);
}

function checkHash(hash: ConsistentHash, path: string, report: Report): void {
  const { httpCookie, maglev } = hash;
  if (httpCookie !== undefined) {
    const at = pathOf(path, "httpCookie");
    if (!httpCookie.name) report.add("MZ0202", pathOf(at, "name"), "the cookie has no name");
    const seen = new Set<string>();
    eachOf(httpCookie.attributes, pathOf(at, "attributes"), ({ name }, attribute) => {
      if (!name) report.add("MZ0202", pathOf(attribute, "name"), "the attribute has no name");
      else if (seen.has(name))
        report.add("MZ0204", pathOf(attribute, "name"), `the attribute ${show(name)} stands twice`);
      seen.add(name);
    });
  }
  if (hash.httpHeaderName) report.value(pathOf(path, "httpHeaderName"), lineFault(hash.httpHeaderName));
  for (const [size, at] of [
    [hash.minimumRingSize ?? 0, pathOf(path, "minimumRingSize")],
    [hash.ringHash?.minimumRingSize ?? 0, pathOf(path, "ringHash", "minimumRingSize")],
  ] as const)
    if (size > ringSizeMax)
      report.add("MZ0201", at, `${size} is too large: at most ${ringSizeMax} is allowed`);
  if (hash.minimumRingSize) {
    report.add(
      "MZ0251",
      pathOf(path, "minimumRingSize"),
      "minimumRingSize is deprecated: use ringHash.minimumRingSize",
    );
    if (maglev !== undefined || hash.ringHash !== undefined)
      report.add("MZ0203", path, "minimumRingSize stands beside ringHash or maglev: keep the latter");
  }
  if (maglev === undefined) return;
  const size = maglev.tableSize ?? 0;
  if (size === 0 || size >= maglevSizeMax || !isPrime(size))
    report.add(
      "MZ0201",
      pathOf(path, "maglev"),
      `the table size ${size} must be a prime number below ${maglevSizeMax}`,
    );
}

function isPrime(value: number): boolean {
  if (value < 4) return value > 0;
  if (value % 2 === 0) return false;
  for (let factor = 3; factor * factor <= value; factor += 2) if (value % factor === 0) return false;
  return true;
}

/** The TLS that a client originates. */
export function checkClientTls(
  tls: ClientTLSSettings | undefined,
  namespace: string,
  path: string,
  report: Report,
): void {
  if (tls === undefined) return;
  if (Buffer.byteLength(tls.sni ?? "") > serverNameBytesMax)
    report.add("MZ0201", pathOf(path, "sni"), `the name has more than ${serverNameBytesMax} bytes`);
  if (tls.credentialName?.startsWith("configmap://"))
    checkConfigMapName(tls.credentialName, namespace, path, report);
  const verifies = tls.insecureSkipVerify === true && (tls.mode === "SIMPLE" || tls.mode === "MUTUAL");
  if (
    verifies &&
    (tls.caCertificates || tls.subjectAltNames !== undefined || (tls.mode === "SIMPLE" && tls.credentialName))
  )
    report.add(
      "MZ0203",
      path,
      "insecureSkipVerify checks no certificate: what it would be checked against contradicts it",
    );
  if ((tls.mode === "SIMPLE" || tls.mode === "MUTUAL") && tls.credentialName) {
    if (tls.clientCertificate || tls.caCertificates || tls.privateKey || tls.caCrl)
      report.add("MZ0203", path, "credentialName brings certificates and keys: paths to files contradict it");
    return;
  }
  if (tls.mode !== "MUTUAL") return;
  if (!tls.clientCertificate)
    report.add(
      "MZ0202",
      pathOf(path, "clientCertificate"),
      "mode MUTUAL needs a client certificate or credentialName",
    );
  if (!tls.privateKey)
    report.add("MZ0202", pathOf(path, "privateKey"), "mode MUTUAL needs a private key or credentialName");
}

/** `configmap://name` or `configmap://namespace/name`, of the own namespace. */
function checkConfigMapName(credential: string, namespace: string, path: string, report: Report): void {
  const parts = credential.slice("configmap://".length).split("/");
  const owner = parts.length > 1 ? parts[0] : namespace;
  if (parts.length > 2 || parts.some((part) => part === ""))
    report.add(
      "MZ0201",
      pathOf(path, "credentialName"),
      `${show(credential)} is not configmap://name or configmap://namespace/name`,
    );
  else if (owner !== namespace || namespace === "")
    report.add(
      "MZ0205",
      pathOf(path, "credentialName"),
      `the ConfigMap must be of the namespace ${show(namespace)}`,
    );
}
