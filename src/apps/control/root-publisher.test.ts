import assert from "node:assert/strict";
import { test } from "node:test";
import { addedRootsOf } from "./root-publisher.ts";

test("the roots that MeshConfig adds are its caCertificates in their order, and none of what must be fetched", () => {
  assert.equal(addedRootsOf({}), "");
  const caCertificates = [{ pem: "one\n" }, { spiffeBundleUrl: "https://a.example.com" }, { pem: "two" }];
  assert.equal(addedRootsOf({ caCertificates }), "one\ntwo\n");
});
