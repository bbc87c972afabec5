// Mounts the certificate service, which speaks in grpc-js' types, on our own gRPC server.

import * as grpc from "@grpc/grpc-js";
import { GrpcError, type GrpcPeer, type UnaryMethod } from "#xds";
import {
  certificateService,
  certificateServiceDefinition,
  type CertificateServiceOptions,
} from "./ca-service.ts";

export const createCertificatePath = certificateServiceDefinition.CreateCertificate.path;

export function createCertificateMethod(options: CertificateServiceOptions): UnaryMethod {
  const { requestDeserialize, responseSerialize } = certificateServiceDefinition.CreateCertificate;
  const { CreateCertificate } = certificateService(options);
  return (bytes, peer) => {
    const call = callOf(requestDeserialize(Buffer.from(bytes)), peer);
    return new Promise((resolve, reject) => {
      CreateCertificate(call, (error, chain) => {
        if (error !== null) reject(new GrpcError(error.code ?? grpc.status.INTERNAL, error.details ?? ""));
        else resolve(responseSerialize(chain ?? []));
      });
    });
  };
}

type Call = Parameters<ReturnType<typeof certificateService>["CreateCertificate"]>[0];

/** Only what the service reads of a call. */
function callOf(request: Call["request"], peer: GrpcPeer): Call {
  const metadata = new grpc.Metadata();
  if (peer.authorization !== undefined) metadata.set("authorization", peer.authorization);
  const sslPeerCertificate = peer.certificate === undefined ? undefined : { raw: peer.certificate };
  const call = {
    request,
    metadata,
    getPeer: () => peer.address,
    getAuthContext: () => ({ sslPeerCertificate }),
  };
  return call as unknown as Call;
}
