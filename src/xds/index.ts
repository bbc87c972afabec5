export type { ClassSubscriber, MeshOptions, MeshReports, Published, Translation } from "./mesh.ts";
export { Mesh } from "./mesh.ts";
export type { Closing, SessionOptions, SessionReports, TypeStatus } from "./session.ts";
export { AdsSession } from "./session.ts";
export type { Entry, LiveView, Rejection, Subscriber, Target } from "./view.ts";
export type { DeltaRequest, DeltaResponse } from "./wire.ts";
export { parseRequest, renderResponse } from "./wire.ts";
