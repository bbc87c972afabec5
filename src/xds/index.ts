export type {
  ClassSubscriber,
  MeshOptions,
  MeshReports,
  Published,
  ResourceUse,
  Translation,
} from "./mesh.ts";
export { Mesh } from "./mesh.ts";
export type { Closing, SessionOptions, SessionReports, TypeStatus } from "./session.ts";
export { AdsSession } from "./session.ts";
export type { Entry, LiveView, Rejection, Subscriber, Target } from "./view.ts";
export type { DeltaRequest, DeltaResponse } from "./wire.ts";
export { renderResponse, RequestReader } from "./wire.ts";
export type { DownloadMethod, Downloads } from "./download.ts";
export type { GrpcPeer } from "./grpc-api.ts";
export { GrpcError, grpcStatus } from "./grpc-api.ts";
export type { GrpcServerOptions, GrpcStream, StreamHandlers, TlsMaterial, UnaryMethod } from "./grpc.ts";
export { GrpcServer } from "./grpc.ts";
export type { Admitted, AdsProtocol, AdsServerOptions, ProxyStatus } from "./ads-server.ts";
export { AdsServer, adsPath, stateAdsPath } from "./ads-server.ts";
export type { Fleet } from "./spreading.ts";
export { Batcher } from "./batcher.ts";
export type { ReachXdsLimit, XdsLimit } from "./limits.ts";
export { xdsLimits } from "./limits.ts";
