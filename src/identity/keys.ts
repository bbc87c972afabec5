// PEM and keys, between Node's crypto (which reads every format operators bring) and WebCrypto (which signs).

import { createPrivateKey, createPublicKey, type KeyObject, type webcrypto } from "node:crypto";

export type SigningAlgorithm =
  | { readonly name: "ECDSA"; readonly namedCurve: string; readonly hash: string }
  | { readonly name: "RSASSA-PKCS1-v1_5"; readonly hash: string };

export const ecdsaP256: SigningAlgorithm = { name: "ECDSA", namedCurve: "P-256", hash: "SHA-256" };

/** Smallest RSA key that the CA signs for or with, in bits (as Istio and the CA/Browser Forum's rules). */
export const rsaBitsMin = 2_048;

const curves: Readonly<Record<string, { namedCurve: string; hash: string }>> = {
  prime256v1: { namedCurve: "P-256", hash: "SHA-256" },
  secp384r1: { namedCurve: "P-384", hash: "SHA-384" },
  secp521r1: { namedCurve: "P-521", hash: "SHA-512" },
};

/** Makes an ECDSA P-256 pair whose private half can be exported. */
export async function generateKeys(): Promise<webcrypto.CryptoKeyPair> {
  const algorithm: webcrypto.EcKeyGenParams = { name: "ECDSA", namedCurve: "P-256" };
  return (await crypto.subtle.generateKey(algorithm, true, ["sign", "verify"])) as webcrypto.CryptoKeyPair;
}

/** Reads a private key in PKCS#8, PKCS#1 or SEC 1 PEM for signing. Throws with the reason if it is unfit. */
export async function importSigningKey(
  pem: string,
): Promise<{ key: CryptoKey; algorithm: SigningAlgorithm }> {
  const parsed = createPrivateKey(pem);
  const algorithm = algorithmOf(parsed);
  const pkcs8 = parsed.export({ format: "der", type: "pkcs8" });
  const key = await crypto.subtle.importKey("pkcs8", new Uint8Array(pkcs8), algorithm, false, ["sign"]);
  return { key, algorithm };
}

/** The algorithm by which a key signs; throws when its kind or strength is not accepted. */
export function algorithmOf(key: KeyObject): SigningAlgorithm {
  if (key.asymmetricKeyType === "rsa") {
    const bits = key.asymmetricKeyDetails?.modulusLength ?? 0;
    if (bits < rsaBitsMin)
      throw new Error(`an RSA key of ${bits} bits is too weak; at least ${rsaBitsMin} are needed`);
    return { name: "RSASSA-PKCS1-v1_5", hash: "SHA-256" };
  }
  if (key.asymmetricKeyType === "ec") {
    const curve = curves[key.asymmetricKeyDetails?.namedCurve ?? ""];
    if (curve !== undefined) return { name: "ECDSA", ...curve };
    throw new Error(`the curve ${key.asymmetricKeyDetails?.namedCurve ?? "unnamed"} is not accepted`);
  }
  throw new Error(
    `a key of type ${key.asymmetricKeyType ?? "unknown"} is not accepted; use ECDSA P-256 or RSA`,
  );
}

/** Throws when the public key (SPKI in DER) is of a kind or strength that gets no certificate. */
export function assertKeyStrength(spki: ArrayBuffer): void {
  algorithmOf(createPublicKey({ key: Buffer.from(spki), format: "der", type: "spki" }));
}

/** Splits a PEM text into its certificates, each ending with a newline. */
export function splitPem(pem: string): string[] {
  const blocks = pem.match(/-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----/g) ?? [];
  return blocks.map((block) => `${block}\n`);
}

export async function privateKeyPem(key: CryptoKey): Promise<string> {
  const der = Buffer.from(await crypto.subtle.exportKey("pkcs8", key)).toString("base64");
  return `-----BEGIN PRIVATE KEY-----\n${der.replace(/(.{64})/g, "$1\n").trimEnd()}\n-----END PRIVATE KEY-----\n`;
}
