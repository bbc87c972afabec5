import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { Engine } from "#engine";
import { snapshotOf } from "#envoy";
import { jwksTable, worldChanges } from "#model";
import type { KubeObject } from "#objects";
import { envoyComplaint, withoutEnvoy } from "../../test/support/envoy.ts";
import { proxyOf } from "../../test/support/proxies.ts";
import { configurationOf, simulate } from "./simulate.ts";

const router = proxyOf({
  kind: "router",
  namespace: "gw",
  labels: { istio: "edge" },
  serviceAccount: "edge",
  dnsDomain: "gw.svc.cluster.local",
  interception: "NONE",
});

// The keys were made for this file; the private ones are gone. The tokens end in 2100.
const jwks =
  '{"keys":[{"kty":"EC","x":"dSrLdDL4cdIR-6IIKz1EmgthRFiT5ueAinE32pHjyAs","y":"1Mj5IP3M0f5W6M1tdK2GQwvCF3qvz7Me5EzVuBuEXrM","crv":"P-256","kid":"scenario","alg":"ES256","use":"sig"}]}';
/** In groups admin and dev, of unit east. */
const ann =
  "eyJhbGciOiJFUzI1NiIsImtpZCI6InNjZW5hcmlvIiwidHlwIjoiSldUIn0.eyJpc3MiOiJodHRwczovL2lzc3Vlci5leGFtcGxlLmNvbSIsImV4cCI6NDEwMjQ0NDgwMCwiaWF0IjoxNzAwMDAwMDAwLCJzdWIiOiJhbm4iLCJncm91cHMiOlsiYWRtaW4iLCJkZXYiXSwib3JnIjp7InVuaXQiOiJlYXN0In0sInNjb3BlIjoicmVhZCB3cml0ZSJ9.7Odfo8c_ApKR1TdOufReGTRT5-krHMeqAZBCB_A343L4c1Xn0o1JRp6zCFYJNVfYeN1J4NrFCaepo09l_bZTFw";
/** In group dev, of unit west. */
const bob =
  "eyJhbGciOiJFUzI1NiIsImtpZCI6InNjZW5hcmlvIiwidHlwIjoiSldUIn0.eyJpc3MiOiJodHRwczovL2lzc3Vlci5leGFtcGxlLmNvbSIsImV4cCI6NDEwMjQ0NDgwMCwiaWF0IjoxNzAwMDAwMDAwLCJzdWIiOiJib2IiLCJncm91cHMiOlsiZGV2Il0sIm9yZyI6eyJ1bml0Ijoid2VzdCJ9LCJzY29wZSI6InJlYWQifQ.LjK-0AJkiCa5B1BCphl0-qJ0oWYWEJxgBj2bTOjFyzIKsiFJGT3R3xl7wwOMXioQBtKCaRb_kTNx2ovbBXocTw";
const forged =
  "eyJhbGciOiJFUzI1NiIsImtpZCI6InNjZW5hcmlvIiwidHlwIjoiSldUIn0.eyJpc3MiOiJodHRwczovL2lzc3Vlci5leGFtcGxlLmNvbSIsImV4cCI6NDEwMjQ0NDgwMCwiaWF0IjoxNzAwMDAwMDAwLCJzdWIiOiJhbm4iLCJncm91cHMiOlsiYWRtaW4iXX0._6yYlEcLPNnUWm8lCXfWTowuBPCkAsUV4Bxw731CXo9pHERrFH54UDeWlN8QC0A2tdhkbBkFEMfOsz2sb-Hj6A";

function object(apiVersion: string, kind: string, name: string, spec: object, namespace = "gw"): KubeObject {
  return { apiVersion, kind, metadata: { name, namespace }, spec };
}

function worldOf(rule: object, ...http: readonly object[]): Engine {
  const engine = new Engine();
  const networking = "networking.istio.io/v1";
  engine.apply(
    worldChanges([
      object("v1", "Service", "keys", { clusterIP: "10.0.0.9", ports: [{ name: "http", port: 80 }] }, "auth"),
      object(networking, "Gateway", "edge", {
        selector: { istio: "edge" },
        servers: [{ port: { number: 80, name: "http", protocol: "HTTP" }, hosts: ["*"] }],
      }),
      object(networking, "VirtualService", "v", { hosts: ["*"], gateways: ["edge"], http }),
      object("security.istio.io/v1", "RequestAuthentication", "tokens", {
        jwtRules: [{ issuer: "https://issuer.example.com", ...rule }],
      }),
    ]),
  );
  return engine;
}

