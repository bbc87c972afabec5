// Certificates and bootstrap. A private key is never in a dump: Envoy redacts it.

import { X509Certificate } from "node:crypto";
import { at, type ConfigDump, type Plain, textOf } from "./dump.ts";
import type { Row, View } from "./views.ts";

export function secretsView({ secrets }: ConfigDump, nowMs: number): View {
  const rows = secrets.map(({ name, state, secret }): Row => {
    const isRoot = secret["validation_context"] !== undefined;
    const certificate = firstCertificate(secret);
    const facts = { name };
    const type = isRoot ? "CA" : "Cert Chain";
    if (certificate === undefined)
      return { cells: [name, type, state, "-", "-", "-", "-"], facts, resource: secret };
    const notAfterMs = Date.parse(certificate.validTo);
    const valid = notAfterMs > nowMs && Date.parse(certificate.validFrom) <= nowMs;
    const uri = /URI:([^,\s]+)/.exec(certificate.subjectAltName ?? "")?.[1] ?? "-";
    return {
      cells: [
        name,
        type,
        state,
        String(valid),
        uri,
        new Date(notAfterMs).toISOString().replace(".000Z", "Z"),
        certificate.serialNumber.toLowerCase(),
      ],
      facts,
      resource: secret,
    };
  });
  return {
    header: ["RESOURCE NAME", "TYPE", "STATUS", "VALID CERT", "SPIFFE ID", "NOT AFTER", "SERIAL NUMBER"],
    rows,
    raw: secrets,
  };
}

function firstCertificate(secret: Plain): X509Certificate | undefined {
  const source =
    at(secret, "tls_certificate", "certificate_chain") ?? at(secret, "validation_context", "trusted_ca");
  const inline = textOf(at(source, "inline_bytes"));
  const pem =
    inline === "" ? textOf(at(source, "inline_string")) : Buffer.from(inline, "base64").toString("utf8");
  const first = /-----BEGIN CERTIFICATE-----[\s\S]+?-----END CERTIFICATE-----/.exec(pem)?.[0];
  if (first === undefined) return undefined;
  try {
    return new X509Certificate(first);
  } catch {
    return undefined;
  }
}

export function bootstrapView({ bootstrap }: ConfigDump): View {
  return { header: [], rows: [], raw: bootstrap ?? {} };
}
