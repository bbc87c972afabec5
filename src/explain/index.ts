export type { Call } from "./call.ts";
export { callOf } from "./call.ts";
export type { Outcome, ProxyConfiguration, Refusal, Trace, WeightedCluster } from "./simulate.ts";
export { configurationOf, simulate } from "./simulate.ts";
