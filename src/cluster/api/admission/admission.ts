// What stands between a request and the store: the server's own admission steps and the webhooks.

import type { UserInfo } from "../context.ts";
import type { Kind } from "../kinds/kind.ts";
import type { ApiObject } from "../store.ts";

export interface AdmissionRequest {
  readonly operation: "CREATE" | "UPDATE" | "DELETE";
  readonly kind: Kind;
  /** The version that the client used. */
  readonly version: string;
  /** "" for the object itself. */
  readonly subresource: string;
  readonly namespace: string;
  readonly name: string;
  /** Absent on DELETE. */
  readonly object: ApiObject | undefined;
  /** Absent on CREATE. */
  readonly oldObject: ApiObject | undefined;
  readonly user: UserInfo;
  readonly dryRun: boolean;
  readonly warn: (text: string) => void;
}

export interface Admission {
  /** The object as the mutating steps leave it. Throws ApiError when one refuses. */
  mutate(request: AdmissionRequest): Promise<ApiObject | undefined>;
  /** Throws ApiError when a validating step refuses. */
  validate(request: AdmissionRequest): Promise<void>;
}
