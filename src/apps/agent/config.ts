// What the agent is told: the environment that the injector writes (Istio's names), the ProxyConfig in it, and the labels
// and annotations of the Pod. Parsed once, into plain data; defaults are Istio's.

import { resolve } from "node:path";
import {
  accessLogServiceField,
  bootstrapOverlayVariable,
  tracerField,
  type BootstrapTracer,
  ports,
  type WorkloadFacts,
} from "#base";

export type ProxyRole = "sidecar" | "router";

/** MeshConfig's `defaultConfig` with the Pod's own `proxy.istio.io/config` over it, as JSON; only what the agent reads. */
export interface ProxyConfig {
  readonly discoveryAddress?: string;
  readonly concurrency?: number;
  readonly drainDuration?: string;
  readonly terminationDrainDuration?: string;
  readonly statusPort?: number;
  readonly proxyAdminPort?: number;
  readonly configPath?: string;
  readonly binaryPath?: string;
  readonly customConfigFile?: string;
  readonly serviceCluster?: string;
  readonly tracingServiceName?: string;
  readonly meshId?: string;
  readonly proxyMetadata?: Readonly<Record<string, string>>;
  readonly proxyStatsMatcher?: StatsMatcher;
  readonly holdApplicationUntilProxyStarts?: boolean;
  readonly runtimeValues?: Readonly<Record<string, string>>;
  readonly extraStatTags?: readonly string[];
  readonly statsCompression?: boolean;
  readonly statsdUdpAddress?: string;
  readonly envoyAccessLogService?: RemoteService;
  readonly envoyMetricsService?: RemoteService;
  readonly envoyMetricsServiceAddress?: string;
  /** `host:port` of a Zipkin, by its older name. */
  readonly zipkinAddress?: string;
  readonly tracing?: {
    readonly zipkin?: { readonly address?: string };
    readonly datadog?: { readonly address?: string };
    readonly tlsSettings?: RemoteService["tlsSettings"];
  };
  readonly fileFlushInterval?: string;
  readonly fileFlushMinSizeKb?: number;
  readonly caCertificatesPem?: readonly string[];
  readonly connectionSettings?: {
    readonly listenerConnectionLimit?: number;
    readonly globalDownstreamConnectionLimit?: number;
  };
  /** Of a machine: how its WorkloadGroup wants its workload to be probed. */
  readonly readinessProbe?: ReadinessProbe;
}

export interface RemoteService {
  /** `host:port`. */
  readonly address?: string;
  readonly tlsSettings?: {
    readonly mode?: string;
    readonly clientCertificate?: string;
    readonly privateKey?: string;
    readonly caCertificates?: string;
    readonly caCrl?: string;
    readonly subjectAltNames?: readonly string[];
    readonly sni?: string;
    readonly insecureSkipVerify?: boolean;
  };
  readonly tcpKeepalive?: { readonly probes?: number; readonly time?: string; readonly interval?: string };
}

export interface ReadinessProbe {
  readonly initialDelaySeconds?: number;
  readonly timeoutSeconds?: number;
  readonly periodSeconds?: number;
  readonly successThreshold?: number;
  readonly failureThreshold?: number;
  readonly httpGet?: NonNullable<AppProbe["httpGet"]>;
  readonly tcpSocket?: NonNullable<AppProbe["tcpSocket"]>;
  readonly exec?: { readonly command: readonly string[] };
  readonly grpc?: { readonly port?: number; readonly service?: string };
}

export interface StatsMatcher {
  readonly inclusionPrefixes?: readonly string[];
  readonly inclusionSuffixes?: readonly string[];
  readonly inclusionRegexps?: readonly string[];
}

/** One rewritten probe of an application's container, as Istio's injector writes it. */
export interface AppProbe {
  readonly httpGet?: {
    readonly path?: string;
    readonly port: number | string;
    readonly scheme?: string;
    readonly host?: string;
    readonly httpHeaders?: readonly { readonly name: string; readonly value: string }[];
  };
  readonly tcpSocket?: { readonly port: number | string; readonly host?: string };
  readonly grpc?: { readonly port: number; readonly service?: string };
  readonly timeoutSeconds?: number;
}

