import assert from "node:assert/strict";
import { it } from "node:test";
import { Database } from "./database.ts";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { silentLog } from "#base";
import { serviceEndpoint } from "./service-endpoint.ts";

it("a Service is reached at a ready endpoint, at the port that its slice gives the Service's port", () => {
  const dir = mkdtempSync(join(tmpdir(), "mizzen-endpoint-"));
  const database = new Database(dir, silentLog);
  const metadata = { name: "hook", namespace: "mesh" };
  const spec = {
    ports: [
      { name: "other", port: 80 },
      { name: "https", port: 443, targetPort: "web" },
    ],
  };
  database.put("services", { apiVersion: "v1", kind: "Service", metadata, spec });
  const resolve = serviceEndpoint(database);
  assert.equal(resolve("mesh", "hook", 443), undefined);
  database.put("endpointslices.discovery.k8s.io", {
    apiVersion: "discovery.k8s.io/v1",
    kind: "EndpointSlice",
    metadata: { name: "hook-1", namespace: "mesh", labels: { "kubernetes.io/service-name": "hook" } },
    ports: [{ name: "https", port: 15017 }],
    endpoints: [
      { addresses: ["10.0.0.1"], conditions: { ready: false } },
      { addresses: ["10.0.0.2"], conditions: { ready: true } },
    ],
  });
  assert.deepEqual(resolve("mesh", "hook", 443), { host: "10.0.0.2", port: 15017 });
  assert.equal(resolve("mesh", "hook", 80), undefined);
  assert.equal(resolve("mesh", "hook", 8443), undefined);
  database.close();
  rmSync(dir, { recursive: true });
});
