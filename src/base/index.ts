export type { ObjectRef, Problem } from "./problem.ts";
export { renderProblem, renderRef } from "./problem.ts";
export type { Logger } from "./log.ts";
export { silentLog } from "./log.ts";
export type { Clock } from "./clock.ts";
export { ports } from "./ports.ts";
