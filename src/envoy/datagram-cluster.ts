// Clusters for UDP: a service's port as routers send datagrams to it. No TLS and no HTTP, and of a DestinationRule the load balancing alone.

import type { Read } from "#engine";
import { datagramEndpointsOf, mergedRule, readMesh, serviceOf, type MeshService } from "#model";
import { datagramClusterName, type DatagramClusterKey } from "#plan";
import { clusterMetadata, originsOf, readPoolDefaults } from "./cluster.ts";
import { durationMsOf } from "./duration.ts";
import { isAddress } from "./endpoint.ts";
import { durationOf, wrapped, type Message } from "./proto/api.ts";
import { resource, type EnvoyResource } from "./resource.ts";
import { balancerFields, policyFor, poolFields } from "./traffic-policy.ts";

export function datagramCluster(read: Read, key: DatagramClusterKey): EnvoyResource | undefined {
  const service = read(serviceOf, key.service);
  if (service === undefined) return undefined;
  const name = datagramClusterName(key.port, service.host);
  const policy = policyFor(read(mergedRule, key.rules.join(",")), "", key.port);
  const places = discovery(read, key, service, name);
  if (places === undefined) return undefined;
  const message: Message = {
    name,
    ...places,
    ...balancerFields(policy.loadBalancer),
    ...poolFields({}, readPoolDefaults(read, key.tuning)),
    metadata: { filterMetadata: clusterMetadata(service, { ...key, subset: "" }) },
  };
  return resource("cluster", name, message, originsOf(service, key));
}

export function datagramEndpoints(read: Read, key: DatagramClusterKey): EnvoyResource {
  const host = key.service.slice(key.service.indexOf("/") + 1);
  const name = datagramClusterName(key.port, host);
  // Envoy refuses the whole assignment for one name among the addresses.
  return resource("endpoint", name, loadAssignment(read, key, name, isAddress));
}

function discovery(
  read: Read,
  key: DatagramClusterKey,
  { resolution }: MeshService,
  name: string,
): Message | undefined {
  switch (resolution) {
    case "endpoints":
    case "original-destination":
      return {
        type: "EDS",
        edsClusterConfig: {
          edsConfig: { ads: {}, initialFetchTimeout: durationOf(0), resourceApiVersion: "V3" },
          serviceName: name,
        },
      };
    case "dns":
    case "dns-round-robin":
      return {
        type: "STRICT_DNS",
        dnsLookupFamily: "V4_PREFERRED",
        dnsRefreshRate: durationOf(durationMsOf(readMesh(read, "dnsRefreshRate"))),
        respectDnsTtl: true,
        loadAssignment: loadAssignment(read, key, name),
      };
    case "dynamic-dns":
    case "alias":
      // A datagram names no host that could be looked up.
      return undefined;
  }
}

function loadAssignment(
  read: Read,
  { service, port }: DatagramClusterKey,
  clusterName: string,
  isUsable: (address: string) => boolean = () => true,
): Message {
  const found = read(datagramEndpointsOf, service).filter(
    ({ servicePort, healthy, address }) => servicePort === port && healthy && isUsable(address),
  );
  return {
    clusterName,
    endpoints: [
      {
        lbEndpoints: found.map((endpoint) => ({
          endpoint: {
            address: {
              socketAddress: { protocol: "UDP", address: endpoint.address, portValue: endpoint.port },
            },
          },
          healthStatus: "HEALTHY",
          loadBalancingWeight: wrapped(endpoint.weight),
        })),
      },
    ],
  };
}
