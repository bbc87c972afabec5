import assert from "node:assert/strict";
import { test } from "node:test";
import { TestAuthority } from "../../../test/support/test-authority.ts";
import { addedRoots, certificateBlocks } from "./added-roots.ts";

test("roots that are certificates are added, and what is none is told of and left out", async () => {
  const [one, other] = await Promise.all(["one", "other"].map((name) => TestAuthority.create(name)));
  const pems = [one, other].map((authority) => authority?.certificate.trim() ?? "");
  const broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----";
  const complaints: string[] = [];
  const log = { warn: (_facts: object, text: string) => void complaints.push(text) };
  const roots = addedRoots([`${pems.join("\n")}\n${broken}`, "no PEM at all"], log);
  assert.deepEqual(roots.match(certificateBlocks), pems);
  assert.equal(complaints.length, 2);
});
