// Certificates and keys for gateways, from Secrets.

import type { Read } from "#engine";
import { configuredCaOf, keyPairOf, trustedCaOf } from "#model";
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
    if (found.kind === "unusable" || found.part.unfit !== undefined) return undefined;
    const { certificate, key, ocspStaple } = found.part;
    const tlsCertificate: Message = {
      certificateChain: inline(certificate),
      privateKey: inline(key),
      ...(ocspStaple === "" ? {} : { ocspStaple: inline(ocspStaple) }),
    };
    return resource("secret", name, { name, tlsCertificate }, originOf(found.secret));
  }
  const ofMap = part === "ca-of-config-map";
  const found = ofMap ? read(configuredCaOf, secret) : read(trustedCaOf, secret);
  if (found.kind === "unusable" || found.part.unfit !== undefined) return undefined;
  const { certificate, revocations } = found.part;
  const validationContext: Message = {
    trustedCa: inline(certificate),
    ...(revocations === "" ? {} : { crl: inline(revocations) }),
  };
  const origin = originOf(found.secret, ofMap ? "ConfigMap" : "Secret");
  return resource("secret", name, { name, validationContext }, origin);
}

function originOf(row: string, kind = "Secret"): EnvoyResource["origins"] {
  const [namespace = "", name = ""] = row.split("/");
  return [{ at: "", object: { kind, namespace, name } }];
}

function inline(text: string): Message {
  return { inlineBytes: Buffer.from(text, "utf8") };
}
