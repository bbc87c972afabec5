// The table of the mesh's names: a UDP listener with Envoy's DNS filter, on loopback. The agent has the captured port,
// asks here first and takes every other question to the pod's own servers: the filter itself could ask for addresses
// only, and over UDP only.

import { ports } from "#base";
import type { Read } from "#engine";
import { dnsNamesOf } from "#model";
import type { DnsTableKey } from "#plan";
import { durationOf, typed, wrapped, type Message } from "./proto/api.ts";
import { resource, type EnvoyResource } from "./resource.ts";

/** Envoy takes no less. What the mesh answers are virtual addresses, which seldom change. */
const ttlMs = 30_000;
const filterName = "envoy.filters.udp.dns_filter";

export function dnsTable(read: Read, { scope }: DnsTableKey): EnvoyResource {
  const message: Message = {
    name: "dns",
    address: { socketAddress: { protocol: "UDP", address: "127.0.0.1", portValue: ports.dnsTable } },
    trafficDirection: "OUTBOUND",
    udpListenerConfig: { downstreamSocketConfig: { maxRxDatagramSize: wrapped(1_500) } },
    listenerFilters: [
      {
        name: filterName,
        typedConfig: typed("envoy.extensions.filters.udp.dns_filter.v3.DnsFilterConfig", {
          statPrefix: "dns",
          serverConfig: {
            inlineDnsTable: {
              virtualDomains: read(dnsNamesOf, scope).map(({ name, addresses }) => ({
                name,
                endpoint: { addressList: { address: addresses } },
                answerTtl: durationOf(ttlMs),
              })),
            },
          },
        }),
      },
    ],
  };
  return resource("listener", "dns", message);
}
