import assert from "node:assert/strict";
import { test } from "node:test";
import { parseImageReference, parseModuleUrl } from "./module-url.ts";

const sha256 = "a".repeat(64);

test("an image's name is read by Docker's conventions", () => {
  const read = (text: string): string => {
    const image = parseImageReference(text);
    return image === undefined
      ? "none"
      : [image.registry, image.repository, image.tag ?? "-", image.sha256 ?? "-"].join(" ");
  };
  assert.equal(read("a"), "docker.io library/a latest -");
  assert.equal(read("a/b:1.2"), "docker.io a/b 1.2 -");
  assert.equal(read("index.docker.io/a"), "docker.io library/a latest -");
  assert.equal(read("ghcr.io/a/b/c:v1"), "ghcr.io a/b/c v1 -");
  assert.equal(read("localhost/a"), "localhost a latest -");
  assert.equal(read("registry:5000/a_b/c-d"), "registry:5000 a_b/c-d latest -");
  assert.equal(read("[::1]:5000/a"), "[::1]:5000 a latest -");
  assert.equal(read(`ghcr.io/a@sha256:${sha256}`), `ghcr.io a - ${sha256}`);
  assert.equal(read(`ghcr.io/a:1@sha256:${sha256}`), `ghcr.io a 1 ${sha256}`);
  const none = [
    "",
    "A",
    "a:",
    "a@sha256:1",
    "a@sha512:x",
    "ghcr.io/",
    "ghcr.io/a//b",
    "a/../b",
    "x:y/a",
    "a b",
    "u@h/a",
  ];
  for (const text of [...none, `a/${"b".repeat(300)}`]) assert.equal(read(text), "none", text);
});

test("a module's URL without a scheme names an image", () => {
  assert.deepEqual(parseModuleUrl("ghcr.io/a:1"), parseModuleUrl("oci://ghcr.io/a:1"));
  assert.deepEqual(parseModuleUrl("file:///a.wasm"), { kind: "file", path: "/a.wasm" });
  const https = parseModuleUrl("https://a.example.com/m.wasm");
  assert.deepEqual(https?.kind === "http" && [https.host, https.port, https.tls], [
    "a.example.com",
    443,
    true,
  ]);
  for (const url of ["ftp://a/b", "http://", "oci://"]) assert.equal(parseModuleUrl(url), undefined, url);
});
