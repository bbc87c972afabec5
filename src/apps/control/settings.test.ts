import assert from "node:assert/strict";
import { test } from "node:test";
import { parseSettings, UsageError } from "./settings.ts";

test("flags and environment become settings; plaintext is off unless asked for", () => {
  const settings = parseSettings(["discovery"], {
    KUBERNETES_SERVICE_HOST: "10.96.0.1",
    POD_NAMESPACE: "mesh",
  });
  assert.equal(settings.plaintext, undefined);
  assert.equal(settings.namespace, "mesh");
  assert.deepEqual(settings.source, { kind: "in-cluster", host: "10.96.0.1", port: "443" });
  assert.deepEqual(settings.ports, { xds: 15_012, monitoring: 15_014, webhook: 15_017 });
  const asked = parseSettings(["--config-dir", "d", "--plaintext", "127.0.0.1:0"], {});
  assert.deepEqual(asked.plaintext, { host: "127.0.0.1", port: 0 });
});

test("a mistake is said with what to give instead", () => {
  assert.throws(() => parseSettings([], {}), /give --kubeconfig or --config-dir/);
  assert.throws(() => parseSettings(["serve"], {}), /one command, discovery/);
  assert.throws(() => parseSettings(["--config-dir", "d", "--xds-port", "x"], {}), UsageError);
  assert.throws(() => parseSettings(["--nonsense"], {}), UsageError);
});

test("registries that need no known certificate are named by commas", () => {
  const named = (text?: string): readonly string[] =>
    parseSettings(["--config-dir", "d"], text === undefined ? {} : { WASM_INSECURE_REGISTRIES: text })
      .insecureRegistries;
  assert.deepEqual(named(), []);
  assert.deepEqual(named("registry.a:5000, 10.0.0.1 ,"), ["registry.a:5000", "10.0.0.1"]);
});
