// The certificate authorities that the operating system trusts: what servers outside of the mesh are verified against where a
// DestinationRule names nothing else. Envoy is told them as a secret, since it does not know where a distribution keeps them.

import { readFileSync } from "node:fs";

/** Debian, Alpine and distroless images; then Fedora and RHEL, SUSE, and OpenSSL's own place. */
const places = [
  "/etc/ssl/certs/ca-certificates.crt",
  "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
  "/etc/pki/tls/certs/ca-bundle.crt",
  "/etc/ssl/ca-bundle.pem",
  "/etc/ssl/cert.pem",
];

/** PEM; undefined where there are none: nothing is then verified by them, and connections that ask for it fail. */
export function systemRootsPem(): string | undefined {
  for (const place of places) {
    try {
      const pem = readFileSync(place, "utf8");
      if (pem.includes("BEGIN CERTIFICATE")) return pem;
    } catch {
      // The next one may be there.
    }
  }
  return undefined;
}
