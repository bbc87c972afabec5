// The certificate service as a method of our own gRPC server.

export { createCertificateMethod, createCertificatePath } from "./ca-service.ts";
