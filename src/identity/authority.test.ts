import assert from "node:assert/strict";
import { generateKeyPairSync, X509Certificate, type webcrypto } from "node:crypto";
import { test } from "node:test";
import { unpackWorkload, workloadOfSubject, type Clock } from "#base";
import {
  CertificateAuthority,
  createSelfSignedMaterial,
  mergeBundles,
  RefusedRequest,
  sameBundle,
} from "./index.ts";
import * as x509 from "./x509.ts";

const clock: Clock = { nowMs: () => Date.now(), monotonicMs: () => 0, after: () => () => {} };
const identity = { trustDomain: "cluster.local", namespace: "default", serviceAccount: "sleep" };
const facts = {
  workload: "sleep",
  namespace: "default",
  app: "sl|ee,p",
  version: "v1",
  canonicalService: "sleep",
  canonicalRevision: "v1",
  cluster: "Kubernetes",
};

async function request(
  name = "spiffe://former/ns/default/sa/sleep",
): Promise<{ pem: string; keys: webcrypto.CryptoKeyPair }> {
  const algorithm = { name: "ECDSA", namedCurve: "P-256", hash: "SHA-256" };
  const pair = (await crypto.subtle.generateKey(algorithm, true, [
    "sign",
    "verify",
  ])) as webcrypto.CryptoKeyPair;
  const san = new x509.SubjectAlternativeNameExtension([{ type: "url", value: name }]);
  const csr = await x509.Pkcs10CertificateRequestGenerator.create({
    name: "CN=evil",
    keys: pair,
    signingAlgorithm: algorithm,
    extensions: [san],
  });
  return { pem: csr.toString("pem"), keys: pair };
}

test("a signed certificate names the proven identity and the workload, nothing that the request claims", async () => {
  const ca = await CertificateAuthority.load(await createSelfSignedMaterial(clock), { clock });
  const { pem } = await request();
  const chain = await ca.sign(pem, { identity, facts });
  assert.equal(chain.length, 2);
  const leaf = new X509Certificate(chain[0] ?? "");
  assert.equal(leaf.subjectAltName, "URI:spiffe://cluster.local/ns/default/sa/sleep");
  assert.ok(leaf.verify(new X509Certificate(ca.rootPem).publicKey));
  assert.ok(!leaf.subject.includes("evil"));
  const packed = workloadOfSubject(leaf.subject);
  assert.equal(packed, "sleep|default|sl_ee_p|v1|sleep|v1|Kubernetes");
  assert.equal(unpackWorkload(packed).app, "sl_ee_p");
  const hours = (leaf.validToDate.getTime() - Date.now()) / 3_600_000;
  assert.ok(hours > 23.9 && hours <= 24, `${hours} h`);
});

test("the lifetime is the wish, at most ninety days and never beyond the CA's own", async () => {
  const ca = await CertificateAuthority.load(await createSelfSignedMaterial(clock), { clock });
  const { pem } = await request();
  const [long = ""] = await ca.sign(pem, { identity, ttlSeconds: 400 * 86_400 });
  const days = (new X509Certificate(long).validToDate.getTime() - Date.now()) / 86_400_000;
  assert.ok(days > 89.9 && days <= 90, `${days} d`);
  const [short = ""] = await ca.sign(pem, { identity, ttlSeconds: 10 });
  assert.ok(new X509Certificate(short).validToDate.getTime() - Date.now() <= 10_000);
});

test("a forged, weak or garbled request is refused", async () => {
  const ca = await CertificateAuthority.load(await createSelfSignedMaterial(clock), { clock });
  const one = await request();
  const other = await request();
  // The key of one request under the signature of another.
  const raw = Buffer.from(new x509.Pkcs10CertificateRequest(one.pem).rawData);
  const signature = Buffer.from(new x509.Pkcs10CertificateRequest(other.pem).rawData).subarray(-60);
  const forged = Buffer.concat([raw.subarray(0, raw.length - 60), signature]).toString("base64");
  const pem = `-----BEGIN CERTIFICATE REQUEST-----\n${forged}\n-----END CERTIFICATE REQUEST-----`;
  await assert.rejects(ca.sign(pem, { identity }), RefusedRequest);
  await assert.rejects(ca.sign("garbage", { identity }), RefusedRequest);
  const weak = { name: "RSASSA-PKCS1-v1_5", modulusLength: 1_024, publicExponent: new Uint8Array([1, 0, 1]) };
  const keys = await crypto.subtle.generateKey({ ...weak, hash: "SHA-256" }, true, ["sign", "verify"]);
  const csr = await x509.Pkcs10CertificateRequestGenerator.create({
    keys: keys as webcrypto.CryptoKeyPair,
    signingAlgorithm: { name: "RSASSA-PKCS1-v1_5", hash: "SHA-256" } as webcrypto.Algorithm,
  });
  await assert.rejects(ca.sign(csr.toString("pem"), { identity }), /1024 bits is too weak/);
});

