// What of ProxyConfig decides about a proxy's listeners, routes and clusters: its headers and its connections. MeshConfig's
// defaultConfig says it for everyone, a Pod in `proxy.istio.io/config` for itself.

import { accessLogServiceField, isBootstrapTracer, tracerField, type BootstrapTracer } from "#base";
import { defineQuery, sameData, type Read } from "#engine";
import { mergeProxyConfig, type MeshProxyConfig, type MeshTracing } from "#objects";
import { readMesh, readProxyDefaults } from "./mesh.ts";
import type { ProxyClass } from "./proxy.ts";

/** How spans are made, wherever they go. */
const tracingNames = ["sampling", "customTags", "maxPathTagLength", "enableIstioTags"] as const;

export interface ProxyTuning extends Pick<MeshProxyConfig, "proxyHeaders" | "connectionSettings"> {
  /** The bootstrap has a service for access logs, and MeshConfig has proxies tell it of everything. */
  readonly logsToService?: true;
  readonly tracing?: Pick<MeshTracing, (typeof tracingNames)[number]>;
  /** The bootstrap has a collector of spans, and MeshConfig has proxies trace without being asked to by a Telemetry. */
  readonly tracesBy?: BootstrapTracer;
}

type ConnectionSettings = NonNullable<ProxyTuning["connectionSettings"]>;

/** The part of a ProxyConfig that is tuning; undefined where it says nothing of it. */
export function tuningIn(config: MeshProxyConfig): ProxyTuning | undefined {
  const { proxyHeaders, connectionSettings, tracing } = config;
  if (proxyHeaders === undefined && connectionSettings === undefined && tracing === undefined)
    return undefined;
  return {
    ...(tracing === undefined ? {} : { tracing: howTraced(tracing) }),
    ...(proxyHeaders === undefined ? {} : { proxyHeaders }),
    ...(connectionSettings === undefined ? {} : { connectionSettings }),
  };
}

function howTraced(tracing: MeshTracing): NonNullable<ProxyTuning["tracing"]> {
  const said = tracingNames.filter((name) => tracing[name] !== undefined);
  return Object.fromEntries(said.map((name) => [name, tracing[name]]));
}

/** So that other changes of defaultConfig wake nobody. */
const meshTuning = defineQuery<ProxyTuning>(
  "meshTuning",
  (read) => tuningIn(readProxyDefaults(read)) ?? {},
  sameData,
);

/** @param own what a Pod says for itself: header by header over the mesh's, and in place of its connection settings, as in Istio */
export function readTuning(read: Read, own: ProxyTuning | undefined): ProxyTuning {
  const ofMesh = read(meshTuning, "");
  if (own === undefined) return ofMesh;
  const { logsToService, tracesBy, ...said } = own;
  return {
    ...tuningIn(mergeProxyConfig(ofMesh, said)),
    ...(logsToService === undefined ? {} : { logsToService }),
    ...(tracesBy === undefined ? {} : { tracesBy }),
  };
}

/**
 * What has to stand in the keys of a proxy's resources: what its Pod says, and at routers the values that the profile EDGE stands
 * for. Sidecars have no such defaults, as in Istio. Undefined where MeshConfig alone decides.
 */
export function readOwnTuning(read: Read, proxy: ProxyClass): ProxyTuning | undefined {
  const own = withServices(read, proxy);
  if (proxy.kind !== "router") return own;
  const { connectionSettings } = readTuning(read, own);
  if (connectionSettings?.profile !== "EDGE") return own;
  return { ...own, connectionSettings: { ...edgeDefaults, ...said(connectionSettings) } };
}

/** Only proxies that were started with a service know of it: Envoy refuses a listener that speaks to a cluster which is not there. */
function withServices(read: Read, { metadata, tuning }: ProxyClass): ProxyTuning | undefined {
  const logs =
    metadata[accessLogServiceField] === "true" && readMesh(read, "enableEnvoyAccessLogService") === true;
  const tracer = metadata[tracerField];
  const traces = isBootstrapTracer(tracer) && readMesh(read, "enableTracing") !== false;
  if (!logs && !traces) return tuning;
  return {
    ...tuning,
    ...(logs ? { logsToService: true } : {}),
    ...(traces ? { tracesBy: tracer } : {}),
  };
}

/** Envoy's advice for the edge, as Istio has it. */
const edgeDefaults: ConnectionSettings = {
  listenerPerConnectionBufferLimitBytes: 32_768,
  clusterPerConnectionBufferLimitBytes: 32_768,
  httpIdleTimeout: "3600s",
  httpRequestTimeout: "300s",
  httpRequestHeadersTimeout: "60s",
  httpStreamIdleTimeout: "300s",
  httpMaxConcurrentStreams: 100,
  http2InitialStreamWindowSize: 65_536,
  http2InitialConnectionWindowSize: 1_048_576,
  httpHeadersWithUnderscoresAction: "HEADERS_WITH_UNDERSCORES_REJECT_REQUEST",
  httpMergeSlashes: true,
  httpPathWithEscapedSlashesAction: "UNESCAPE_AND_REDIRECT",
};

/** Without the values that stand for none. */
function said(settings: ConnectionSettings): ConnectionSettings {
  return Object.fromEntries(
    Object.entries(settings).filter(
      ([, value]) => value !== undefined && !(typeof value === "string" && value.endsWith("_UNSPECIFIED")),
    ),
  );
}
