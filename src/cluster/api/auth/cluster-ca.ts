// The cluster's certificate authority: it signs the API server's certificate and the administrators' and nodes' client certificates.
// It is made once and kept in the data directory, so that a kubeconfig outlives restarts.

import "reflect-metadata";
import { webcrypto } from "node:crypto";
import { existsSync, mkdirSync, readFileSync, renameSync, writeFileSync } from "node:fs";
import { isIP } from "node:net";
import { join } from "node:path";
import * as x509 from "@peculiar/x509";

const algorithm = { name: "ECDSA", namedCurve: "P-256", hash: "SHA-256" } as const;
const dayMs = 86_400_000;
const caDays = 3_650;
// Server and client certificates are made anew at each start, so a year is long enough.
const leafDays = 365;
// Clocks of clients may be behind by so much.
const backdateMs = 300_000;

export interface KeyPem {
  readonly certPem: string;
  readonly keyPem: string;
}

x509.cryptoProvider.set(webcrypto as unknown as Crypto);

export class ClusterCa {
  readonly certPem: string;
  readonly #cert: x509.X509Certificate;
  readonly #key: CryptoKey;

  private constructor(cert: x509.X509Certificate, key: CryptoKey) {
    this.#cert = cert;
    this.#key = key;
    this.certPem = cert.toString("pem");
  }

  /** Reads the authority from `dir`, or makes it there. */
  static async open(dir: string, nowMs: number): Promise<ClusterCa> {
    const [certPath, keyPath] = [join(dir, "ca.crt"), join(dir, "ca.key")];
    if (existsSync(certPath) && existsSync(keyPath)) {
      const cert = new x509.X509Certificate(readFileSync(certPath, "utf8"));
      return new ClusterCa(cert, await importKey(readFileSync(keyPath, "utf8")));
    }
    const keys = (await webcrypto.subtle.generateKey(algorithm, true, [
      "sign",
      "verify",
    ])) as webcrypto.CryptoKeyPair;
    const cert = await x509.X509CertificateGenerator.createSelfSigned({
      name: "CN=mizzen-cluster-ca",
      keys,
      signingAlgorithm: algorithm,
      notBefore: new Date(nowMs - backdateMs),
      notAfter: new Date(nowMs + caDays * dayMs),
      extensions: [
        new x509.BasicConstraintsExtension(true, 1, true),
        new x509.KeyUsagesExtension(x509.KeyUsageFlags.keyCertSign | x509.KeyUsageFlags.cRLSign, true),
        await x509.SubjectKeyIdentifierExtension.create(keys.publicKey),
      ],
    });
    mkdirSync(dir, { recursive: true, mode: 0o700 });
    // The certificate last: with both there, both are whole.
    writePrivate(keyPath, await exportKey(keys.privateKey));
    writePrivate(certPath, cert.toString("pem"));
    return new ClusterCa(cert, keys.privateKey);
  }

  /** A server certificate for names and addresses. */
  server(names: readonly string[], nowMs: number): Promise<KeyPem> {
    const entries = [...new Set(names)].map((name): x509.JsonGeneralName =>
      isIP(name) === 0 ? { type: "dns", value: name } : { type: "ip", value: name },
    );
    return this.#issue("CN=kube-apiserver", nowMs, [
      new x509.SubjectAlternativeNameExtension(entries),
      new x509.ExtendedKeyUsageExtension([x509.ExtendedKeyUsage.serverAuth]),
    ]);
  }

  /** A client certificate: the common name is the user, the organizations are its groups. */
  client(username: string, groups: readonly string[], nowMs: number): Promise<KeyPem> {
    const subject = [{ CN: [username] }, ...groups.map((group) => ({ O: [group] }))];
    return this.#issue(subject, nowMs, [
      new x509.ExtendedKeyUsageExtension([x509.ExtendedKeyUsage.clientAuth]),
    ]);
  }

  async #issue(
    subject: string | x509.JsonName,
    nowMs: number,
    extensions: x509.Extension[],
  ): Promise<KeyPem> {
    const keys = (await webcrypto.subtle.generateKey(algorithm, true, [
      "sign",
      "verify",
    ])) as webcrypto.CryptoKeyPair;
    const cert = await x509.X509CertificateGenerator.create({
      subject,
      issuer: this.#cert.subject,
      publicKey: keys.publicKey,
      signingKey: this.#key,
      signingAlgorithm: algorithm,
      notBefore: new Date(nowMs - backdateMs),
      notAfter: new Date(nowMs + leafDays * dayMs),
      extensions: [
        new x509.BasicConstraintsExtension(false, undefined, true),
        new x509.KeyUsagesExtension(x509.KeyUsageFlags.digitalSignature, true),
        await x509.AuthorityKeyIdentifierExtension.create(this.#cert),
        ...extensions,
      ],
    });
    return { certPem: cert.toString("pem"), keyPem: await exportKey(keys.privateKey) };
  }
}

export function writePrivate(path: string, text: string): void {
  writeFileSync(`${path}.new`, text, { mode: 0o600, flush: true });
  renameSync(`${path}.new`, path);
}

async function exportKey(key: CryptoKey): Promise<string> {
  const bytes = await webcrypto.subtle.exportKey("pkcs8", key);
  return x509.PemConverter.encode(bytes, "PRIVATE KEY");
}

function importKey(pem: string): Promise<CryptoKey> {
  const bytes = x509.PemConverter.decode(pem)[0]!;
  return webcrypto.subtle.importKey("pkcs8", bytes, algorithm, false, ["sign"]);
}