export interface AgentPorts {
  readonly admin: number;
  readonly agent: number;
  readonly ready: number;
  readonly envoyStats: number;
}

export interface AgentPaths {
  readonly token: string;
  readonly root: string;
  /** Where a machine keeps its key and certificate, so that it needs its token but once; "" for Pods. */
  readonly identity: string;
  readonly sdsSocket: string;
  readonly configDir: string;
  readonly envoy: string;
}

export interface AgentConfig {
  readonly role: ProxyRole;
  readonly podName: string;
  readonly namespace: string;
  readonly serviceAccount: string;
  readonly instanceIps: readonly string[];
  readonly dnsDomain: string;
  readonly trustDomain: string;
  readonly clusterId: string;
  /** `host:port` of xDS. */
  readonly discoveryAddress: string;
  /** `host:port` of the CA. */
  readonly caAddress: string;
  readonly serviceCluster: string;
  /** The proxy's own workload, for the labels that Envoy does not count. */
  readonly facts: WorkloadFacts;
  readonly labels: Readonly<Record<string, string>>;
  readonly annotations: Readonly<Record<string, string>>;
  /** What the control plane is told about this proxy, under Istio's keys. */
  readonly metadata: Readonly<Record<string, unknown>>;
  readonly proxyConfig: ProxyConfig;
  readonly concurrency: number;
  readonly drainSeconds: number;
  readonly terminationDrainMs: number;
  readonly minimumDrainMs: number;
  readonly exitOnZeroActiveConnections: boolean;
  readonly certTtlSeconds: number;
  readonly logLevel: string;
  readonly componentLogLevel: string;
  readonly logAsJson: boolean;
  /** A file whose contents Envoy merges into its bootstrap. */
  readonly bootstrapOverride: string | undefined;
  /** Envoy's whole configuration as a file of the user's, in place of ours; "" for none. */
  readonly customConfigFile: string;
  /** The Node's, which addresses may name as `$(HOST_IP)`; "" where it is not known. */
  readonly hostIp: string;
  /** `address:port` that statistics are sent to by statsd's protocol; "" for none. */
  readonly statsd: string;
  /** JSON that EnvoyFilters lay over the bootstrap, before the override; "" for none. */
  readonly bootstrapOverlay: string;
  /** The agent's own. */
  readonly agentLogLevel: "debug" | "info" | "warn" | "error";
  /** Ask the application on 127.0.0.1 instead of the pod's address, as old applications that bind there want it. */
  readonly probeLocalhost: boolean;
  readonly probes: Readonly<Record<string, AppProbe>>;
  /** Where the application serves its own metrics; absent when it has none. */
  readonly appMetricsUrl: string | undefined;
  /** Outside of the cluster: the WorkloadGroup that the machine joins, and its network. */
  readonly machine: { readonly group: string; readonly network: string } | undefined;
  /** Whether the workload's DNS is captured to the agent, and what becomes of names that the mesh does not know. */
  readonly dns: { readonly capture: boolean; readonly unknownNames: "forward" | "refuse" };
  readonly ports: AgentPorts;
  readonly paths: AgentPaths;
}

export interface AgentInputs {
  readonly env: Readonly<Record<string, string | undefined>>;
  readonly args: readonly string[];
  readonly labels: Readonly<Record<string, string>>;
  readonly annotations: Readonly<Record<string, string>>;
  readonly envoyPath: string;
}

/** A mistake in what the agent was told; it ends with this sentence and code 2. */
export class ConfigError extends Error {}

/** Istio: without a limit of its own, a proxy gets two worker threads. */
const concurrencyDefault = 2;
const drainSecondsDefault = 45;
const terminationDrainMsDefault = 5_000;
/** Peers need this long to hear that the endpoint is gone; draining never ends sooner. */
const minimumDrainMsDefault = 2_000;

