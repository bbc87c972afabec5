// What a router wants: listeners and route tables of the Gateways that choose it, clusters of the services they route
// to, and the certificates they name.

import { defineKeyedQuery, sameData, type Read } from "#engine";
import {
  anyOutlet,
  clientTlsOf,
  backendCertificateOf,
  deployedAccountOf,
  gatewayScopeOf,
  gatewayScopeText,
  gatewayServices,
  hostCovers,
  isGenerated,
  isIngressGateway,
  keyNamesOf,
  mergedGatewayOf,
  ownerGatewayOf,
  serviceOf,
  visibleNamespaces,
  visibleServices,
  type BackendCertificate,
  type GatewayScope,
  type MergedServer,
} from "#model";
import { datagramClusters } from "./datagrams.ts";
import type { CredentialKey, GatewayListenerKey, GatewayRouteKey } from "./gateway-keys.ts";
import {
  clientCredentialKeys,
  credentialKey,
  givenCredentials,
  type NamedCredential,
} from "./credential-keys.ts";
import { clusterNameOf, type OutboundClusterKey, type WellKnownClusterKey } from "./keys.ts";
import { serviceClusterChunks } from "./outbound.ts";
import { emptyPlan, type Chunk, type Plan, type Planned } from "./plan.ts";
import type { GatewayView } from "./views.ts";

export function planGateway(read: Read, view: GatewayView): Plan {
  const scope = read(gatewayScopeOf, view.proxy);
  const clusters = read(gatewayClusters, scope);
  const passing = read(passthroughClusters, scope);
  const datagrams = read(datagramClusters, scope);
  const servers = read(serverChunks, scope);
  return {
    ...emptyPlan,
    cluster: [blackHole, clusters.cluster, passing.cluster, datagrams.cluster],
    endpoint: [clusters.endpoint, passing.endpoint, datagrams.endpoint],
    listener: [servers.listener],
    route: [servers.route],
    secret: [
      read(gatewayCredentials, { scope, account: `${view.proxy.namespace}/${view.proxy.serviceAccount}` }),
    ],
  };
}

const blackHole: Chunk<WellKnownClusterKey> = {
  id: "well-known",
  entries: [{ name: "BlackHoleCluster", key: { kind: "well-known", name: "BlackHoleCluster" } }],
};

const gatewayClusters = defineKeyedQuery<GatewayScope, { readonly cluster: Chunk; readonly endpoint: Chunk }>(
  "gatewayClusters",
  gatewayScopeText,
  (read, scope) => {
    const services = read(gatewayServices, scope);
    const { cluster, endpoint } = serviceClusterChunks(read, "gateway", scope.outbound, services);
    const routed = { ...cluster, entries: cluster.entries.map((entry) => byRouter(read, entry)) };
    return { cluster: showing(routed, read(backendCertificate, scope)), endpoint };
  },
  sameData,
);

/** A client certificate, and whose proxies have it. */
interface ShownCertificate extends BackendCertificate {
  readonly holder?: string;
}

/** What the proxy shows to servers outside of the mesh, as the Gateway of Gateway API says whose proxy it is. */
const backendCertificate = defineKeyedQuery<GatewayScope, ShownCertificate | undefined>(
  "backendCertificate",
  gatewayScopeText,
  (read, scope) => {
    const names = read(mergedGatewayOf, scope).listeners.flatMap(({ servers }) =>
      servers.map(({ gateway }) => gateway),
    );
    for (const name of new Set(names)) {
      const gateway = read(ownerGatewayOf, name);
      const found = gateway === undefined ? undefined : read(backendCertificateOf, gateway);
      if (found !== undefined) return { ...found, ...holderOf(read, name) };
    }
    return undefined;
  },
  sameData,
);

function showing(chunk: Chunk, certificate: BackendCertificate | undefined): Chunk {
  if (certificate === undefined) return chunk;
  return {
    ...chunk,
    entries: chunk.entries.map(({ name, key }) => ({
      name,
      key: { ...(key as OutboundClusterKey), clientCertificate: certificate.name },
    })),
  };
}

function byRouter(read: Read, entry: Planned): Planned {
  const key = entry.key as OutboundClusterKey;
  const port = read(serviceOf, key.service)?.ports.find((one) => one.port === key.port);
  return port?.protocol === "auto" ? { ...entry, key: { ...key, byRouter: true } } : entry;
}

/** What a server of mode AUTO_PASSTHROUGH leads to: every service of the mesh under its hosts, by SNI alone. */
export const passthroughClusters = defineKeyedQuery<
  GatewayScope,
  { readonly cluster: Chunk<OutboundClusterKey>; readonly endpoint: Chunk<OutboundClusterKey> }
>(
  "passthroughClusters",
  gatewayScopeText,
  (read, scope) => {
    const hosts = read(mergedGatewayOf, scope).listeners.flatMap(({ servers }) =>
      servers.flatMap((server) => (server.kind === "auto-passthrough" ? server.hosts : [])),
    );
    const services = hosts.length === 0 ? [] : servicesUnder(read, scope, hosts);
    const { cluster, endpoint } = serviceClusterChunks(read, "passthrough", scope.outbound, services);
    const passing = ({ entries }: Chunk): Chunk<OutboundClusterKey> => ({
      id: "passthrough",
      entries: entries.map(({ key }) => {
        const passed: OutboundClusterKey = { ...(key as OutboundClusterKey), passthrough: true };
        return { name: clusterNameOf(passed), key: passed };
      }),
    });
    return { cluster: passing(cluster), endpoint: passing(endpoint) };
  },
  sameData,
);

