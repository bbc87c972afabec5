// The TLS that a server of a Gateway, or an ingress listener of a Sidecar, ends.

import type { ServerTLSSettings } from "../gateway.ts";
import { eachOf, pathOf, type Report } from "../report.ts";
import { show } from "../values.ts";

// What Envoy's TLS library offers.
const ciphers = new Set(
  ["ECDSA", "RSA"]
    .flatMap((key) =>
      ["AES128-GCM-SHA256", "AES256-GCM-SHA384", "CHACHA20-POLY1305", "AES128-SHA", "AES256-SHA"].map(
        (rest) => `ECDHE-${key}-${rest}`,
      ),
    )
    .concat("AES128-GCM-SHA256", "AES256-GCM-SHA384", "AES128-SHA", "AES256-SHA", "DES-CBC3-SHA"),
);

// With expressions (`-ALL`, `[A|B]`) no name can be told from a wrong one.
export const isCipher = (text: string): boolean =>
  text === "" || text === "ALL" || !/^[\p{L}\p{N}]/u.test(text) || ciphers.has(text);

/**
 * Those that the TLS library of Envoy 1.40 offers, as tried with it. Istio's list has P-224 and X25519Kyber768Draft00 as well, for which
 * Envoy refuses the whole listener or cluster.
 */
const curves: ReadonlySet<string> = new Set(["P-256", "P-384", "P-521", "X25519", "X25519MLKEM768"]);

export const isCurve = (text: string): boolean => curves.has(text);

export function checkServerTls(tls: ServerTLSSettings | undefined, path: string, report: Report): void {
  if (tls === undefined) return;
  checkCiphers(tls, path, report);
  if (tls.mode === "ISTIO_MUTUAL") {
    for (const field of [
      "serverCertificate",
      "privateKey",
      "caCertificates",
      "tlsCertificates",
      "credentialName",
      "credentialNames",
    ] as const)
      if (tls[field]?.length)
        report.add(
          "MZ0203",
          pathOf(path, field),
          `mode ISTIO_MUTUAL uses the mesh's certificates: ${field} contradicts it`,
        );
    return;
  }
  const sources = certificateSources(tls);
  if (
    (tls.mode === "PASSTHROUGH" || tls.mode === "AUTO_PASSTHROUGH") &&
    (sources.length > 0 || tls.serverCertificate || tls.privateKey || tls.caCertificates || tls.caCrl)
  )
    report.add("MZ0250", path, `mode ${tls.mode} ends no TLS: its certificates are not used`);
  if (sources.length > 1)
    report.add("MZ0203", path, `${sources.join(" and ")} are set: keep one source of certificates`);
  const ends = tls.mode === undefined || ["SIMPLE", "MUTUAL", "OPTIONAL_MUTUAL"].includes(tls.mode);
  if (ends && (tls.credentialName || tls.credentialNames?.length)) return;
  // An absent mode is PASSTHROUGH in Istio's API, so only the named modes ask for files.
  if (tls.mode !== undefined && ends) checkFiles(tls, path, report);
  if (tls.caCrl && (tls.credentialName || tls.mode === "SIMPLE"))
    report.add("MZ0203", pathOf(path, "caCrl"), "caCrl is for client certificates given as files");
}

function certificateSources(tls: ServerTLSSettings): string[] {
  return [
    tls.serverCertificate && tls.privateKey ? "serverCertificate" : "",
    tls.credentialName ? "credentialName" : "",
    tls.credentialNames?.length ? "credentialNames" : "",
    tls.tlsCertificates?.length ? "tlsCertificates" : "",
  ].filter((name) => name !== "");
}

function checkFiles(tls: ServerTLSSettings, path: string, report: Report): void {
  if (tls.mode !== "SIMPLE" && !tls.caCertificates)
    report.add(
      "MZ0202",
      pathOf(path, "caCertificates"),
      `mode ${tls.mode} needs the certificates that clients are checked against`,
    );
  const list = tls.tlsCertificates?.length ? tls.tlsCertificates : undefined;
  if ((list?.length ?? 0) > 2)
    report.add(
      "MZ0254",
      pathOf(path, "tlsCertificates"),
      "more than two certificates are set: two are used, one of each key type",
    );
  for (const [index, { serverCertificate, privateKey }] of (list ?? [tls]).entries()) {
    const at = list === undefined ? path : pathOf(pathOf(path, "tlsCertificates"), index);
    if (!serverCertificate)
      report.add(
        "MZ0202",
        pathOf(at, "serverCertificate"),
        `mode ${tls.mode} needs a server certificate or credentialName`,
      );
    if (!privateKey)
      report.add(
        "MZ0202",
        pathOf(at, "privateKey"),
        `mode ${tls.mode} needs a private key or credentialName`,
      );
  }
}

function checkCiphers(tls: ServerTLSSettings, path: string, report: Report): void {
  if (
    (tls.minProtocolVersion === "TLSV1_0" || tls.minProtocolVersion === "TLSV1_1") &&
    !tls.cipherSuites?.length
  )
    report.add(
      "MZ0254",
      pathOf(path, "minProtocolVersion"),
      "versions below TLS 1.2 need cipherSuites of their time: the default has none",
    );
  const seen = new Set<string>();
  eachOf(tls.cipherSuites, pathOf(path, "cipherSuites"), (cipher, at) => {
    if (!isCipher(cipher)) report.add("MZ0250", at, `${show(cipher)} is no cipher suite here and is ignored`);
    else if (seen.has(cipher)) report.add("MZ0250", at, `${show(cipher)} stands twice`);
    seen.add(cipher);
  });
}
