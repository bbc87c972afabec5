import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { Engine } from "#engine";
import type { KubeObject } from "#objects";
import { mtlsModeOf, namespaceMtlsModeOf, type MtlsMode } from "./peer-authentication.ts";
import { worldChanges } from "./world.ts";

const root = "istio-d";
const reviews = { namespace: "default", labels: { app: "reviews" } };

interface PolicyOptions {
  readonly app?: string;
  readonly ports?: Readonly<Record<number, string>>;
  readonly second?: number;
}

function policy(
  namespace: string,
  name: string,
  mode: string | undefined,
  options: PolicyOptions = {},
): KubeObject {
  const { app, ports, second = 0 } = options;
  const portLevelMtls = Object.fromEntries(
    Object.entries(ports ?? {}).map(([port, portMode]) => [port, { mode: portMode }]),
  );
  return {
    apiVersion: "security.istio.io/v1",
    kind: "PeerAuthentication",
    metadata: { name, namespace, creationTimestamp: `2026-01-01T00:00:0${second}Z` },
    spec: {
      ...(mode === undefined ? {} : { mtls: { mode } }),
      ...(app === undefined ? {} : { selector: { matchLabels: { app } } }),
      portLevelMtls,
    },
  };
}

function modeOf(port: number, ...objects: KubeObject[]): MtlsMode {
  const engine = new Engine();
  engine.apply(worldChanges(objects));
  return engine.get(mtlsModeOf, { workload: reviews, port });
}

describe("the mutual-TLS mode of a port", () => {
  const mesh = policy(root, "default", "STRICT");
  const namespace = policy("default", "default", "DISABLE");

  test("is PERMISSIVE when nothing is said", () => {
    assert.equal(modeOf(9080), "PERMISSIVE");
  });

  test("comes from the narrowest policy that says something", () => {
    assert.equal(modeOf(9080, mesh), "STRICT");
    assert.equal(modeOf(9080, mesh, namespace), "DISABLE");
    assert.equal(
      modeOf(9080, mesh, namespace, policy("default", "own", "PERMISSIVE", { app: "reviews" })),
      "PERMISSIVE",
    );
    assert.equal(modeOf(9080, mesh, policy("default", "default", "UNSET")), "STRICT");
    assert.equal(modeOf(9080, mesh, policy("default", "own", undefined, { app: "reviews" })), "STRICT");
  });

  test("of a workload's policy may differ by port; UNSET inherits", () => {
    const own = policy("default", "own", "STRICT", {
      app: "reviews",
      ports: { 8080: "DISABLE", 8081: "UNSET" },
    });
    assert.equal(modeOf(8080, own), "DISABLE");
    assert.equal(modeOf(8081, own), "STRICT");
    assert.equal(modeOf(9080, own), "STRICT");
  });

  test("is the oldest policy's where two stand on one level", () => {
    const older = policy("default", "z", "STRICT", { second: 1 });
    const newer = policy("default", "a", "DISABLE", { second: 2 });
    assert.equal(modeOf(9080, newer, older), "STRICT");
  });

  test("does not come from policies for other workloads or of other namespaces", () => {
    assert.equal(
      modeOf(
        9080,
        policy("default", "own", "STRICT", { app: "ratings" }),
        policy("other", "default", "STRICT"),
      ),
      "PERMISSIVE",
    );
  });

  test("of a whole namespace knows the mesh's policy", () => {
    const engine = new Engine();
    engine.apply(worldChanges([mesh]));
    assert.equal(engine.get(namespaceMtlsModeOf, "default"), "STRICT");
  });
});
