// The statistics of Envoy's bootstrap: which are kept, what is told apart in their names, how often they are written, and where to
// beside the page for Prometheus.

import { isIP } from "node:net";
import { telemetryScope } from "#base";
import { hostOf, portOf } from "./ca-client.ts";
import { durationMs, type AgentConfig, type StatsMatcher } from "./config.ts";
import { metricsSinks } from "./remote-services.ts";

export function statsConfig(config: AgentConfig): object {
  return {
    use_all_default_tags: false,
    stats_tags: [...statsTags, ...extraTags(config)],
    stats_matcher: { inclusion_list: { patterns: inclusionPatterns(config) } },
    ...histogramSettings(config),
  };
}

/** Tags beyond it are left out: each is looked for in every name. */
const extraTagsMax = 50;

/** Names of statistics say `tag=.=value;.;`, as Istio's extensions write them. */
function extraTags({ proxyConfig, annotations }: AgentConfig): object[] {
  const annotated = (annotations["sidecar.istio.io/extraStatTags"] ?? "").split(",");
  const names = [...(proxyConfig.extraStatTags ?? []), ...annotated].map((name) => name.trim());
  return [...new Set(names.filter((name) => name !== ""))].slice(0, extraTagsMax).map((name) => ({
    tag_name: name,
    regex: String.raw`(${name.replaceAll(/[^\w]/g, String.raw`\$&`)}=\.=(.*?);\.;)`,
  }));
}

/** Of the address that ProxyConfig names, which has been looked up. */
function statsdSinks({ statsd }: AgentConfig): object[] {
  if (statsd === "") return [];
  const address = { address: hostOf(statsd), port_value: portOf(statsd), protocol: "UDP" };
  const sink = {
    "@type": "type.googleapis.com/envoy.config.metrics.v3.StatsdSink",
    address: { socket_address: address },
  };
  return isIP(address.address) === 0 ? [] : [{ name: "envoy.stat_sinks.statsd", typed_config: sink }];
}

/** Where statistics are sent to, beside the pages that are asked for. */
export function statsSinks(config: AgentConfig): object {
  const sinks = [...statsdSinks(config), ...metricsSinks(config)];
  return sinks.length === 0 ? {} : { stats_sinks: sinks };
}

const algorithms = {
  brotli: "brotli.compressor.v3.Brotli",
  zstd: "zstd.compressor.v3.Zstd",
  gzip: "gzip.compressor.v3.Gzip",
};

/** Filters that compress the page for Prometheus, for those who ask for it; a Pod may name one algorithm alone. */
export function statsCompressors({ proxyConfig, annotations }: AgentConfig): object[] {
  if (proxyConfig.statsCompression === false) return [];
  const asked = annotations["sidecar.istio.io/statsCompression"] ?? "";
  const offered = Object.entries(algorithms).filter(
    ([name]) => !Object.hasOwn(algorithms, asked) || name === asked,
  );
  return offered.map(([name, type]) => ({
    name: `envoy.filters.http.compressor.${name}`,
    typed_config: {
      "@type": "type.googleapis.com/envoy.extensions.filters.http.compressor.v3.Compressor",
      compressor_library: {
        name: `stats_${name}`,
        typed_config: { "@type": `type.googleapis.com/envoy.extensions.compression.${type}` },
      },
      response_direction_config: { common_config: { content_type: pageTypes } },
    },
  }));
}

const pageTypes = [
  "text/plain",
  "application/vnd.google.protobuf",
  "application/openmetrics-text",
  "application/openmetrics-protobuf",
];

/** What Istio's own proxies keep, plus what the agent needs for draining. Cluster statistics cost most and are off. */
const keptPrefixes = [
  "istio_",
  "cluster_manager",
  "listener_manager",
  "server.",
  "cluster.xds-grpc",
  "access_logs",
];
const keptSuffixes = [
  "downstream_cx_active",
  "downstream_rq_active",
  "rbac.allowed",
  "rbac.denied",
  "shadow_allowed",
  "shadow_denied",
  // Callers whom no filter chain takes: in plaintext under STRICT, above all.
  "no_filter_chain_match",
];

