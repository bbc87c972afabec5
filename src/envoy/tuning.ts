// ProxyConfig's headers and connection settings as fields of Envoy's messages. Where nothing is said there are no fields but those
// that always stand there, so that a mesh without tuning has the bytes that it had.

import type { ProxyTuning } from "#model";
import { durationMsOf } from "./duration.ts";
import { durationOf, neverChanging, typed, wrapped, type Message } from "./proto/api.ts";

type Headers = ProxyTuning["proxyHeaders"];
type Connections = ProxyTuning["connectionSettings"];

/** Istio answers as `istio-envoy` to callers from outside and as `envoy` to the application beside it. */
export function serverName(side: "client" | "server" | "gateway", headers: Headers): Message {
  const { disabled = false, value = "" } = headers?.server ?? {};
  if (disabled) return { serverHeaderTransformation: "PASS_THROUGH" };
  const usual = side === "client" ? "envoy" : "istio-envoy";
  return { serverName: value === "" ? usual : value, serverHeaderTransformation: "OVERWRITE" };
}

/** X-Forwarded-Client-Cert as the application of a server in the mesh gets it: by default its caller is added. */
export function serverClientCertificate(headers: Headers): Message {
  const asked = headers?.forwardedClientCert ?? "UNDEFINED";
  const shown = headers?.setCurrentClientCertDetails ?? {};
  return {
    forwardClientCertDetails: asked === "UNDEFINED" ? "APPEND_FORWARD" : asked,
    setCurrentClientCertDetails: {
      // Only where it is asked for, unlike Istio's: Istio's certificates have an empty Subject, ours holds the workload's facts,
      // which are not the application's business and would lengthen every request.
      ...(shown.subject === true ? { subject: wrapped(true) } : {}),
      uri: shown.uri ?? true,
      dns: shown.dns ?? true,
      ...(shown.cert === true ? { cert: true } : {}),
      ...(shown.chain === true ? { chain: true } : {}),
    },
  };
}

/** Names of HTTP/1 headers go on in the letters in which they came. */
export function headerCase(headers: Headers): Message {
  return headers?.preserveHttp1HeaderCase === true
    ? { headerKeyFormat: { statefulFormatter: sameCase } }
    : {};
}

const sameCase: Message = {
  name: "preserve_case",
  typedConfig: neverChanging(
    typed("envoy.extensions.http.header_formatters.preserve_case.v3.PreserveCaseFormatterConfig"),
  ),
};

/** Of a virtual host: whether servers are told which attempt a request is. */
export function attemptCount(headers: Headers): Message {
  return headers?.attemptCount?.disabled === true ? {} : { includeRequestAttemptCount: true };
}

/** Of a route that rewrites the host: whether the application still hears of the one that was asked for. */
export function forwardedHost(headers: Headers): Message {
  return headers?.xForwardedHost?.enabled === true ? { appendXForwardedHost: true } : {};
}

/** Of a listener. Envoy's own is 1 MiB. */
export function listenerBuffer(connections: Connections): Message {
  return buffer(connections?.listenerPerConnectionBufferLimitBytes);
}

/** Of a cluster. Envoy's own is 1 MiB. */
export function clusterBuffer(connections: Connections): Message {
  return buffer(connections?.clusterPerConnectionBufferLimitBytes);
}

function buffer(bytes: number | undefined): Message {
  return bytes === undefined ? {} : { perConnectionBufferLimitBytes: wrapped(bytes) };
}

/** What connection settings say to an HTTP connection manager, by the message that it belongs to. */
export interface HttpTuning {
  readonly manager: Message;
  readonly common: Message;
  readonly http2: Message;
}

const untuned: HttpTuning = { manager: {}, common: {}, http2: {} };

export function httpTuning(connections: Connections): HttpTuning {
  if (connections === undefined) return untuned;
  const {
    httpMergeSlashes: merges,
    httpPathWithEscapedSlashesAction: escaped,
    httpHeadersWithUnderscoresAction: underscores,
  } = connections;
  return {
    manager: {
      ...duration("drainTimeout", connections.httpDrainTimeout),
      ...duration("requestTimeout", connections.httpRequestTimeout),
      ...duration("requestHeadersTimeout", connections.httpRequestHeadersTimeout),
      ...duration("streamIdleTimeout", connections.httpStreamIdleTimeout),
      ...(merges === undefined ? {} : { mergeSlashes: merges }),
      ...(isSaid(escaped) ? { pathWithEscapedSlashesAction: escaped } : {}),
    },
    common: {
      ...duration("idleTimeout", connections.httpIdleTimeout),
      ...duration("maxConnectionDuration", connections.httpMaxConnectionDuration),
      ...duration("maxStreamDuration", connections.httpMaxStreamDuration),
      ...(isSaid(underscores)
        ? { headersWithUnderscoresAction: underscores.replace("HEADERS_WITH_UNDERSCORES_", "") }
        : {}),
    },
    http2: {
      ...count("maxConcurrentStreams", connections.httpMaxConcurrentStreams),
      ...count("initialStreamWindowSize", connections.http2InitialStreamWindowSize),
      ...count("initialConnectionWindowSize", connections.http2InitialConnectionWindowSize),
    },
  };
}

function isSaid(value: string | undefined): value is string {
  return value !== undefined && !value.endsWith("_UNSPECIFIED");
}

function duration(field: string, text: string | undefined): Message {
  return text === undefined ? {} : { [field]: durationOf(durationMsOf(text)) };
}

function count(field: string, value: number | undefined): Message {
  return value === undefined ? {} : { [field]: wrapped(value) };
}
