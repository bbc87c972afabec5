export type { Chunk, Plan, Planned, ResourceType } from "./plan.ts";
export { emptyPlan, resourceTypes } from "./plan.ts";
