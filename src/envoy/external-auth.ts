// The external authorization that a route of Gateway API asks for. Envoy's ext_authz filter takes most of its settings for a whole
// listener; what differs from route to route is wrapped: a filter that does nothing by itself, and that each route fills.

import type { ExternalAuth } from "#objects";
import { durationOf, typed, type Message } from "./proto/api.ts";

export const externalAuthName = "gateway-api.external-auth";
/** Gateway API names no limit for the answer; beyond it the request is denied. */
const answerTimeoutMs = 10_000;

/** Does nothing by itself: routes say whom they ask. */
export const externalAuthFilter: Message = {
  name: externalAuthName,
  typedConfig: typed("envoy.extensions.common.matching.v3.ExtensionWithMatcher", {
    xdsMatcher: {},
    extensionConfig: {
      name: "envoy.filters.http.composite",
      typedConfig: typed("envoy.extensions.filters.http.composite.v3.Composite"),
    },
  }),
};

/**
 * `typed_per_filter_config` of a route that asks.
 * @param cluster of the service that is asked
 */
export function externalAuth(auth: ExternalAuth, cluster: string): Message {
  const action = typed("envoy.extensions.filters.http.composite.v3.ExecuteFilterAction", {
    typedConfig: {
      name: "envoy.filters.http.ext_authz",
      typedConfig: typed("envoy.extensions.filters.http.ext_authz.v3.ExtAuthz", extAuthz(auth, cluster)),
    },
  });
  return {
    [externalAuthName]: typed("envoy.extensions.common.matching.v3.ExtensionWithMatcherPerRoute", {
      xdsMatcher: { onNoMatch: { action: { name: "ask", typedConfig: action } } },
    }),
  };
}

function extAuthz(auth: ExternalAuth, cluster: string): Message {
  const bodyBytesMax = auth.forwardBody?.maxSize ?? 0;
  return {
    ...(auth.protocol === "GRPC" ? grpcService(auth, cluster) : httpService(auth, cluster)),
    transportApiVersion: "V3",
    // Gateway API: whatever goes wrong on the way to the service, the request is denied.
    failureModeAllow: false,
    statusOnError: { code: 403 },
    ...(bodyBytesMax > 0
      ? { withRequestBody: { maxRequestBytes: bodyBytesMax, allowPartialMessage: true } }
      : {}),
  };
}

/** Without a list a service that speaks gRPC is told every header. */
function grpcService({ destination, grpc }: ExternalAuth, cluster: string): Message {
  const allowed = grpc?.allowedHeaders ?? [];
  return {
    grpcService: {
      envoyGrpc: { clusterName: cluster, authority: destination.host },
      timeout: durationOf(answerTimeoutMs),
    },
    ...(allowed.length === 0 ? {} : { allowedHeaders: { patterns: allowed.map(exactly) } }),
  };
}

/** One that speaks HTTP is told the method, the path, the host and Authorization, which Envoy always sends, and what the list adds. */
function httpService({ destination, http = {} }: ExternalAuth, cluster: string): Message {
  const { path = "", allowedHeaders = [], allowedResponseHeaders = [] } = http;
  const answered =
    allowedResponseHeaders.length === 0
      ? [{ safeRegex: { regex: anyNameBut(notForBackends) } }]
      : allowedResponseHeaders.map(exactly);
  return {
    httpService: {
      pathPrefix: path,
      serverUri: {
        uri: `http://${destination.host}`,
        cluster,
        timeout: durationOf(answerTimeoutMs),
      },
      authorizationResponse: { allowedUpstreamHeaders: { patterns: answered } },
    },
    ...(allowedHeaders.length === 0 ? {} : { allowedHeaders: { patterns: allowedHeaders.map(exactly) } }),
  };
}

function exactly(name: string): Message {
  return { exact: name, ignoreCase: true };
}

/**
 * Of an answer whose headers all go to the backend these do not: the host, which Gateway API excepts, and what is about the answer's own
 * body and connection, which would misdescribe the request's.
 */
const notForBackends = [
  "connection",
  "content-encoding",
  "content-length",
  "content-type",
  "host",
  "keep-alive",
  "te",
  "trailer",
  "transfer-encoding",
  "upgrade",
];

/** A regex of RE2, which has no look-ahead, for every header's name in lower case except some; pseudo headers are none. */
export function anyNameBut(words: readonly string[]): string {
  return branches(words, true);
}

function branches(words: readonly string[], first: boolean): string {
  const rests = Map.groupBy(
    words.filter((word) => word !== ""),
    (word) => word[0]!,
  );
  const letters = [...rests.keys()].toSorted().map((letter) => (letter === "-" ? "\\-" : letter));
  const other = `[^${letters.join("")}${first ? ":" : ""}]`;
  const within = [...rests].map(([letter, group]) => {
    const rest = group.map((word) => word.slice(1));
    const tail = branches(rest, false);
    return `${letter}(?:${tail})${rest.includes("") ? "" : "?"}`;
  });
  return [letters.length === 0 && !first ? ".+" : `${other}.*`, ...within].join("|");
}
