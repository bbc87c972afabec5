import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { silentLog } from "#base";
import { TestAuthority } from "../../../test/support/test-authority.ts";
import { FileSecrets } from "./file-secrets.ts";
import type { SecretValue } from "./sds.ts";

const authority = await TestAuthority.create("test");
const first = await authority.issue(["a.example.com"]);
const second = await authority.issue(["a.example.com"]);

function bench(files: Record<string, string>) {
  const set = new Map<string, SecretValue>();
  const read = (path: string): string => {
    const text = files[path];
    if (text === undefined) throw new Error(`no such file: ${path}`);
    return text;
  };
  const secrets = new FileSecrets({
    read,
    rootsOf: (name) => (name === "ROOTCA" ? authority.certificate : undefined),
    set: (name, value) => void set.set(name, value),
    log: silentLog,
  });
  return { files, set, secrets };
}

const certificateName = "file-cert:/etc/a.crt~/etc/a.key";

describe("secrets of files", () => {
  test("are read when Envoy asks by name, and again when they have changed", () => {
    const { files, set, secrets } = bench({
      "/etc/a.crt": first.certificate,
      "/etc/a.key": first.key,
      "/etc/ca.crt": authority.certificate,
    });
    for (const name of ["default", "ROOTCA", "file-root:system", certificateName, "file-root:/etc/ca.crt"])
      secrets.want(name);
    assert.deepEqual([...set.keys()], [certificateName, "file-root:/etc/ca.crt"]);
    Object.assign(files, { "/etc/a.crt": second.certificate, "/etc/a.key": second.key });
    secrets.look();
    assert.deepEqual(set.get(certificateName), {
      kind: "certificate",
      chainPem: second.certificate,
      keyPem: second.key,
    });
  });

  test("that are missing, half written or no certificates leave the last good ones in use", () => {
    const { files, set, secrets } = bench({ "/etc/a.crt": first.certificate });
    secrets.want(certificateName);
    assert.equal(set.size, 0, "the key is missing");
    files["/etc/a.key"] = first.key;
    secrets.look();
    assert.equal(set.size, 1);
    files["/etc/a.crt"] = second.certificate;
    secrets.look();
    const held = set.get(certificateName);
    assert.equal(held?.kind === "certificate" ? held.chainPem : "", first.certificate);
    secrets.want("file-root:/etc/a.key");
    assert.equal(set.size, 1, "a key is no root, and leaves the pod by no name");
  });

  test("are a hundred at most", () => {
    const { set, secrets } = bench(
      Object.fromEntries(Array.from({ length: 200 }, (_, at) => [`/${at}`, authority.certificate])),
    );
    for (let at = 0; at < 200; at++) secrets.want(`file-root:/${at}`);
    assert.equal(set.size, 100);
  });

  test("are roots with a list of revoked certificates, which is followed too and never left out", async () => {
    const list = await authority.revoking(first);
    const { files, set, secrets } = bench({ "/etc/ca.crt": authority.certificate });
    const names = ["file-crl:/etc/a.crl~file-root:/etc/ca.crt", "file-crl:/etc/a.crl~ROOTCA"];
    for (const name of [...names, "file-crl:/etc/a.crl~NOTHING", "file-crl:/etc/a.crl~file-root:/gone"])
      secrets.want(name);
    assert.equal(set.size, 0, "without the list everybody would be let in");
    files["/etc/a.crl"] = list;
    secrets.look();
    assert.deepEqual([...set.keys()], names);
    const trust = { kind: "trust", rootsPem: authority.certificate };
    assert.deepEqual(set.get(names[0]!), { ...trust, revokedPem: list });
    const renewed = await authority.revoking(second);
    files["/etc/a.crl"] = "-----BEGIN X509 CRL-----\nMAAB\n-----END X509 CRL-----\n";
    secrets.look();
    assert.deepEqual(set.get(names[1]!), { ...trust, revokedPem: list }, "the last good one stays");
    files["/etc/a.crl"] = renewed;
    secrets.look();
    assert.deepEqual(set.get(names[1]!), { ...trust, revokedPem: renewed });
  });
});
