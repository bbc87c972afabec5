// Ingresses of the mesh's class: which those are, and what they come to in the terms of Istio's API: one Gateway for plain HTTP,
// one for each Ingress with TLS, and a VirtualService for each host, into which all Ingresses with that host put their paths.
// Istio's own documentation of the class: https://istio.io/latest/docs/tasks/traffic-management/ingress/kubernetes-ingress/

import { isIP } from "node:net";
import type { ObjectRef } from "#base";
import { defineQuery, sameData, type Read } from "#engine";
import {
  annotations,
  sortRoutesByPrecedence,
  type Gateway,
  type GatewayServer,
  type HTTPMatchRequest,
  type Ingress,
  type IngressBackend,
  type IngressPath,
  type VirtualService,
  type VirtualServiceHttpRoute,
} from "#objects";
import { namespaceOf } from "../core-kinds.ts";
import { nowhere } from "../gateway-api/backends.ts";
import { externalReach } from "../external-addresses.ts";
import { hostCovers } from "../hosts.ts";
import { environmentOf, readMesh } from "../mesh.ts";
import { oldestFirst } from "../selectors.ts";
import { everything, tables } from "../tables.ts";
import {
  hostOfIngressRoute,
  ingressOfGateway,
  ingressRouteKey,
  plainGateway,
  tlsGatewayOf,
} from "./names.ts";

export const controller = "istio.io/ingress-controller";
/** Istio's name for the ingress gateway's Service, and the label of its proxies where nothing else is said. */
const defaultService = "istio-ingressgateway";
const defaultSelector = "ingressgateway";

/** Whether an Ingress is of this mesh, by row key. */
export const isOurs = defineQuery<boolean>("isIngressOurs", (read, key) => {
  const row = read(tables.Ingress, key);
  return row !== undefined && isOfOurClass(read, row);
});

/** The same of an Ingress that may not be there yet. */
export function isOfOurClass(read: Read, row: Ingress): boolean {
  const mode = readMesh(read, "ingressControllerMode") ?? "STRICT";
  if (row.spec === undefined || mode === "OFF") return false;
  const annotated = row.metadata.annotations?.[annotations.ingressClass];
  if (annotated !== undefined) return annotated === (readMesh(read, "ingressClass") ?? "istio");
  const { ingressClassName } = row.spec;
  // Without a class it is everybody's; only mode DEFAULT takes it, where no other controller is around.
  if (ingressClassName === undefined) return mode === "DEFAULT";
  return read(tables.IngressClass, ingressClassName)?.spec?.controller === controller;
}

/** Row keys of our Ingresses, the oldest first. */
const ingressKeys = defineQuery<readonly string[]>(
  "ingressKeys",
  (read) =>
    read(tables.Ingress.by.all, everything)
      .toSorted(oldestFirst)
      .map((row) => `${namespaceOf(row)}/${row.metadata.name}`)
      .filter((key) => read(isOurs, key)),
  sameData,
);

/** The hosts of one Ingress: of its rules, and "*" for its default backend. */
const hostsOfIngress = defineQuery<readonly string[]>(
  "ingressHosts",
  (read, key) => {
    const spec = read(tables.Ingress, key)?.spec;
    const hosts = (spec?.rules ?? []).flatMap(({ host, http }) => (http === undefined ? [] : [hostOf(host)]));
    return [...new Set([...hosts, ...(spec?.defaultBackend === undefined ? [] : ["*"])])].toSorted();
  },
  sameData,
);

/** Our Ingresses by the hosts that they have paths for. */
const ingressesByHost = defineQuery<Readonly<Record<string, readonly string[]>>>(
  "ingressesByHost",
  (read) => {
    const byHost: Record<string, string[]> = {};
    for (const key of read(ingressKeys, ""))
      for (const host of read(hostsOfIngress, key)) (byHost[host] ??= []).push(key);
    return byHost;
  },
  sameData,
);

export const ingressesOfHost = defineQuery<readonly string[]>(
  "ingressesOfHost",
  (read, host) => read(ingressesByHost, "")[host] ?? [],
  sameData,
);

export function hostOf(host: string | undefined): string {
  return host === undefined || host === "" ? "*" : host.toLowerCase();
}

