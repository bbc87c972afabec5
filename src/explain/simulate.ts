// What would this Envoy do with this call? Read from the very resources that are pushed (or from a config_dump), not
// from the Istio objects: so it is a second witness of the translation.

import { decodeMessage, withHostsInTables, type EnvoyResource } from "#envoy";
import { callOf, type Call } from "./call.ts";
import { findFilterChain, findListener, inspect } from "./listener.ts";
import { tokenVerdict } from "./jwt.ts";
import { rbacVerdict } from "./rbac.ts";
import { shutBy, statusOfFilters } from "./route-filters.ts";
import { findRoutes, findVirtualHost, type RouteShare } from "./route.ts";
import type {
  FilterChain,
  HttpConnectionManager,
  Listener,
  Route,
  RouteConfiguration,
  TcpProxy,
} from "./shapes.ts";

/** What one proxy holds, decoded. */
export interface ProxyConfiguration {
  readonly listeners: readonly Listener[];
  readonly routes: ReadonlyMap<string, RouteConfiguration>;
}

/** Why a call gets no further. */
export type Refusal =
  | "NoListener"
  | "NoFilterChain"
  | "MultipleFilterChain"
  | "ProtocolError"
  | "TLSError"
  | "MTLSError"
  | "NoRouteTable"
  | "NoVirtualHost"
  | "NoRoute"
  | "TLSRedirect"
  | "Unauthenticated"
  | "Denied";

export interface WeightedCluster {
  readonly cluster: string;
  readonly weight: number;
}

export type Outcome =
  | { readonly kind: "forward"; readonly to: readonly WeightedCluster[] }
  | { readonly kind: "redirect"; readonly status: number }
  | { readonly kind: "respond"; readonly status: number }
  /** Requests that are alike fare differently: shares of 1. */
  | { readonly kind: "shares"; readonly of: readonly { readonly share: number; readonly outcome: Outcome }[] }
  | { readonly kind: "refuse"; readonly error: Refusal; readonly text: string };

export interface Trace {
  readonly outcome: Outcome;
  readonly listener?: string;
  readonly filterChain?: string;
  readonly routeConfiguration?: string;
  readonly virtualHost?: string;
  readonly route?: string;
  /** The Istio object behind the route, as its metadata says it. */
  readonly origin?: string;
}

/** Decodes the listeners and routes among a proxy's resources. */
export function configurationOf(resources: Iterable<EnvoyResource>): ProxyConfiguration {
  const listeners: Listener[] = [];
  const routes = new Map<string, RouteConfiguration>();
  for (const resource of withHostsInTables(resources)) {
    if (resource.type === "listener") {
      listeners.push(
        decodeMessage("envoy.config.listener.v3.Listener", resource.bytes) as unknown as Listener,
      );
    } else if (resource.type === "route") {
      const table = decodeMessage("envoy.config.route.v3.RouteConfiguration", resource.bytes);
      routes.set(resource.name, table as unknown as RouteConfiguration);
    }
  }
  return { listeners, routes };
}

/**
 * Follows one call through one proxy.
 * @param meshCertificate the SDS name of the certificate that mutual TLS of the mesh is terminated with
 */
export function simulate(
  configuration: ProxyConfiguration,
  partial: Partial<Call> & Pick<Call, "direction" | "port">,
  meshCertificate = "default",
): Trace {
  const call = callOf(partial);
  const listener = findListener(configuration.listeners, call);
  if (listener === undefined)
    return refused({}, "NoListener", `nothing listens at ${call.address}:${call.port}`);
  const at = { listener: listener.name };
  const found = findFilterChain(listener, call, inspect(listener, call));
  if (found.kind === "none")
    return refused(at, "NoFilterChain", "no filter chain matches; Envoy closes the connection");
  if (found.kind === "ambiguous") {
    const names = found.chains.map((chain) => chain.name ?? "unnamed").join(", ");
    return refused(at, "MultipleFilterChain", `filter chains match alike: ${names}`);
  }
  return throughChain(
    configuration,
    found.chain,
    call,
    { ...at, filterChain: found.chain.name ?? "" },
    meshCertificate,
  );
}

type Reached = Omit<Trace, "outcome">;

function throughChain(
  configuration: ProxyConfiguration,
  chain: FilterChain,
  call: Call,
  at: Reached,
  meshCertificate: string,
): Trace {
  if (chain.transportSocket !== undefined) {
    if (call.tls === "plaintext")
      return refused(at, "TLSError", "the chain wants TLS and the call is plaintext");
    if (demandsMutualTls(chain, meshCertificate) !== (call.tls === "mtls")) {
      return refused(at, "MTLSError", "the chain and the call do not agree on the mesh's mutual TLS");
    }
  }
  const denied = networkRbac(chain, call);
  if (denied !== undefined) return refused(at, "Denied", `the connection is denied by ${denied}`);
  const manager = filterOf<HttpConnectionManager>(chain, "HttpConnectionManager");
  if (manager !== undefined) return throughRoutes(configuration, manager, chain, call, at);
  const tcp = filterOf<TcpProxy>(chain, "TcpProxy");
  if (tcp === undefined)
    return refused(at, "NoRoute", "the chain has no terminal filter that the explainer knows");
  const weighted = (tcp.weightedClusters?.clusters ?? []).map(({ name, weight }) => ({
    cluster: name,
    weight: weight ?? 1,
  }));
  return {
    ...at,
    outcome: { kind: "forward", to: tcp.cluster ? [{ cluster: tcp.cluster, weight: 100 }] : weighted },
  };
}

