// A certificate authority of a test's own: certificates of both key types for any names, and a list of revoked ones.

import { createHash, X509Certificate } from "node:crypto";
// oxlint-disable-next-line import/no-unassigned-import
import "reflect-metadata";
import {
  BasicConstraintsExtension,
  ExtendedKeyUsage,
  ExtendedKeyUsageExtension,
  KeyUsageFlags,
  KeyUsagesExtension,
  SubjectAlternativeNameExtension,
  X509CertificateGenerator,
  X509CrlGenerator,
  X509CrlReason,
  X509Certificate as PeculiarCertificate,
} from "@peculiar/x509";

/** PEM. */
export interface Pair {
  readonly certificate: string;
  readonly key: string;
}

export type KeyType = "ecdsa" | "rsa";

const ecdsa = { name: "ECDSA", namedCurve: "P-256", hash: "SHA-256" } as const;
const rsa = {
  name: "RSASSA-PKCS1-v1_5",
  hash: "SHA-256",
  publicExponent: new Uint8Array([1, 0, 1]),
  modulusLength: 2_048,
} as const;
const hourMs = 3_600_000;

export class TestAuthority {
  readonly certificate: string;
  readonly #issuer: PeculiarCertificate;
  readonly #key: CryptoKey;
  #serial = 100;

  private constructor(issuer: PeculiarCertificate, key: CryptoKey) {
    this.#issuer = issuer;
    this.#key = key;
    this.certificate = issuer.toString("pem");
  }

  static async create(name: string): Promise<TestAuthority> {
    const keys = await crypto.subtle.generateKey(ecdsa, true, ["sign", "verify"]);
    const issuer = await X509CertificateGenerator.createSelfSigned({
      serialNumber: "01",
      name: `CN=${name}`,
      ...validity(),
      signingAlgorithm: ecdsa,
      keys,
      extensions: [
        new BasicConstraintsExtension(true, undefined, true),
        new KeyUsagesExtension(KeyUsageFlags.keyCertSign | KeyUsageFlags.cRLSign, true),
      ],
    });
    return new TestAuthority(issuer, keys.privateKey);
  }

  /** @param names DNS names, or URIs; the first one is the subject as well */
  async issue(names: readonly string[], type: KeyType = "ecdsa"): Promise<Pair> {
    const keys = await crypto.subtle.generateKey(type === "rsa" ? rsa : ecdsa, true, ["sign", "verify"]);
    const certificate = await X509CertificateGenerator.create({
      serialNumber: String(this.#serial++),
      subject: `CN=${names[0] ?? ""}`,
      issuer: this.#issuer.subject,
      ...validity(),
      publicKey: keys.publicKey,
      signingKey: this.#key,
      signingAlgorithm: ecdsa,
      extensions: [
        new BasicConstraintsExtension(false),
        new KeyUsagesExtension(KeyUsageFlags.digitalSignature | KeyUsageFlags.keyEncipherment, true),
        new ExtendedKeyUsageExtension([ExtendedKeyUsage.serverAuth, ExtendedKeyUsage.clientAuth]),
        new SubjectAlternativeNameExtension(
          names.map((value) => ({
            type: value.includes("://") ? ("url" as const) : ("dns" as const),
            value,
          })),
        ),
      ],
    });
    const key = Buffer.from(await crypto.subtle.exportKey("pkcs8", keys.privateKey)).toString("base64");
    return {
      certificate: certificate.toString("pem"),
      key: `-----BEGIN PRIVATE KEY-----\n${key.replaceAll(/(.{64})/g, "$1\n")}\n-----END PRIVATE KEY-----\n`,
    };
  }

  /** The list of what is revoked, in PEM. */
  async revoking(...pairs: readonly Pair[]): Promise<string> {
    const { notBefore, notAfter } = validity();
    const list = await X509CrlGenerator.create({
      issuer: this.#issuer.subject,
      thisUpdate: notBefore,
      nextUpdate: notAfter,
      entries: pairs.map(({ certificate }) => ({
        serialNumber: new PeculiarCertificate(certificate).serialNumber,
        revocationDate: notBefore,
        // Without any, the library writes an empty list of extensions, which Envoy refuses.
        reason: X509CrlReason.keyCompromise,
      })),
      signingKey: this.#key,
      signingAlgorithm: ecdsa,
    });
    // OpenSSL and Envoy know the list under this name alone.
    return list.toString("pem").replaceAll(" CRL-----", " X509 CRL-----");
  }
}

/** Base64 of SHA-256 over the public key, as `verifyCertificateSpki` has it. */
export function spkiPin({ certificate }: Pair): string {
  const spki = new X509Certificate(certificate).publicKey.export({ type: "spki", format: "der" });
  return createHash("sha256").update(spki).digest("base64");
}

/** Hex of SHA-256 over the certificate, as `verifyCertificateHash` has it. */
export function hashPin({ certificate }: Pair): string {
  return new X509Certificate(certificate).fingerprint256.replaceAll(":", "").toLowerCase();
}

function validity(): { readonly notBefore: Date; readonly notAfter: Date } {
  return { notBefore: new Date(Date.now() - hourMs), notAfter: new Date(Date.now() + 24 * hourMs) };
}
