// Who may not, is refused, and it can be seen: at the API server, at istiod's ports, and at a workload under STRICT. One
// mesh without the demo serves all tests of this file, in order.

import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { X509Certificate } from "node:crypto";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { after, before, test } from "node:test";
import { generateKeyPair, importJWK, type JWK, type JWTPayload, SignJWT } from "jose";
import { deployEchoes, order, podIp, type EchoApp } from "./echoes.ts";
import type { Knock, Reply } from "./knock.ts";
import { leftovers } from "./leftovers.ts";
import { curl, eventually, root, startMesh, type Mesh } from "./mesh.ts";

const name = "security-e2e";
const apiPort = 18_302;
const apiUrl = `https://127.0.0.1:${apiPort}`;
let mesh: Mesh;
let istiod: string;
let frontPod: string;
let frontIp: string;
let rootPem: string;
const scratch = mkdtempSync(join(tmpdir(), "mizzen-security-"));

const ports = [{ name: "http", servicePort: 80, workloadPort: 8080, flag: "http" }] as const;
const echoes: EchoApp[] = [
  { name: "front", namespace: "shop", ports },
  { name: "back", namespace: "shop", ports },
  { name: "stranger", namespace: "outside", ports },
];

before(async () => {
  mesh = await startMesh({ name, port: 18_300 });
  for (const namespace of ["shop", "outside"]) await mesh.kubectl(["create", "namespace", namespace]);
  await mesh.kubectl(["label", "namespace", "shop", "istio-injection=enabled"]);
  await deployEchoes(mesh, echoes);
  istiod = await podIp(mesh, "istio-d", "app=istiod");
  frontIp = await podIp(mesh, "shop", "app=front");
  frontPod = await one("pods", "shop", "-l", "app=front", "-o", "jsonpath={.items[0].metadata.name}");
  rootPem = await one("configmap/istio-ca-root-cert", "shop", "-o", "jsonpath={.data.root-cert\\.pem}");
});
after(async () => {
  await mesh.down();
  rmSync(scratch, { recursive: true, force: true });
  assert.deepEqual(await leftovers(name), [], "nothing of ours is left on the machine");
});

function one(what: string, namespace: string, ...more: readonly string[]): Promise<string> {
  return mesh.kubectl(["get", what, "-n", namespace, ...more]);
}

test("the API server refuses who has no credential, a foreign one, or a service account that may not", async () => {
  assert.equal((await curl(["-k", `${apiUrl}/api/v1/secrets`])).status, 401);
  const { key, certificate } = selfSigned("/O=system:masters/CN=admin");
  const foreign = await curl(["-k", "--cert", certificate, "--key", key, `${apiUrl}/api/v1/secrets`]);
  assert.notEqual(foreign.status, 200);
  assert.ok([0, 401].includes(foreign.status), `${foreign.status}`);
  const bearer = (token: string) => [
    "-k",
    "-H",
    `Authorization: Bearer ${token}`,
    `${apiUrl}/api/v1/secrets`,
  ];
  assert.equal((await curl(bearer("nonsense"))).status, 401);
  const plain = await mesh.kubectl(["create", "token", "front", "-n", "shop"]);
  assert.equal((await curl(bearer(plain.trim()))).status, 403);
});

/** Names the identity that `front` has, and another of the same and of another namespace. */
const own = "spiffe://cluster.local/ns/shop/sa/front";

interface Case {
  readonly what: string;
  readonly knock: Pick<Knock, "ask" | "token" | "certificate">;
  readonly status: number;
  readonly message: RegExp;
}

test("the CA signs for who proves itself, and refuses foreign requests and tokens, logged and counted", async () => {
  const csrFor = (spiffeId: string) => ({ kind: "certificate", csrFor: spiffeId }) as const;
  const token = await tokenOf("front", "shop", frontPod);
  const [good] = await knock([{ ask: csrFor(own), token }]);
  assert.equal(good?.status, 0, good?.message ?? "");
  const leaf = new X509Certificate(good?.certificate?.chain ?? "");
  assert.equal(leaf.subjectAltName, `URI:${own}`);
  assert.ok(leaf.verify(new X509Certificate(rootPem).publicKey));

  const before = await counters();
  const cases: Case[] = [
    {
      what: "a request for another identity",
      knock: { ask: csrFor("spiffe://cluster.local/ns/shop/sa/back"), token },
      status: 3,
      message: /is for spiffe:\/\/cluster\.local\/ns\/shop\/sa\/back/,
    },
    ...(await tokenCases(csrFor(own))),
  ];
  await refused(cases);
  await eventually("the refusals are in the log", async () => {
    const log = await mesh.kubectl(["logs", "-n", "istio-d", "-l", "app=istiod", "--tail=200"]);
    const lines = log.split("\n").filter((line) => line.includes("certificate refused"));
    return lines.length >= cases.length ? lines : undefined;
  });
  const counted = await counters();
  assert.equal(counted.unauthenticated - before.unauthenticated, cases.length - 1);
  assert.equal(counted.signErrors - before.signErrors, 1);
});

