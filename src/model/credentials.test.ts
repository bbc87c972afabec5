import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { Engine } from "#engine";
import type { KubeObject } from "#objects";
import { TestAuthority } from "../../test/support/test-authority.ts";
import { keyPairOf, trustedCaOf, uselessness } from "./credentials.ts";
import { worldChanges } from "./world.ts";

const authority = await TestAuthority.create("test");
const { certificate, key } = await authority.issue(["a.example.com"]);
const other = await authority.issue(["b.example.com"]);
const garbage = "-----BEGIN CERTIFICATE-----\nMAAB\n-----END CERTIFICATE-----\n";

function engineWith(secrets: Readonly<Record<string, Readonly<Record<string, string>>>>): Engine {
  const objects = Object.entries(secrets).map(
    ([name, texts]): KubeObject =>
      ({
        apiVersion: "v1",
        kind: "Secret",
        metadata: { name, namespace: "gw" },
        data: Object.fromEntries(
          Object.entries(texts).map(([field, text]) => [field, Buffer.from(text).toString("base64")]),
        ),
      }) as KubeObject,
  );
  const engine = new Engine();
  engine.apply(worldChanges(objects));
  return engine;
}

describe("a credential", () => {
  test("is read in the layout of kubectl and in Istio's older one", () => {
    const engine = engineWith({
      tls: { "tls.crt": certificate, "tls.key": key },
      generic: { cert: certificate, key },
    });
    for (const name of ["gw/tls", "gw/generic"]) {
      const found = engine.get(keyPairOf, name);
      assert.deepEqual(found, { kind: "found", secret: name, part: { certificate, key, ocspStaple: "" } });
    }
  });

  test("that is missing or malformed says why, in words that name the Secret", () => {
    const engine = engineWith({
      empty: { "tls.crt": certificate },
      wrong: { "tls.crt": "not a certificate", "tls.key": key },
      garbage: { "tls.crt": certificate + garbage, "tls.key": key },
      keyless: { "tls.crt": certificate, "tls.key": "secret word" },
      mismatched: { "tls.crt": certificate, "tls.key": other.key },
    });
    const reasonOf = (name: string): string => {
      const found = engine.get(keyPairOf, name);
      return uselessness(found) ?? "";
    };
    assert.equal(reasonOf("gw/none"), "Secret gw/none does not exist");
    assert.match(reasonOf("gw/empty"), /gw\/empty has neither tls\.crt and tls\.key nor cert and key/);
    assert.equal(reasonOf("gw/wrong"), "Secret gw/wrong: holds no CERTIFICATE in PEM");
    assert.equal(reasonOf("gw/garbage"), "Secret gw/garbage: holds a CERTIFICATE that cannot be read");
    assert.equal(reasonOf("gw/keyless"), "Secret gw/keyless: holds no PRIVATE KEY in PEM");
    assert.equal(reasonOf("gw/mismatched"), "Secret gw/mismatched: the key is not that of the certificate");
  });

  test("has its CA in a Secret of its own, or else in the same one, with a list of what is revoked", async () => {
    const revocations = await authority.revoking(other);
    const engine = engineWith({
      both: { "tls.crt": certificate, "tls.key": key, "ca.crt": certificate },
      apart: { "tls.crt": certificate, "tls.key": key },
      "apart-cacert": { cacert: certificate },
      listed: { "ca.crt": certificate, "ca.crl": revocations },
      misread: { "ca.crt": certificate, "ca.crl": garbage },
    });
    const secretOf = (name: string): string => {
      const found = engine.get(trustedCaOf, name);
      return uselessness(found) ?? (found.kind === "found" ? found.secret : "");
    };
    assert.equal(secretOf("gw/both"), "gw/both");
    assert.equal(secretOf("gw/listed"), "gw/listed");
    assert.equal(secretOf("gw/misread"), "Secret gw/misread: holds no X509 CRL in PEM");
    assert.equal(secretOf("gw/apart"), "gw/apart-cacert");
  });
});
