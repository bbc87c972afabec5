// The filter of a route that asks a service whether a request may go on. It must not fail open: where the service cannot be
// asked, the rule answers nobody.

import type { Read } from "#engine";
import type { ExternalAuth, HTTPExternalAuthFilter } from "#objects";
import { environmentOf } from "../mesh.ts";
import { isHttp2 } from "../protocol.ts";
import { serviceKey, serviceOf } from "../services.ts";
import { findBackend, type BackendUser } from "./backends.ts";
import type { Mistake } from "./findings.ts";

export type FoundAuth =
  | { readonly kind: "found"; readonly auth: ExternalAuth }
  | { readonly kind: "closed"; readonly mistake: Mistake };

export function findExternalAuth(
  read: Read,
  user: BackendUser,
  { backendRef, ...settings }: HTTPExternalAuthFilter,
): FoundAuth {
  const found = findBackend(read, user, backendRef);
  if (found.kind === "refused") return { kind: "closed", mistake: found.mistake };
  if (found.mistake !== undefined) return { kind: "closed", mistake: found.mistake };
  const { destination } = found;
  if (settings.protocol === "GRPC" && !speaksGrpc(read, destination.host, destination.port?.number ?? 0)) {
    const message = `port ${backendRef.port} of ${backendRef.name} is not said to speak gRPC: give it appProtocol grpc`;
    return { kind: "closed", mistake: { reason: "UnsupportedProtocol", message } };
  }
  return { kind: "found", auth: { ...settings, destination } };
}

/** Envoy calls a port of unknown protocol with HTTP/1.1, which no gRPC service understands. */
function speaksGrpc(read: Read, host: string, port: number): boolean {
  const [, namespace = ""] = host.split(".");
  const { clusterDomain } = read(environmentOf, "");
  const inCluster = host.endsWith(`.svc.${clusterDomain}`);
  const service = inCluster ? read(serviceOf, serviceKey(namespace, host)) : undefined;
  // A host outside of the cluster is known to its ServiceEntry, which may be anywhere.
  if (service === undefined) return true;
  return service.ports.some((one) => one.port === port && isHttp2(one.protocol));
}
