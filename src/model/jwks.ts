// Key sets of JWT issuers. Envoy refuses a whole listener for a key set without any key that it understands: such a set is
// told apart here.

import { createPublicKey, type webcrypto } from "node:crypto";

/**
 * A key set with one key whose private part nobody has: its x is the SHA-256 of "no key of this issuer is known 0", y the root
 * that makes it a point of P-256. In place of keys that are not known: every token of the issuer is refused, requests without pass.
 */
export const nobodysKeys =
  '{"keys":[{"kty":"EC","crv":"P-256","alg":"ES256","x":"R-nigdk1CMcJxK61n3j5vdz-aAkKqFEKZla2S__qaPQ","y":"dYg8-jHwmt7oudmgAIkERAfMJ2iZ8zqgBWX_CQCuOdI"}]}';

/** The text as Envoy takes it, a single key as a set of one; undefined when it has no key that can be used. */
export function usableKeys(text: string): string | undefined {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    return undefined;
  }
  if (typeof value !== "object" || value === null) return undefined;
  const { keys: given } = value as { readonly keys?: unknown };
  const isSet = given !== undefined;
  const keys = isSet ? given : [value];
  if (!Array.isArray(keys) || !keys.some(isUsable)) return undefined;
  return isSet ? text : JSON.stringify({ keys });
}

const curves: ReadonlySet<string> = new Set(["P-256", "P-384", "P-521", "Ed25519"]);

function isUsable(key: unknown): boolean {
  if (typeof key !== "object" || key === null) return false;
  const { kty, crv, k } = key as Readonly<Record<string, unknown>>;
  if (kty === "oct") return typeof k === "string" && k !== "";
  if (kty !== "RSA" && !curves.has(String(crv))) return false;
  try {
    createPublicKey({ key: key as webcrypto.JsonWebKey, format: "jwk" });
    return true;
  } catch {
    return false;
  }
}
