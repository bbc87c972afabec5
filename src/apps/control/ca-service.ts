// The CA as a gRPC service, `istio.v1.auth.IstioCertificateService`: who proves an identity gets a certificate for it.
// The proof is a service-account token (checked by TokenReview for the audience `istio-ca`) or a client certificate of
// this CA. Names and extensions in the request count for nothing; what telemetry says about the workload comes from the
// Pod that the token is bound to.

import { X509Certificate } from "node:crypto";
import protobuf from "protobufjs/minimal.js";
import { unpackWorkload, workloadOfSubject, type Logger, type WorkloadFacts } from "#base";
import {
  parseSpiffeId,
  RefusedRequest,
  renderSpiffeId,
  type CertificateAuthority,
  type Identity,
} from "#identity";
import { GrpcError, grpcStatus, type GrpcPeer, type UnaryMethod } from "#xds";

/** The audience that a workload's token must be for. */
export const caAudience = "istio-ca";

export interface TokenReviewResult {
  readonly authenticated: boolean;
  /** Why not, in the API server's words. */
  readonly error?: string;
  /** `system:serviceaccount:<namespace>:<name>`. */
  readonly username?: string;
  readonly audiences?: readonly string[];
  /** The Pod that the token is bound to, from the review's `extra`. */
  readonly podName?: string;
  readonly podUid?: string;
}

/** Who has proven what. */
export interface Caller {
  readonly identity: Identity;
  readonly by: "token" | "certificate";
  readonly podName?: string;
  readonly podUid?: string;
  /** The workload as the caller's own certificate names it. */
  readonly facts?: WorkloadFacts;
}

/** A caller who has proven nothing; `reason` is a metric label, the message is for the log and the caller. */
export class Unauthenticated extends Error {
  readonly reason:
    | "no_credential"
    | "token_refused"
    | "wrong_audience"
    | "not_a_service_account"
    | "foreign_certificate";
  constructor(reason: Unauthenticated["reason"], message: string) {
    super(message);
    this.reason = reason;
  }
}

export interface AuthenticatorOptions {
  readonly trustDomain: string;
  readonly reviewToken: (token: string, audiences: readonly string[]) => Promise<TokenReviewResult>;
}

/** What an authenticator looks at: gRPC metadata and, if any, the client certificate (DER) that TLS has verified. */
export interface Credentials {
  readonly authorization: string | undefined;
  readonly peerCertificate: Uint8Array | undefined;
}

export type Authenticate = (credentials: Credentials) => Promise<Caller>;

/** Makes the check that the CA and the xDS server share. A token, when there is one, decides alone. */
export function createAuthenticator(options: AuthenticatorOptions): Authenticate {
  return async ({ authorization, peerCertificate }) => {
    const token = /^Bearer\s+(\S+)$/i.exec(authorization ?? "")?.[1];
    if (token !== undefined) return callerOfToken(token, options);
    if (peerCertificate !== undefined) return callerOfCertificate(peerCertificate, options.trustDomain);
    throw new Unauthenticated(
      "no_credential",
      "neither a bearer token nor a client certificate was presented",
    );
  };
}

async function callerOfToken(token: string, options: AuthenticatorOptions): Promise<Caller> {
  const review = await options.reviewToken(token, [caAudience]);
  if (!review.authenticated) {
    throw new Unauthenticated(
      "token_refused",
      `the token was refused: ${review.error ?? "not authenticated"}`,
    );
  }
  // An API server that knows no audiences answers without any; then the token was made for the API itself.
  if (review.audiences?.includes(caAudience) !== true) {
    throw new Unauthenticated("wrong_audience", `the token is not for the audience ${caAudience}`);
  }
  const [, namespace, serviceAccount] =
    /^system:serviceaccount:([^:]+):([^:]+)$/.exec(review.username ?? "") ?? [];
  if (namespace === undefined || serviceAccount === undefined) {
    throw new Unauthenticated(
      "not_a_service_account",
      `${review.username ?? "the caller"} is not a service account`,
    );
  }
  const identity = { trustDomain: options.trustDomain, namespace, serviceAccount };
  return { identity, by: "token", podName: review.podName, podUid: review.podUid };
}

function callerOfCertificate(der: Uint8Array, trustDomain: string): Caller {
  const certificate = new X509Certificate(der);
  const uri = /(?:^|, )URI:([^,]+)/.exec(certificate.subjectAltName ?? "")?.[1];
  const identity = uri === undefined ? undefined : parseSpiffeId(uri);
  if (identity === undefined || identity.trustDomain !== trustDomain) {
    throw new Unauthenticated(
      "foreign_certificate",
      `the client certificate names no identity of ${trustDomain}`,
    );
  }
  // Node gives no text at all for a subject without names, which certificates of machines have.
  const packed = workloadOfSubject((certificate.subject as string | undefined) ?? "");
  return { identity, by: "certificate", facts: packed === "" ? undefined : unpackWorkload(packed) };
}

/** What the service counts, under the names that Istio's dashboards know. */
export interface CaMetrics {
  /** citadel_server_csr_count */
  csr(): void;
  /** citadel_server_success_cert_issuance_count */
  issued(): void;
  /** citadel_server_authentication_failure_count */
  unauthenticated(reason: string): void;
  /** citadel_server_csr_sign_err_count */
  refused(reason: string): void;
}

