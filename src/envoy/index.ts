export type { EnvoyResource, Origin } from "./resource.ts";
export { messageNameOf, resource, resourceTypeOf, sameResource, typeUrlOf } from "./resource.ts";
export type { Message, TypedMessage } from "./proto/api.ts";
export { decodeMessage, encodeMessage, typePrefix } from "./proto/api.ts";
export { httpRbacFilters, tcpRbacFilters } from "./rbac.ts";
export { resourceOf } from "./resources.ts";
export type { Snapshot } from "./snapshot.ts";
export { snapshotOf } from "./snapshot.ts";
