// Where a router sends what a VirtualService's destination names.

import type { Read } from "#engine";
import type { ConsistentHash, Destination } from "#objects";
import {
  anyOutlet,
  destinationKey,
  mergedRule,
  rulesFor,
  serviceOf,
  type GatewayScope,
  type MeshService,
} from "#model";
import { outboundClusterName } from "#plan";
import { policyFor, type PortPolicy } from "./traffic-policy.ts";

/** The cluster of a destination whose host is full. A service with a single port needs no port in the destination. */
export function destinationCluster(
  read: Read,
  scope: GatewayScope,
  destination: Destination,
  serverPort: number,
): string {
  const service = destinationService(read, scope, destination);
  const port = destinationPort(service, destination, serverPort);
  return outboundClusterName(port, destination.subset ?? "", service?.host ?? destination.host);
}

/** What a DestinationRule says requests to a destination are hashed by. */
export function destinationHash(
  read: Read,
  scope: GatewayScope,
  destination: Destination,
  serverPort: number,
): ConsistentHash | undefined {
  return destinationPolicy(read, scope, destination, serverPort)?.loadBalancer?.consistentHash;
}

/** What DestinationRules and BackendTLSPolicies say about the way to a service's port. */
export function policyTowards(
  read: Read,
  scope: GatewayScope,
  service: MeshService,
  subset: string,
  port: number,
): PortPolicy {
  const rules = read(rulesFor, {
    client: scope.namespace,
    labels: scope.outbound.labels,
    host: service.host,
    serviceNamespace: service.namespace,
  });
  return policyFor(read(mergedRule, rules.join(",")), subset, port);
}

/** What DestinationRules say to this router of a destination; undefined when it means no service. */
export function destinationPolicy(
  read: Read,
  scope: GatewayScope,
  destination: Destination,
  serverPort: number,
): PortPolicy | undefined {
  const service = destinationService(read, scope, destination);
  if (service === undefined) return undefined;
  const port = destinationPort(service, destination, serverPort);
  return policyTowards(read, scope, service, destination.subset ?? "", port);
}

/** The service that a destination means to this router. */
export function destinationService(
  read: Read,
  scope: GatewayScope,
  { host }: Destination,
): MeshService | undefined {
  const key = read(destinationKey, { outlet: { scope: scope.outbound, port: anyOutlet }, host });
  return key === undefined ? undefined : read(serviceOf, key);
}

function destinationPort(
  service: MeshService | undefined,
  { port }: Destination,
  serverPort: number,
): number {
  const only = service?.ports.length === 1 ? service.ports[0]?.port : undefined;
  return port?.number ?? only ?? serverPort;
}