function throughRoutes(
  configuration: ProxyConfiguration,
  manager: HttpConnectionManager,
  chain: FilterChain,
  given: Call,
  before: Reached,
): Trace {
  if (given.tls !== "plaintext" && chain.transportSocket === undefined) {
    return refused(
      before,
      "ProtocolError",
      "TLS reaches an HTTP connection manager that does not terminate it",
    );
  }
  if (given.protocol === "tcp") return refused(before, "ProtocolError", "the bytes are not HTTP");
  const name = manager.rds?.routeConfigName ?? manager.routeConfig?.name ?? "";
  const table = manager.routeConfig ?? configuration.routes.get(name);
  const at = manager.rds === undefined ? before : { ...before, routeConfiguration: name };
  if (table === undefined) return refused(at, "NoRouteTable", `route table ${name} is not held`);
  const shut = shutBy(manager);
  if (shut?.isBeforeChecks === true) return { ...at, outcome: { kind: "respond", status: shut.status } };
  const virtualHost = findVirtualHost(table, given.host);
  if (virtualHost === undefined)
    return refused(at, "NoVirtualHost", `no virtual host for ${given.host}: 404`);
  const there = { ...at, virtualHost: virtualHost.name };
  if (virtualHost.requireTls === "ALL" && given.tls === "plaintext") {
    return refused(there, "TLSRedirect", "the virtual host redirects plaintext to https");
  }
  const token = tokenVerdict(manager, given);
  if (token.kind === "refused") return refused(there, "Unauthenticated", `401: ${token.text}`);
  const call = { ...given, claims: token.claims };
  const denied = httpRbac(manager, call);
  if (denied !== undefined) return refused(there, "Denied", `403: denied by ${denied}`);
  if (shut !== undefined) return { ...there, outcome: { kind: "respond", status: shut.status } };
  const routes = findRoutes(virtualHost, call);
  const [first] = routes;
  if (first === undefined) return refused(there, "NoRoute", `no route of ${virtualHost.name} matches: 404`);
  const { route } = first;
  const origin = route.metadata?.filterMetadata?.["istio"]?.fields?.["config"]?.stringValue;
  return {
    ...there,
    route: route.name ?? "",
    ...(origin === undefined ? {} : { origin }),
    outcome: outcomeOfAll(routes, call),
  };
}

function outcomeOfAll(routes: readonly RouteShare[], call: Call): Outcome {
  const all = routes.map(({ route, share }) => ({ share, outcome: outcomeOf(route, call) }));
  const [first] = all;
  if (first !== undefined && all.length === 1) return first.outcome;
  const forwarded = all.flatMap(({ share, outcome }) => {
    if (outcome.kind !== "forward") return [];
    const total = outcome.to.reduce((sum, { weight }) => sum + weight, 0);
    return [outcome.to.map(({ cluster, weight }) => ({ cluster, weight: (100 * share * weight) / total }))];
  });
  return forwarded.length === all.length
    ? { kind: "forward", to: forwarded.flat() }
    : { kind: "shares", of: all };
}

function outcomeOf(route: Route, call: Call): Outcome {
  const status = statusOfFilters(route, call);
  if (status !== undefined) return { kind: "respond", status };
  if (route.directResponse !== undefined)
    return { kind: "respond", status: route.directResponse.status ?? 200 };
  if (route.redirect !== undefined)
    return { kind: "redirect", status: redirectStatus(route.redirect.responseCode) };
  const action = route.route ?? {};
  if (action.cluster) return { kind: "forward", to: [{ cluster: action.cluster, weight: 100 }] };
  const to = (action.weightedClusters?.clusters ?? []).map(({ name, weight }) => ({
    cluster: name,
    weight: weight?.value ?? 0,
  }));
  return { kind: "forward", to };
}

const redirectStatuses: Readonly<Record<string, number>> = {
  FOUND: 302,
  SEE_OTHER: 303,
  TEMPORARY_REDIRECT: 307,
  PERMANENT_REDIRECT: 308,
};

function redirectStatus(responseCode: string | undefined): number {
  return redirectStatuses[responseCode ?? ""] ?? 301;
}

/** The mesh's own mutual TLS shows its own certificate and asks for the client's; anything else is somebody's TLS. */
function demandsMutualTls(chain: FilterChain, meshCertificate: string): boolean {
  const context = chain.transportSocket?.typedConfig;
  const certificate = context?.commonTlsContext?.tlsCertificateSdsSecretConfigs?.[0]?.name;
  return certificate === meshCertificate && context?.requireClientCertificate?.value === true;
}

function networkRbac(chain: FilterChain, call: Call): string | undefined {
  return firstDenial(chain.filters ?? [], ".network.rbac.", call);
}

function httpRbac(manager: HttpConnectionManager, call: Call): string | undefined {
  return firstDenial(manager.httpFilters ?? [], ".http.rbac.", call);
}

function firstDenial(
  filters: NonNullable<FilterChain["filters"]>,
  type: string,
  call: Call,
): string | undefined {
  for (const filter of filters) {
    if (filter.typedConfig?.["@type"]?.includes(type) !== true || filter.disabled === true) continue;
    const verdict = rbacVerdict(filter.typedConfig["rules"], call);
    if (verdict.kind === "deny") return verdict.by;
  }
  return undefined;
}

function filterOf<F>(chain: FilterChain, type: string): F | undefined {
  const filter = (chain.filters ?? []).find((candidate) =>
    candidate.typedConfig?.["@type"]?.endsWith(`.${type}`),
  );
  return filter?.typedConfig as F | undefined;
}

function refused(at: Reached, error: Refusal, text: string): Trace {
  return { ...at, outcome: { kind: "refuse", error, text } };
}
