import assert from "node:assert/strict";
import { test } from "node:test";
import type { MeshConfig } from "#objects";
import { withHeaderVariables } from "./header-variables.ts";

test("headers for collectors take their values from the control plane's environment, where MeshConfig names a variable", () => {
  const headers = [
    { name: "x-token", envName: "TOKEN" },
    { name: "x-plain", value: "as it is" },
  ];
  const filled = [
    { name: "x-token", value: "secret" },
    { name: "x-plain", value: "as it is" },
  ];
  const mesh = (given: typeof headers | typeof filled): MeshConfig => ({
    trustDomain: "td",
    extensionProviders: [
      { name: "zipkin", zipkin: { port: 9411, headers: given } },
      { name: "http", opentelemetry: { http: { path: "/v1", headers: given } } },
      { name: "grpc", opentelemetry: { grpc: { timeout: "1s", initialMetadata: given } } },
      { name: "lines", envoyFileAccessLog: { path: "/dev/stdout" } },
    ],
  });
  const variables: Readonly<Record<string, string>> = { TOKEN: "secret" };
  assert.deepEqual(
    withHeaderVariables(mesh(headers), (name) => variables[name]),
    mesh(filled),
  );
  assert.deepEqual(
    withHeaderVariables({ trustDomain: "td" }, () => "x"),
    { trustDomain: "td" },
  );
  const missing = withHeaderVariables(mesh(headers), () => undefined).extensionProviders?.[0]?.zipkin;
  assert.equal(missing?.headers?.[0]?.value, "");
});