test("another pod's or namespace's configuration is refused, logged and counted", async () => {
  const configOf = (node: string) => ({ kind: "configuration", node }) as const;
  const front = configOf(`sidecar~${frontIp}~${frontPod}.shop~shop.svc.cluster.local`);
  const token = await tokenOf("front", "shop", frontPod);
  const [signed] = await knock([{ ask: { kind: "certificate", csrFor: own }, token }]);
  const certificate = signed?.certificate;
  assert.deepEqual(
    (
      await knock([
        { ask: front, token },
        { ask: front, certificate },
      ])
    ).map(({ status }) => status),
    [0, 0],
  );

  const backIp = await podIp(mesh, "shop", "app=back");
  const backPod = await one("pods", "shop", "-l", "app=back", "-o", "jsonpath={.items[0].metadata.name}");
  const back = configOf(`sidecar~${backIp}~${backPod}.shop~shop.svc.cluster.local`);
  const strangerPod = await one(
    "pods",
    "outside",
    "-l",
    "app=stranger",
    "-o",
    "jsonpath={.items[0].metadata.name}",
  );
  const strangerIp = await podIp(mesh, "outside", "app=stranger");
  const stranger = configOf(`sidecar~${strangerIp}~${strangerPod}.outside~outside.svc.cluster.local`);
  const elsewhere = configOf(`sidecar~${backIp}~${frontPod}.shop~shop.svc.cluster.local`);
  const { key, certificate: chain } = selfSigned("/CN=front", `subjectAltName=URI:${own}`);
  const forged = { chain: readFileSync(chain, "utf8"), key: readFileSync(key, "utf8") };
  const cases: Case[] = [
    {
      what: "another pod by token",
      knock: { ask: back, token },
      status: 7,
      message: /front is not the pod's/,
    },
    {
      what: "another pod by certificate",
      knock: { ask: back, ...(certificate && { certificate }) },
      status: 7,
      message: /not the pod's/,
    },
    {
      what: "another namespace",
      knock: { ask: stranger, token },
      status: 7,
      message: /namespace shop is not/,
    },
    { what: "another address", knock: { ask: elsewhere, token }, status: 7, message: /no address of pod/ },
    {
      what: "the right identity, signed by somebody else",
      knock: { ask: front, certificate: forged },
      status: 16,
      message: /neither/,
    },
    ...(await tokenCases(front)),
  ];
  const before = await counters();
  await refused(cases);
  assert.equal((await counters()).streams - before.streams, cases.length);
  const log = await mesh.kubectl(["logs", "-n", "istio-d", "-l", "app=istiod", "--tail=200"]);
  const lines = log.split("\n").filter((line) => line.includes("proxy refused"));
  assert.equal(lines.length, cases.length, lines.join("\n"));
  assert.match(lines.join("\n"), /namespace shop is not that of pod outside/);
});

test("plaintext xDS is closed, and debug pages are for those who may", async () => {
  const closed = await mesh.inNode(["curl", "-s", "-m", "3", `http://${istiod}:15010/`]);
  assert.equal(closed.code, 7, "connection refused");
  const debug = async (...more: string[]) =>
    (
      await mesh.inNode([
        ...["curl", "-s", "-m", "5", "-o", "/dev/null", "-w", "%{http_code}"],
        ...[...more, `http://${istiod}:15014/debug/syncz`],
      ])
    ).stdout;
  const before = await counters();
  const personal = (await mesh.kubectl(["create", "token", "front", "-n", "shop"])).trim();
  assert.equal(await debug(), "401");
  assert.equal(await debug("-H", "Authorization: Bearer nonsense"), "401");
  assert.equal(await debug("-H", `Authorization: Bearer ${personal}`), "401");
  assert.equal((await counters()).debug - before.debug, 3);
  const log = await mesh.kubectl(["logs", "-n", "istio-d", "-l", "app=istiod", "--tail=50"]);
  assert.match(log, /debug page refused/);
  const operator = `apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: mesh-reader}
rules: [{nonResourceURLs: ["/debug/*"], verbs: [get]}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: mesh-reader}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: mesh-reader}
subjects: [{kind: ServiceAccount, name: front, namespace: shop}]
`;
  await mesh.kubectl(["apply", "-f", "-"], operator);
  assert.equal(await debug("-H", `Authorization: Bearer ${personal}`), "200");
});

test("a plaintext client under STRICT is refused, logged and counted by the server's proxy", async () => {
  const strict =
    "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {name: default, namespace: shop}\nspec: {mtls: {mode: STRICT}}\n";
  await mesh.kubectl(["apply", "-f", "-"], strict);
  const strangerIp = await podIp(mesh, "outside", "app=stranger");
  const backIp = await podIp(mesh, "shop", "app=back");
  await eventually("the stranger is refused", async () => {
    const [result] = await order(mesh, strangerIp, { url: "http://back.shop/" });
    return result?.status === 0 ? true : undefined;
  });
  const [inside] = await order(mesh, frontIp, { url: "http://back.shop/" });
  assert.equal(inside?.status, 200, inside?.error ?? "");
  await eventually("the proxy counts it", async () => {
    const scraped = await mesh.inNode(["curl", "-s", `http://${backIp}:15090/stats/prometheus`]);
    return /^envoy_listener_no_filter_chain_match\{[^}]*15006[^}]*\} [1-9]/m.test(scraped.stdout)
      ? true
      : undefined;
  });
  await eventually(
    "the proxy logs it",
    async () => {
      const log = await mesh.kubectl([
        "logs",
        "-n",
        "shop",
        "-l",
        "app=back",
        "-c",
        "istio-proxy",
        "--tail=100",
      ]);
      return log.includes(`NR filter_chain_not_found`) && log.includes(strangerIp) ? true : undefined;
    },
    15_000,
  );
});

