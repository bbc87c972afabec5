// What operators do to a running mesh, with the real kubectl: injection and its template, webhooks that repair themselves,
// MeshConfig changed live, services of elsewhere, TLS at the gateway, and a CA of their own. One mesh serves all tests of
// this file, in order.

import assert from "node:assert/strict";
import { spawn, spawnSync } from "node:child_process";
import { X509Certificate } from "node:crypto";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { request } from "node:https";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import type { TLSSocket } from "node:tls";
import { deployEchoes, echoIn, order, podIp, type EchoApp } from "./echoes.ts";
import {
  command,
  configText,
  curl,
  eventually,
  type Mesh,
  patchConfig,
  pause,
  root,
  startMesh,
} from "./mesh.ts";

const port = 18_320;
const httpsPort = port + 1;
const kubectlPath = join(root, ".cache/bin/kubectl");
const scratch = mkdtempSync(join(tmpdir(), "mizzen-operations-"));
let mesh: Mesh;
let front: string;

const ports = [{ name: "http", servicePort: 80, workloadPort: 8080, flag: "http" }] as const;
const echoes: EchoApp[] = [
  { name: "front", namespace: "shop", ports },
  { name: "back", namespace: "shop", ports },
  { name: "stranger", namespace: "outside", ports },
];

before(async () => {
  mesh = await startMesh({ name: "operations-e2e", port });
  for (const namespace of ["shop", "outside"]) await mesh.kubectl(["create", "namespace", namespace]);
  await mesh.kubectl(["label", "namespace", "shop", "istio-injection=enabled"]);
  await deployEchoes(mesh, echoes);
  front = await podIp(mesh, "shop", "app=front");
});
after(async () => {
  await mesh.down();
  rmSync(scratch, { recursive: true, force: true });
});

const apply = (text: string) => mesh.kubectl(["apply", "-f", "-"], text);

async function statusOf(url: string, headers: Readonly<Record<string, string>> = {}): Promise<number> {
  return (await order(mesh, front, { url, headers, timeoutMs: 3_000 }))[0]?.status ?? 0;
}

test("kubectl's verbs work on a running mesh, and proxies follow", async () => {
  const delayed = (status: number) => `apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: back, namespace: shop}
spec: {hosts: [back], http: [{directResponse: {status: ${status}}}]}
`;
  const watch = spawn(kubectlPath, [
    ...["--kubeconfig", mesh.kubeconfig],
    ...["get", "virtualservices", "-n", "shop", "-w", "--show-labels"],
  ]);
  let watched = "";
  watch.stdout.on("data", (chunk: Buffer) => (watched += chunk.toString()));
  await apply(delayed(418));
  await eventually("418", async () => ((await statusOf("http://back.shop/")) === 418 ? true : undefined));
  const edited = await command(
    kubectlPath,
    ["--kubeconfig", mesh.kubeconfig, "edit", "virtualservice", "back", "-n", "shop"],
    undefined,
    { KUBE_EDITOR: "sed -i s/418/429/" },
  );
  assert.equal(edited.code, 0, edited.stderr);
  await eventually("429", async () => ((await statusOf("http://back.shop/")) === 429 ? true : undefined));
  await mesh.kubectl(["label", "virtualservice", "back", "-n", "shop", "touched=yes"]);
  await eventually("the watch has seen the label", async () =>
    watched.includes("touched=yes") ? true : undefined,
  );
  watch.kill();
  await mesh.kubectl(["delete", "virtualservice", "back", "-n", "shop"]);
  await eventually("200", async () => ((await statusOf("http://back.shop/")) === 200 ? true : undefined));
  await mesh.kubectl([
    "wait",
    "--for=condition=Ready",
    "pod",
    "-l",
    "app=back",
    "-n",
    "shop",
    "--timeout=20s",
  ]);
  const log = await mesh.kubectl(["logs", "deployment/back", "-n", "shop", "-c", "istio-proxy", "--tail=5"]);
  assert.notEqual(log.trim(), "");
});

