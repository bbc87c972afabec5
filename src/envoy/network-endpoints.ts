// Endpoints of other networks give way to the gateways of these; the server's name of mutual TLS says there which service is
// meant. Those without a sidecar cannot be reached so. A network without gateways is taken for reachable, as in Istio.

import type { Read } from "#engine";
import { gatewaysOfNetwork, type Endpoint, type NetworkGateway } from "#model";

/** An endpoint, or the gateway by which endpoints of another network are reached. */
export interface Reached extends Endpoint {
  readonly viaGateway?: true;
}

/**
 * @param own the client's network
 * @param isMutual whether an endpoint takes mutual TLS
 */
export function throughGateways(
  read: Read,
  own: string,
  found: readonly Endpoint[],
  isMutual: (endpoint: Endpoint) => boolean,
): readonly Reached[] {
  const gatewaysFor = (network: string): readonly NetworkGateway[] =>
    network === "" || network === own ? [] : read(gatewaysOfNetwork, network);
  // Weights are whole numbers: all are multiplied, so that a network's share can be divided among its gateways.
  const counts = found.map(({ network }) => Math.max(1, gatewaysFor(network).length));
  const factor = counts.reduce(leastCommonMultiple, 1);
  const direct: Reached[] = [];
  const remote = new Map<string, Reached>();
  for (const endpoint of found) {
    const gateways = gatewaysFor(endpoint.network);
    const weight = (endpoint.weight * factor) / Math.max(1, gateways.length);
    if (gateways.length === 0) direct.push({ ...endpoint, weight });
    if (gateways.length === 0 || !isMutual(endpoint)) continue;
    for (const { address, port } of gateways) {
      const place = `${endpoint.locality} ${address} ${port}`;
      const sum = weight + (remote.get(place)?.weight ?? 0);
      remote.set(place, { ...endpoint, address, port, weight: sum, facts: "", viaGateway: true });
    }
  }
  return [...direct, ...remote.values()];
}

function leastCommonMultiple(one: number, other: number): number {
  let [a, b] = [one, other];
  while (b !== 0) [a, b] = [b, a % b];
  return (one / a) * other;
}
