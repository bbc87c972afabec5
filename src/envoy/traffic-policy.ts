// What a DestinationRule's traffic policy makes of a cluster: pools, ejection, load balancing.

import type {
  ConnectionPoolSettings,
  Destination,
  LoadBalancerSettings,
  OutlierDetection,
  TrafficPolicy,
} from "#objects";
import type { MergedRule, Protocol, ProxyTuning } from "#model";
import { isHttp, isHttp2 } from "#model";
import { durationMsOf } from "./duration.ts";
import { durationOf, typed, wrapped, type Message } from "./proto/api.ts";
import { clusterBuffer, headerCase } from "./tuning.ts";

/** Envoy's own limits (1,024, and 3 retries) would show as 503 while pods come and go; Istio lifts them all. */
const unlimited = 4_294_967_295;

/** A policy after ports and subsets are resolved. */
export type PortPolicy = Omit<TrafficPolicy, "portLevelSettings">;

/**
 * The policy of one port in one subset. A subset's settings lie over the rule's, block by block; a port's settings
 * replace the blocks altogether and inherit nothing, as Istio's documentation says.
 */
export function policyFor(rule: MergedRule, subset: string, port: number): PortPolicy {
  const ofRule = overlaid({}, rule.trafficPolicy, port);
  const own = rule.subsets.find(({ name }) => name === subset)?.trafficPolicy;
  return own === undefined ? ofRule : overlaid(ofRule, own, port);
}

function overlaid(under: PortPolicy, policy: TrafficPolicy, port: number): PortPolicy {
  const { portLevelSettings, ...whole } = policy;
  const defined = Object.fromEntries(Object.entries(whole).filter(([, block]) => block !== undefined));
  const merged: PortPolicy = { ...under, ...defined };
  const own = (portLevelSettings ?? []).find((setting) => setting.port?.number === port);
  if (own === undefined) return merged;
  const { connectionPool, outlierDetection, loadBalancer, tls } = own;
  return { ...merged, connectionPool, outlierDetection, loadBalancer, tls };
}

/**
 * The policy whose tunnel and hash hold for a TCP route. Envoy has one of each for all clusters of a proxy: where there are several
 * destinations, it is what the rule for the first one's host says, and not its subset (Istio does the same).
 */
export function streamPolicy(
  targets: readonly { readonly destination: Destination }[],
  policyOf: (destination: Destination) => PortPolicy | undefined,
): PortPolicy | undefined {
  const [first] = targets;
  if (first === undefined) return undefined;
  const { subset: _subset, ...host } = first.destination;
  return policyOf(targets.length === 1 ? first.destination : host);
}

export interface PoolDefaults {
  /** MeshConfig's connectTimeout. */
  readonly connectTimeout: string;
  readonly tcpKeepalive?: { readonly probes?: number; readonly time?: string; readonly interval?: string };
  readonly h2Upgrade: boolean;
  /** ProxyConfig's headers and connections. */
  readonly tuning?: ProxyTuning;
}

/** `connect_timeout`, `circuit_breakers` and keep-alive. */
export function poolFields(policy: PortPolicy, defaults: PoolDefaults): Message {
  const { tcp, http } = policy.connectionPool ?? {};
  const budget = policy.retryBudget;
  const keepalive = tcp?.tcpKeepalive ?? defaults.tcpKeepalive;
  return {
    connectTimeout: durationOf(durationMsOf(tcp?.connectTimeout ?? defaults.connectTimeout)),
    ...clusterBuffer(defaults.tuning?.connectionSettings),
    circuitBreakers: {
      thresholds: [
        {
          maxConnections: wrapped(positive(tcp?.maxConnections)),
          maxPendingRequests: wrapped(positive(http?.http1MaxPendingRequests)),
          maxRequests: wrapped(positive(http?.http2MaxRequests)),
          maxRetries: wrapped(positive(http?.maxRetries)),
          trackRemaining: true,
          ...(budget === undefined
            ? {}
            : {
                retryBudget: {
                  budgetPercent: { value: budget.percent ?? 20 },
                  minRetryConcurrency: wrapped(budget.minRetryConcurrency ?? 3),
                  ...duration("budgetInterval", budget.budgetInterval),
                },
              }),
        },
      ],
    },
    ...(keepalive === undefined
      ? {}
      : {
          upstreamConnectionOptions: {
            tcpKeepalive: {
              ...(keepalive.probes === undefined ? {} : { keepaliveProbes: wrapped(keepalive.probes) }),
              ...seconds("keepaliveTime", keepalive.time),
              ...seconds("keepaliveInterval", keepalive.interval),
            },
          },
        }),
  };
}

