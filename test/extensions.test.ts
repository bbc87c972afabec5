// What objects put into a proxy beside routes, in a real Envoy on loopback with a gateway's resources: Lua and Wasm, tokens whose keys
// Envoy fetches itself, routes by claims, and access logs by expression. No cluster and no root needed.

import assert from "node:assert/strict";
import { createHash, generateKeyPairSync, sign, type KeyObject } from "node:crypto";
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import type { ChildProcess } from "node:child_process";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { Engine } from "#engine";
import { snapshotOf } from "#envoy";
import { worldChanges, type ProxyClass } from "#model";
import type { KubeObject } from "#objects";
import { withoutEnvoy } from "./support/envoy.ts";
import { startEnvoy, staticForm } from "./support/envoy-process.ts";
import { freePorts } from "./support/free-ports.ts";
import { wasmModule } from "./support/wasm.ts";

const router: ProxyClass = {
  kind: "router",
  namespace: "gw",
  labels: { istio: "edge" },
  serviceAccount: "edge",
  network: "",
  locality: "",
  clusterId: "Kubernetes",
  dnsDomain: "gw.svc.cluster.local",
  interception: "NONE",
  envoyVersion: "1.40.0",
  metadata: {},
};

const issuer = "https://issuer.example.com";
/** Envoy keeps lines of files for 10 s otherwise. */
const flushSoon = ["--file-flush-interval-msec", "50"];

describe("a gateway with extensions", { skip: withoutEnvoy }, () => {
  const folder = mkdtempSync(join(tmpdir(), "mizzen-extensions-"));
  const logFile = join(folder, "access.log");
  const keys = generateKeyPairSync("ec", { namedCurve: "P-256" });
  let origin: Server;
  let envoy: ChildProcess;
  let url = "";

  before(async () => {
    const fetched = wasmModule("x-fetched", "yes");
    const jwks = JSON.stringify({ keys: [keys.publicKey.export({ format: "jwk" })] });
    origin = createServer((request, response) => {
      if (request.url === "/keys") response.end(jwks);
      else if (request.url === "/module.wasm") response.end(fetched);
      else response.writeHead(404).end();
    });
    await new Promise<void>((resolve) => origin.listen(0, "127.0.0.1", resolve));
    const [port = 0, admin = 0] = await freePorts(2);
    writeFileSync(join(folder, "local.wasm"), wasmModule("x-local", "yes"));
    const engine = new Engine();
    const objects = world(port, (origin.address() as AddressInfo).port, folder, fetched);
    engine.apply(
      worldChanges(objects, {
        mesh: {
          enableAutoMtls: false,
          extensionProviders: [
            {
              name: "file",
              envoyFileAccessLog: {
                path: logFile,
                logFormat: { labels: { code: "%RESPONSE_CODE%", path: "%REQ(:PATH)%" } },
              },
            },
          ],
        },
      }),
    );
    const resources = Object.values(snapshotOf(engine, router)).flat();
    envoy = await startEnvoy(folder, "edge", admin, staticForm(resources), flushSoon);
    url = `http://127.0.0.1:${port}`;
  });
  after(() => {
    envoy.kill("SIGKILL");
    origin.close();
    rmSync(folder, { recursive: true, force: true });
  });

  const get = (path: string, token?: string): Promise<Response> =>
    fetch(url + path, token === undefined ? {} : { headers: { authorization: `Bearer ${token}` } });

  test("runs Lua, a module from a file and one from a service of the mesh", async () => {
    // A fetched module is there a moment after the listener.
    const response = await eventually(
      () => get("/open"),
      ({ headers }) => headers.has("x-fetched"),
    );
    assert.equal(response.status, 200);
    assert.equal(response.headers.get("x-lua"), "yes");
    assert.equal(response.headers.get("x-local"), "yes");
    assert.equal(response.headers.get("x-fetched"), "yes");
  });

  test("refuses a forged token, and routes by the claims of a valid one", async () => {
    const admin = token(keys.privateKey, { sub: "ann", org: { groups: ["dev", "admin"] } });
    const developer = token(keys.privateKey, { sub: "bob", org: { groups: ["dev"] } });
    const forged = token(generateKeyPairSync("ec", { namedCurve: "P-256" }).privateKey, { sub: "ann" });
    assert.equal((await get("/admin", forged)).status, 401);
    assert.equal((await get("/open", forged)).status, 401);
    assert.equal((await get("/admin")).status, 404, "no token, no claim");
    assert.equal((await get("/admin", developer)).status, 404);
    assert.equal((await get("/admin", admin)).status, 204);
  });

  test("logs what the expression asks for, in the provider's format", async () => {
    await get("/log-me-not-open");
    await get("/open?not-logged");
    const lines = await eventually(
      async () => (existsSync(logFile) ? readFileSync(logFile, "utf8") : ""),
      (text) => text.includes("/log-me-not-open"),
    );
    const parsed = lines
      .split("\n")
      .filter((line) => line !== "")
      .map((line) => JSON.parse(line) as { code: number; path: string });
    assert.ok(parsed.some(({ code, path }) => code === 404 && path === "/log-me-not-open"));
    assert.deepEqual(
      parsed.filter(({ code }) => code < 400),
      [],
    );
  });
});

