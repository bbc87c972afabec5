// The roots that ProxyConfig's caCertificatesPem and MeshConfig's caCertificates add to the mesh's own, for calls between workloads.

import { X509Certificate } from "node:crypto";
import type { Logger } from "#base";

/** Each certificate of a PEM text. */
export const certificateBlocks = /-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----/g;

/** The texts' certificates, as one text: one that is none would make Envoy refuse all roots, and is left out. */
export function addedRoots(texts: readonly string[], log: Pick<Logger, "warn">): string {
  const blocks = texts.flatMap((text) => text.match(certificateBlocks) ?? [text]);
  return blocks.filter((block) => isCertificate(block, log)).join("\n");
}

function isCertificate(pem: string, log: Pick<Logger, "warn">): boolean {
  try {
    return new X509Certificate(pem).subject !== undefined;
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message : String(cause);
    log.warn({ reason }, "a text of added roots is no certificate");
    return false;
  }
}