test("a field without effect is named in a warning that kubectl shows, and a wrong object changes nothing", async () => {
  const rule = (more: string) =>
    `apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: back, namespace: shop}\nspec: {hosts: [back], ${more}}\n`;
  const taken = await mesh.ranKubectl(
    ["apply", "-f", "-"],
    rule("tcp: [{match: [{sourceSubnet: 10.0.0.0/8}], route: [{destination: {host: back}}]}]"),
  );
  assert.equal(taken.code, 0, taken.stderr);
  assert.match(taken.stderr, /Warning: .*spec\.tcp\[0\]\.match\[0\]\.sourceSubnet/);
  const refused = await mesh.ranKubectl(
    ["apply", "-f", "-"],
    rule("http: [{route: [{destination: {host: back}}], retries: {attempts: -1}}]"),
  );
  assert.notEqual(refused.code, 0);
  assert.match(refused.stderr, /spec\.http\[0\]\.retries\.attempts/);
  const kept = await mesh.kubectl(["get", "virtualservice", "back", "-n", "shop", "-o", "jsonpath={.spec}"]);
  assert.match(kept, /sourceSubnet/);
  await mesh.kubectl(["delete", "virtualservice", "back", "-n", "shop"]);
});

test("the mesh's settings are judged where they are applied: a wrong one is refused, one without effect is named", async () => {
  const before = await configText(mesh, "istio", "mesh");
  const patched = (line: string) =>
    mesh.ranKubectl([
      ...["patch", "configmap", "istio", "-n", "istio-d", "--type=merge", "-p"],
      JSON.stringify({ data: { mesh: `${before}${line}\n` } }),
    ]);
  const refused = await patched("connectTimeout: 5x");
  assert.notEqual(refused.code, 0);
  assert.match(refused.stderr, /data\.mesh\.connectTimeout: "5x" is not a duration/);
  assert.equal(await configText(mesh, "istio", "mesh"), before);
  const taken = await patched("hboneIdleTimeout: 5s");
  assert.equal(taken.code, 0, taken.stderr);
  assert.match(taken.stderr, /Warning: data\.mesh\.hboneIdleTimeout: this field has no effect/);
  await patchConfig(mesh, "istio", { mesh: before });
  const other = ["create", "configmap", "other", "-n", "istio-d", "--from-literal=mesh=connectTimeout: 5x"];
  await mesh.kubectl(other);
  await mesh.kubectl(["delete", "configmap", "other", "-n", "istio-d"]);
});

/** The containers, init containers and labels that a Pod would have. */
function injected(namespace: string, labels = ""): Promise<string> {
  const shown = "jsonpath={.spec.containers[*].name}|{.spec.initContainers[*].name}|{.metadata.labels}";
  const asked = ["run", "probe", "-n", namespace, "--image=busybox", "--dry-run=server", "-o", shown];
  return mesh.kubectl([...asked, ...(labels === "" ? [] : ["--labels", labels]), "--", "sleep", "1"]);
}

test("who is injected: by namespace, by revision, by the pod's own label; and the template can be changed", async () => {
  const whole = /^probe istio-proxy\|istio-init\|/;
  const none = /^probe\|\|/;
  assert.match(await injected("shop"), whole);
  assert.match(await injected("shop", "sidecar.istio.io/inject=false"), none);
  assert.match(await injected("outside"), none);
  assert.match(await injected("outside", "sidecar.istio.io/inject=true"), whole);
  await mesh.kubectl(["label", "namespace", "outside", "istio.io/rev=default"]);
  assert.match(await injected("outside"), whole);
  await mesh.kubectl(["label", "namespace", "outside", "istio.io/rev=other", "--overwrite"]);
  assert.match(await injected("outside"), none);
  await mesh.kubectl(["label", "namespace", "outside", "istio.io/rev-"]);

  await replaceInConfigMap(
    "istio-sidecar-injector",
    "values",
    "templates: {}",
    'templates: { sidecar: "metadata: { labels: { overridden: yes-it-is } }" }',
  );
  await eventually("the template's label", async () =>
    /"overridden":"yes-it-is"/.test(await injected("shop")) ? true : undefined,
  );
  assert.match(await injected("shop"), whole, "on top of the built-in one");
});

