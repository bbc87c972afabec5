// TLS that a proxy originates for its application, to servers outside of the mesh (DestinationRule tls SIMPLE, MUTUAL).

import type { ClientTLSSettings, MeshConfigTLSConfig } from "#objects";
import type { MeshService } from "#model";
import { isWildcard } from "#model";
import type { Message } from "./proto/api.ts";
import {
  agentSecret,
  clientTlsParameters,
  clientTransportSocket,
  controlPlaneSecret,
  credentialSecretName,
  fileSecret,
  revokingSecret,
  systemRootsSecret,
} from "./tls.ts";

export interface OriginatedTls {
  readonly sockets: Message;
  /** `upstream_http_protocol_options`, where the server's name is the request's. */
  readonly upstreamOptions: Message;
}

export interface KnownHere {
  /** PEM of the CA. */
  readonly configuredCa?: string | undefined;
  /** The name of the secret that a client of mode SIMPLE shows all the same. */
  readonly clientCertificate?: string | undefined;
  /** MeshConfig's `tlsDefaults`. */
  readonly defaults?: MeshConfigTLSConfig | undefined;
}

export function originatedTls(
  tls: ClientTLSSettings,
  alpn: readonly string[],
  service: Pick<MeshService, "host" | "subjectAltNames">,
  { configuredCa, clientCertificate: shown, defaults }: KnownHere = {},
): OriginatedTls {
  const names = tls.subjectAltNames ?? service.subjectAltNames;
  const given = tls.sni ?? "";
  const byRequest = given === "";
  const verifies = tls.insecureSkipVerify !== true;
  const context: Message = {
    commonTlsContext: {
      tlsParams: clientTlsParameters(defaults),
      ...(tls.mode === "MUTUAL"
        ? { tlsCertificateSdsSecretConfigs: [clientCertificate(tls)] }
        : shown === undefined
          ? {}
          : { tlsCertificateSdsSecretConfigs: [controlPlaneSecret(shown)] }),
      ...validation(tls, verifies, verifies ? names : [], configuredCa),
      alpnProtocols: alpn,
    },
    // TCP has no request to take the name from, so the service's own host stands in.
    sni: byRequest ? (isWildcard(service.host) ? "" : service.host) : given,
  };
  return {
    sockets: { transportSocket: clientTransportSocket(context) },
    // Whatever the port's protocol: requests reach a port of TLS too, where a gateway routes them to it.
    upstreamOptions: byRequest
      ? {
          upstreamHttpProtocolOptions: {
            autoSni: true,
            autoSanValidation: verifies && names.length === 0,
          },
        }
      : {},
  };
}

function clientCertificate(tls: ClientTLSSettings): Message {
  if (tls.credentialName !== undefined && tls.credentialName !== "")
    return controlPlaneSecret(credentialSecretName(tls.credentialName));
  return fileSecret(`file-cert:${tls.clientCertificate ?? ""}~${tls.privateKey ?? ""}`);
}

function validation(
  tls: ClientTLSSettings,
  verifies: boolean,
  names: readonly string[],
  configuredCa: string | undefined,
): Message {
  const matchTypedSubjectAltNames = names.flatMap((name) =>
    (name.includes("://") ? ["URI"] : ["DNS"]).map((sanType) => ({ sanType, matcher: { exact: name } })),
  );
  if (!verifies) return { validationContext: { trustChainVerification: "ACCEPT_UNTRUSTED" } };
  if (configuredCa !== undefined)
    return { validationContext: { trustedCa: { inlineString: configuredCa }, matchTypedSubjectAltNames } };
  return {
    combinedValidationContext: {
      defaultValidationContext: { matchTypedSubjectAltNames },
      validationContextSdsSecretConfig: trustedSecret(tls),
    },
  };
}

function trustedSecret({ credentialName = "", caCertificates = "", caCrl = "" }: ClientTLSSettings): Message {
  // With credentials the Secret carries the list of revoked certificates, too.
  if (credentialName !== "") return controlPlaneSecret(`${credentialSecretName(credentialName)}-cacert`);
  // Istio verifies against the operating system's roots where nothing else is named. Envoy cannot find them by itself
  // (its field for them has no effect), so the agent has them.
  const ofSystem = caCertificates === "" || caCertificates === "system";
  const roots = ofSystem ? systemRootsSecret : `file-root:${caCertificates}`;
  if (caCrl !== "") return fileSecret(revokingSecret(caCrl, roots));
  return ofSystem ? agentSecret(roots) : fileSecret(roots);
}