function world(port: number, originPort: number, folder: string, fetched: Uint8Array): KubeObject[] {
  const object = (apiVersion: string, kind: string, name: string, spec: object): KubeObject => ({
    apiVersion,
    kind,
    metadata: { name, namespace: "gw" },
    spec,
  });
  const networking = "networking.istio.io/v1";
  const extensions = "extensions.istio.io/v1alpha1";
  const lua = 'function envoy_on_response(handle) handle:headers():add("x-lua", "yes") end';
  const claim = { "@request.auth.claims.org.groups": { exact: "admin" } };
  return [
    object(networking, "ServiceEntry", "origin", {
      hosts: ["origin.example.com"],
      ports: [{ number: 80, name: "http", protocol: "HTTP" }],
      resolution: "STATIC",
      endpoints: [{ address: "127.0.0.1", ports: { http: originPort } }],
    }),
    object(networking, "Gateway", "edge", {
      selector: { istio: "edge" },
      servers: [{ port: { number: port, name: "http", protocol: "HTTP" }, hosts: ["*"] }],
    }),
    object(networking, "VirtualService", "v", {
      hosts: ["*"],
      gateways: ["edge"],
      http: [
        { match: [{ uri: { prefix: "/open" } }], directResponse: { status: 200 } },
        { match: [{ uri: { exact: "/admin" }, headers: claim }], directResponse: { status: 204 } },
      ],
    }),
    object("security.istio.io/v1", "RequestAuthentication", "tokens", {
      jwtRules: [{ issuer, jwksUri: "http://origin.example.com/keys" }],
    }),
    object(extensions, "TrafficExtension", "lua", { lua: { inlineCode: lua } }),
    object(extensions, "WasmPlugin", "local", {
      url: `file://${join(folder, "local.wasm")}`,
      phase: "AUTHN",
    }),
    object(extensions, "WasmPlugin", "fetched", {
      url: "http://origin.example.com/module.wasm",
      sha256: createHash("sha256").update(fetched).digest("hex"),
      phase: "STATS",
    }),
    object("telemetry.istio.io/v1", "Telemetry", "errors", {
      accessLogging: [{ providers: [{ name: "file" }], filter: { expression: "response.code >= 400" } }],
    }),
  ];
}

function token(key: KeyObject, claims: object): string {
  const part = (json: object): string => Buffer.from(JSON.stringify(json)).toString("base64url");
  const body = { iss: issuer, exp: Math.floor(Date.now() / 1000) + 3_600, ...claims };
  const signed = `${part({ alg: "ES256", typ: "JWT" })}.${part(body)}`;
  const signature = sign("sha256", Buffer.from(signed), { key, dsaEncoding: "ieee-p1363" });
  return `${signed}.${signature.toString("base64url")}`;
}

async function eventually<T>(look: () => Promise<T>, holds: (value: T) => boolean): Promise<T> {
  const untilMs = performance.now() + 10_000;
  for (;;) {
    const value = await look();
    if (holds(value) || performance.now() > untilMs) return value;
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}
