// The certificate authority: signs workloads' keys for identities that others have proven. It believes nothing in a
// request but the public key: names, extensions and lifetimes come from the caller, who checked the token, and from the
// limits here. A workload's Subject holds its telemetry facts and nothing else, see `packWorkload`.

import { createPrivateKey, createPublicKey, X509Certificate as NodeCertificate } from "node:crypto";
import { packWorkload, type Clock, type WorkloadFacts } from "#base";
import {
  algorithmOf,
  assertKeyStrength,
  ecdsaP256,
  generateKeys,
  importSigningKey,
  privateKeyPem,
  splitPem,
} from "./keys.ts";
import type { SigningAlgorithm } from "./keys.ts";
import * as x509 from "./x509.ts";
import { parseSpiffeId, renderSpiffeId, type Identity } from "./spiffe.ts";

/** What the CA is made from, as the keys of Istio's `cacerts` Secret. All PEM. */
export interface AuthorityMaterial {
  /** ca-cert.pem: the certificate that signs. */
  readonly caCert: string;
  /** ca-key.pem: its private key. */
  readonly caKey: string;
  /** root-cert.pem: what everyone trusts; may hold several roots during a change. */
  readonly rootCert: string;
  /** cert-chain.pem: from the signing certificate up to, not including, the root. */
  readonly certChain: string;
}

export interface SignOptions {
  readonly identity: Identity;
  /** What telemetry says about the workload; absent when its Pod is not known. */
  readonly facts?: WorkloadFacts;
  /** Wished lifetime in seconds; 0 or absent means the default. */
  readonly ttlSeconds?: number;
}

export interface AuthorityOptions {
  readonly clock: Clock;
  readonly defaultTtlSeconds?: number;
  readonly maxTtlSeconds?: number;
}

const daySeconds = 86_400;
export const workloadTtlSeconds = daySeconds;
export const workloadTtlMaxSeconds = 90 * daySeconds;
export const rootTtlSeconds = 3_650 * daySeconds;
const servingTtlSeconds = 90 * daySeconds;
/** A certificate is valid from a little before its making, for peers whose clocks are behind. */
const clockSkewSeconds = 120;
/** A request is at most this long, in characters of PEM; a P-256 request has about 500, one of RSA 4096 about 1,800. */
const csrLengthMax = 16_384;

/** A request that cannot be signed, with the reason; the service answers it with INVALID_ARGUMENT. */
export class RefusedRequest extends Error {}

/** Makes a self-signed root (ECDSA P-256, ten years), which is also the signing certificate. */
export async function createSelfSignedMaterial(
  clock: Clock,
  organization = "cluster.local",
): Promise<AuthorityMaterial> {
  const keys = await generateKeys();
  const cert = await x509.X509CertificateGenerator.createSelfSigned({
    serialNumber: randomSerial(),
    name: [{ O: [organization] }],
    notBefore: at(clock, -clockSkewSeconds),
    notAfter: at(clock, rootTtlSeconds),
    signingAlgorithm: ecdsaP256,
    keys,
    extensions: [
      new x509.BasicConstraintsExtension(true, undefined, true),
      new x509.KeyUsagesExtension(x509.KeyUsageFlags.keyCertSign | x509.KeyUsageFlags.cRLSign, true),
      await x509.SubjectKeyIdentifierExtension.create(keys.publicKey),
    ],
  });
  const pem = `${cert.toString("pem")}\n`;
  return { caCert: pem, caKey: await privateKeyPem(keys.privateKey), rootCert: pem, certChain: "" };
}

export class CertificateAuthority {
  readonly rootPem: string;
  readonly notAfterMs: number;
  readonly rootNotAfterMs: number;
  readonly #chain: readonly string[];
  readonly #issuer: x509.X509Certificate;
  readonly #key: CryptoKey;
  readonly #algorithm: SigningAlgorithm;
  readonly #options: AuthorityOptions;

  private constructor(
    material: AuthorityMaterial,
    signing: { key: CryptoKey; algorithm: SigningAlgorithm },
    options: AuthorityOptions,
  ) {
    const [caCert = ""] = splitPem(material.caCert);
    this.rootPem = splitPem(material.rootCert).join("");
    this.#chain = chainOf(caCert, material);
    this.#issuer = new x509.X509Certificate(caCert);
    this.#key = signing.key;
    this.#algorithm = signing.algorithm;
    this.#options = options;
    this.notAfterMs = this.#issuer.notAfter.getTime();
    this.rootNotAfterMs = Math.min(
      ...splitPem(material.rootCert).map((pem) => new NodeCertificate(pem).validToDate.getTime()),
    );
  }

