/** An answer other than success. `status` is HTTP's, 0 if there was no answer. */
export class KubeError extends Error {
  readonly status: number;
  /** Kubernetes' reason, e.g. "AlreadyExists", "Expired". */
  readonly reason: string;
  constructor(status: number, reason: string, message: string, cause?: unknown) {
    super(message, { cause });
    this.status = status;
    this.reason = reason;
  }
}
