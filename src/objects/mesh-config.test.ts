import assert from "node:assert/strict";
import { describe, test } from "node:test";

import {
  defaultMeshConfig,
  parseMeshConfig,
  parseMeshNetworks,
  parseProxyConfig,
  validateMeshConfig,
} from "./mesh-config.ts";

describe("MeshConfig", () => {
  test("the defaults are good, and an empty text is the defaults", () => {
    assert.deepEqual(validateMeshConfig(defaultMeshConfig), []);
    assert.deepEqual(parseMeshConfig(""), { mesh: defaultMeshConfig, problems: [] });
  });

  test("a field replaces the default; defaultConfig and extensionProviders are merged", () => {
    const { mesh, problems } = parseMeshConfig(
      [
        "accessLogFile: /dev/stdout",
        "outboundTrafficPolicy: {mode: REGISTRY_ONLY}",
        "defaultConfig: {concurrency: 2, proxyMetadata: {A: b}}",
        "extensionProviders: [{name: envoy, envoyFileAccessLog: {path: /tmp/log}}]",
      ].join("\n"),
    );
    assert.deepEqual(problems, []);
    assert.equal(mesh.accessLogFile, "/dev/stdout");
    assert.equal(mesh.outboundTrafficPolicy.mode, "REGISTRY_ONLY");
    assert.equal(mesh.defaultConfig.concurrency, 2);
    assert.equal(mesh.defaultConfig.drainDuration, "45s");
    assert.deepEqual(
      mesh.extensionProviders.map(({ name }) => name),
      ["prometheus", "stackdriver", "envoy"],
    );
    assert.equal(mesh.extensionProviders[2]?.envoyFileAccessLog?.path, "/tmp/log");
  });

  test("a wrong text changes nothing and says why", () => {
    for (const text of [
      "trustDomain: [",
      "- a",
      "connectTimeout: 5",
      "connectTimeout: 60s",
      "outboundTrafficPolicy: {mode: SOME}",
      "defaultConfig: {proxyMetadata: {CLUSTER_DISCOVERY: sometimes}}",
    ]) {
      const { mesh, problems } = parseMeshConfig(text);
      assert.equal(mesh, defaultMeshConfig, text);
      assert.ok(
        problems.some(({ severity }) => severity === "error"),
        text,
      );
    }
  });

  test("the annotation of a Pod is laid over the mesh's defaultConfig, metadata key by key", () => {
    const base = { ...defaultMeshConfig.defaultConfig, proxyMetadata: { A: "a", B: "b" } };
    const { config } = parseProxyConfig("proxyMetadata: {B: c}\nconcurrency: 1", base);
    assert.deepEqual(config.proxyMetadata, { A: "a", B: "c" });
    assert.equal(config.concurrency, 1);
  });

  test("networks with a wrong gateway are refused", () => {
    const good = parseMeshNetworks(
      "networks: {n1: {endpoints: [{fromRegistry: K}], gateways: [{address: 1.2.3.4, port: 15443}]}}",
    );
    assert.deepEqual(good.problems, []);
    assert.deepEqual(Object.keys(good.networks.networks), ["n1"]);
    assert.equal(
      parseMeshNetworks("networks: {n1: {gateways: [{address: 'a b', port: 1}]}}").problems.length,
      1,
    );
  });
});
