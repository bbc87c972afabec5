// Certificates and keys for gateways, from Secrets.

import type { Read } from "#engine";
import { keyPairOf, trustedCaOf } from "#model";
import type { CredentialKey } from "#plan";
import type { Message } from "./proto/api.ts";
import { resource, type EnvoyResource } from "./resource.ts";

/** The secret, or undefined as long as the Secret is missing or unusable: the server then has no certificate. */
export function credentialSecret(
  read: Read,
  { name, secret, part }: CredentialKey,
): EnvoyResource | undefined {
  if (part === "pair") {
    const found = read(keyPairOf, secret);
    if (found.kind === "unusable") return undefined;
    const { certificate, key, ocspStaple } = found.part;
    const tlsCertificate: Message = {
      certificateChain: inline(certificate),
      privateKey: inline(key),
      ...(ocspStaple === "" ? {} : { ocspStaple: inline(ocspStaple) }),
    };
    return resource("secret", name, { name, tlsCertificate }, originOf(found.secret));
  }
  const found = read(trustedCaOf, secret);
  if (found.kind === "unusable") return undefined;
  const { certificate, revocations } = found.part;
  const validationContext: Message = {
    trustedCa: inline(certificate),
    ...(revocations === "" ? {} : { crl: inline(revocations) }),
  };
  return resource("secret", name, { name, validationContext }, originOf(found.secret));
}

function originOf(row: string): EnvoyResource["origins"] {
  const [namespace = "", name = ""] = row.split("/");
  return [{ at: "", object: { kind: "Secret", namespace, name } }];
}

function inline(text: string): Message {
  return { inlineBytes: Buffer.from(text, "utf8") };
}
