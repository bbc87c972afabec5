// A router's port of UDP: datagrams of one client's port go to one endpoint and answers come back, as long as either says something.

import type { Read } from "#engine";
import { datagramRouteOf, type GatewayListener, type GatewayScope } from "#model";
import { datagramClusterName } from "#plan";
import { destinationPolicy, destinationService } from "./gateway-destination.ts";
import { durationOf, typed, type Message } from "./proto/api.ts";
import { resource, type EnvoyResource } from "./resource.ts";

/** Envoy's own default, written out: a client that is silent for longer may get another endpoint. */
const idleTimeoutMs = 60_000;

/** Undefined while no route says where its datagrams go. */
export function datagramListener(
  read: Read,
  scope: GatewayScope,
  { name, bind, port, servers }: GatewayListener,
): EnvoyResource | undefined {
  const [server] = servers;
  if (server === undefined) return undefined;
  const route = read(datagramRouteOf, { gateway: server.gateway, namespace: scope.namespace });
  if (route === undefined || route.destinations.length === 0) return undefined;
  const targets = route.destinations.map(({ destination, weight }): Target => {
    const host = destinationService(read, scope, destination)?.host ?? destination.host;
    return { cluster: datagramClusterName(destination.port?.number ?? 0, host), weight: weight ?? 1 };
  });
  const hashed = route.destinations.some(
    ({ destination }) =>
      destinationPolicy(read, scope, destination, server.number)?.loadBalancer?.consistentHash
        ?.useSourceIp === true,
  );
  const message: Message = {
    name,
    address: { socketAddress: { protocol: "UDP", address: bind, portValue: port } },
    trafficDirection: "OUTBOUND",
    udpListenerConfig: { downstreamSocketConfig: {} },
    listenerFilters: [
      {
        name: "envoy.filters.udp_listener.udp_proxy",
        typedConfig: typed("envoy.extensions.filters.udp.udp_proxy.v3.UdpProxyConfig", {
          statPrefix: name,
          matcher: chooser(targets),
          idleTimeout: durationOf(idleTimeoutMs),
          ...(hashed ? { hashPolicies: [{ sourceIp: true }] } : {}),
        }),
      },
    ],
  };
  const { origins } = route.facts;
  return resource(
    "listener",
    name,
    message,
    [server.object, ...origins].map((object) => ({ at: "", object })),
  );
}

interface Target {
  readonly cluster: string;
  readonly weight: number;
}

/**
 * Envoy's UDP proxy has no weights. Each cluster but the last is asked in turn whether it takes the client's port, by a hash of its own: of
 * the ports that those before it have left, it takes as many as its weight is among the weights that are left. So all datagrams of
 * one client's port go one way, and what is for a cluster that does not exist is dropped.
 */
function chooser(targets: readonly Target[]): Message {
  const last = targets.length - 1;
  const matchers = targets.slice(0, last).map(({ cluster, weight }, at): Message => {
    const left = targets.slice(at).reduce((sum, one) => sum + one.weight, 0);
    return {
      predicate: {
        singlePredicate: {
          input: {
            name: "envoy.matching.inputs.source_port",
            typedConfig: typed("envoy.extensions.matching.common_inputs.network.v3.SourcePortInput"),
          },
          customMatch: {
            name: "envoy.matching.matchers.runtime_fraction",
            typedConfig: typed(
              "envoy.extensions.matching.input_matchers.runtime_fraction.v3.RuntimeFraction",
              {
                runtimeFraction: {
                  defaultValue: {
                    numerator: Math.round((weight / left) * 1_000_000),
                    denominator: "MILLION",
                  },
                },
                seed: at + 1,
              },
            ),
          },
        },
      },
      onMatch: toCluster(cluster),
    };
  });
  return {
    ...(matchers.length === 0 ? {} : { matcherList: { matchers } }),
    onNoMatch: toCluster(targets[last]!.cluster),
  };
}

function toCluster(cluster: string): Message {
  return {
    action: {
      name: "route",
      typedConfig: typed("envoy.extensions.filters.udp.udp_proxy.v3.Route", { cluster }),
    },
  };
}