test("webhook configurations that lost their CA bundle get it back", async () => {
  const kinds = ["mutatingwebhookconfiguration", "validatingwebhookconfiguration"];
  const bundlesOf = async (kind: string) =>
    (await mesh.kubectl(["get", kind, "-o", "jsonpath={.items[*].webhooks[*].clientConfig.caBundle}"])).split(
      " ",
    );
  for (const kind of kinds) {
    const before = await bundlesOf(kind);
    const found = await mesh.kubectl(["get", kind, "-o", "name"]);
    const operation = JSON.stringify([{ op: "remove", path: "/webhooks/0/clientConfig/caBundle" }]);
    await mesh.kubectl(["patch", found.trim(), "--type=json", "-p", operation]);
    await eventually(`${kind} is repaired`, async () =>
      (await bundlesOf(kind)).join() === before.join() ? true : undefined,
    );
  }
  assert.match(await injected("shop"), /istio-proxy/);
});

test("outboundTrafficPolicy and the access log follow MeshConfig while the mesh runs", async () => {
  const unknown = `http://${await podIp(mesh, "outside", "app=stranger")}:8080/`;
  assert.equal(await statusOf(unknown), 0, "REGISTRY_ONLY");
  await replaceInConfigMap("istio", "mesh", "mode: REGISTRY_ONLY", "mode: ALLOW_ANY");
  await eventually("what is unknown passes", async () =>
    (await statusOf(unknown)) === 200 ? true : undefined,
  );
  await replaceInConfigMap("istio", "mesh", "mode: ALLOW_ANY", "mode: REGISTRY_ONLY");
  await eventually("what is unknown is refused", async () =>
    (await statusOf(unknown)) === 0 ? true : undefined,
  );

  const stranger = await podIp(mesh, "outside", "app=stranger");
  assert.equal(await statusOf(`http://${stranger}/`, { host: "outside.example.com" }), 502);
  const metrics = async () =>
    (await mesh.inNode(["curl", "-s", `http://${front}:15020/stats/prometheus`])).stdout;
  const counted = (host: string, outcome: string) =>
    new RegExp(
      `^istio_egress_requests_total\\{.*source_workload="front.*destination_host="${host}",outcome="${outcome}"\\} [1-9]`,
      "m",
    );
  for (const [host, outcome] of [
    ["outside\\.example\\.com", "blocked"],
    [stranger + ":8080", "blocked"],
    [stranger + ":8080", "passed"],
  ] as const) {
    await eventually(`${outcome} calls of ${host} are counted for their caller`, async () =>
      counted(host, outcome).test(await metrics()) ? true : undefined,
    );
  }
  assert.doesNotMatch(await metrics(), /istio_egress_requests_total\{.*back\.shop/);

  await statusOf("http://back.shop/logged");
  const line =
    /^\[\d{4}-\d\d-\d\dT[\d:.]+Z\] "GET \/logged HTTP\/1\.1" 200 - via_upstream - "-" 0 \d+ \d+ \d+ "-" "[^"]*" "[0-9a-f-]{36}" "back\.shop" "[\d.]+:8080" outbound\|80\|\|back\.shop\.svc\.cluster\.local [\d.]+:\d+ [\d.]+:80 [\d.]+:\d+ - default$/m;
  const log = () =>
    mesh.kubectl(["logs", "-n", "shop", "-l", "app=front", "-c", "istio-proxy", "--tail=200"]);
  await eventually("a line in Istio's format", async () => (line.test(await log()) ? true : undefined));
  await replaceInConfigMap("istio", "mesh", "accessLogFile: /dev/stdout", 'accessLogFile: ""');
  await eventually("no listener has a log", async () => ((await logs()) ? undefined : true));
  await statusOf("http://back.shop/unlogged");
  await replaceInConfigMap("istio", "mesh", 'accessLogFile: ""', "accessLogFile: /dev/stdout");
  await eventually("listeners have one again", async () => ((await logs()) ? true : undefined));
  await eventually("a line again", async () => {
    await statusOf("http://back.shop/logged-again");
    return (await log()).includes("/logged-again") ? true : undefined;
  });
  assert.doesNotMatch(await log(), /\/unlogged/);
});