export function parseConfig(inputs: AgentInputs): AgentConfig {
  const proxyConfig = parseJson<ProxyConfig>(inputs.env["PROXY_CONFIG"], "PROXY_CONFIG") ?? {};
  // ProxyConfig's proxyMetadata counts as environment; what the Pod itself sets wins.
  const env = { ...proxyConfig.proxyMetadata, ...inputs.env };
  const { role, flags } = parseArgs(inputs.args);
  const { labels, annotations } = inputs;
  const namespace = required(env, "POD_NAMESPACE");
  const podName = required(env, "POD_NAME");
  const discoveryAddress =
    annotations["sidecar.istio.io/discoveryAddress"] ??
    proxyConfig.discoveryAddress ??
    `istiod.istio-d.svc:${ports.xds}`;
  const facts = factsOf(env, labels, namespace, podName);
  return {
    role,
    podName,
    namespace,
    serviceAccount: env["SERVICE_ACCOUNT"] ?? "default",
    instanceIps: listOf(env["INSTANCE_IPS"] ?? env["INSTANCE_IP"] ?? "127.0.0.1"),
    dnsDomain: flags.get("domain") ?? `${namespace}.svc.cluster.local`,
    trustDomain: env["TRUST_DOMAIN"] ?? "cluster.local",
    clusterId: facts.cluster,
    discoveryAddress,
    caAddress: env["CA_ADDR"] ?? discoveryAddress,
    serviceCluster: serviceClusterOf(proxyConfig, facts),
    facts,
    labels,
    annotations,
    metadata: metadataOf(env, proxyConfig, labels, annotations, facts),
    proxyConfig,
    concurrency: concurrencyOf(env, proxyConfig),
    drainSeconds: Math.ceil(durationMs(proxyConfig.drainDuration, drainSecondsDefault * 1_000) / 1_000),
    terminationDrainMs: durationMs(
      env["TERMINATION_DRAIN_DURATION_SECONDS"] ?? proxyConfig.terminationDrainDuration,
      terminationDrainMsDefault,
    ),
    minimumDrainMs: durationMs(env["MINIMUM_DRAIN_DURATION"], minimumDrainMsDefault),
    exitOnZeroActiveConnections: env["EXIT_ON_ZERO_ACTIVE_CONNECTIONS"] === "true",
    certTtlSeconds: Math.round(durationMs(env["SECRET_TTL"], 86_400_000) / 1_000),
    logLevel: flags.get("proxyLogLevel") ?? "warning",
    componentLogLevel: flags.get("proxyComponentLogLevel") ?? "misc:error",
    logAsJson: flags.get("log_as_json") === "true",
    bootstrapOverride: env["ISTIO_BOOTSTRAP_OVERRIDE"],
    bootstrapOverlay: env[bootstrapOverlayVariable] ?? "",
    customConfigFile: proxyConfig.customConfigFile ?? "",
    hostIp: env["HOST_IP"] ?? "",
    statsd: proxyConfig.statsdUdpAddress ?? "",
    agentLogLevel: agentLogLevel(flags.get("log_output_level")),
    probeLocalhost: env["REWRITE_PROBE_LEGACY_LOCALHOST_DESTINATION"] === "true",
    probes:
      parseJson<Record<string, AppProbe>>(env["ISTIO_KUBE_APP_PROBERS"], "ISTIO_KUBE_APP_PROBERS") ?? {},
    appMetricsUrl: appMetricsUrl(env["ISTIO_PROMETHEUS_ANNOTATIONS"]),
    machine: machineOf(env),
    dns: {
      capture: role === "sidecar" && env["ISTIO_META_DNS_CAPTURE"] === "true",
      unknownNames: unknownNamesOf(env["DNS_UNKNOWN_NAMES"]),
    },
    ports: portsOf(env, proxyConfig),
    paths: pathsOf(env, proxyConfig, inputs.envoyPath),
  };
}

/** What Istio's defaults call every proxy: it stands for no name of its own. */
const unnamedCluster = "istio-proxy";

