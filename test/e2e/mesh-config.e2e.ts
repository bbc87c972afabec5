// What MeshConfig says for the whole mesh, as clients see it: who may be asked whether requests go on, and which of a service's
// workloads are near, what becomes of hosts that nobody claims, a proxy for HTTP, and whose
// certificates are taken. One mesh serves all tests of this file, in order.

import assert from "node:assert/strict";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { parse, stringify } from "yaml";
import type { MeshConfig } from "#objects";
import { TestAuthority } from "../support/test-authority.ts";
import { deciderManifest, password } from "./decider.ts";
import { deployEchoes, echoIn, order, podIp, type EchoApp, type Order, type Result } from "./echoes.ts";
import { leftovers } from "./leftovers.ts";
import { configText, eventually, type Mesh, patchConfig, startMesh } from "./mesh.ts";

const name = "mesh-config-e2e";
const namespace = "shop";
const ports = [
  { name: "http", servicePort: 80, workloadPort: 8080, flag: "http" },
  { name: "tcp-raw", servicePort: 9000, workloadPort: 9001, flag: "tcp" },
] as const;

const regions = { near: "r1", next: "r2", last: "r3" } as const;

/** Outside of what the mesh knows: only DNS tells where it is. */
const hidden = { app: "hidden", namespace: "outside", host: "hidden.outside.svc.cluster.local" } as const;

const apps: readonly EchoApp[] = [
  {
    name: hidden.app,
    namespace: hidden.namespace,
    ports: [
      { name: "http-odd", servicePort: 8085, workloadPort: 8080, flag: "http" },
      { name: "https-odd", servicePort: 8086, workloadPort: 8443, flag: "https" },
    ],
    certificateNames: [hidden.host],
    naked: true,
  },
  // Its service account is the password: who decides over TCP knows nothing but the caller's identity.
  { name: "friend", namespace, ports, account: password },
  { name: "stranger", namespace, ports, labels: { "istio-locality": `${regions.near}.z1` } },
  { name: "shop", namespace, ports },
  ...(["near", "next", "last"] as const).map((place) => ({
    name: `place-${place}`,
    namespace,
    service: "place",
    version: place,
    ports,
    labels: { "istio-locality": `${regions[place]}.z1` },
  })),
];

let mesh: Mesh;
let written: MeshConfig;
const pods = new Map<string, string>();

before(async () => {
  mesh = await startMesh({ name, port: 18_830 });
  written = parse(await configText(mesh, "istio", "mesh")) as MeshConfig;
  await mesh.kubectl(["create", "namespace", namespace]);
  await mesh.kubectl(["create", "namespace", hidden.namespace]);
  await mesh.kubectl(["label", "namespace", namespace, "istio-injection=enabled"]);
  await mesh.kubectl(["apply", "-f", "-"], deciderManifest(namespace));
  await deployEchoes(mesh, apps);
  const unseen = "networking.istio.io/exportTo=~";
  await mesh.kubectl(["annotate", "service", hidden.app, "-n", hidden.namespace, unseen]);
  for (const app of ["friend", "stranger", "shop"]) pods.set(app, await podIp(mesh, namespace, `app=${app}`));
});
after(async () => {
  await mesh?.down();
  assert.deepEqual(await leftovers(name), [], "nothing of ours is left on the machine");
});

/** MeshConfig as the mesh came with it, and this. */
async function configure(more: MeshConfig): Promise<void> {
  await patchConfig(mesh, "istio", { mesh: stringify({ ...written, ...more }) });
}

async function call(from: string, what: Order): Promise<Result> {
  const [result] = await order(mesh, pods.get(from) ?? "", { timeoutMs: 5_000, ...what });
  assert.ok(result !== undefined);
  return result;
}

/** Calls until the check of the answer holds. */
async function becomes(what: string, from: string, sent: Order, check: (result: Result) => void) {
  await eventually(`${what} for ${from}`, async () => {
    check(await call(from, sent));
    return true;
  });
}

const gets = (status: number) => (result: Result) =>
  assert.equal(result.status, status, JSON.stringify(result));

const askForAll = (provider: string): string => `
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: { name: ask, namespace: ${namespace} }
spec:
  selector: { matchLabels: { app: shop } }
  action: CUSTOM
  provider: { name: ${provider} }
  rules: [{}]
`;

const withWord = { authorization: `Bearer ${password}` };
const guarded = { url: "http://shop/a", method: "POST", body: "body" };
const raw = { url: "tcp://shop:9000", message: "hello\n" };

test("a CUSTOM policy has a service asked over HTTP, whose answer goes on to the application and to the caller", async () => {
  const service = `decider.${namespace}.svc.cluster.local`;
  await configure({
    extensionProviders: [
      {
        name: "over-http",
        envoyExtAuthzHttp: {
          service,
          port: 80,
          pathPrefix: "/check",
          includeRequestHeadersInCheck: ["authorization"],
          includeRequestBodyInCheck: { maxRequestBytes: 4, allowPartialMessage: true },
          headersToUpstreamOnAllow: ["x-decided"],
          headersToDownstreamOnDeny: ["x-decided"],
        },
      },
      { name: "over-grpc", envoyExtAuthzGrpc: { service, port: 90 } },
    ],
  });
  await mesh.kubectl(["apply", "-f", "-"], askForAll("over-http"));
  await becomes("a refusal", "stranger", guarded, (result) => {
    assert.equal(result.status, 401, JSON.stringify(result));
    assert.equal(result.headers["x-decided"], "POST /check/a body");
  });
  const may = await call("stranger", { ...guarded, headers: withWord });
  assert.equal(echoIn(may)?.headers["x-decided"], "POST /check/a body", JSON.stringify(may));
});