/** Whether the front's outbound listener writes to standard output. */
async function logs(): Promise<boolean> {
  const shown = await mesh.mizzen(["pc", "listeners", "deploy/front.shop", "-o", "json"]);
  assert.equal(shown.code, 0, shown.stderr);
  return shown.stdout.includes("StdoutAccessLog") || shown.stdout.includes("FileAccessLog");
}

test("a ServiceEntry by DNS reaches what the cluster's DNS names", async () => {
  const headers = { host: "api.partner.example" };
  assert.equal(await statusOf("http://back.shop/", headers), 502, "unknown yet");
  await apply(`apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: partner, namespace: shop}
spec:
  hosts: [api.partner.example]
  location: MESH_EXTERNAL
  resolution: DNS
  ports: [{number: 80, name: http, protocol: HTTP}]
  endpoints: [{address: stranger.outside.svc.cluster.local}]
`);
  const answer = await eventually("the stranger answers", async () => {
    const [result] = await order(mesh, front, { url: "http://back.shop/", headers });
    return result?.status === 200 ? result : undefined;
  });
  assert.equal(echoIn(answer)?.service, "stranger");
  assert.equal(echoIn(answer)?.host, "api.partner.example");
});

test("the gateway ends TLS from a Secret, redirects, passes TLS through, and follows a new Secret without a failed request", async () => {
  const first = selfSigned("first", "shop.example.com");
  const second = selfSigned("second", "shop.example.com");
  const behind = selfSigned("behind", "secure.example.com");
  await mesh.kubectl(secretWords("shop-cert", "sm-gateways", first));
  await mesh.kubectl(secretWords("secure-cert", "shop", behind));
  await apply(secureBackend + entrance);
  await mesh.kubectl(["rollout", "status", "deployment/secure", "-n", "shop", "--timeout=60s"]);

  const started = await eventually("HTTPS from the Secret", () => viaTls("shop.example.com"));
  assert.deepEqual([started.status, started.fingerprint], [200, fingerprint(first)]);
  const redirected = await curl([
    ...["-w", "%{redirect_url}\n%{http_code}", "-H", "Host: shop.example.com"],
    `${mesh.gatewayUrl}/cart`,
  ]);
  assert.equal(redirected.status, 301);
  assert.match(redirected.body, /https:\/\/shop\.example\.com/);
  await assert.rejects(tls("other.example.com"), "a server name that nobody has");
  const passed = await eventually("TLS that passes through", () => viaTls("secure.example.com"));
  assert.deepEqual([passed.status, passed.fingerprint], [200, fingerprint(behind)]);

  const replaced = `${await mesh.kubectl([...secretWords("shop-cert", "sm-gateways", second), "--dry-run=client", "-o", "yaml"])}`;
  await mesh.kubectl(["replace", "-f", "-"], replaced);
  let asked = 0;
  for (let seen = ""; seen !== fingerprint(second); asked++) {
    const answer = await tls("shop.example.com");
    assert.equal(answer.status, 200);
    assert.ok(asked < 1_000, "the new certificate is served");
    seen = answer.fingerprint;
    await pause(10);
  }
});

