// How controllers and the node reach the cluster from inside its process: the same objects, admission,
// validation and resource versions as over HTTPS, without the socket.

/** Any object of the API as it is stored: plain JSON. Objects that a read returns are shared: never change them, copy first. */
export interface ApiObject {
  apiVersion: string;
  kind: string;
  metadata: ApiMeta;
  [field: string]: unknown;
}

export interface ApiMeta {
  name: string;
  /** Absent for cluster-scoped objects. */
  namespace?: string;
  generateName?: string;
  uid?: string;
  resourceVersion?: string;
  generation?: number;
  creationTimestamp?: string;
  deletionTimestamp?: string;
  deletionGracePeriodSeconds?: number;
  labels?: Record<string, string>;
  annotations?: Record<string, string>;
  finalizers?: string[];
  ownerReferences?: ApiOwner[];
  managedFields?: ManagedFields[];
}

export interface ApiOwner {
  apiVersion: string;
  kind: string;
  name: string;
  uid: string;
  controller?: boolean;
  blockOwnerDeletion?: boolean;
}

export interface ManagedFields {
  manager: string;
  operation: "Apply" | "Update";
  apiVersion: string;
  time?: string;
  fieldsType: "FieldsV1";
  fieldsV1: Record<string, unknown>;
  subresource?: string;
}

/** What a creator hands in: the server fills the rest. */
export interface NewObject {
  apiVersion: string;
  kind: string;
  metadata: Partial<ApiMeta>;
  [field: string]: unknown;
}

/** A resource is named as kubectl's full form: `pods`, `deployments.apps`, `virtualservices.networking.istio.io`. */
export type ResourceName = string;

export interface WatchEvent {
  readonly type: "ADDED" | "MODIFIED" | "DELETED";
  /** For DELETED the last state, its resourceVersion that of the deletion. */
  readonly object: ApiObject;
}

export interface ListOptions {
  /** Absent: all namespaces. */
  readonly namespace?: string;
  /** As kubectl's -l, e.g. `app=reviews,version in (v1,v2)`. */
  readonly labelSelector?: string;
  /** As kubectl's --field-selector, e.g. `spec.nodeName=local`. */
  readonly fieldSelector?: string;
}

export interface WatchOptions extends ListOptions {
  /** Absent: what exists comes first as ADDED, before `watch` returns. */
  readonly fromResourceVersion?: string;
}

export interface WriteOptions {
  /** The field manager; by default `system:cluster`. */
  readonly fieldManager?: string;
}

export interface DeleteOptions {
  /** 0 removes a Pod at once (the node's confirmation that it is gone). Absent: the object's own grace period. */
  readonly gracePeriodSeconds?: number;
  readonly propagationPolicy?: "Background" | "Foreground" | "Orphan";
  readonly preconditions?: { readonly uid?: string; readonly resourceVersion?: string };
}

export type PatchKind = "json" | "merge" | "strategic";

/**
 * Reads are synchronous and see every write whose promise has settled. Writes pass defaulting, admission webhooks and validation and
 * throw `ApiError` (`.status.code`, `.status.reason`) as the HTTP API answers: 404 NotFound, 409 AlreadyExists or Conflict, 422 Invalid.
 * A write is durable when its promise settles. Changes wake watchers in resource-version order, never from inside the write.
 */
export interface ClusterStore {
  /** `namespace` is "" for cluster-scoped kinds. */
  get(resource: ResourceName, namespace: string, name: string): ApiObject | undefined;
  list(resource: ResourceName, options?: ListOptions): { items: ApiObject[]; resourceVersion: string };
  /** Returns the function that ends the watch. Throws ApiError 410 when `fromResourceVersion` is beyond the history kept. */
  watch(resource: ResourceName, options: WatchOptions, onEvent: (event: WatchEvent) => void): () => void;
  create(resource: ResourceName, object: NewObject, options?: WriteOptions): Promise<ApiObject>;
  /** With `metadata.resourceVersion` set, 409 Conflict unless it is current. Does not change `status` where that is a subresource. */
  update(resource: ResourceName, object: ApiObject, options?: WriteOptions): Promise<ApiObject>;
  /** Changes `status` alone (and metadata.annotations/labels are kept as stored). */
  updateStatus(resource: ResourceName, object: ApiObject, options?: WriteOptions): Promise<ApiObject>;
  patch(
    resource: ResourceName,
    namespace: string,
    name: string,
    patch: unknown,
    options?: WriteOptions & { readonly type?: PatchKind; readonly subresource?: "status" },
  ): Promise<ApiObject>;
  /** Returns the object as it was left (still there with a deletionTimestamp, or its last state). 404 when there is none. */
  delete(
    resource: ResourceName,
    namespace: string,
    name: string,
    options?: DeleteOptions,
  ): Promise<ApiObject>;
  /** A service-account token, as the TokenRequest API gives it to a node for a projected volume. */
  issueToken(request: TokenAsk): Promise<{ token: string; expiresAtMs: number }>;
}

export interface TokenAsk {
  readonly namespace: string;
  readonly serviceAccount: string;
  /** Empty: the API server's own audience. */
  readonly audiences: readonly string[];
  readonly expirationSeconds: number;
  /** Binds the token to a Pod: it dies with it. */
  readonly pod?: { readonly name: string; readonly uid: string };
}