export interface CertificateServiceOptions {
  /** Read at each request, since the CA may be replaced while the server runs. */
  readonly ca: () => CertificateAuthority;
  readonly authenticate: Authenticate;
  /** The workload of a Pod, or undefined if there is no such Pod (by name and, when given, uid). */
  readonly lookupPod: (
    namespace: string,
    podName: string,
    podUid: string | undefined,
  ) => WorkloadFacts | undefined | Promise<WorkloadFacts | undefined>;
  readonly log: Logger;
  readonly metrics: CaMetrics;
}

interface CertificateRequest {
  readonly csr: string;
  readonly validitySeconds: number;
}

export const createCertificatePath = "/istio.v1.auth.IstioCertificateService/CreateCertificate";

/** The service's one method: `unary: { [createCertificatePath]: createCertificateMethod(...) }`. Throws GrpcError. */
export function createCertificateMethod(options: CertificateServiceOptions): UnaryMethod {
  return async (request, peer) => {
    try {
      return encodeResponse(await create(options, decodeRequest(request), peer));
    } catch (error) {
      throw statusOf(options, peer.address, error);
    }
  };
}

async function create(
  options: CertificateServiceOptions,
  request: CertificateRequest,
  peer: GrpcPeer,
): Promise<readonly string[]> {
  options.metrics.csr();
  const caller = await options.authenticate({
    authorization: peer.authorization,
    peerCertificate: peer.certificate,
  });
  const facts = await factsOf(options, caller);
  const chain = await options.ca().sign(request.csr, {
    identity: caller.identity,
    facts,
    ttlSeconds: ttlOf(request.validitySeconds, caller, facts),
  });
  options.metrics.issued();
  options.log.info(
    { identity: renderSpiffeId(caller.identity), pod: caller.podName, by: caller.by },
    "certificate issued",
  );
  return chain;
}

/** Our own watch may be a little behind the Pod whose agent already asks; these are the pauses before looking again. */
const podWaitsMs = [50, 100, 200, 400, 800];
/** A certificate without facts is good for traffic and poor for telemetry, so the next one comes soon. */
const factlessTtlSeconds = 600;

/** TokenReview has refused a token whose Pod is gone; what is missing here is only not known yet. */
async function factsOf(
  options: CertificateServiceOptions,
  caller: Caller,
): Promise<WorkloadFacts | undefined> {
  const { identity, podName, podUid } = caller;
  if (podName === undefined) return caller.facts;
  for (const waitMs of [0, ...podWaitsMs]) {
    if (waitMs > 0) await new Promise<void>((resolve) => void setTimeout(resolve, waitMs));
    const facts = await options.lookupPod(identity.namespace, podName, podUid);
    if (facts !== undefined) return facts;
  }
  options.log.warn(
    { pod: podName, namespace: identity.namespace },
    "the token's pod is not known; certificate without facts",
  );
  return undefined;
}

/** The wish, but a short life for who should have facts and has none. */
function ttlOf(wishSeconds: number, caller: Caller, facts: WorkloadFacts | undefined): number {
  if (caller.podName === undefined || facts !== undefined) return wishSeconds;
  return wishSeconds > 0 ? Math.min(wishSeconds, factlessTtlSeconds) : factlessTtlSeconds;
}

function statusOf(options: CertificateServiceOptions, peer: string, error: unknown): GrpcError {
  const details = error instanceof Error ? error.message : String(error);
  if (error instanceof Unauthenticated) {
    options.metrics.unauthenticated(error.reason);
    options.log.warn({ peer, reason: error.reason }, `certificate refused: ${details}`);
    return new GrpcError(grpcStatus.unauthenticated, details);
  }
  if (error instanceof RefusedRequest) {
    options.metrics.refused("csr");
    options.log.warn({ peer }, `certificate refused: ${details}`);
    return new GrpcError(grpcStatus.invalidArgument, details);
  }
  options.metrics.refused("internal");
  options.log.error({ peer, error: details }, "certificate not issued");
  // The caller tries again; what went wrong inside is for our log alone.
  return new GrpcError(grpcStatus.unavailable, "the certificate could not be issued now");
}

// IstioCertificateRequest { string csr = 1; int64 validity_duration = 3; Struct metadata = 4 }
const csrTag = 1;
const validityTag = 3;
// IstioCertificateResponse { repeated string cert_chain = 1 }
const chainTag = 1;

function decodeRequest(bytes: Uint8Array): CertificateRequest {
  try {
    const reader = protobuf.Reader.create(bytes);
    let csr = "";
    let validitySeconds = 0;
    while (reader.pos < reader.len) {
      const tag = reader.uint32();
      if (tag >>> 3 === csrTag) csr = reader.string();
      else if (tag >>> 3 === validityTag) validitySeconds = Number(reader.int64().toString());
      else reader.skipType(tag & 7);
    }
    return { csr, validitySeconds };
  } catch (cause) {
    throw new RefusedRequest("the message is not an IstioCertificateRequest", { cause });
  }
}

function encodeResponse(chain: readonly string[]): Uint8Array {
  const writer = protobuf.Writer.create();
  for (const pem of chain) writer.uint32((chainTag << 3) | 2).string(pem);
  return writer.finish();
}
