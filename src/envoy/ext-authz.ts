// AuthorizationPolicy with action CUSTOM: an outside service decides. The RBAC filter before it only notes which policy
// matched; the ext_authz filter asks the service when one did.

import type {
  ProviderEnvoyExternalAuthorizationGrpcProvider,
  ProviderEnvoyExternalAuthorizationHttpProvider,
} from "#objects";
import { durationMsOf } from "./duration.ts";
import { durationOf, typed, type Message } from "./proto/api.ts";

/** A provider of MeshConfig whose service is known. */
export type ExtAuthzProvider = {
  /** The host and cluster of its service. */
  readonly host: string;
  readonly cluster: string;
} & (
  | { readonly kind: "http"; readonly settings: ProviderEnvoyExternalAuthorizationHttpProvider }
  | { readonly kind: "grpc"; readonly settings: ProviderEnvoyExternalAuthorizationGrpcProvider }
);

/** Before the names of policies, so that the second filter knows the first one's notes of its own provider. */
export function customPolicyPrefix(provider: string): string {
  return provider === "" ? "istio-ext-authz-" : `istio-ext-authz-${provider}-`;
}

export const customShadowPrefix = "istio_ext_authz_";

/** Istio's limit for an answer when the provider names none. */
const answerTimeoutMs = 600_000;

export function httpExtAuthz(name: string, provider: ExtAuthzProvider): Message {
  const { settings } = provider;
  const body = settings.includeRequestBodyInCheck;
  const status = statusOf(settings.statusOnError);
  return {
    name: "envoy.filters.http.ext_authz",
    typedConfig: typed("envoy.extensions.filters.http.ext_authz.v3.ExtAuthz", {
      ...(provider.kind === "grpc"
        ? { grpcService: grpcService(provider) }
        : httpService(provider.settings, provider)),
      transportApiVersion: "V3",
      failureModeAllow: settings.failOpen === true,
      ...(status === undefined ? {} : { statusOnError: { code: status } }),
      filterEnabledMetadata: whenNoted("envoy.filters.http.rbac", name),
      ...(body === undefined
        ? {}
        : {
            withRequestBody: {
              maxRequestBytes: body.maxRequestBytes ?? 0,
              allowPartialMessage: body.allowPartialMessage === true,
              packAsBytes: body.packAsBytes === true,
            },
          }),
    }),
  };
}

/** A provider that speaks HTTP cannot be asked about TCP. */
export function tcpExtAuthz(name: string, provider: ExtAuthzProvider): Message | undefined {
  if (provider.kind === "http") return undefined;
  return {
    name: "envoy.filters.network.ext_authz",
    typedConfig: typed("envoy.extensions.filters.network.ext_authz.v3.ExtAuthz", {
      statPrefix: "tcp.",
      grpcService: grpcService(provider),
      transportApiVersion: "V3",
      failureModeAllow: provider.settings.failOpen === true,
      filterEnabledMetadata: whenNoted("envoy.filters.network.rbac", name),
    }),
  };
}

function grpcService({ cluster, host, settings }: ExtAuthzProvider): Message {
  return {
    envoyGrpc: { clusterName: cluster, authority: host },
    timeout: durationOf(timeoutMs(settings.timeout)),
  };
}

function httpService(
  settings: ProviderEnvoyExternalAuthorizationHttpProvider,
  { cluster, host }: ExtAuthzProvider,
): Message {
  const toAdd = Object.entries(settings.includeAdditionalHeadersInCheck ?? {})
    .toSorted(([a], [b]) => (a < b ? -1 : 1))
    .map(([key, value]) => ({ key, value }));
  const asked = settings.includeRequestHeadersInCheck ?? [];
  const allowed = asked.length > 0 ? asked : (settings.includeHeadersInCheck ?? []);
  const answers = {
    ...headers("allowedUpstreamHeaders", settings.headersToUpstreamOnAllow),
    ...headers("allowedClientHeaders", settings.headersToDownstreamOnDeny),
    ...headers("allowedClientHeadersOnSuccess", settings.headersToDownstreamOnAllow),
  };
  return {
    httpService: {
      pathPrefix: settings.pathPrefix ?? "",
      serverUri: { uri: `http://${host}`, cluster, timeout: durationOf(timeoutMs(settings.timeout)) },
      ...(toAdd.length === 0 ? {} : { authorizationRequest: { headersToAdd: toAdd } }),
      ...(Object.keys(answers).length === 0 ? {} : { authorizationResponse: answers }),
    },
    ...headers("allowedHeaders", allowed),
  };
}

function headers(field: string, names: readonly string[] | undefined): Message {
  if (names === undefined || names.length === 0) return {};
  const patterns = names.map((name) => ({
    ...(name.startsWith("*")
      ? { suffix: name.slice(1) }
      : name.endsWith("*")
        ? { prefix: name.slice(0, -1) }
        : { exact: name }),
    ignoreCase: true,
  }));
  return { [field]: { patterns } };
}

function whenNoted(filter: string, provider: string): Message {
  return {
    filter,
    path: [{ key: `${customShadowPrefix}shadow_effective_policy_id` }],
    value: { stringMatch: { prefix: customPolicyPrefix(provider).slice(0, -1) } },
  };
}

function timeoutMs(timeout: string | undefined): number {
  return timeout === undefined || timeout === "" ? answerTimeoutMs : durationMsOf(timeout);
}

function statusOf(status: string | undefined): number | undefined {
  return status === undefined || status === "" ? undefined : Number(status);
}
