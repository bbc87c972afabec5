// TLS between proxies and at the mesh's edge, as Envoy's transport sockets. Keys and certificates never travel in a
// listener or cluster: both name a secret, and Envoy asks for it: the agent for the workload's own identity, the
// control plane for what a `credentialName` refers to.

import {
  isCipher,
  isCurve,
  type MeshConfigTLSConfig,
  type ServerTLSSettings,
  type TLSProtocol,
} from "#objects";
import { durationOf, typed, wrapped, type Message } from "./proto/api.ts";

/** The cluster of the bootstrap that reaches the agent's secret service over its socket. */
export const agentSdsCluster = "sds-grpc";

/** The names under which the agent serves the workload's certificate and the mesh's trust roots. */
export const workloadSecret = "default";
export const trustRootSecret = "ROOTCA";
/** The operating system's, by the name that Istio's agent has for them. */
export const systemRootsSecret = "file-root:system";

/** ALPN that only mesh proxies offer; filter chains of mutual TLS match on them, so foreign TLS passes them by. */
export const meshAlpn = {
  http: ["istio-http/1.0", "istio-http/1.1", "istio-h2"],
  tcp: ["istio-peer-exchange", "istio"],
  all: ["istio", "istio-peer-exchange", "istio-http/1.0", "istio-http/1.1", "istio-h2"],
} as const;

const httpAlpn = ["h2", "http/1.1"];
const tcpServerAlpn = ["istio-peer-exchange", "h2", "http/1.1"];

/** Istio's server-side cipher list for mutual TLS; TLS 1.3 has its own fixed set. */
const meshCiphers = [
  "ECDHE-ECDSA-AES256-GCM-SHA384",
  "ECDHE-RSA-AES256-GCM-SHA384",
  "ECDHE-ECDSA-AES128-GCM-SHA256",
  "ECDHE-RSA-AES128-GCM-SHA256",
  "AES256-GCM-SHA384",
  "AES128-GCM-SHA256",
];

/** What MeshConfig says about TLS: of mutual TLS within the mesh, and in `defaults` of all other. */
export interface MeshTls {
  /** The trust domain and its aliases: a peer's SPIFFE id must start with one of them. */
  readonly trustDomains: readonly string[];
  readonly minProtocolVersion?: string;
  readonly cipherSuites?: readonly string[];
  readonly defaults?: MeshConfigTLSConfig;
  /** Serves credentials of the form `sds://name` to gateways: an extension provider. */
  readonly secretService?: { readonly cluster: string; readonly host: string } | undefined;
}

/** The server side of mutual TLS: a client certificate of the mesh is demanded. */
export function meshServerTls(mesh: MeshTls, protocol: "http" | "tcp"): Message {
  return {
    commonTlsContext: {
      tlsParams: tlsParameters(mesh.minProtocolVersion, "TLSv1_3", mesh.cipherSuites ?? meshCiphers),
      tlsCertificateSdsSecretConfigs: [agentSecret(workloadSecret)],
      combinedValidationContext: {
        defaultValidationContext: {
          matchTypedSubjectAltNames: mesh.trustDomains.map((domain) => ({
            sanType: "URI",
            matcher: { prefix: `spiffe://${domain}/` },
          })),
        },
        validationContextSdsSecretConfig: agentSecret(trustRootSecret),
      },
      alpnProtocols: protocol === "http" ? httpAlpn : tcpServerAlpn,
    },
    requireClientCertificate: wrapped(true),
  };
}

/** The client side of mutual TLS. */
export interface MeshClientTls {
  readonly sni: string;
  readonly alpn: readonly string[];
  /** Exact SPIFFE ids that the server may bear; empty accepts every identity of the mesh's roots. */
  readonly identities: readonly string[];
  readonly minProtocolVersion?: string;
}

export function meshClientTls(client: MeshClientTls): Message {
  return {
    commonTlsContext: {
      tlsParams: tlsParameters(client.minProtocolVersion, "TLSv1_3"),
      tlsCertificateSdsSecretConfigs: [agentSecret(workloadSecret)],
      combinedValidationContext: {
        defaultValidationContext: {
          matchTypedSubjectAltNames: client.identities.map((identity) => ({
            sanType: "URI",
            matcher: { exact: identity },
          })),
        },
        validationContextSdsSecretConfig: agentSecret(trustRootSecret),
      },
      alpnProtocols: client.alpn,
    },
    sni: client.sni,
  };
}

