export type { Chunk, Plan, Planned, ResourceType } from "./plan.ts";
export { emptyPlan, resourceTypes } from "./plan.ts";
export type {
  InboundClusterKey,
  InboundListenerKey,
  InboundPassthroughClusterKey,
  VirtualInboundKey,
} from "./inbound-keys.ts";
export { inboundClusterName } from "./inbound.ts";