/** The name of the service in traces, by Istio's schemes: by default the label `app`, or the workload's name, and the namespace. */
function serviceClusterOf(proxyConfig: ProxyConfig, facts: WorkloadFacts): string {
  const { namespace, canonicalService } = facts;
  const named = proxyConfig.serviceCluster ?? "";
  if (named !== "" && named !== unnamedCluster) return named;
  if (proxyConfig.tracingServiceName === "CANONICAL_NAME_ONLY") return canonicalService;
  if (proxyConfig.tracingServiceName === "CANONICAL_NAME_AND_NAMESPACE")
    return `${canonicalService}.${namespace}`;
  const app = facts.app === "" ? facts.workload : facts.app;
  return `${app === "" ? unnamedCluster : app}.${namespace}`;
}

type Environment = Readonly<Record<string, string | undefined>>;

function portsOf(env: Environment, proxyConfig: ProxyConfig): AgentPorts {
  return {
    admin: proxyConfig.proxyAdminPort ?? ports.admin,
    agent: proxyConfig.statusPort ?? ports.agent,
    ready: numberOf(env["ENVOY_STATUS_PORT"], ports.ready),
    envoyStats: numberOf(env["ENVOY_PROMETHEUS_PORT"], ports.envoyStats),
  };
}

function machineOf(env: Environment): AgentConfig["machine"] {
  const group = env["ISTIO_META_AUTO_REGISTER_GROUP"] ?? "";
  return group === "" ? undefined : { group, network: env["ISTIO_META_NETWORK"] ?? "" };
}

function unknownNamesOf(text: string | undefined): "forward" | "refuse" {
  if (text === undefined || text === "" || text === "forward") return "forward";
  if (text === "refuse") return "refuse";
  throw new ConfigError(`DNS_UNKNOWN_NAMES is "${text}"; forward or refuse is expected`);
}

/** Istio's places, where the injector mounts them; the variables are for tests and for machines without Kubernetes. */
function pathsOf(env: Environment, proxyConfig: ProxyConfig, envoy: string): AgentPaths {
  return {
    token: env["MIZZEN_TOKEN_PATH"] ?? "/var/run/secrets/tokens/istio-token",
    identity: env["MIZZEN_IDENTITY_DIR"] ?? "",
    root: env["MIZZEN_ROOT_PATH"] ?? "/var/run/secrets/istio/root-cert.pem",
    sdsSocket: env["MIZZEN_SDS_SOCKET"] ?? "/var/run/secrets/workload-spiffe-uds/socket",
    // Istio writes the path relative to the root.
    configDir: env["MIZZEN_PROXY_DIR"] ?? resolve("/", proxyConfig.configPath ?? "etc/istio/proxy"),
    envoy: isOwnEnvoy(env, proxyConfig) ? (proxyConfig.binaryPath ?? envoy) : envoy,
  };
}

/** Istio's default, which stands in every MeshConfig; our images have Envoy elsewhere. */
const binaryPathDefault = "/usr/local/bin/envoy";

/** The variable is for tests and goes before what the mesh says. */
function isOwnEnvoy(env: Environment, { binaryPath = "" }: ProxyConfig): boolean {
  return (env["MIZZEN_ENVOY"] ?? "") === "" && binaryPath !== "" && binaryPath !== binaryPathDefault;
}

/** `proxy sidecar --flag value --flag=value`: the role and the flags; unknown flags are kept and do no harm. */
function parseArgs(args: readonly string[]): { role: ProxyRole; flags: Map<string, string> } {
  const flags = new Map<string, string>();
  let role: ProxyRole = "sidecar";
  for (let at = 0; at < args.length; at++) {
    const arg = args[at] ?? "";
    if (arg === "sidecar" || arg === "router") role = arg;
    if (!arg.startsWith("--")) continue;
    const [name = "", inline] = arg.slice(2).split(/=(.*)/s);
    const next = args[at + 1];
    if (inline !== undefined) flags.set(name, inline);
    else if (next !== undefined && !next.startsWith("--")) {
      flags.set(name, next);
      at += 1;
    } else flags.set(name, "true");
  }
  return { role, flags };
}

