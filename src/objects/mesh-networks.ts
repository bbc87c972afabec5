// The shape of MeshNetworks: the YAML under the key `meshNetworks` of ConfigMap `istio`.

export interface MeshNetwork {
  readonly endpoints: readonly MeshNetworkNetworkEndpoints[];
  readonly gateways: readonly MeshNetworkIstioNetworkGateway[];
}

export interface MeshNetworkNetworkEndpoints {
  readonly fromCidr?: string;
  readonly fromRegistry?: string;
}

export interface MeshNetworkIstioNetworkGateway {
  readonly registryServiceName?: string;
  readonly address?: string;
  readonly port: number;
  readonly locality?: string;
}

export interface MeshNetworks {
  readonly networks: Readonly<Record<string, MeshNetwork>>;
}
