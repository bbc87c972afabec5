import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { Engine } from "#engine";
import type { KubeObject } from "#objects";
import { keyPairOf, trustedCaOf } from "./credentials.ts";
import { worldChanges } from "./world.ts";

const certificate = "-----BEGIN CERTIFICATE-----\nQUJD\n-----END CERTIFICATE-----\n";
const key = "-----BEGIN EC PRIVATE KEY-----\nQUJD\n-----END EC PRIVATE KEY-----\n";

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
    });
    const reasonOf = (name: string): string => {
      const found = engine.get(keyPairOf, name);
      return found.kind === "unusable" ? found.reason : "";
    };
    assert.equal(reasonOf("gw/none"), "Secret gw/none does not exist");
    assert.match(reasonOf("gw/empty"), /gw\/empty has neither tls\.crt and tls\.key nor cert and key/);
    assert.equal(reasonOf("gw/wrong"), "Secret gw/wrong: holds no CERTIFICATE in PEM");
  });

  test("has its CA in a Secret of its own, or else in the same one", () => {
    const engine = engineWith({
      both: { "tls.crt": certificate, "tls.key": key, "ca.crt": certificate },
      apart: { "tls.crt": certificate, "tls.key": key },
      "apart-cacert": { cacert: certificate },
    });
    const secretOf = (name: string): string => {
      const found = engine.get(trustedCaOf, name);
      return found.kind === "found" ? found.secret : found.reason;
    };
    assert.equal(secretOf("gw/both"), "gw/both");
    assert.equal(secretOf("gw/apart"), "gw/apart-cacert");
  });
});