function factsOf(
  env: Environment,
  labels: Readonly<Record<string, string>>,
  namespace: string,
  podName: string,
): WorkloadFacts {
  const workload = env["ISTIO_META_WORKLOAD_NAME"] ?? podName;
  const app = labels["app"] ?? labels["app.kubernetes.io/name"] ?? "";
  const version = labels["version"] ?? labels["app.kubernetes.io/version"] ?? "";
  return {
    workload,
    namespace,
    app,
    version,
    canonicalService: labels["service.istio.io/canonical-name"] ?? (app === "" ? workload : app),
    canonicalRevision: labels["service.istio.io/canonical-revision"] ?? (version === "" ? "latest" : version),
    cluster: env["ISTIO_META_CLUSTER_ID"] ?? "Kubernetes",
  };
}

const metaPrefix = "ISTIO_META_";
const metaJsonPrefix = "ISTIO_METAJSON_";

function metadataOf(
  env: Environment,
  proxyConfig: ProxyConfig,
  labels: Readonly<Record<string, string>>,
  annotations: Readonly<Record<string, string>>,
  facts: WorkloadFacts,
): Record<string, unknown> {
  const metadata: Record<string, unknown> = {};
  for (const [name, value] of Object.entries(env).toSorted(([one], [other]) => (one < other ? -1 : 1))) {
    if (value === undefined) continue;
    if (name.startsWith(metaPrefix)) metadata[name.slice(metaPrefix.length)] = value;
    if (name.startsWith(metaJsonPrefix)) Object.assign(metadata, parseJson<object>(value, name));
  }
  return {
    ...metadata,
    NAME: env["POD_NAME"],
    NAMESPACE: env["POD_NAMESPACE"],
    SERVICE_ACCOUNT: env["SERVICE_ACCOUNT"] ?? "default",
    INSTANCE_IPS: env["INSTANCE_IPS"] ?? env["INSTANCE_IP"],
    WORKLOAD_NAME: facts.workload,
    CLUSTER_ID: facts.cluster,
    MESH_ID: env["ISTIO_META_MESH_ID"] ?? proxyConfig.meshId ?? env["TRUST_DOMAIN"] ?? "cluster.local",
    INTERCEPTION_MODE: env["ISTIO_META_INTERCEPTION_MODE"] ?? "REDIRECT",
    LABELS: labels,
    ANNOTATIONS: Object.fromEntries(Object.entries(annotations).filter(([name]) => isToldAnnotation(name))),
    PROXY_CONFIG: proxyConfig,
    ...(tracerOf(proxyConfig) === undefined ? {} : { [tracerField]: tracerOf(proxyConfig)?.kind }),
    ...((proxyConfig.envoyAccessLogService?.address ?? "") === "" ? {} : { [accessLogServiceField]: "true" }),
    ...(env["HOST_IP"] === undefined ? {} : { HOST_IP: env["HOST_IP"] }),
    ...(env["ISTIO_NODE_NAME"] === undefined ? {} : { NODE_NAME: env["ISTIO_NODE_NAME"] }),
  };
}

/** The collector of spans that ProxyConfig names by its address; a Zipkin under its older name, too. */
export function tracerOf(
  proxyConfig: ProxyConfig,
): { readonly kind: BootstrapTracer; readonly address: string } | undefined {
  const { tracing, zipkinAddress = "" } = proxyConfig;
  const { zipkin, datadog } = tracing ?? {};
  const given = [
    { kind: "zipkin", address: zipkin?.address ?? "" },
    { kind: "datadog", address: datadog?.address ?? "" },
    { kind: "zipkin", address: zipkinAddress },
  ] as const;
  return given.find(({ address }) => address !== "");
}

/** The control plane needs the mesh's annotations; others may be long (last-applied-configuration) and are nobody's business. */
function isToldAnnotation(name: string): boolean {
  return /(^|\.)istio\.io\//.test(name);
}