function servicesUnder(read: Read, scope: GatewayScope, hosts: readonly string[]): readonly string[] {
  const outlet = { scope: scope.outbound, port: anyOutlet };
  return read(visibleNamespaces, outlet)
    .flatMap((namespace) => read(visibleServices, { outlet, namespace }))
    .filter((key) => hosts.some((host) => coversService(host, key)))
    .filter((key) => read(serviceOf, key)?.external === false)
    .toSorted();
}

/** A server's host, `host` or `namespace/host`, and a service, `namespace/host`. */
export function coversService(served: string, service: string): boolean {
  const [namespace = "", host = ""] = service.split("/");
  const [before = "", after] = served.split("/");
  return after === undefined ? hostCovers(before, host) : before === namespace && hostCovers(after, host);
}

const serverChunks = defineKeyedQuery<
  GatewayScope,
  { readonly listener: Chunk; readonly route: Chunk; readonly credentials: readonly NamedCredential[] }
>(
  "gatewayServerChunks",
  gatewayScopeText,
  (read, scope) => {
    const { listeners, quicListeners, datagramListeners, routes } = read(mergedGatewayOf, scope);
    const listener = [...listeners, ...quicListeners, ...datagramListeners].map(
      ({ name }): Planned<GatewayListenerKey> => ({ name, key: { kind: "gateway", scope, name } }),
    );
    const route = Object.keys(routes)
      .toSorted()
      .map((name): Planned<GatewayRouteKey> => ({ name, key: { kind: "gateway", scope, name } }));
    return {
      listener: { id: "gateway", entries: listener },
      route: { id: "gateway", entries: route },
      credentials: [
        ...listeners.flatMap(({ servers }) =>
          servers.flatMap((server) => credentialsOf(read, server, scope.namespace)),
        ),
        ...clientCredentials(read, scope).map((key) => ({ key })),
        ...shownCredential(read(backendCertificate, scope)),
      ],
    };
  },
  sameData,
);

/** What the proxies of a service account get of what is named for the gateway. */
const gatewayCredentials = defineKeyedQuery<
  { readonly scope: GatewayScope; readonly account: string },
  Chunk<CredentialKey>
>(
  "gatewayCredentials",
  ({ scope, account }) => `${account} ${gatewayScopeText(scope)}`,
  (read, { scope, account }) => ({
    id: "gateway",
    entries: givenCredentials(read, account, read(serverChunks, scope).credentials),
  }),
  sameData,
);

function shownCredential(shown: ShownCertificate | undefined): NamedCredential[] {
  if (shown === undefined) return [];
  const { holder, ...named } = shown;
  return [
    { key: { kind: "credential", ...named, part: "pair" }, ...(holder === undefined ? {} : { holder }) },
  ];
}

/** The account of the proxies that are deployed for a Gateway of Gateway API, by a listener's internal name. */
function holderOf(read: Read, name: string): Pick<NamedCredential, "holder"> {
  const gateway = read(ownerGatewayOf, name);
  const holder = gateway === undefined ? undefined : read(deployedAccountOf, gateway);
  return holder === undefined ? {} : { holder };
}

/**
 * The secrets that a server may have. A Secret is given only to a proxy of its own namespace. The Gateway that names it
 * may be anywhere, as with Istio: teams keep Gateways beside their applications, certificates lie with the proxy.
 */
function credentialsOf(read: Read, { tls, gateway }: MergedServer, namespace: string): NamedCredential[] {
  if (tls === undefined) return [];
  const names = keyNamesOf(tls);
  const validates = tls.mode === "MUTUAL" || tls.mode === "OPTIONAL_MUTUAL";
  const ca = tls.caCertCredentialName ?? "";
  // What Gateway API's listeners name has been judged already: ReferenceGrants may open other namespaces to them.
  if (isGenerated(gateway) && !isIngressGateway(gateway)) {
    const holder = holderOf(read, gateway);
    const pairs = names.flatMap((credential) => judgedKey(credential, "pair"));
    return [...pairs, ...(validates ? judgedKey(ca, "ca") : [])].map((key) => ({ key, ...holder }));
  }
  const pairs = names.flatMap((credential) => credentialKey(credential, namespace, "pair"));
  const authorities = !validates
    ? []
    : ca !== ""
      ? credentialKey(ca, namespace, "ca")
      : credentialKey(names[0] ?? "", namespace, "ca", "-cacert");
  return [...pairs, ...authorities].map((key) => ({ key }));
}

/** What DestinationRules of the services behind it name for TLS that the router originates: Secrets of its own namespace. */
function clientCredentials(read: Read, { namespace, ...scope }: GatewayScope): CredentialKey[] {
  const { entries } = read(gatewayClusters, { namespace, ...scope }).cluster;
  const rules = new Set(entries.map(({ key }) => (key as OutboundClusterKey).rules.join(",")));
  return [...rules]
    .flatMap((joined) => read(clientTlsOf, joined))
    .flatMap((named) => clientCredentialKeys(named, namespace));
}

/** `kubernetes-gateway://namespace/name`; a CA's name ends in `-cacert`, and may be a `configmap://`. */
function judgedKey(name: string, part: "pair" | "ca"): CredentialKey[] {
  const [, scheme, path = ""] = /^(kubernetes-gateway|configmap):\/\/(.+)$/.exec(name) ?? [];
  if (scheme === undefined) return [];
  const secret = part === "ca" ? path.replace(/-cacert$/, "") : path;
  return [{ kind: "credential", name, secret, part: scheme === "configmap" ? "ca-of-config-map" : part }];
}
