// One question to the CA: a fresh key, a request, the service-account token, a chain back.

import protobuf from "protobufjs/minimal.js";
import { callUnary } from "./grpc.ts";
import { createRequest } from "./request.ts";
import { certificateOf, type WorkloadCertificate } from "./rotator.ts";

export interface CaQuestion {
  /** `host:port`; the host is also the name that the CA's certificate must hold. */
  readonly address: string;
  readonly spiffeId: string;
  /** "" for those who prove who they are by their certificate. */
  readonly token: string;
  readonly certificate?: { readonly chainPem: string; readonly keyPem: string };
  readonly rootPem: string;
  readonly ttlSeconds: number;
}

const path = "/istio.v1.auth.IstioCertificateService/CreateCertificate";
const timeoutMs = 10_000;

/** Throws GrpcError (UNAUTHENTICATED for a refused token) or an Error of what the network or TLS said. */
export async function fetchCertificate(question: CaQuestion): Promise<WorkloadCertificate> {
  const request = await createRequest(question.spiffeId);
  const { certificate, token } = question;
  const answer = await callUnary({
    url: `https://${question.address}`,
    path,
    headers: token === "" ? {} : { authorization: `Bearer ${token}` },
    message: encodeRequest(request.csrPem, question.ttlSeconds),
    timeoutMs,
    tls: {
      ca: question.rootPem,
      servername: hostOf(question.address),
      ...(token === "" && certificate !== undefined
        ? { cert: certificate.chainPem, key: certificate.keyPem }
        : {}),
    },
  });
  return certificateOf(request.keyPem, decodeChain(answer));
}

export function hostOf(address: string): string {
  return address.slice(0, address.lastIndexOf(":")).replace(/^\[|\]$/g, "");
}

export function portOf(address: string): number {
  return Number(address.slice(address.lastIndexOf(":") + 1));
}

// IstioCertificateRequest { string csr = 1; int64 validity_duration = 3 }
function encodeRequest(csrPem: string, ttlSeconds: number): Uint8Array {
  return protobuf.Writer.create().uint32(0x0a).string(csrPem).uint32(0x18).int64(ttlSeconds).finish();
}

// IstioCertificateResponse { repeated string cert_chain = 1 }
function decodeChain(bytes: Buffer): string[] {
  const reader = protobuf.Reader.create(bytes);
  const chain: string[] = [];
  while (reader.pos < reader.len) {
    const tag = reader.uint32();
    if (tag === 0x0a) chain.push(reader.string());
    else reader.skipType(tag & 7);
  }
  return chain;
}