  /** Reads and checks the material. Throws with what is wrong, in words for the operator who brought it. */
  static async load(material: AuthorityMaterial, options: AuthorityOptions): Promise<CertificateAuthority> {
    checkMaterial(material, options.clock);
    return new CertificateAuthority(material, await importSigningKey(material.caKey), options);
  }

  /**
   * Signs a workload's request (PEM). Returns the chain, leaf first, root last, each a PEM.
   * Throws `RefusedRequest` when the request is malformed, its signature wrong or its key weak, or when it asks for
   * the identity of somebody else.
   */
  async sign(csrPem: string, options: SignOptions): Promise<string[]> {
    const request = await parseRequest(csrPem);
    refuseForeignNames(request, options.identity);
    const ttlSeconds = this.#ttl(options.ttlSeconds);
    const facts = options.facts === undefined ? undefined : packWorkload(options.facts);
    const names: x509.JsonGeneralNames = [{ type: "url", value: renderSpiffeId(options.identity) }];
    const leaf = await this.#issue(request.publicKey, facts, names, ttlSeconds);
    return [leaf, ...this.#chain, this.#rootOfChain()].filter(
      (pem, index, all) => all.indexOf(pem) === index,
    );
  }

  /** Makes key and certificate of one of the control plane's own servers. `chain` is leaf and intermediates. */
  async issueServing(
    names: readonly string[],
    identity?: Identity,
  ): Promise<{ key: string; chain: string; root: string; notAfterMs: number }> {
    const keys = await generateKeys();
    const general: x509.JsonGeneralNames = [
      ...names.map((value) => ({ type: isAddress(value) ? ("ip" as const) : ("dns" as const), value })),
      ...(identity === undefined ? [] : [{ type: "url" as const, value: renderSpiffeId(identity) }]),
    ];
    const leaf = await this.#issue(keys.publicKey, undefined, general, servingTtlSeconds);
    const chain = [leaf, ...this.#chain.filter((pem) => !splitPem(this.rootPem).includes(pem))].join("");
    const notAfterMs = new NodeCertificate(leaf).validToDate.getTime();
    return { key: await privateKeyPem(keys.privateKey), chain, root: this.rootPem, notAfterMs };
  }

  async #issue(
    publicKey: x509.PublicKeyType,
    description: string | undefined,
    names: x509.JsonGeneralNames,
    ttlSeconds: number,
  ): Promise<string> {
    const { clock } = this.#options;
    // A leaf never outlives the one that signed it: peers would refuse it at an hour nobody expects.
    const notAfterMs = Math.min(clock.nowMs() + ttlSeconds * 1_000, this.notAfterMs);
    const certificate = await x509.X509CertificateGenerator.create({
      serialNumber: randomSerial(),
      subject: new x509.Name(
        description === undefined ? [] : [{ [descriptionOid]: [{ utf8String: description }] }],
      ),
      issuer: this.#issuer.subjectName,
      notBefore: at(clock, -clockSkewSeconds),
      notAfter: new Date(notAfterMs),
      publicKey,
      signingKey: this.#key,
      signingAlgorithm: this.#algorithm,
      extensions: [
        new x509.BasicConstraintsExtension(false, undefined, true),
        new x509.KeyUsagesExtension(
          x509.KeyUsageFlags.digitalSignature | x509.KeyUsageFlags.keyEncipherment,
          true,
        ),
        new x509.ExtendedKeyUsageExtension([
          x509.ExtendedKeyUsage.serverAuth,
          x509.ExtendedKeyUsage.clientAuth,
        ]),
        await x509.AuthorityKeyIdentifierExtension.create(this.#issuer),
        // Critical because the Subject names nobody (RFC 5280, 4.2.1.6); it holds telemetry facts at most.
        new x509.SubjectAlternativeNameExtension(names, true),
      ],
    });
    return `${certificate.toString("pem")}\n`;
  }

  #ttl(wishSeconds: number | undefined): number {
    const wanted =
      wishSeconds === undefined || wishSeconds <= 0 ? this.#options.defaultTtlSeconds : wishSeconds;
    return Math.min(wanted ?? workloadTtlSeconds, this.#options.maxTtlSeconds ?? workloadTtlMaxSeconds);
  }

  #rootOfChain(): string {
    return splitPem(this.rootPem)[0] ?? "";
  }
}

/** X.520 `description`: free text of up to 1,024 characters, printed by Envoy as `description=...`. */
const descriptionOid = "2.5.4.13";
const subjectAltNameOid = "2.5.29.17";