const secureBackend = `apiVersion: v1
kind: Service
metadata: {name: secure, namespace: shop}
spec: {selector: {app: secure}, ports: [{name: tls, port: 443, targetPort: 8443}]}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: secure, namespace: shop}
spec:
  selector: {matchLabels: {app: secure}}
  template:
    metadata: {labels: {app: secure}}
    spec:
      terminationGracePeriodSeconds: 2
      containers:
      - name: echo
        image: mizzen/demo:latest
        args: [echo, --service, secure, --https, "8443", --key-file, /tls/tls.key, --cert-file, /tls/tls.crt]
        volumeMounts: [{name: tls, mountPath: /tls}]
      volumes: [{name: tls, secret: {secretName: secure-cert}}]
---
`;

const entrance = `apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: shop, namespace: shop}
spec:
  selector: {istio: ingressgateway}
  servers:
  - {port: {number: 80, name: http, protocol: HTTP}, hosts: [shop.example.com], tls: {httpsRedirect: true}}
  - {port: {number: 443, name: https, protocol: HTTPS}, hosts: [shop.example.com], tls: {mode: SIMPLE, credentialName: shop-cert}}
  - {port: {number: 443, name: tls, protocol: TLS}, hosts: [secure.example.com], tls: {mode: PASSTHROUGH}}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: shop, namespace: shop}
spec:
  hosts: [shop.example.com]
  gateways: [shop]
  http: [{route: [{destination: {host: back, port: {number: 80}}}]}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: secure, namespace: shop}
spec:
  hosts: [secure.example.com]
  gateways: [shop]
  tls: [{match: [{sniHosts: [secure.example.com]}], route: [{destination: {host: secure, port: {number: 443}}}]}]
`;

test("the operator's own CA signs after istiod's restart, and workloads' chains lead to its root", async () => {
  const ca = operatorAuthority();
  await mesh.kubectl([
    ...["create", "secret", "generic", "cacerts", "-n", "istio-d"],
    ...Object.entries(ca).map(([file, path]) => `--from-file=${file}=${path}`),
  ]);
  await mesh.kubectl(["rollout", "restart", "deployment/istiod", "-n", "istio-d"]);
  await mesh.kubectl(["rollout", "status", "deployment/istiod", "-n", "istio-d", "--timeout=60s"]);
  const rootPem = readFileSync(ca["root-cert.pem"], "utf8");
  await eventually("the new root is in every namespace", async () => {
    const shown = [
      "get",
      "configmap",
      "istio-ca-root-cert",
      "-n",
      "shop",
      "-o",
      "jsonpath={.data.root-cert\\.pem}",
    ];
    return (await mesh.kubectl(shown)).trim() === rootPem.trim() ? true : undefined;
  });
  for (const app of ["front", "back"]) {
    await mesh.kubectl(["rollout", "restart", `deployment/${app}`, "-n", "shop"]);
    await mesh.kubectl(["rollout", "status", `deployment/${app}`, "-n", "shop", "--timeout=60s"]);
    await eventually(`the old pod of ${app} is gone`, async () => {
      const pods = await mesh.kubectl(["get", "pods", "-n", "shop", "-l", `app=${app}`, "-o", "name"]);
      return pods.trim().split("\n").length === 1 ? true : undefined;
    });
  }
  front = await podIp(mesh, "shop", "app=front");
  await eventually("traffic under the new root", async () =>
    (await statusOf("http://back.shop/")) === 200 ? true : undefined,
  );
  const back = await podIp(mesh, "shop", "app=back");
  const shown = await mesh.inNode([
    ...["openssl", "s_client", "-connect", `${back}:8080`, "-alpn", "istio", "-showcerts"],
  ]);
  const chain = shown.stdout.match(/-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----/g) ?? [];
  const [leaf, signer] = chain.map((pem) => new X509Certificate(pem));
  assert.equal(leaf?.subjectAltName, "URI:spiffe://cluster.local/ns/shop/sa/back");
  assert.ok(signer !== undefined && leaf?.verify(signer.publicKey), "signed by the intermediate");
  assert.ok(signer.verify(new X509Certificate(rootPem).publicKey), "which the operator's root signed");
  assert.match(await injected("shop"), /istio-proxy/, "webhooks are trusted by the new root");
});

