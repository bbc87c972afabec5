export type {
  ApiMeta,
  ApiObject,
  ApiOwner,
  ClusterStore,
  DeleteOptions,
  ListOptions,
  ManagedFields,
  NewObject,
  PatchKind,
  ResourceName,
  TokenAsk,
  WatchEvent,
  WatchOptions,
  WriteOptions,
} from "./store.ts";
export type { ApiServer, ApiServerOptions, ListenAt } from "./server.ts";
export { startApiServer } from "./server.ts";
export type { ExecAsk, ExecProcess, ExecProvider } from "./http/exec.ts";
export type { LogAsk, LogsProvider } from "./http/subresources.ts";
export type { ResolveService } from "./admission/webhooks.ts";
export { startGarbageCollector } from "./controllers/garbage.ts";
export { ApiError } from "./errors.ts";
export type { Status } from "./errors.ts";