function inclusionPatterns(config: AgentConfig): object[] {
  const matcher: StatsMatcher = config.proxyConfig.proxyStatsMatcher ?? {};
  const annotated = (name: string): string[] =>
    (config.annotations[`sidecar.istio.io/${name}`] ?? "").split(",").filter((part) => part !== "");
  const prefixes = [
    ...keptPrefixes,
    ...(matcher.inclusionPrefixes ?? []),
    ...annotated("statsInclusionPrefixes"),
  ];
  const suffixes = [
    ...keptSuffixes,
    ...(matcher.inclusionSuffixes ?? []),
    ...annotated("statsInclusionSuffixes"),
  ];
  const regexps = [...(matcher.inclusionRegexps ?? []), ...annotated("statsInclusionRegexps")];
  return [
    ...prefixes.map((prefix) => ({ prefix })),
    ...suffixes.map((suffix) => ({ suffix })),
    ...regexps.map((regex) => ({ safe_regex: { regex } })),
  ];
}

/** Envoy refuses an eviction that is no multiple of a flush: the next multiple is taken. */
export function statsIntervals(config: AgentConfig): object {
  const seconds = (name: string, otherwise: number): number => {
    const text = config.annotations[`sidecar.istio.io/${name}`];
    const ms = isDuration(text) ? durationMs(text, 0) : 0;
    return ms < 1_000 ? otherwise : Math.round(ms / 1_000);
  };
  const flush = seconds("statsFlushInterval", telemetryScope.flushSeconds);
  const eviction = seconds("statsEvictionInterval", telemetryScope.evictionSeconds);
  return {
    stats_flush_interval: `${flush}s`,
    stats_eviction_interval: `${Math.ceil(eviction / flush) * flush}s`,
  };
}

/** A Pod's annotation that is none is passed over: the workload is worth more than its statistics. */
function isDuration(text: string | undefined): boolean {
  return /^(\d+(\.\d+)?(ms|s|m|h))+$/.test(text ?? "");
}

const bucketsMax = 100;

/** Envoy keeps so many bins for a histogram of a worker thread at first; few save memory where histograms are many. */
const binsRange = { min: 1, max: 46_082 } as const;

/**
 * Bounds by the prefix of a histogram's name, as `{"istio_request_duration": [1, 5, 10]}`, and the bins of Istio's histograms. What is
 * none is left out.
 */
function histogramSettings(config: AgentConfig): object {
  const text = config.annotations["sidecar.istio.io/statsHistogramBuckets"] ?? "";
  const asked = Number(config.annotations["sidecar.istio.io/statsHistogramBins"] ?? "");
  const usable = Number.isInteger(asked) && asked >= binsRange.min && asked <= binsRange.max;
  const bins = usable ? { bins: asked } : {};
  const settings = Object.entries(jsonObject(text)).flatMap(([prefix, bounds]) => {
    if (!Array.isArray(bounds) || bounds.length === 0 || bounds.length > bucketsMax) return [];
    const sorted = (bounds as unknown[]).map(Number).toSorted((a, b) => a - b);
    return sorted.every((bound) => bound > 0 && Number.isFinite(bound))
      ? [{ match: { prefix }, buckets: [...new Set(sorted)], ...bins }]
      : [];
  });
  // The first that matches counts, so that what holds for all comes last.
  const all = usable ? [...settings, { match: { prefix: "istio_" }, ...bins }] : settings;
  return all.length === 0 ? {} : { histogram_bucket_settings: all };
}

function jsonObject(text: string): Readonly<Record<string, unknown>> {
  try {
    const parsed: unknown = text === "" ? {} : JSON.parse(text);
    return typeof parsed === "object" && parsed !== null ? (parsed as Record<string, unknown>) : {};
  } catch {
    return {};
  }
}

const statsTags = [
  // A name of MeshConfig's own pattern ends in a semicolon, since it may have dots.
  { tag_name: "cluster_name", regex: String.raw`^cluster\.((.+?;|.+?(\..+?\.svc\.cluster\.local)?)\.)` },
  {
    tag_name: "http_conn_manager_prefix",
    regex: String.raw`^http\.(((outbound_)?[0-9.]{0,15}_?[\w.-]*?)\.)(?:downstream|rbac|no_)`,
  },
  {
    tag_name: "listener_address",
    regex: String.raw`^listener\.(((?:[_.[:digit:]]*|[_\[\]aAbBcCdDeEfF[:digit:]]*))\.)`,
  },
];