test("one asked over gRPC decides about requests, and about connections by who opens them", async () => {
  await mesh.kubectl(["apply", "-f", "-"], askForAll("over-grpc"));
  await becomes("a refusal", "stranger", guarded, gets(403));
  gets(200)(await call("stranger", { ...guarded, headers: withWord }));
  assert.match((await call("friend", raw)).body, /hello/);
  await becomes("a closed connection", "stranger", raw, ({ body }) => assert.doesNotMatch(body, /hello/));
});

test("where nobody can be asked what the policy is about is denied", async () => {
  await mesh.kubectl(["apply", "-f", "-"], askForAll("unknown"));
  await becomes("a denial", "stranger", { ...guarded, headers: withWord }, gets(403));
  await mesh.kubectl(["delete", "authorizationpolicy", "ask", "-n", namespace]);
  await becomes("no more policy", "stranger", guarded, gets(200));
});

test("the whole mesh goes to its own region, then to the one that MeshConfig names, and by shares where it gives them", async () => {
  const asked = { url: "http://place/", count: 20 };
  const versions = async () => {
    const results = await order(mesh, pods.get("stranger") ?? "", asked);
    return new Set(results.map((result) => echoIn(result)?.version ?? `status ${result.status}`));
  };
  const answeredBy = (what: string, expected: readonly string[]) =>
    eventually(what, async () => {
      assert.deepEqual([...(await versions())].toSorted(), expected);
      return true;
    });
  const { near, next, last } = regions;
  await answeredBy("all of them", ["last", "near", "next"]);
  await configure({
    localityLbSetting: { failover: [{ from: near, to: last }] },
    defaultTrafficPolicy: { outlierDetection: { consecutive5xxErrors: 5 } },
  });
  await answeredBy("the own region", ["near"]);
  await mesh.kubectl(["scale", "deployment/place-near", "-n", namespace, "--replicas=0"]);
  await answeredBy("the region that is named", ["last"]);
  await configure({ localityLbSetting: { distribute: [{ from: `${near}/*`, to: { [`${next}/*`]: 100 } }] } });
  await answeredBy("the region that gets all", ["next"]);
});

test("hosts that the mesh does not know are looked up as requests name them, and spoken to by TLS where MeshConfig says so", async () => {
  const nowhere = "10.255.255.1";
  const mode = "ALLOW_ANY_DYNAMIC_DNS";
  const sent = (port: number) => ({
    url: `http://${nowhere}:${port}/`,
    headers: { host: `${hidden.host}:${port}` },
  });
  const byHidden = (result: Result) =>
    assert.equal(echoIn(result)?.service, hidden.app, JSON.stringify(result));
  await configure({ outboundTrafficPolicy: { mode } });
  await becomes("the host that is named", "stranger", sent(8085), byHidden);
  await configure({ outboundTrafficPolicy: { mode, tls: { mode: "SIMPLE", insecureSkipVerify: true } } });
  await becomes("the host that is named, over TLS", "stranger", sent(8086), byHidden);
  await configure({});
  await becomes("no answer from where nobody is", "stranger", sent(8085), ({ status }) =>
    assert.notEqual(status, 200),
  );
});

test("applications find a proxy for HTTP at the port that MeshConfig names, and it speaks mutual TLS for them", async () => {
  const proxied = { url: "http://127.0.0.1:3128/", headers: { host: "shop.shop.svc.cluster.local" } };
  await becomes("nobody there", "stranger", proxied, gets(0));
  await configure({ proxyHttpPort: 3128 });
  await becomes("the service that the request names", "stranger", proxied, (result) => {
    assert.equal(echoIn(result)?.service, "shop", JSON.stringify(result));
    assert.match(echoIn(result)?.headers["x-forwarded-client-cert"] ?? "", /sa\/stranger/);
  });
});

const strict = `
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: { name: strict, namespace: ${namespace} }
spec: { mtls: { mode: STRICT } }
`;

test("callers of another authority are let in as long as MeshConfig adds its root, with identities of the domains named there", async () => {
  const authority = await TestAuthority.create("partner");
  const folder = mkdtempSync(join(tmpdir(), "mizzen-partner-"));
  const callAs = async (identity: string): Promise<string> => {
    const { certificate, key } = await authority.issue([identity]);
    const [cert, keyFile] = [join(folder, "cert.pem"), join(folder, "key.pem")];
    writeFileSync(cert, certificate);
    writeFileSync(keyFile, key);
    const words = ["curl", "-sk", "--max-time", "5", "--cert", cert, "--key", keyFile, "-o", "/dev/null"];
    const ran = await mesh.inNode([...words, "-w", "%{http_code}", `https://${pods.get("shop")}:8080/`]);
    return ran.stdout;
  };
  const answers = (what: string, identity: string, status: string) =>
    eventually(what, async () => {
      assert.equal(await callAs(identity), status);
      return true;
    });
  const partner = "spiffe://partner.example/ns/far/sa/caller";
  try {
    await mesh.kubectl(["apply", "-f", "-"], strict);
    await answers("an unknown authority", partner, "000");
    const added = { pem: authority.certificate, trustDomains: ["partner.example"] };
    await configure({ caCertificates: [added] });
    await answers("the added root", partner, "200");
    assert.equal(await callAs("spiffe://elsewhere.example/ns/far/sa/caller"), "000");
    await configure({});
    await answers("the root taken away", partner, "000");
  } finally {
    rmSync(folder, { recursive: true, force: true });
    await mesh.kubectl(["delete", "-f", "-"], strict);
  }
});