function status(engine: Engine, token?: string): unknown {
  const resources = Object.values(snapshotOf(engine, router)).flat();
  const call = { direction: "gateway", port: 80, host: "a.com", ...bearer(token) } as const;
  const { outcome } = simulate(configurationOf(resources), call);
  if (outcome.kind === "respond") return outcome.status;
  return outcome.kind === "refuse" ? outcome.error : outcome.kind;
}

function bearer(token: string | undefined): { readonly headers?: Readonly<Record<string, string>> } {
  return token === undefined ? {} : { headers: { authorization: `Bearer ${token}` } };
}

const claim = (name: string, value: object, field = "headers"): object => ({
  match: [{ [field]: { [`@request.auth.claims${name}`]: value } }],
  directResponse: { status: 200 },
});

describe("routes by claims of a token", () => {
  const cases: [string, object, Readonly<Record<"none" | "ann" | "bob", unknown>>][] = [
    [
      "a list has the text",
      claim(".groups", { exact: "admin" }),
      { none: "NoRoute", ann: 200, bob: "NoRoute" },
    ],
    ["nested, by dots", claim(".org.unit", { exact: "east" }), { none: "NoRoute", ann: 200, bob: "NoRoute" }],
    [
      "nested, by brackets",
      claim("[org][unit]", { prefix: "we" }),
      { none: "NoRoute", ann: "NoRoute", bob: 200 },
    ],
    ["any value", claim(".sub", {}), { none: "NoRoute", ann: 200, bob: 200 }],
    ["by regex", claim(".sub", { regex: "a.*" }), { none: "NoRoute", ann: 200, bob: "NoRoute" }],
    [
      "without",
      claim(".groups", { exact: "admin" }, "withoutHeaders"),
      { none: 200, ann: "NoRoute", bob: 200 },
    ],
  ];
  for (const [name, route, expected] of cases) {
    test(name, () => {
      const engine = worldOf({ jwks }, route);
      assert.equal(status(engine), expected.none, "without a token");
      assert.equal(status(engine, ann), expected.ann, "ann");
      assert.equal(status(engine, bob), expected.bob, "bob");
      assert.equal(status(engine, forged), "Unauthenticated", "forged");
    });
  }

  test("the real Envoy takes them", { skip: withoutEnvoy }, () => {
    const engine = worldOf({ jwks, timeout: "2s", fromCookies: ["t"] }, ...cases.map(([, route]) => route));
    assert.equal(envoyComplaint(Object.values(snapshotOf(engine, router)).flat()), "");
  });
});

describe("keys of an issuer", () => {
  const open = { directResponse: { status: 200 } };

  test(
    "that are not fetched yet make every token invalid, and no request without one",
    { skip: withoutEnvoy },
    () => {
      const engine = worldOf({ jwksUri: "https://issuer.example.com/keys" }, open);
      assert.equal(status(engine), 200);
      assert.equal(status(engine, ann), "Unauthenticated");
      assert.equal(envoyComplaint(Object.values(snapshotOf(engine, router)).flat()), "");
      engine.set(jwksTable, "https://issuer.example.com/keys", { jwks });
      assert.equal(status(engine, ann), 200);
    },
  );

  test(
    "are asked for by the proxy itself where a service of the mesh has them",
    { skip: withoutEnvoy },
    () => {
      const engine = worldOf({ jwksUri: "http://keys.auth.svc.cluster.local/keys" }, open);
      const snapshot = snapshotOf(engine, router);
      assert.ok(snapshot.cluster.some(({ name }) => name === "outbound|80||keys.auth.svc.cluster.local"));
      assert.equal(envoyComplaint(Object.values(snapshot).flat()), "");
    },
  );

  test("of one that demands a token refuse a request without", () => {
    assert.equal(status(worldOf({ jwks, presence: "REQUIRED" }, open)), "Unauthenticated");
  });
});