/** Tokens that are no proof, for whatever is asked. */
async function tokenCases(ask: Knock["ask"]): Promise<readonly Case[]> {
  const stateDir = dirname(mesh.kubeconfig);
  const jwk = JSON.parse(readFileSync(join(stateDir, "data/service-account.key.json"), "utf8")) as JWK;
  const claims = claimsOf(await tokenOf("front", "shop", frontPod));
  const past = Math.floor(Date.now() / 1000) - 3_600;
  const sign = (payload: JWTPayload, key: Parameters<SignJWT["sign"]>[0]) =>
    new SignJWT(payload).setProtectedHeader({ alg: "ES256" }).sign(key);
  const ownKey = await importJWK(jwk, "ES256");
  const { privateKey: foreignKey } = await generateKeyPair("ES256");
  const expired = await sign({ ...claims, iat: past - 600, nbf: past - 600, exp: past }, ownKey);
  const otherIssuer = await sign({ ...claims, iss: "https://elsewhere.example.com" }, ownKey);
  const otherKey = await sign(claims, foreignKey);
  const otherAudience = await tokenOf("front", "shop", frontPod, "vault");
  return [
    { what: "an expired token", knock: { ask, token: expired }, status: 16, message: /refused/ },
    { what: "a foreign issuer's token", knock: { ask, token: otherIssuer }, status: 16, message: /refused/ },
    {
      what: "a token signed by another key",
      knock: { ask, token: otherKey },
      status: 16,
      message: /refused/,
    },
    { what: "a token for another audience", knock: { ask, token: otherAudience }, status: 16, message: /./ },
    { what: "no token", knock: { ask }, status: 16, message: /neither a bearer token nor/ },
  ];
}

function claimsOf(token: string): JWTPayload {
  return JSON.parse(Buffer.from(token.split(".")[1] ?? "", "base64url").toString()) as JWTPayload;
}

async function tokenOf(
  account: string,
  namespace: string,
  pod: string,
  audience = "istio-ca",
): Promise<string> {
  const bound = ["--bound-object-kind", "Pod", "--bound-object-name", pod];
  const made = await mesh.kubectl([
    "create",
    "token",
    account,
    "-n",
    namespace,
    "--audience",
    audience,
    ...bound,
  ]);
  return made.trim();
}

async function refused(cases: readonly Case[]): Promise<void> {
  const replies = await knock(cases.map((one) => one.knock));
  for (const [index, { what, status, message }] of cases.entries()) {
    const reply = replies[index];
    assert.equal(reply?.status, status, `${what}: ${reply?.status} ${reply?.message}`);
    assert.match(reply?.message ?? "", message, what);
    assert.equal(reply?.certificate, undefined, what);
  }
}

async function knock(knocks: readonly Pick<Knock, "ask" | "token" | "certificate">[]): Promise<Reply[]> {
  const all = knocks.map((what) => ({ ...what, address: istiod, root: rootPem }));
  const ran = await mesh.inNode([process.execPath, join(root, "test/e2e/knock.ts")], JSON.stringify(all));
  assert.equal(ran.code, 0, ran.stderr);
  return JSON.parse(ran.stdout) as Reply[];
}

/** istiod's counters of refusals. */
async function counters(): Promise<Record<"unauthenticated" | "signErrors" | "streams" | "debug", number>> {
  const { stdout } = await mesh.inNode(["curl", "-s", `http://${istiod}:15014/metrics`]);
  const sum = (metric: string) =>
    stdout
      .split("\n")
      .filter((line) => new RegExp(`^${metric}[ {]`).test(line))
      .reduce((total, line) => total + Number(line.split(" ").at(-1)), 0);
  return {
    unauthenticated: sum("citadel_server_authentication_failure_count"),
    signErrors: sum("citadel_server_csr_sign_err_count"),
    streams: sum("pilot_xds_refused"),
    debug: sum("pilot_debug_refused"),
  };
}

/** A key and a certificate that nobody vouches for, as files. */
function selfSigned(
  subject: string,
  extension?: string,
): { readonly key: string; readonly certificate: string } {
  const key = join(scratch, "foreign.key");
  const certificate = join(scratch, "foreign.crt");
  const made = spawnSync("openssl", [
    ...["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "1"],
    ...["-keyout", key, "-out", certificate, "-subj", subject],
    ...(extension === undefined ? [] : ["-addext", extension]),
  ]);
  assert.equal(made.status, 0, made.stderr.toString());
  return { key, certificate };
}
