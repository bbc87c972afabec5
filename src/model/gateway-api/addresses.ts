// Where a Gateway is reached: the Services in front of its proxies, and their addresses.

import { defineQuery, sameData, type Read } from "#engine";
import type { KubeGatewaySpec, ObjectMeta } from "#objects";
import { externalReach } from "../external-addresses.ts";
import { datagramEndpointsOf, endpointsOf } from "../endpoints.ts";
import { environmentOf } from "../mesh.ts";
import { serviceKey, serviceOf, type MeshService } from "../services.ts";
import { tables } from "../tables.ts";
import type { GatewayClassFacts } from "./classes.ts";
import type { Mistake } from "./findings.ts";

const nameOverride = "gateway.istio.io/name-override";

/**
 * Whether we deploy the proxies of a Gateway. An address that is a host name is a Service which somebody else has put
 * in front of proxies of theirs; an IP address is what the Service that we make shall have.
 */
export function isDeployed({ addresses = [] }: Pick<KubeGatewaySpec, "addresses">): boolean {
  if (addresses.length > 1) return false;
  const [only] = addresses;
  return only === undefined || only.type === undefined || only.type === "IPAddress";
}

/** The name of the Deployment, Service and ServiceAccount that are made for a Gateway. */
export function deployedName(
  { name, annotations }: Pick<ObjectMeta, "name" | "annotations">,
  { name: className, suffixed }: Pick<GatewayClassFacts, "name" | "suffixed">,
): string {
  return annotations?.[nameOverride] ?? (suffixed ? `${name}-${className}` : name);
}

export interface GatewayServices {
  /** Full host names. */
  readonly hosts: readonly string[];
  readonly mistake?: Mistake;
}

/** The Services that lead to a Gateway's proxies. */
export function gatewayServicesOf(
  read: Read,
  metadata: ObjectMeta,
  spec: KubeGatewaySpec,
  gatewayClass: GatewayClassFacts,
): GatewayServices {
  const { clusterDomain } = read(environmentOf, "");
  const namespace = metadata.namespace ?? "default";
  if (isDeployed(spec))
    return { hosts: [`${deployedName(metadata, gatewayClass)}.${namespace}.svc.${clusterDomain}`] };
  const addresses = spec.addresses ?? [];
  const hosts = addresses
    .filter(({ type }) => type === undefined || type === "Hostname")
    .map(({ value = "" }) => (value.includes(".") ? value : `${value}.${namespace}.svc.${clusterDomain}`));
  const others = addresses.filter(({ type }) => type !== undefined && type !== "Hostname");
  if (others.length === 0) return { hosts };
  const values = others.map(({ value }) => value).join(", ");
  const message = `addresses of other types than Hostname are not used: ${values}`;
  return { hosts, mistake: { reason: "UnsupportedAddress", message } };
}

/** What the Services of a Gateway come to for its ports. */
export interface Instances {
  /** `host:port` that endpoints stand behind. */
  readonly internal: readonly string[];
  readonly internalAddresses: readonly string[];
  readonly external: readonly string[];
  /** Hosts of Services that still wait for an external address. */
  readonly pending: readonly string[];
  readonly warnings: readonly string[];
  /** Only for want of time: nothing that is asked for is impossible. */
  readonly usable: boolean;
}

interface ServiceExposure {
  readonly external: readonly string[];
  readonly balanced: boolean;
  readonly deployed: boolean;
}

/** What the Service of a row says about its reach. */
const exposureOf = defineQuery<ServiceExposure>(
  "serviceExposure",
  (read, row) => {
    const service = read(tables.Service, row);
    return {
      external: read(externalReach, row).addresses,
      balanced: service?.spec?.type === "LoadBalancer",
      deployed: service?.metadata.labels?.["gateway.istio.io/managed"] !== undefined,
    };
  },
  sameData,
);

/** A port of a listener, as its transport counts it. */
export interface ServedPort {
  readonly port: number;
  readonly datagrams: boolean;
}

/** @param namespace the Gateway's: a Service of another one is not in front of its proxies */
export function instancesOf(
  read: Read,
  namespace: string,
  hosts: readonly string[],
  ports: readonly ServedPort[],
): Instances {
  const found = { internal: new Set<string>(), addresses: new Set<string>(), external: new Set<string>() };
  const pending = new Set<string>();
  const warnings = new Set<string>();
  let usable = true;
  for (const host of hosts) {
    const service = read(serviceOf, serviceKey(namespace, host));
    if (service === undefined) {
      warnings.add(`there is no Service ${host} in namespace ${namespace}`);
      usable = false;
      continue;
    }
    const exposure = read(exposureOf, `${namespace}/${service.name}`);
    for (const port of ports) {
      const state = portState(read, service, port, exposure.deployed);
      if (state.kind === "missing") {
        if (state.warning !== "") warnings.add(state.warning);
        if (state.impossible) usable = false;
        continue;
      }
      found.internal.add(`${host}:${port.port}`);
      for (const address of service.addresses) found.addresses.add(address);
      for (const address of exposure.external) found.external.add(address);
      if (exposure.external.length > 0 || !exposure.balanced) continue;
      pending.add(host);
      warnings.add(`${host} waits for its external address`);
    }
  }
  return {
    internal: [...found.internal].toSorted(),
    internalAddresses: [...found.addresses].toSorted(),
    external: [...found.external].toSorted(),
    pending: [...pending].toSorted(),
    warnings: [...warnings].toSorted(),
    usable,
  };
}

type PortState =
  | { readonly kind: "served" }
  | { readonly kind: "missing"; readonly warning: string; readonly impossible: boolean };

function portState(
  read: Read,
  service: MeshService,
  { port, datagrams }: ServedPort,
  deployed: boolean,
): PortState {
  const endpoints = read(datagrams ? datagramEndpointsOf : endpointsOf, service.key);
  if (endpoints.some(({ servicePort }) => servicePort === port)) return { kind: "served" };
  if (endpoints.length === 0 && service.ports.some((one) => (one.protocol === "udp") === datagrams))
    return { kind: "missing", warning: `${service.host} has no endpoints`, impossible: false };
  const meant = endpoints.find((endpoint) => endpoint.port === port);
  if (meant !== undefined) {
    const warning = `${service.host} has no port ${port}: the Service's port is asked for, which is ${meant.servicePort}`;
    return { kind: "missing", warning, impossible: true };
  }
  // What we deploy gets its endpoints a moment after its ports.
  if (deployed && service.ports.some((one) => one.port === port && (one.protocol === "udp") === datagrams))
    return { kind: "missing", warning: "", impossible: false };
  return {
    kind: "missing",
    warning: `${service.host} has no port ${port}${datagrams ? " of UDP" : ""}`,
    impossible: true,
  };
}
