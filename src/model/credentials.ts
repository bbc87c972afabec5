// Certificates and keys that Gateways name, from Secrets: in the layout of `kubectl create secret tls` or in Istio's
// older one.

import { defineQuery, sameData } from "#engine";
import type { Secret } from "./core-kinds.ts";
import { tables } from "./tables.ts";

/** PEM texts. */
export interface KeyPair {
  readonly certificate: string;
  readonly key: string;
  readonly ocspStaple: string;
}

export interface TrustedCa {
  readonly certificate: string;
  readonly revocations: string;
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
      const part = { certificate, key: privateKey, ocspStaple: text(layout.ocspStaple) };
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
      const wrong = pemComplaint(certificate, "CERTIFICATE");
      if (wrong !== undefined) return unusable(`Secret ${row}: ${wrong}`);
      return { kind: "found", part: { certificate, revocations: text(revocationsName) }, secret: row };
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

/** A Secret that is not PEM would make Envoy reject the whole update: it is refused here, by name. */
function pemComplaint(text: string, label: string): string | undefined {
  const block = new RegExp(`-----BEGIN ([A-Z0-9 ]*${label})-----([\\s\\S]*?)-----END \\1-----`).exec(text);
  if (block === null) return `holds no ${label} in PEM`;
  return /^[A-Za-z0-9+/=\s:,-]*$/.test(block[2] ?? "") ? undefined : `holds a ${label} that is not PEM`;
}

/** The CA in a ConfigMap's `ca.crt`, by row key: where Gateway API looks for it. */
export const configuredCaOf = defineQuery<Credential<TrustedCa>>(
  "configuredCaOf",
  (read, key) => {
    const map = read(tables.ConfigMap, key);
    if (map === undefined) return unusable(`ConfigMap ${key} does not exist`);
    const certificate = map.data?.["ca.crt"] ?? map.data?.["cacert"] ?? "";
    if (certificate === "") return unusable(`ConfigMap ${key} has no ca.crt`);
    const wrong = pemComplaint(certificate, "CERTIFICATE");
    if (wrong !== undefined) return unusable(`ConfigMap ${key}: ${wrong}`);
    const part = { certificate, revocations: map.data?.["ca.crl"] ?? "" };
    return { kind: "found", part, secret: key };
  },
  sameData,
);
