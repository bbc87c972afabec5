import assert from "node:assert/strict";
import { test } from "node:test";
import { findImage, repositoryOf } from "./image.ts";
import { builtInImages, parseImageTable } from "./table.ts";

const table = builtInImages({ root: "/package", node: "/package/node" });

test("a tag and a digest do not belong to the repository, a registry's port does", () => {
  assert.equal(repositoryOf("docker.io/istio/a:1.0"), "docker.io/istio/a");
  assert.equal(repositoryOf("host:5000/a"), "host:5000/a");
  assert.equal(repositoryOf("a@sha256:00"), "a");
});

test("Bookinfo's images resolve under any registry and tag, with their version", () => {
  for (const name of [
    "docker.io/istio/examples-bookinfo-reviews-v2:1.20.3",
    "any.test/release/examples-bookinfo-reviews-v2:1",
  ]) {
    assert.deepEqual(findImage(table, name)?.args, ["reviews", "--version", "v2"]);
  }
});

test("a short name needs no registry, and a longer name is another image", () => {
  assert.deepEqual(findImage(table, "curlimages/curl")?.entrypoint, ["curl"]);
  assert.deepEqual(findImage(table, "busybox:1.28")?.args, ["sh"]);
  assert.equal(findImage(table, "notbusybox"), undefined);
  assert.equal(findImage(table, "nginx"), undefined);
});

test("a user's table is read, and a fault in it names its place", () => {
  const entries = parseImageTable(
    "images:\n- match: example.test/app\n  command: [sh, -c]\n  args: [id]\n  user: 5\n",
  );
  assert.deepEqual(findImage(entries, "example.test/app:3")?.entrypoint, ["sh", "-c"]);
  assert.throws(
    () => parseImageTable("images:\n- match: a\n  mounts: [{ hostPath: usr, path: /usr }]\n"),
    /images\[0\]\.mounts\[0\]\.hostPath/,
  );
});