test("a request for another's identity is refused and says whose", async () => {
  const ca = await CertificateAuthority.load(await createSelfSignedMaterial(clock), { clock });
  for (const name of [
    "spiffe://cluster.local/ns/other/sa/sleep",
    "spiffe://cluster.local/ns/default/sa/root",
    "spiffe://odd",
  ]) {
    const { pem } = await request(name);
    await assert.rejects(ca.sign(pem, { identity }), (error) => {
      return error instanceof RefusedRequest && error.message.includes(`is for ${name}, and its sender is`);
    });
  }
});

test("the operator's own RSA CA with an intermediate signs, and the chain leads to the root", async () => {
  const root = await operatorCertificate("O=Root");
  const intermediate = await operatorCertificate("O=Intermediate", root);
  const material = { caCert: intermediate.pem, caKey: intermediate.key, rootCert: root.pem };
  const ca = await CertificateAuthority.load({ ...material, certChain: intermediate.pem }, { clock });
  const chain = await ca.sign((await request()).pem, { identity, facts });
  assert.equal(chain.length, 3);
  const steps = chain.map((pem) => new X509Certificate(pem));
  for (const [index, step] of steps.entries()) {
    const issuer = steps[index + 1] ?? step;
    assert.ok(step.checkIssued(issuer) && step.verify(issuer.publicKey), `certificate ${index}`);
  }
  const foreign = await createSelfSignedMaterial(clock);
  const mixed = { ...material, rootCert: foreign.rootCert, certChain: "" };
  await assert.rejects(CertificateAuthority.load(mixed, { clock }), /does not lead to a root/);
  const { privateKey } = generateKeyPairSync("ec", { namedCurve: "P-256" });
  const caKey = privateKey.export({ format: "pem", type: "pkcs8" }).toString();
  await assert.rejects(
    CertificateAuthority.load({ ...material, caKey, certChain: "" }, { clock }),
    /not the key/,
  );
});

interface OperatorCertificate {
  readonly pem: string;
  /** PKCS#1, as older tools write it. */
  readonly key: string;
  readonly signingKey: webcrypto.CryptoKey;
}

/** A CA certificate as an operator brings it: RSA 2048, self-signed or signed by another. */
async function operatorCertificate(name: string, issuer?: OperatorCertificate): Promise<OperatorCertificate> {
  const { privateKey, publicKey } = generateKeyPairSync("rsa", { modulusLength: 2_048 });
  const algorithm = { name: "RSASSA-PKCS1-v1_5", hash: "SHA-256" };
  const pkcs8 = new Uint8Array(privateKey.export({ format: "der", type: "pkcs8" }));
  const spki = new Uint8Array(publicKey.export({ format: "der", type: "spki" }));
  const signingKey = await crypto.subtle.importKey("pkcs8", pkcs8, algorithm, false, ["sign"]);
  const certificate = await x509.X509CertificateGenerator.create({
    subject: name,
    issuer: issuer === undefined ? name : new x509.X509Certificate(issuer.pem).subject,
    notAfter: new Date(Date.now() + 86_400_000),
    publicKey: await crypto.subtle.importKey("spki", spki, algorithm, true, ["verify"]),
    signingKey: issuer?.signingKey ?? signingKey,
    signingAlgorithm: algorithm,
    extensions: [
      new x509.BasicConstraintsExtension(true, undefined, true),
      new x509.KeyUsagesExtension(x509.KeyUsageFlags.keyCertSign, true),
    ],
  });
  const key = privateKey.export({ format: "pem", type: "pkcs1" }).toString();
  return { pem: `${certificate.toString("pem")}\n`, key, signingKey };
}

test("a serving certificate holds the names it is for", async () => {
  const ca = await CertificateAuthority.load(await createSelfSignedMaterial(clock), { clock });
  const serving = await ca.issueServing(["istiod.istio-d.svc", "127.0.0.1"], identity);
  const leaf = new X509Certificate(serving.chain);
  assert.equal(leaf.checkHost("istiod.istio-d.svc"), "istiod.istio-d.svc");
  assert.equal(leaf.checkIP("127.0.0.1"), "127.0.0.1");
  assert.match(leaf.subjectAltName ?? "", /URI:spiffe:/);
});

test("bundles merge without doubles and compare without order", async () => {
  const one = (await createSelfSignedMaterial(clock)).rootCert;
  const other = (await createSelfSignedMaterial(clock)).rootCert;
  const merged = mergeBundles(one, other, one);
  assert.equal(merged.match(/BEGIN/g)?.length, 2);
  assert.ok(sameBundle(merged, other + one));
  assert.ok(!sameBundle(merged, one));
});
