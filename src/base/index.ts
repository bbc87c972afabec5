export type { ObjectRef, Problem } from "./problem.ts";
export { likelierCauseFirst, renderProblem, renderRef } from "./problem.ts";
export type { Logger } from "./log.ts";
export { silentLog } from "./log.ts";
export type { Clock } from "./clock.ts";
export { ports } from "./ports.ts";
export { traceEnvironment } from "./tracing.ts";
export type { BootstrapTracer } from "./bootstrap.ts";
export {
  accessLogServiceCluster,
  accessLogServiceField,
  bootstrapOverlayVariable,
  isBootstrapTracer,
  tracerClusters,
  tracerField,
} from "./bootstrap.ts";
export type { WorkloadFacts } from "./workload.ts";
export {
  packWorkload,
  unpackWorkload,
  unknownWorkload,
  subjectPrefix,
  workloadOfSubject,
} from "./workload.ts";
export type { Reporter, TelemetryMetric, TelemetryTag } from "./telemetry.ts";
export {
  packService,
  removedLabelsTag,
  telemetryMetadata,
  telemetryMetrics,
  telemetryRecordFormats,
  egressRecords,
  telemetryRecords,
  telemetryScope,
  telemetryTags,
} from "./telemetry.ts";
export type { Limit, ReachLimit } from "./limit.ts";
export { modulePathPrefix, xdsClusterName } from "./modules.ts";