/** The Gateways that Ingresses come to; none without an Ingress. */
export const ingressGateways = defineQuery<readonly Gateway[]>(
  "ingressGateways",
  (read) => {
    const keys = read(ingressKeys, "");
    if (keys.length === 0) return [];
    const selector = { istio: selectorOf(read) };
    const plain: GatewayServer = {
      port: { number: 80, name: "http-80-ingress", protocol: "HTTP" },
      hosts: ["*"],
    };
    const secured = keys.flatMap((key) => {
      const servers = tlsServers(read, key);
      const created = read(tables.Ingress, key)?.metadata.creationTimestamp;
      return servers.length === 0 ? [] : [gatewayNamed(tlsGatewayOf(key), selector, servers, created)];
    });
    return [gatewayNamed(plainGateway, selector, [plain]), ...secured];
  },
  sameData,
);

function gatewayNamed(
  key: string,
  selector: Record<string, string>,
  servers: readonly GatewayServer[],
  created?: string,
): Gateway {
  const [namespace = "", name = ""] = key.split("/");
  return {
    apiVersion: "networking.istio.io/v1",
    kind: "Gateway",
    metadata: { name, namespace, ...(created === undefined ? {} : { creationTimestamp: created }) },
    spec: { selector, servers },
  };
}

/** Of two Ingresses that secure one host the older one's certificate is served; both have their paths there. */
function tlsServers(read: Read, key: string): GatewayServer[] {
  const [namespace = "", name = ""] = key.split("/");
  return (read(tables.Ingress, key)?.spec?.tls ?? []).flatMap(({ hosts = [], secretName }, at) => {
    if (secretName === undefined || secretName === "") return [];
    const port = { number: 443, name: `https-443-ingress-${name}-${namespace}-${at}`, protocol: "HTTPS" };
    return [
      {
        port,
        hosts: hosts.length === 0 ? ["*"] : hosts.map((host) => host.toLowerCase()),
        tls: { mode: "SIMPLE", credentialName: secretName, httpsRedirect: false },
      },
    ];
  });
}

/** The value of label `istio` by which the proxies are chosen. */
function selectorOf(read: Read): string {
  const selector = readMesh(read, "ingressSelector") ?? "";
  if (selector !== "") return selector;
  const service = readMesh(read, "ingressService") ?? defaultService;
  return service === defaultService || service === ""
    ? defaultSelector
    : service.slice(service.indexOf("/") + 1);
}

/** Row keys of the VirtualServices that a Gateway made of Ingresses has. */
export const routesOfIngressGateway = defineQuery<readonly string[]>(
  "routesOfIngressGateway",
  (read, gateway) => {
    if (gateway === plainGateway) return hostsOfAll(read).map(ingressRouteKey);
    const ingress = ingressOfGateway(gateway);
    if (ingress === undefined) return [];
    const served = tlsServers(read, ingress).flatMap(({ hosts }) => hosts);
    return hostsOfAll(read)
      .filter((host) => served.some((one) => hostCovers(one, host) || hostCovers(host, one)))
      .map(ingressRouteKey);
  },
  sameData,
);

function hostsOfAll(read: Read): readonly string[] {
  return Object.keys(read(ingressesByHost, "")).toSorted();
}

export interface IngressRoutes {
  readonly object: VirtualService;
  readonly origins: readonly ObjectRef[];
}

/** The VirtualService of a host, by its row key. */
export const ingressVirtualService = defineQuery<IngressRoutes | undefined>(
  "ingressVirtualService",
  (read, key) => {
    const host = hostOfIngressRoute(key);
    const keys = host === undefined ? [] : read(ingressesOfHost, host);
    if (host === undefined || keys.length === 0) return undefined;
    const rows = keys.flatMap((one) => read(tables.Ingress, one) ?? []);
    const paths = sortRoutesByPrecedence(rows.flatMap((row) => pathRoutes(read, row, host)));
    const last = host === "*" ? rows.flatMap((row) => defaultRoutes(read, row)).slice(0, 1) : [];
    return {
      object: {
        apiVersion: "networking.istio.io/v1",
        kind: "VirtualService",
        metadata: { namespace: key.slice(0, key.indexOf("/")), name: host },
        spec: { hosts: [host], gateways: [plainGateway], exportTo: ["*"], http: [...paths, ...last] },
      },
      origins: rows.map((row) => ({ kind: "Ingress", namespace: namespaceOf(row), name: row.metadata.name })),
    };
  },
  sameData,
);