/** TLS termination as a server of a Gateway or of a Sidecar's ingress asks for it. */
export function serverTls(settings: ServerTLSSettings, mesh: MeshTls, terminatesTcp: boolean): Message {
  const mode = settings.mode ?? "SIMPLE";
  if (mode === "ISTIO_MUTUAL") return meshServerTls(mesh, terminatesTcp ? "tcp" : "http");
  const requireClient = mode === "MUTUAL";
  const validateClient = requireClient || mode === "OPTIONAL_MUTUAL";
  return {
    commonTlsContext: {
      tlsParams: tlsParameters(
        protocolOf(settings.minProtocolVersion) ?? protocolOf(mesh.defaults?.minProtocolVersion),
        protocolOf(settings.maxProtocolVersion) ?? "TLSv1_3",
        named(settings.cipherSuites) ?? named(mesh.defaults?.cipherSuites) ?? settings.cipherSuites,
        curvesOf(settings, mesh),
      ),
      tlsCertificateSdsSecretConfigs: certificateSecrets(settings, mesh),
      ...validationOf(settings, validateClient, mesh),
      alpnProtocols: httpAlpn,
    },
    requireClientCertificate: wrapped(requireClient),
  };
}

/** The same for QUIC, which knows TLS 1.3 alone, with ciphers of its own. */
export function serverTlsOverQuic(settings: ServerTLSSettings, mesh: MeshTls): Message {
  const context = serverTls(settings, mesh, false);
  const common = {
    ...(context["commonTlsContext"] as Message),
    tlsParams: tlsParameters("TLSv1_3", "TLSv1_3", undefined, curvesOf(settings, mesh)),
    alpnProtocols: ["h3"],
  };
  return { ...context, commonTlsContext: common };
}

function curvesOf(settings: ServerTLSSettings, mesh: MeshTls): readonly string[] | undefined {
  return named(settings.ecdhCurves) ?? mesh.defaults?.ecdhCurves;
}

/** Undefined for a list that names nothing. */
function named(list: readonly string[] | undefined): readonly string[] | undefined {
  return list === undefined || list.length === 0 ? undefined : list;
}

/** `tls_params` of TLS that a proxy originates to servers outside of the mesh. Istio applies the least version to servers alone. */
export function clientTlsParameters(defaults: MeshConfigTLSConfig | undefined): Message {
  return tlsParameters(undefined, "TLSv1_3", named(defaults?.cipherSuites), defaults?.ecdhCurves);
}

/** The secret's name in Envoy for a `credentialName`, as Istio forms it. */
export function credentialSecretName(credential: string): string {
  if (credential.startsWith("builtin://")) return workloadSecret;
  return /^(kubernetes|kubernetes-gateway|configmap):\/\//.test(credential)
    ? credential
    : `kubernetes://${credential}`;
}

/** The credentials of a server, in order; the first also names the CA secret for client certificates. */
export function credentialNames(settings: ServerTLSSettings): readonly string[] {
  if (settings.credentialNames !== undefined && settings.credentialNames.length > 0)
    return settings.credentialNames;
  return settings.credentialName === undefined || settings.credentialName === ""
    ? []
    : [settings.credentialName];
}

/** Wraps a DownstreamTlsContext. */
export function serverTransportSocket(context: Message): Message {
  return {
    name: "envoy.transport_sockets.tls",
    typedConfig: typed("envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext", context),
  };
}

/** Wraps a DownstreamTlsContext for QUIC. */
export function quicTransportSocket(context: Message): Message {
  return {
    name: "envoy.transport_sockets.quic",
    typedConfig: typed("envoy.extensions.transport_sockets.quic.v3.QuicDownstreamTransport", {
      downstreamTlsContext: context,
    }),
  };
}

/** Wraps an UpstreamTlsContext. */
export function clientTransportSocket(context: Message): Message {
  return {
    name: "envoy.transport_sockets.tls",
    typedConfig: typed("envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext", context),
  };
}

/**
 * A secret that the agent serves over its socket. The listener waits for it: it always comes. Word for word what the
 * bootstrap says, so that Envoy has one subscription for both.
 */
export function agentSecret(name: string): Message {
  return {
    name,
    sdsConfig: {
      apiConfigSource: {
        apiType: "DELTA_GRPC",
        transportApiVersion: "V3",
        setNodeOnFirstMessageOnly: true,
        grpcServices: [{ envoyGrpc: { clusterName: agentSdsCluster } }],
      },
      initialFetchTimeout: durationOf(0),
      resourceApiVersion: "V3",
    },
  };
}

/** A secret that the agent makes of files; a missing file must not keep the rest of what names it from starting. */
export function fileSecret(name: string): Message {
  const secret = agentSecret(name);
  const sdsConfig = { ...(secret["sdsConfig"] as Message), initialFetchTimeout: durationOf(fileTimeoutMs) };
  return { ...secret, sdsConfig };
}

const fileTimeoutMs = 5_000;

/** A secret that the control plane serves; a missing one must not keep the rest of the listener from starting. */
export function controlPlaneSecret(name: string): Message {
  return {
    name,
    sdsConfig: { ads: {}, initialFetchTimeout: durationOf(15_000), resourceApiVersion: "V3" },
  };
}

const serviceScheme = "sds://";

