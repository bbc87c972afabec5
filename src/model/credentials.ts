// Certificates and keys that Gateways name, from Secrets: in the layout of `kubectl create secret tls` or in Istio's
// older one.

import { defineQuery, sameData } from "#engine";
import { certificatesComplaint, keyPairComplaint, revocationsComplaint } from "#identity";
import type { Secret } from "./core-kinds.ts";
import { tables } from "./tables.ts";

/** PEM texts. */
export interface KeyPair {
  readonly certificate: string;
  readonly key: string;
  readonly ocspStaple: string;
  /** Why Envoy would refuse it, though it looks like PEM. It is kept from Envoy then. */
  readonly unfit?: string;
}

export interface TrustedCa {
  readonly certificate: string;
  readonly revocations: string;
  readonly unfit?: string;
}

/** What was found in the Secret, or one sentence on why nothing was. */
export type Credential<Part> =
  | { readonly kind: "found"; readonly part: Part; readonly secret: string }
  | { readonly kind: "unusable"; readonly reason: string };

/** The certificate and key of a Secret, by row key. */
export const keyPairOf = defineQuery<Credential<KeyPair>>(
  "keyPairOf",
  (read, key) => {
    const secret = read(tables.Secret, key);
    if (secret === undefined) return unusable(`Secret ${key} does not exist`);
    const text = textsOf(secret);
    for (const layout of [
      { certificate: "cert", key: "key", ocspStaple: "" },
      { certificate: "tls.crt", key: "tls.key", ocspStaple: "tls.ocsp-staple" },
    ]) {
      const certificate = text(layout.certificate);
      const privateKey = text(layout.key);
      if (certificate === "" || privateKey === "") continue;
      const wrong = pemComplaint(certificate, "CERTIFICATE") ?? pemComplaint(privateKey, "PRIVATE KEY");
      if (wrong !== undefined) return unusable(`Secret ${key}: ${wrong}`);
      const part = {
        certificate,
        key: privateKey,
        ocspStaple: text(layout.ocspStaple),
        ...unfitAs(`Secret ${key}`, keyPairComplaint(certificate, privateKey)),
      };
      return { kind: "found", part, secret: key };
    }
    return unusable(`Secret ${key} has neither tls.crt and tls.key nor cert and key`);
  },
  sameData,
);

/**
 * The CA that client certificates of a credential must come from, by the credential's row key: Secret `name-cacert`,
 * or else the Secret itself.
 */
export const trustedCaOf = defineQuery<Credential<TrustedCa>>(
  "trustedCaOf",
  (read, key) => {
    const separate = `${key}-cacert`;
    const row = read(tables.Secret, separate) === undefined ? key : separate;
    const secret = read(tables.Secret, row);
    if (secret === undefined) return unusable(`neither Secret ${separate} nor Secret ${key} exists`);
    const text = textsOf(secret);
    for (const [certificateName, revocationsName] of [
      ["cacert", "crl"],
      ["ca.crt", "ca.crl"],
    ] as const) {
      const certificate = text(certificateName);
      if (certificate === "") continue;
      const revocations = text(revocationsName);
      const wrong = pemComplaint(certificate, "CERTIFICATE");
      if (wrong !== undefined) return unusable(`Secret ${row}: ${wrong}`);
      return { kind: "found", part: trustedCa(`Secret ${row}`, certificate, revocations), secret: row };
    }
    return unusable(`Secret ${row} has neither ca.crt nor cacert`);
  },
  sameData,
);

function unusable(reason: string): { readonly kind: "unusable"; readonly reason: string } {
  return { kind: "unusable", reason };
}

function textsOf({ data, stringData }: Secret): (name: string) => string {
  return (name) => stringData?.[name] ?? Buffer.from(data?.[name] ?? "", "base64").toString("utf8");
}

/** What is not even PEM, in words. */
function pemComplaint(text: string, label: string): string | undefined {
  const block = new RegExp(`-----BEGIN ([A-Z0-9 ]*${label})-----([\\s\\S]*?)-----END \\1-----`).exec(text);
  if (block === null) return `holds no ${label} in PEM`;
  return /^[A-Za-z0-9+/=\s:,-]*$/.test(block[2] ?? "") ? undefined : `holds a ${label} that is not PEM`;
}

function trustedCa(where: string, certificate: string, revocations: string): TrustedCa {
  const complaint =
    certificatesComplaint(certificate) ??
    (revocations === "" ? undefined : revocationsComplaint(revocations));
  return { certificate, revocations, ...unfitAs(where, complaint) };
}

function unfitAs(where: string, complaint: string | undefined): { readonly unfit?: string } {
  return complaint === undefined ? {} : { unfit: `${where}: ${complaint}` };
}

/** Why a credential cannot be served; undefined when it can. */
export function uselessness(found: Credential<KeyPair | TrustedCa>): string | undefined {
  return found.kind === "unusable" ? found.reason : found.part.unfit;
}

/** The CA in a ConfigMap's `ca.crt`, by row key: where Gateway API looks for it. */
export const configuredCaOf = defineQuery<Credential<TrustedCa>>(
  "configuredCaOf",
  (read, key) => {
    const map = read(tables.ConfigMap, key);
    if (map === undefined) return unusable(`ConfigMap ${key} does not exist`);
    const certificate = map.data?.["ca.crt"] ?? map.data?.["cacert"] ?? "";
    if (certificate === "") return unusable(`ConfigMap ${key} has no ca.crt`);
    const revocations = map.data?.["ca.crl"] ?? "";
    const wrong = pemComplaint(certificate, "CERTIFICATE");
    if (wrong !== undefined) return unusable(`ConfigMap ${key}: ${wrong}`);
    return { kind: "found", part: trustedCa(`ConfigMap ${key}`, certificate, revocations), secret: key };
  },
  sameData,
);

/** The Secret behind a credential's name, for proxies of a namespace. */
export interface NamedSecret {
  /** How Envoy is told of it: `kubernetes://name`. */
  readonly resource: string;
  /** Row key of the Secret. */
  readonly row: string;
  /** Whether the proxies may have it: it is in their namespace. */
  readonly isOwn: boolean;
}

/** Undefined where the name is none of a Secret: empty, built in, or of another kind. */
export function namedSecret(credential: string, namespace: string): NamedSecret | undefined {
  const [, scheme = "kubernetes", path = ""] = /^(?:([a-z-]+):\/\/)?(.*)$/.exec(credential) ?? [];
  if (path === "" || (scheme !== "kubernetes" && scheme !== "kubernetes-gateway")) return undefined;
  const row = path.includes("/") ? path : `${namespace}/${path}`;
  return { resource: `${scheme}://${path}`, row, isOwn: row.startsWith(`${namespace}/`) };
}
