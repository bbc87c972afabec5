// What a gRPC server and those who answer its calls tell one another: who calls, and how a call is refused.

/** gRPC's status codes that this server answers with. */
export const grpcStatus = {
  ok: 0,
  invalidArgument: 3,
  deadlineExceeded: 4,
  notFound: 5,
  permissionDenied: 7,
  resourceExhausted: 8,
  aborted: 10,
  unimplemented: 12,
  internal: 13,
  unavailable: 14,
  unauthenticated: 16,
} as const;

/** A refusal of a call; the message is for the caller. */
export class GrpcError extends Error {
  readonly code: number;
  constructor(code: number, message: string) {
    super(message);
    this.code = code;
  }
}

/** Who calls. */
export interface GrpcPeer {
  /** `address:port`. */
  readonly address: string;
  readonly authorization: string | undefined;
  /** The client certificate (DER), only if TLS has verified it against the trusted roots. */
  readonly certificate: Uint8Array | undefined;
}