function concurrencyOf(env: Environment, proxyConfig: ProxyConfig): number {
  if (proxyConfig.concurrency !== undefined) return proxyConfig.concurrency;
  const cpuLimit = numberOf(env["ISTIO_CPU_LIMIT"], 0);
  return cpuLimit > 0 ? Math.max(1, Math.ceil(cpuLimit)) : concurrencyDefault;
}

/** Istio's `default:info,ads:debug`: the first scope that speaks for the whole program counts. */
function agentLogLevel(text: string | undefined): AgentConfig["agentLogLevel"] {
  const level = /(?:^|,)(?:(?:default|all):)?(debug|info|warn|error|none|fatal)(?:,|$)/.exec(text ?? "")?.[1];
  if (level === "debug" || level === "warn" || level === "error") return level;
  return level === "none" || level === "fatal" ? "error" : "info";
}

function appMetricsUrl(annotations: string | undefined): string | undefined {
  const scrape = parseJson<{ scrape?: string; port?: string; path?: string }>(
    annotations,
    "ISTIO_PROMETHEUS_ANNOTATIONS",
  );
  if (scrape === undefined || scrape.scrape === "false") return undefined;
  const path = scrape.path === undefined || scrape.path === "" ? "/metrics" : scrape.path;
  const port = scrape.port === undefined || scrape.port === "" ? "80" : scrape.port;
  return `http://127.0.0.1:${port}${path.startsWith("/") ? "" : "/"}${path}`;
}

/** Parses `45s`, `1m30s`, `250ms`, or plain seconds; milliseconds. Throws ConfigError on anything else. */
export function durationMs(text: string | undefined, otherwiseMs: number): number {
  if (text === undefined || text === "") return otherwiseMs;
  if (/^[0-9.]+$/.test(text)) return Number(text) * 1_000;
  if (!/^([0-9.]+(ms|s|m|h))+$/.test(text))
    throw new ConfigError(`"${text}" is not a duration like 5s or 1m30s`);
  const unitMs: Readonly<Record<string, number>> = { ms: 1, s: 1_000, m: 60_000, h: 3_600_000 };
  const parts = [...text.matchAll(/([0-9.]+)(ms|s|m|h)/g)];
  return parts.reduce((sum, [, count, unit]) => sum + Number(count) * (unitMs[unit ?? ""] ?? 0), 0);
}

/** Parses the downward API's file of labels or annotations: a line each, `key="value"` with Go's quoting. */
export function parseDownward(text: string): Record<string, string> {
  const pairs: Record<string, string> = {};
  for (const line of text.split("\n")) {
    const at = line.indexOf("=");
    if (at <= 0) continue;
    const quoted = line.slice(at + 1);
    pairs[line.slice(0, at)] = quoted.startsWith('"') ? unquote(quoted) : quoted;
  }
  return pairs;
}

function unquote(quoted: string): string {
  try {
    // Go writes \x41 where JSON has no such escape.
    return String(JSON.parse(quoted.replace(/\\x([0-9a-f]{2})/gi, "\\u00$1")));
  } catch {
    return quoted.slice(1, -1);
  }
}

function required(env: Environment, name: string): string {
  const value = env[name];
  if (value === undefined || value === "")
    throw new ConfigError(`the environment variable ${name} is missing`);
  return value;
}

function listOf(text: string): string[] {
  return text
    .split(",")
    .map((part) => part.trim())
    .filter((part) => part !== "");
}

function numberOf(text: string | undefined, otherwise: number): number {
  if (text === undefined || text === "") return otherwise;
  const number = Number(text);
  if (!Number.isFinite(number)) throw new ConfigError(`"${text}" is not a number`);
  return number;
}

function parseJson<Shape>(text: string | undefined, name: string): Shape | undefined {
  if (text === undefined || text.trim() === "") return undefined;
  try {
    return JSON.parse(text) as Shape;
  } catch (cause) {
    throw new ConfigError(`${name} is not JSON: ${cause instanceof Error ? cause.message : String(cause)}`);
  }
}
