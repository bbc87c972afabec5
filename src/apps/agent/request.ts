// The workload's key and certificate request. PKCS#10 is five nested DER items here; a certificate library would cost
// every pod several times the memory and start-up of the whole agent.

import { createPublicKey, generateKeyPair, sign, type KeyObject } from "node:crypto";
import { promisify } from "node:util";

export interface CertificateRequest {
  readonly csrPem: string;
  /** PKCS#8 PEM; it goes to Envoy over the pod's own socket and nowhere else. */
  readonly keyPem: string;
}

/** Makes a fresh ECDSA P-256 key and a request that names the identity (`spiffe://...`), as Istio's CA wants it. */
export async function createRequest(spiffeId: string): Promise<CertificateRequest> {
  const { privateKey } = await promisify(generateKeyPair)("ec", { namedCurve: "P-256" });
  return {
    csrPem: pem("CERTIFICATE REQUEST", encodeRequest(privateKey, spiffeId)),
    keyPem: privateKey.export({ format: "pem", type: "pkcs8" }).toString(),
  };
}

const sequence = 0x30;
const set = 0x31;
const octets = 0x04;
const bits = 0x03;
const objectId = 0x06;
const context0 = 0xa0;
/** GeneralName [6]: uniformResourceIdentifier. */
const uri = 0x86;

const extensionRequest = Buffer.from("2a864886f70d01090e", "hex"); // 1.2.840.113549.1.9.14
const subjectAltName = Buffer.from("551d11", "hex"); // 2.5.29.17
const ecdsaWithSha256 = Buffer.from("2a8648ce3d040302", "hex"); // 1.2.840.10045.4.3.2

function encodeRequest(key: KeyObject, spiffeId: string): Buffer {
  const names = der(sequence, der(uri, Buffer.from(spiffeId, "ascii")));
  const extension = der(sequence, der(objectId, subjectAltName), der(octets, names));
  const attribute = der(sequence, der(objectId, extensionRequest), der(set, der(sequence, extension)));
  const version = Buffer.from([0x02, 0x01, 0x00]);
  const subject = der(sequence);
  const publicKey = createPublicKey(key).export({ format: "der", type: "spki" });
  const body = der(sequence, version, subject, publicKey, der(context0, attribute));
  const signature = der(bits, Buffer.from([0]), sign("sha256", body, key));
  return der(sequence, body, der(sequence, der(objectId, ecdsaWithSha256)), signature);
}

/** One DER item: tag, length in the shortest form, contents. */
function der(tag: number, ...contents: readonly Buffer[]): Buffer {
  const length = contents.reduce((sum, part) => sum + part.length, 0);
  if (length < 0x80) return Buffer.concat([Buffer.from([tag, length]), ...contents]);
  const digits = length < 0x100 ? [length] : [length >> 8, length & 0xff];
  return Buffer.concat([Buffer.from([tag, 0x80 | digits.length, ...digits]), ...contents]);
}

function pem(label: string, bytes: Buffer): string {
  const lines = bytes.toString("base64").match(/.{1,64}/g) ?? [];
  return `-----BEGIN ${label}-----\n${lines.join("\n")}\n-----END ${label}-----\n`;
}