async function parseRequest(pem: string): Promise<x509.Pkcs10CertificateRequest> {
  if (pem.length > csrLengthMax)
    throw new RefusedRequest(`the request is longer than ${csrLengthMax} characters`);
  let request: x509.Pkcs10CertificateRequest;
  try {
    request = new x509.Pkcs10CertificateRequest(pem);
    assertKeyStrength(request.publicKey.rawData);
  } catch (cause) {
    throw new RefusedRequest(`the certificate request is unfit: ${textOf(cause)}`, { cause });
  }
  const genuine = await request.verify().catch(() => false);
  if (!genuine) throw new RefusedRequest("the certificate request is not signed by the key it holds");
  return request;
}

/**
 * Istio signs such a request for the caller's own identity; whoever asks for another's is mistaken or an attacker, and
 * both should hear it. A different trust domain alone is no reason: proxies keep the old one until they start again.
 */
function refuseForeignNames(request: x509.Pkcs10CertificateRequest, identity: Identity): void {
  const extension = request.extensions.find(({ type }) => type === subjectAltNameOid);
  if (extension === undefined) return;
  const { names } = new x509.SubjectAlternativeNameExtension(extension.rawData);
  for (const { type, value } of names.items) {
    if (type !== "url" || !value.startsWith("spiffe://")) continue;
    const wished = parseSpiffeId(value);
    if (wished?.namespace === identity.namespace && wished.serviceAccount === identity.serviceAccount)
      continue;
    throw new RefusedRequest(`the request is for ${value}, and its sender is ${renderSpiffeId(identity)}`);
  }
}

function checkMaterial(material: AuthorityMaterial, clock: Clock): void {
  const [caPem] = splitPem(material.caCert);
  const roots = splitPem(material.rootCert);
  if (caPem === undefined) throw new Error("ca-cert.pem holds no certificate");
  if (roots.length === 0) throw new Error("root-cert.pem holds no certificate");
  const key = createPrivateKey(material.caKey);
  algorithmOf(key);
  const signing = new NodeCertificate(caPem);
  const keyOf = (spki: Buffer): string => spki.toString("base64");
  const ofKey = createPublicKey(key).export({ format: "der", type: "spki" });
  if (keyOf(signing.publicKey.export({ format: "der", type: "spki" })) !== keyOf(ofKey)) {
    throw new Error("ca-key.pem is not the key of ca-cert.pem");
  }
  if (!signing.ca) throw new Error("ca-cert.pem is not a CA certificate (basic constraints)");
  if (signing.validToDate.getTime() <= clock.nowMs()) throw new Error("ca-cert.pem has expired");
  checkChain([caPem, ...chainOf(caPem, material)], roots);
}

/** The signing certificate must lead, step by step, to one of the roots: else nobody would trust what it signs. */
function checkChain(chain: readonly string[], roots: readonly string[]): void {
  const steps = chain.map((pem) => new NodeCertificate(pem));
  for (const [index, step] of steps.entries()) {
    if (roots.some((root) => isIssuedBy(step, new NodeCertificate(root)))) return;
    const next = steps[index + 1];
    if (next === undefined || (!isIssuedBy(step, next) && step.fingerprint256 !== next.fingerprint256)) break;
  }
  throw new Error("ca-cert.pem does not lead to a root of root-cert.pem by way of cert-chain.pem");
}

function isIssuedBy(certificate: NodeCertificate, issuer: NodeCertificate): boolean {
  return certificate.checkIssued(issuer) && certificate.verify(issuer.publicKey);
}

/** Intermediates to hand out after the leaf, the signing certificate first, without roots. */
function chainOf(caPem: string, material: AuthorityMaterial): string[] {
  const roots = new Set(splitPem(material.rootCert).map(fingerprint));
  const seen = new Set<string>();
  return [caPem, ...splitPem(material.certChain)].filter((pem) => {
    const print = fingerprint(pem);
    if (roots.has(print) || seen.has(print)) return false;
    seen.add(print);
    return true;
  });
}

function fingerprint(pem: string): string {
  return new NodeCertificate(pem).fingerprint256;
}

/** 128 random bits, positive and without leading zeros as DER wants it. */
function randomSerial(): string {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  bytes[0] = ((bytes[0] ?? 0) & 0x3f) | 0x40;
  return Buffer.from(bytes).toString("hex");
}

function at(clock: Clock, offsetSeconds: number): Date {
  return new Date(clock.nowMs() + offsetSeconds * 1_000);
}

function isAddress(name: string): boolean {
  return /^[0-9.]+$/.test(name) || name.includes(":");
}

function textOf(cause: unknown): string {
  return cause instanceof Error ? cause.message : String(cause);
}
