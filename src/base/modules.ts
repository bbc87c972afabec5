// How proxies get Wasm modules that the control plane has fetched: by HTTP from the very port and over the very connection of xDS.

/** The cluster of each proxy's bootstrap that leads to the control plane. */
export const xdsClusterName = "xds-grpc";

/** Before the SHA-256 of a module, in hexadecimal digits. */
export const modulePathPrefix = "/wasm/";
