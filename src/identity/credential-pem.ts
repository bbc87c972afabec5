// What people put into Secrets, looked at before an Envoy gets it. An Envoy that holds a key pair or a list that it cannot load
// refuses every listener that names it, whole: so what it would refuse is found here, in words that name no secret part.

import { createPrivateKey, X509Certificate as NodeCertificate, type KeyObject } from "node:crypto";
import { algorithmOf, splitPem } from "./keys.ts";
import * as x509 from "./x509.ts";

/** What is wrong with certificates in PEM, if anything. */
export function certificatesComplaint(pem: string): string | undefined {
  const blocks = splitPem(pem);
  if (blocks.length === 0) return "holds no CERTIFICATE in PEM";
  const wrong = blocks.some((block) => attempt(() => new NodeCertificate(block)) === undefined);
  return wrong ? "holds a CERTIFICATE that cannot be read" : undefined;
}

/** What is wrong with a server's or client's certificate chain and its key, in PEM, if anything. */
export function keyPairComplaint(chainPem: string, keyPem: string): string | undefined {
  const complaint = certificatesComplaint(chainPem);
  if (complaint !== undefined) return complaint;
  if (!/-----BEGIN ([A-Z0-9]+ )*PRIVATE KEY-----/.test(keyPem)) return "holds no PRIVATE KEY in PEM";
  const key = attempt(() => createPrivateKey(keyPem));
  if (key === undefined) return "holds a PRIVATE KEY that cannot be read (or that a password protects)";
  const unfit = unfitness(key);
  if (unfit !== undefined) return unfit;
  const leaf = new NodeCertificate(splitPem(chainPem)[0] ?? "");
  return leaf.checkPrivateKey(key) ? undefined : "the key is not that of the certificate";
}

/** What is wrong with a list of revoked certificates in PEM, if anything. */
export function revocationsComplaint(pem: string): string | undefined {
  const blocks = pem.match(/-----BEGIN X509 CRL-----[^-]+-----END X509 CRL-----/g) ?? [];
  if (blocks.length === 0) return "holds no X509 CRL in PEM";
  const readable = blocks.every((block) => {
    const list = attempt(() => new x509.X509Crl(block.replaceAll("X509 CRL", "CRL")));
    return list !== undefined && !list.entries.some(hasEmptyExtensions);
  });
  return readable ? undefined : "holds an X509 CRL that cannot be read";
}

/** Envoy refuses a list of no extensions, which others take: RFC 5280 wants one at least, or no list. */
function hasEmptyExtensions({ rawData }: x509.X509CrlEntry): boolean {
  const [tag, length] = new Uint8Array(rawData).subarray(-2);
  return tag === 0x30 && length === 0;
}

function unfitness(key: KeyObject): string | undefined {
  try {
    algorithmOf(key);
    return undefined;
  } catch (error) {
    return error instanceof Error ? error.message : String(error);
  }
}

function attempt<T>(make: () => T): T | undefined {
  try {
    return make();
  } catch {
    return undefined;
  }
}