function pathRoutes(read: Read, row: Ingress, host: string): VirtualServiceHttpRoute[] {
  const rules = (row.spec?.rules ?? []).filter((rule) => hostOf(rule.host) === host);
  return rules.flatMap(({ http }, at) =>
    (http?.paths ?? []).map((path, index) => ({
      name: `${namespaceOf(row)}.${row.metadata.name}.${at}.${index}`,
      match: [matchOf(path)],
      ...targetOf(read, row, path.backend),
    })),
  );
}

/** The first backend for everything that no path takes: the oldest Ingress's. */
function defaultRoutes(read: Read, row: Ingress): VirtualServiceHttpRoute[] {
  const backend = row.spec?.defaultBackend;
  if (backend === undefined) return [];
  const name = `${namespaceOf(row)}.${row.metadata.name}.default`;
  return [{ name, match: [{ uri: { prefix: "/" } }], ...targetOf(read, row, backend) }];
}

/** A prefix means whole elements of the path, and a slash at its end nothing: Kubernetes' rule. */
export function matchOf({ path = "/", pathType }: IngressPath): HTTPMatchRequest {
  const prefix = (text: string): HTTPMatchRequest => ({
    uri: { prefix: text === "" || text === "/" ? "/" : text.replace(/\/$/, "") },
  });
  switch (pathType) {
    case "Exact":
      return { uri: { exact: path } };
    case "Prefix":
      return prefix(path);
    default:
      // Istio's meaning of ImplementationSpecific: exact, unless it ends in "/*" or ".*".
      if (path === "" || path === "/") return prefix("/");
      return /[/.]\*$/.test(path) ? prefix(path.slice(0, -2)) : { uri: { exact: path } };
  }
}

/** What cannot be reached answers 500, as with Gateway API. */
function targetOf(
  read: Read,
  row: Ingress,
  { service }: IngressBackend,
): Pick<VirtualServiceHttpRoute, "route"> {
  const namespace = namespaceOf(row);
  const { clusterDomain } = read(environmentOf, "");
  const number =
    service === undefined ? undefined : portNumber(read, `${namespace}/${service.name}`, service.port);
  if (service === undefined || number === undefined)
    return { route: [{ destination: { host: nowhere, port: { number: 65_535 } } }] };
  const host = `${service.name}.${namespace}.svc.${clusterDomain}`;
  return { route: [{ destination: { host, port: { number } } }] };
}

function portNumber(
  read: Read,
  service: string,
  port: { readonly name?: string; readonly number?: number } | undefined,
): number | undefined {
  if (port?.number !== undefined) return port.number;
  return read(tables.Service, service)?.spec?.ports?.find(({ name }) => name === port?.name)?.port;
}

/** `status.loadBalancer.ingress` of an Ingress of ours, by row key: where the ingress gateway is reached. */
export const ingressStatusOf = defineQuery<readonly IngressAddress[] | undefined>(
  "ingressStatus",
  (read, key) => (read(isOurs, key) ? addressesOf(read) : undefined),
  sameData,
);

export interface IngressAddress {
  readonly ip?: string;
  readonly hostname?: string;
}

/** Where the ingress gateway's Service may be, by row key. */
function serviceRows(read: Read): readonly string[] {
  const service = readMesh(read, "ingressService") ?? defaultService;
  const { rootNamespace } = read(environmentOf, "");
  return service.includes("/") ? [service] : [`${rootNamespace}/${service}`, `sm-gateways/${service}`];
}

/** The namespace of the ingress gateway. */
export function servicePlace(read: Read): string {
  const rows = serviceRows(read);
  const row = rows.find((one) => read(tables.Service, one) !== undefined) ?? rows[0] ?? "";
  return row.slice(0, row.indexOf("/"));
}

function addressesOf(read: Read): readonly IngressAddress[] {
  for (const row of serviceRows(read)) {
    const service = read(tables.Service, row);
    if (service === undefined) continue;
    if (service.spec?.type === "ExternalName") return [{ hostname: service.spec.externalName ?? "" }];
    return read(externalReach, row).addresses.map((one) =>
      isIP(one) === 0 ? { hostname: one } : { ip: one },
    );
  }
  return [];
}
