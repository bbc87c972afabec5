// The TLS of a listener as Istio's API has it, or what is wrong with the certificates that it names. Whoever may not
// name an object of another namespace does not learn whether it exists.

import { defineQuery, sameData, type Read } from "#engine";
import type {
  KubeGatewayFrontendTls,
  KubeGatewayListener,
  SecretObjectReference,
  ServerTLSSettings,
} from "#objects";
import { configuredCaOf, keyPairOf, trustedCaOf } from "../credentials.ts";
import type { Mistake } from "./findings.ts";
import { isGranted } from "./grants.ts";
import { tables } from "../tables.ts";

/** Who names the certificates. */
export interface TlsOwner {
  readonly kind: "Gateway" | "ListenerSet";
  readonly namespace: string;
}

export interface ListenerTls {
  readonly settings?: ServerTLSSettings;
  readonly mistake?: Mistake;
  /** What is asked for cannot be done: nobody is served, rather than anybody with less. */
  readonly closed?: true;
}

const modeOption = "gateway.istio.io/tls-terminate-mode";
const ciphersOption = "gateway.istio.io/tls-cipher-suites";
const protocolOption = "gateway.istio.io/listener-protocol";
/** A certificate of each key algorithm: more are not told apart by a server. */
const certificatesMax = 2;

/** @param frontend what the Gateway says about clients' certificates on this port */
export function listenerTls(
  read: Read,
  owner: TlsOwner,
  tls: KubeGatewayListener["tls"],
  frontend: KubeGatewayFrontendTls | undefined,
): ListenerTls {
  if (tls === undefined) return {};
  const ciphers = (tls.options?.[ciphersOption] ?? "")
    .split(",")
    .map((name) => name.trim())
    .filter((name) => name !== "");
  const more = ciphers.length === 0 ? {} : { cipherSuites: ciphers };
  if (tls.mode === "Passthrough") {
    const automatic = tls.options?.[protocolOption] === "auto-passthrough";
    return { settings: { mode: automatic ? "AUTO_PASSTHROUGH" : "PASSTHROUGH", ...more } };
  }
  const terminated = terminatedTls(read, owner, tls, frontend);
  return terminated.settings === undefined
    ? terminated
    : { ...terminated, settings: { ...terminated.settings, ...more } };
}

function terminatedTls(
  read: Read,
  owner: TlsOwner,
  tls: NonNullable<KubeGatewayListener["tls"]>,
  frontend: KubeGatewayFrontendTls | undefined,
): ListenerTls {
  const asked = tls.options?.[modeOption];
  if (asked === "ISTIO_MUTUAL") return { settings: { mode: "ISTIO_MUTUAL" } };
  // The workload's own certificate: a server without a credential has it.
  if (asked === "ISTIO_SIMPLE") return { settings: { mode: "SIMPLE" } };
  const mode = asked === "MUTUAL" || asked === "OPTIONAL_MUTUAL" ? asked : "SIMPLE";
  const references = tls.certificateRefs ?? [];
  if (references.length > certificatesMax) {
    const message = `at most ${certificatesMax} certificates can be served`;
    return { settings: { mode }, mistake: { reason: "InvalidCertificateRef", message }, closed: true };
  }
  const found = references.map((reference) => certificateOf(read, owner, reference));
  const names = found.flatMap(({ name }) => name ?? []);
  if (names.length === 0)
    return { settings: { mode }, ...joined(found), ...(found.length === 0 ? {} : { closed: true }) };
  const settings: ServerTLSSettings = {
    mode,
    ...(names.length === 1 ? { credentialName: names[0] } : { credentialNames: names }),
  };
  return withClientCa(read, owner, settings, frontend, asked);
}

interface FoundCertificate {
  readonly name?: string;
  readonly mistake?: Mistake;
}

/** Several mistakes are told as one: the first one's reason, everyone's message. */
function joined(found: readonly FoundCertificate[]): Pick<ListenerTls, "mistake"> {
  const mistakes = found.flatMap(({ mistake }) => mistake ?? []);
  const [first] = mistakes;
  if (first === undefined) return {};
  return { mistake: { ...first, message: mistakes.map(({ message }) => message).join("; ") } };
}

