// Several networks: which one an endpoint is in, and by which gateways others get there. Said by MeshNetworks (ConfigMap
// `istio`), by labels `topology.istio.io/network` on workloads, and by the same label on a gateway's Service, as Istio has it.

import { isIP } from "node:net";
import { defineQuery, sameData, type Read } from "#engine";
import type { MeshNetworks } from "#objects";
import { kubeRowOf } from "./services.ts";
import { environmentOf } from "./mesh.ts";
import { everything, meshNetworksTable, meshRow, resolvedNamesTable, tables } from "./tables.ts";
import { networkLabel } from "./locality-labels.ts";
import { namespaceOf } from "./core-kinds.ts";
import { externalReach } from "./external-addresses.ts";

export interface NetworkGateway {
  readonly address: string;
  readonly port: number;
}

/** The port of a gateway between networks, unless its Service's label `networking.istio.io/gatewayPort` says otherwise. */
const gatewayPortDefault = 15_443;
const gatewayPortLabel = "networking.istio.io/gatewayPort";

const meshNetworks = defineQuery<MeshNetworks>(
  "meshNetworks",
  (read) => read(meshNetworksTable, meshRow) ?? { networks: {} },
  sameData,
);

/** Whether any network has gateways: where none has, nobody's network makes a difference. */
export const networksMatter = defineQuery<boolean>(
  "networksMatter",
  (read) =>
    Object.keys(read(meshNetworks, "").networks).length > 0 ||
    read(tables.Service.by.network.members, everything).length > 0,
);

/** The gateways by which other networks reach one, in order; those of a name that is not resolved are left out. */
export const gatewaysOfNetwork = defineQuery<readonly NetworkGateway[]>(
  "gatewaysOfNetwork",
  (read, network) => {
    const found = saidGateways(read, network).flatMap(({ address, port }) =>
      isIP(address) !== 0
        ? [{ address, port }]
        : (read(resolvedNamesTable, address)?.addresses ?? []).map((resolved) => ({
            address: resolved,
            port,
          })),
    );
    const all = new Map(found.map((gateway) => [`${gateway.address} ${gateway.port}`, gateway]));
    return [...all].toSorted(([one], [other]) => (one < other ? -1 : 1)).map(([, gateway]) => gateway);
  },
  sameData,
);

/** The names of gateways, which the control plane resolves: in order. */
export const gatewayNames = defineQuery<readonly string[]>(
  "gatewayNames",
  (read) => {
    const labels = read(tables.Service.by.network, everything).map(
      ({ metadata }) => metadata.labels?.[networkLabel] ?? "",
    );
    const networks = new Set([...Object.keys(read(meshNetworks, "").networks), ...labels]);
    const addresses = [...networks].flatMap((network) =>
      saidGateways(read, network).map(({ address }) => address),
    );
    return [...new Set(addresses)].filter((address) => isIP(address) === 0).toSorted();
  },
  sameData,
);

/** As MeshNetworks and Services have them: addresses, and names of load balancers. */
function saidGateways(read: Read, network: string): readonly NetworkGateway[] {
  const { clusterDomain } = read(environmentOf, "");
  const configured = (read(meshNetworks, "").networks[network]?.gateways ?? []).flatMap((gateway) => {
    const { address, registryServiceName, port } = gateway;
    if (address !== undefined && address !== "") return [{ address, port }];
    const row = kubeRowOf(registryServiceName ?? "", clusterDomain);
    return row === undefined ? [] : reachedAt(read, row, port);
  });
  const labelled = read(tables.Service.by.network, everything)
    .filter(({ metadata }) => metadata.labels?.[networkLabel] === network)
    .flatMap((service) => {
      const port = Number(service.metadata.labels?.[gatewayPortLabel] ?? gatewayPortDefault);
      return reachedAt(read, `${namespaceOf(service)}/${service.metadata.name}`, port);
    });
  return [...configured, ...labelled];
}

function reachedAt(read: Read, row: string, port: number): readonly NetworkGateway[] {
  const { addresses, ports } = read(externalReach, row);
  return addresses.map((address) => ({ address, port: ports[port] ?? port }));
}

/** The network that MeshNetworks puts an address of this cluster into; "" for none. */
export const networkOfAddress = defineQuery<string>("networkOfAddress", (read, address) => {
  const { clusterId } = read(environmentOf, "");
  const networks = Object.entries(read(meshNetworks, "").networks);
  const byRange = networks.find(([, { endpoints }]) =>
    (endpoints ?? []).some(({ fromCidr }) => fromCidr !== undefined && contains(fromCidr, address)),
  );
  const byRegistry = networks.find(([, { endpoints }]) =>
    (endpoints ?? []).some(({ fromRegistry }) => fromRegistry === clusterId),
  );
  return byRange?.[0] ?? byRegistry?.[0] ?? "";
});

/** Whether an IPv4 range contains an address; false for anything else. */
function contains(range: string, address: string): boolean {
  const [base = "", length = "32"] = range.split("/");
  const [first, second] = [numberOf(base), numberOf(address)];
  if (first === undefined || second === undefined) return false;
  const size = 2 ** (32 - Number(length));
  return Math.floor(first / size) === Math.floor(second / size);
}

function numberOf(address: string): number | undefined {
  const parts = address.split(".");
  if (parts.length !== 4 || !parts.every((part) => /^\d{1,3}$/.test(part))) return undefined;
  return parts.reduce((sum, part) => sum * 256 + Number(part), 0);
}