/** Which HTTP a cluster speaks, and how it uses its connections. Nothing for TCP without pool settings. */
export function httpOptions(
  policy: PortPolicy,
  protocol: Protocol,
  defaults: PoolDefaults,
  extra: Message = {},
): Message {
  const pool = policy.connectionPool;
  const common = commonOptions(pool);
  const http2 = speaksHttp2(policy, protocol, defaults);
  const fromClient = pool?.http?.useClientProtocol === true || (protocol === "auto" && !http2);
  const settings = http2Settings(pool);
  const http1 = headerCase(defaults.tuning?.proxyHeaders);
  const plain = !isHttp(protocol) && protocol !== "auto" && !http2;
  if (plain && common === undefined && Object.keys(extra).length === 0 && !fromClient) return {};
  const codes = policy.outlierDetection?.outlierDetectionHttpErrorCodes ?? [];
  return {
    typedExtensionProtocolOptions: {
      "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": typed(
        "envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
        {
          ...(common === undefined ? {} : { commonHttpProtocolOptions: common }),
          ...(fromClient
            ? { useDownstreamProtocolConfig: { httpProtocolOptions: http1, http2ProtocolOptions: settings } }
            : {
                explicitHttpConfig: http2
                  ? { http2ProtocolOptions: settings }
                  : { httpProtocolOptions: http1 },
              }),
          ...(codes.length === 0 ? {} : { outlierDetection: { errorMatcher: statusMatcher(codes) } }),
          ...extra,
        },
      ),
    },
  };
}

/** Whether requests go upstream as HTTP/2 whatever the client speaks. */
export function speaksHttp2(policy: PortPolicy, protocol: Protocol, defaults: PoolDefaults): boolean {
  const http = policy.connectionPool?.http;
  if (http?.useClientProtocol === true) return false;
  if (isHttp2(protocol) || http?.h2UpgradePolicy === "UPGRADE") return true;
  return http?.h2UpgradePolicy !== "DO_NOT_UPGRADE" && defaults.h2Upgrade && isHttp(protocol);
}

/** `outlier_detection`, with the panic threshold that goes with it. */
export function outlierFields(outlier: OutlierDetection | undefined): Message {
  if (outlier === undefined) return {};
  const errors = outlier.consecutive5xxErrors;
  const gateway = outlier.consecutiveGatewayErrors;
  const local = outlier.consecutiveLocalOriginFailures;
  return {
    outlierDetection: {
      enforcingSuccessRate: wrapped(0),
      ...(errors === undefined
        ? {}
        : { consecutive_5xx: wrapped(errors), enforcingConsecutive_5xx: wrapped(errors > 0 ? 100 : 0) }),
      ...(gateway === undefined
        ? {}
        : {
            consecutiveGatewayFailure: wrapped(gateway),
            enforcingConsecutiveGatewayFailure: wrapped(gateway > 0 ? 100 : 0),
          }),
      ...duration("interval", outlier.interval),
      ...duration("baseEjectionTime", outlier.baseEjectionTime),
      ...(outlier.maxEjectionPercent === undefined || outlier.maxEjectionPercent === 0
        ? {}
        : { maxEjectionPercent: wrapped(outlier.maxEjectionPercent) }),
      ...(outlier.splitExternalLocalOriginErrors === true
        ? {
            splitExternalLocalOriginErrors: true,
            enforcingLocalOriginSuccessRate: wrapped(0),
            ...(local === undefined || local === 0
              ? {}
              : {
                  consecutiveLocalOriginFailure: wrapped(local),
                  enforcingConsecutiveLocalOriginFailure: wrapped(100),
                }),
          }
        : {}),
    },
  };
}

