export type { KubeObject, ObjectMeta, OwnerReference } from "./object.ts";
export { objectKey, refOf } from "./object.ts";
