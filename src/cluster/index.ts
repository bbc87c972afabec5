export type {
  ApiMeta,
  ApiObject,
  ApiOwner,
  ApiServer,
  ApiServerOptions,
  ClusterStore,
  DeleteOptions,
  ListenAt,
  ListOptions,
  LogAsk,
  LogsProvider,
  ManagedFields,
  NewObject,
  PatchKind,
  ResolveService,
  ResourceName,
  Status,
  TokenAsk,
  WatchEvent,
  WatchOptions,
  WriteOptions,
} from "./api/index.ts";
export { ApiError, startApiServer } from "./api/index.ts";
export type { ClusterLayout } from "./node/names.ts";
export { clusterNameFault, layoutOf, podNetns } from "./node/names.ts";
export { removeLeftovers } from "./node/cleanup.ts";
export type { ClusterStatus, LaunchOptions, PublishedPort, RunningCluster } from "./launch/launch.ts";
export { clusterStatus, defaultApiPort, launchCluster, teardownCluster } from "./launch/launch.ts";
export { checkPrerequisites } from "./launch/prerequisites.ts";
export type { Publication } from "./launch/publish.ts";
export { defaultPublications, parsePublication } from "./launch/publish.ts";
export type { ClusterProcess, ClusterProcessOptions } from "./launch/process.ts";
export { runCluster } from "./launch/process.ts";
export type { FromCluster, ToCluster } from "./launch/messages.ts";
export { isStop } from "./launch/messages.ts";
export { packagePaths, packageRoot } from "./launch/package.ts";