/** A credential of a server: of the service that MeshConfig names for it, by the name that is known there, or of the control plane. */
function serverSecret(credential: string, { secretService }: MeshTls, suffix = ""): Message {
  if (secretService === undefined || !credential.startsWith(serviceScheme))
    return controlPlaneSecret(`${credentialSecretName(credential)}${suffix}`);
  const { cluster: clusterName, host: authority } = secretService;
  return {
    name: `${credential.slice(serviceScheme.length)}${suffix}`,
    sdsConfig: {
      apiConfigSource: {
        apiType: "GRPC",
        transportApiVersion: "V3",
        setNodeOnFirstMessageOnly: true,
        grpcServices: [{ envoyGrpc: { clusterName, authority } }],
      },
      initialFetchTimeout: durationOf(15_000),
      resourceApiVersion: "V3",
    },
  };
}

function certificateSecrets(settings: ServerTLSSettings, mesh: MeshTls): Message[] {
  const credentials = credentialNames(settings);
  if (credentials.length > 0) return credentials.map((credential) => serverSecret(credential, mesh));
  // Files in the proxy's own file system: the agent reads them and serves them under Istio's composed name.
  const files = settings.tlsCertificates ?? [
    { serverCertificate: settings.serverCertificate, privateKey: settings.privateKey },
  ];
  return files.map(({ serverCertificate, privateKey }) =>
    serverCertificate === undefined || serverCertificate === ""
      ? agentSecret(workloadSecret)
      : fileSecret(`file-cert:${serverCertificate}~${privateKey ?? ""}`),
  );
}

function validationOf(settings: ServerTLSSettings, validateClient: boolean, mesh: MeshTls): Message {
  const names = (settings.subjectAltNames ?? []).flatMap((name) =>
    ["DNS", "URI", "EMAIL", "IP_ADDRESS"].map((sanType) => ({ sanType, matcher: { exact: name } })),
  );
  if (!validateClient)
    return names.length === 0 ? {} : { validationContext: { matchTypedSubjectAltNames: names } };
  return {
    combinedValidationContext: {
      defaultValidationContext: {
        matchTypedSubjectAltNames: names,
        verifyCertificateSpki: settings.verifyCertificateSpki ?? [],
        verifyCertificateHash: settings.verifyCertificateHash ?? [],
        ...(settings.insecureSkipVerify === true ? { trustChainVerification: "ACCEPT_UNTRUSTED" } : {}),
        ...listBesideSecret(settings),
      },
      validationContextSdsSecretConfig: caSecret(settings, mesh),
    },
  };
}

/** Beside a CA of a Secret the agent has no say: Envoy reads the list once, when the server comes. */
function listBesideSecret(settings: ServerTLSSettings): Message {
  const { caCertCredentialName = "", caCrl = "" } = settings;
  const isAlone = credentialNames(settings).length === 0 && caCertCredentialName !== "" && caCrl !== "";
  return isAlone ? { crl: { filename: caCrl } } : {};
}

function caSecret(settings: ServerTLSSettings, mesh: MeshTls): Message {
  if (settings.caCertCredentialName !== undefined && settings.caCertCredentialName !== "")
    return serverSecret(settings.caCertCredentialName, mesh);
  const [first] = credentialNames(settings);
  if (first !== undefined) return serverSecret(first, mesh, "-cacert");
  const file = settings.caCertificates ?? "";
  const revoked = settings.caCrl ?? "";
  const roots = file === "" ? trustRootSecret : `file-root:${file}`;
  if (revoked !== "") return fileSecret(revokingSecret(revoked, roots));
  return file === "" ? agentSecret(roots) : fileSecret(roots);
}

/**
 * The agent's name for some roots with a list of revoked certificates, which is a file beside the proxy: by it the agent follows the file,
 * where Envoy would read it once. With credentials the Secret's own list counts.
 */
export function revokingSecret(list: string, roots: string): string {
  return `file-crl:${list}~${roots}`;
}

function protocolOf(version: TLSProtocol | undefined): string | undefined {
  return version === undefined || version === "TLS_AUTO" ? undefined : version.replace("TLSV", "TLSv");
}

function tlsParameters(
  min: string | undefined,
  max: string,
  cipherSuites: readonly string[] | undefined = undefined,
  ecdhCurves: readonly string[] = [],
): Message {
  // Envoy refuses what names an unknown curve, or one twice; admission has warned of it.
  const curves = [...new Set(ecdhCurves)].filter(isCurve);
  return {
    // Never below 1.2 unless a Gateway asks for it by name: Envoy's own default differs between client and server.
    tlsMinimumProtocolVersion:
      min === undefined || min === "TLS_AUTO" ? "TLSv1_2" : min.replace("TLSV", "TLSv"),
    tlsMaximumProtocolVersion: max,
    // Envoy would refuse the listener for one name that it does not know; admission has warned of it.
    ...(cipherSuites === undefined ? {} : { cipherSuites: cipherSuites.filter(isCipher) }),
    ...(curves.length === 0 ? {} : { ecdhCurves: curves }),
  };
}
