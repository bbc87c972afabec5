// Every port of Mizzen, in one table: manifests, templates, docs and the programs read it here.

export const ports = {
  /** istiod: plaintext xDS, off unless asked for. */
  xdsPlaintext: 15010,
  /** istiod: xDS and CA over mTLS or a service-account token. */
  xds: 15012,
  /** istiod: metrics, /ready, /debug (loopback or authenticated only). */
  monitoring: 15014,
  /** istiod: admission webhooks. */
  webhook: 15017,
  /** sidecar: Envoy admin, loopback only. */
  admin: 15000,
  /** sidecar: outbound capture. */
  outbound: 15001,
  /** sidecar: inbound capture. */
  inbound: 15006,
  /** sidecar: the agent's merged metrics and health. */
  agent: 15020,
  /** sidecar and gateway: readiness as Envoy sees it. */
  ready: 15021,
  /** sidecar: DNS capture. */
  dns: 15053,
  /** sidecar: Envoy's table of the mesh's names, which the agent asks; loopback only. */
  dnsTable: 15054,
  /** sidecar and gateway: Envoy's raw Prometheus metrics. */
  envoyStats: 15090,
  /** east-west gateway: SNI passthrough. */
  eastWest: 15443,
  /** console. */
  console: 20001,
} as const;