async function replaceInConfigMap(name: string, key: string, from: string, to: string): Promise<void> {
  const text = await configText(mesh, name, key);
  assert.ok(text.includes(from), `${name} has ${from}`);
  await patchConfig(mesh, name, { [key]: text.replace(from, to) });
}

interface KeyPair {
  readonly key: string;
  readonly certificate: string;
}

function openssl(...words: readonly string[]): void {
  const ran = spawnSync("openssl", words, { encoding: "utf8" });
  assert.equal(ran.status, 0, ran.stderr);
}

const newKey = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"];

function selfSigned(file: string, host: string): KeyPair {
  const key = join(scratch, `${file}.key`);
  const certificate = join(scratch, `${file}.crt`);
  const names = ["-subj", `/CN=${host}`, "-addext", `subjectAltName=DNS:${host}`];
  openssl("req", "-x509", ...newKey, "-days", "2", "-keyout", key, "-out", certificate, ...names);
  return { key, certificate };
}

/** A root and an intermediate that signs, as the files of the Secret `cacerts`. */
function operatorAuthority(): Record<
  "ca-cert.pem" | "ca-key.pem" | "root-cert.pem" | "cert-chain.pem",
  string
> {
  const at = (file: string) => join(scratch, file);
  const may = ["basicConstraints=critical,CA:true", "keyUsage=critical,keyCertSign,cRLSign"];
  const files = ["-keyout", at("root.key"), "-out", at("root.crt")];
  openssl("req", "-x509", ...newKey, "-days", "30", ...files, "-subj", "/O=Operator/CN=Root");
  openssl(
    "req",
    "-new",
    ...newKey,
    "-keyout",
    at("ca.key"),
    "-out",
    at("ca.csr"),
    "-subj",
    "/O=Operator/CN=CA",
  );
  writeFileSync(at("ca.ext"), `${may.join("\n")}\n`);
  const signing = [
    "-CA",
    at("root.crt"),
    "-CAkey",
    at("root.key"),
    "-CAcreateserial",
    "-extfile",
    at("ca.ext"),
  ];
  openssl("x509", "-req", "-in", at("ca.csr"), ...signing, "-days", "20", "-out", at("ca.crt"));
  return {
    "ca-cert.pem": at("ca.crt"),
    "ca-key.pem": at("ca.key"),
    "root-cert.pem": at("root.crt"),
    "cert-chain.pem": at("ca.crt"),
  };
}

function secretWords(name: string, namespace: string, { key, certificate }: KeyPair): string[] {
  return ["create", "secret", "tls", name, "-n", namespace, `--key=${key}`, `--cert=${certificate}`];
}

function fingerprint({ certificate }: KeyPair): string {
  return new X509Certificate(readFileSync(certificate)).fingerprint256;
}

interface TlsAnswer {
  readonly status: number;
  /** Of the certificate that was served. */
  readonly fingerprint: string;
}

/** One request through the gateway's HTTPS port on a connection of its own; rejects when there is no TLS. */
function tls(host: string): Promise<TlsAnswer> {
  return new Promise((resolve, reject) => {
    const options = { host: "127.0.0.1", port: httpsPort, servername: host, headers: { host }, agent: false };
    // The certificates are the test's own; which one is served is what it looks at.
    const sent = request({ ...options, rejectUnauthorized: false, timeout: 5_000 }, (response) => {
      const { fingerprint256 } = (response.socket as TLSSocket).getPeerCertificate();
      response.resume();
      response.on("end", () => resolve({ status: response.statusCode ?? 0, fingerprint: fingerprint256 }));
    });
    sent.on("timeout", () => sent.destroy(new Error("timed out")));
    sent.on("error", reject);
    sent.end();
  });
}

async function viaTls(host: string): Promise<TlsAnswer | undefined> {
  const answer = await tls(host);
  return answer.status === 200 ? answer : undefined;
}