function certificateOf(read: Read, owner: TlsOwner, reference: SecretObjectReference): FoundCertificate {
  const { group = "", kind = "Secret", name } = reference;
  const namespace = reference.namespace ?? owner.namespace;
  const to = { group: "", kind: "Secret", namespace, name };
  if (!read(isGranted, { from: owner, to }))
    return { mistake: notGranted("certificateRef", namespace, name, owner) };
  if (group !== "" || kind !== "Secret")
    return {
      mistake: { reason: "InvalidCertificateRef", message: `certificateRef ${kind} ${name} is no Secret` },
    };
  const pair = read(keyPairOf, `${namespace}/${name}`);
  if (pair.kind === "unusable") return { mistake: { reason: "InvalidCertificateRef", message: pair.reason } };
  return { name: `kubernetes-gateway://${namespace}/${name}` };
}

function notGranted(field: string, namespace: string, name: string, owner: TlsOwner): Mistake {
  return {
    reason: "RefNotPermitted",
    message: `no ReferenceGrant in namespace ${namespace} lets a ${owner.kind} of namespace ${owner.namespace} use ${field} ${name}`,
  };
}

function withClientCa(
  read: Read,
  owner: TlsOwner,
  settings: ServerTLSSettings,
  frontend: KubeGatewayFrontendTls | undefined,
  asked: string | undefined,
): ListenerTls {
  const references = frontend?.validation?.caCertificateRefs ?? [];
  const [reference] = references;
  if (reference === undefined) return { settings };
  if (references.length > 1) {
    const message = "only one caCertificateRef can be used";
    return { settings, mistake: { reason: "InvalidCACertificateRef", message }, closed: true };
  }
  const { group, kind, name } = reference;
  const namespace = reference.namespace ?? owner.namespace;
  const ofConfigMap = kind !== "Secret";
  const to = { group: "", kind: ofConfigMap ? "ConfigMap" : "Secret", namespace, name };
  if (!read(isGranted, { from: owner, to }))
    return { settings, mistake: notGranted("caCertificateRef", namespace, name, owner), closed: true };
  if (group !== "" || (kind !== "ConfigMap" && kind !== "Secret")) {
    const message = `caCertificateRef ${kind} ${name} is neither ConfigMap nor Secret`;
    return { settings, mistake: { reason: "InvalidCACertificateKind", message }, closed: true };
  }
  const row = `${namespace}/${name}`;
  const ca = ofConfigMap ? read(configuredCaOf, row) : read(trustedCaOf, row);
  if (ca.kind === "unusable")
    return { settings, mistake: { reason: "InvalidCACertificateRef", message: ca.reason }, closed: true };
  const insecure = frontend?.validation?.mode === "AllowInsecureFallback";
  const chosen = asked === "MUTUAL" || asked === "OPTIONAL_MUTUAL" ? asked : undefined;
  return {
    settings: {
      ...settings,
      mode: chosen ?? (insecure ? "OPTIONAL_MUTUAL" : "MUTUAL"),
      insecureSkipVerify: chosen === undefined && insecure,
      caCertCredentialName: `${ofConfigMap ? "configmap" : "kubernetes-gateway"}://${row}-cacert`,
    },
  };
}

/** The certificate that a Gateway shows to backends that are spoken to with TLS, by its row key. */
export const backendCertificateOf = defineQuery<BackendCertificate | undefined>(
  "gatewayBackendCertificate",
  (read, key) => {
    const reference = read(tables.KubeGateway, key)?.spec?.tls?.backend?.clientCertificateRef;
    const namespace = key.slice(0, key.indexOf("/"));
    const mistake = clientCertificateMistake(read, { kind: "Gateway", namespace }, reference);
    if (reference === undefined || mistake !== undefined) return undefined;
    const secret = `${reference.namespace ?? namespace}/${reference.name}`;
    return { name: `kubernetes-gateway://${secret}`, secret };
  },
  sameData,
);

export interface BackendCertificate {
  /** The name that Envoy asks for. */
  readonly name: string;
  /** Row key of the Secret. */
  readonly secret: string;
}

/** What is wrong with the certificate that a Gateway shows to its backends. */
export function clientCertificateMistake(
  read: Read,
  owner: TlsOwner,
  reference: SecretObjectReference | undefined,
): Mistake | undefined {
  if (reference === undefined) return undefined;
  const { group = "", kind = "Secret", name } = reference;
  const namespace = reference.namespace ?? owner.namespace;
  if (group !== "" || kind !== "Secret")
    return {
      reason: "InvalidClientCertificateRef",
      message: `clientCertificateRef ${kind} ${name} is no Secret`,
    };
  const to = { group: "", kind: "Secret", namespace, name };
  if (!read(isGranted, { from: owner, to }))
    return notGranted("clientCertificateRef", namespace, name, owner);
  const pair = read(keyPairOf, `${namespace}/${name}`);
  return pair.kind === "unusable"
    ? { reason: "InvalidClientCertificateRef", message: pair.reason }
    : undefined;
}