/** `lb_policy` with its settings. The caller deals with PASSTHROUGH, which changes the kind of cluster. */
export function balancerFields(balancer: LoadBalancerSettings | undefined): Message {
  const hash = balancer?.consistentHash;
  if (hash !== undefined) {
    if (hash.maglev !== undefined) {
      const size = hash.maglev.tableSize ?? 0;
      return {
        lbPolicy: "MAGLEV",
        ...(size === 0 ? {} : { maglevLbConfig: { tableSize: wrapped(size) } }),
      };
    }
    const size = hash.ringHash === undefined ? hash.minimumRingSize : hash.ringHash.minimumRingSize;
    return {
      lbPolicy: "RING_HASH",
      ringHashLbConfig: { minimumRingSize: wrapped(size === undefined || size === 0 ? 1024 : size) },
    };
  }
  const slow = slowStart(balancer);
  switch (balancer?.simple) {
    case "RANDOM":
      return { lbPolicy: "RANDOM" };
    case "ROUND_ROBIN":
      return {
        lbPolicy: "ROUND_ROBIN",
        ...(slow === undefined ? {} : { roundRobinLbConfig: { slowStartConfig: slow } }),
      };
    default:
      return {
        lbPolicy: "LEAST_REQUEST",
        ...(slow === undefined ? {} : { leastRequestLbConfig: { slowStartConfig: slow } }),
      };
  }
}

function slowStart(balancer: LoadBalancerSettings | undefined): Message | undefined {
  const warmup = balancer?.warmup;
  if (warmup !== undefined) {
    return {
      slowStartWindow: durationOf(durationMsOf(warmup.duration)),
      aggression: { defaultValue: warmup.aggression ?? 1, runtimeKey: "(" },
      minWeightPercent: { value: warmup.minimumPercent ?? 10 },
    };
  }
  const window = balancer?.warmupDurationSecs;
  return window === undefined ? undefined : { slowStartWindow: durationOf(durationMsOf(window)) };
}

/** `http2_protocol_options`. */
export function http2Settings(pool: ConnectionPoolSettings | undefined): Message {
  const { maxConcurrentStreams, http2KeepAlive } = pool?.http ?? {};
  return {
    ...(maxConcurrentStreams === undefined ? {} : { maxConcurrentStreams: wrapped(maxConcurrentStreams) }),
    ...(http2KeepAlive === undefined
      ? {}
      : {
          connectionKeepalive: {
            interval: durationOf(durationMsOf(http2KeepAlive.interval ?? "30s")),
            timeout: durationOf(durationMsOf(http2KeepAlive.timeout ?? "10s")),
          },
        }),
  };
}

/** `common_http_protocol_options`; Envoy reads some of it for TCP as well. */
export function commonOptions(pool: ConnectionPoolSettings | undefined): Message | undefined {
  const idle = pool?.http?.idleTimeout ?? pool?.tcp?.idleTimeout;
  const requests = pool?.http?.maxRequestsPerConnection ?? 0;
  const lifetime = pool?.tcp?.maxConnectionDuration;
  if (idle === undefined && requests === 0 && lifetime === undefined) return undefined;
  return {
    ...duration("idleTimeout", idle),
    ...duration("maxConnectionDuration", lifetime),
    ...(requests === 0 ? {} : { maxRequestsPerConnection: wrapped(requests) }),
  };
}

function statusMatcher(codes: readonly number[]): Message {
  const rules = codes.map((code) => ({
    httpResponseHeadersMatch: { headers: [{ name: ":status", stringMatch: { exact: String(code) } }] },
  }));
  return rules.length === 1 ? (rules[0] ?? {}) : { orMatch: { rules } };
}

function duration(field: string, text: string | undefined): Message {
  return text === undefined ? {} : { [field]: durationOf(durationMsOf(text)) };
}

function seconds(field: string, text: string | undefined): Message {
  return text === undefined ? {} : { [field]: wrapped(Math.round(durationMsOf(text) / 1000)) };
}

function positive(limit: number | undefined): number {
  return limit === undefined || limit <= 0 ? unlimited : limit;
}
