// TLS at the mesh's edge, as clients outside see it: every mode, credentials from Secrets in all their forms, rotation under open
// connections, revocation, pins, versions, ciphers, and what a Gateway that names no usable Secret does to the others. One mesh;
// all servers share one port and are told apart by server name.

import assert from "node:assert/strict";
import { X509Certificate } from "node:crypto";
import { Agent } from "node:https";
import { after, before, test } from "node:test";
import { stringify } from "yaml";
import { hashPin, spkiPin, TestAuthority, type Pair } from "../support/test-authority.ts";
import { deployEchoes, echoIn, order, podIp, type Echo, type EchoApp } from "./echoes.ts";
import type { Http3Answer, Http3Calls } from "./http3-client.ts";
import type { Knock, Reply } from "./knock.ts";
import { leftovers } from "./leftovers.ts";
import { eventually, pause, root, startMesh, type Mesh } from "./mesh.ts";
import { callTls, type TlsAnswer, type TlsCall } from "./tls-client.ts";

const name = "gateway-tls-e2e";
const apiPort = 18_690;
const port = apiPort + 1;
const gatewayNamespace = "sm-gateways";
const ports = [{ name: "http", servicePort: 80, workloadPort: 8080, flag: "http" }] as const;

/** Sidecars that originate TLS, by Secrets or by files that are mounted. */
const mounts = {
  "sidecar.istio.io/userVolume": JSON.stringify({ client: { secret: { secretName: "client-files" } } }),
  "sidecar.istio.io/userVolumeMount": JSON.stringify({
    client: { mountPath: "/etc/client", readOnly: true },
  }),
};
const callers: readonly EchoApp[] = [
  { name: "caller", namespace: "default", ports, annotations: mounts },
  { name: "other", namespace: "default", ports },
];

/** In every certificate: a client of QUIC takes no other name. */
const calledOverQuic = ["simple.example.com", "kinds.example.com", "optional.example.com"];
const gatewayApiHost = "api.example.com";

let mesh: Mesh;
let authority: TestAuthority;
let stranger: TestAuthority;
const pairs = new Map<string, Pair>();

before(async () => {
  authority = await TestAuthority.create("ours");
  stranger = await TestAuthority.create("stranger");
  for (const [pair, type] of [
    ["first", "ecdsa"],
    ["second", "ecdsa"],
    ["server", "ecdsa"],
    ["rsa", "rsa"],
    ["client", "ecdsa"],
    ["revoked", "ecdsa"],
    ["other-client", "ecdsa"],
  ] as const)
    pairs.set(pair, await authority.issue([`${pair}.example.com`, ...calledOverQuic, gatewayApiHost], type));
  pairs.set("stranger", await stranger.issue(["client.example.com"]));
  mesh = await startMesh({ name, port: apiPort });
  await speakHttp3();
  await mesh.kubectl(["create", "namespace", "teams"]);
  await mesh.kubectl(["label", "namespace", "default", "istio-injection=enabled", "--overwrite"]);
  // Without a sidecar, so that it shows what the gateway sent.
  const web = { name: "web", namespace: "default", ports, naked: true };
  await apply(...(await secrets()));
  await deployEchoes(mesh, [web, ...callers]);
  await apply(...gateways(), ...routes());
  await eventually("the gateway serves", async () =>
    (await call("simple.example.com")).status === 200 ? true : undefined,
  );
});
after(async () => {
  await mesh?.down();
  assert.deepEqual(await leftovers(name), [], "nothing of ours is left on the machine");
});

/** Switched on, and the gateway's Service has the port for UDP. */
async function speakHttp3(): Promise<void> {
  await mesh.kubectl(["set", "env", "deployment/istiod", "-n", "istio-d", "QUIC_LISTENERS=true"]);
  await mesh.kubectl(["rollout", "status", "deployment/istiod", "-n", "istio-d", "--timeout=60s"]);
  const quic = { name: "https-quic", port: 443, targetPort: 8443, protocol: "UDP" };
  const patch = JSON.stringify([{ op: "add", path: "/spec/ports/-", value: quic }]);
  const words = ["patch", "service", "istio-ingressgateway", "-n", gatewayNamespace, "--type=json", "-p"];
  await mesh.kubectl([...words, patch]);
}

function pair(wanted: string): Pair {
  const found = pairs.get(wanted);
  assert.ok(found, wanted);
  return found;
}

async function secrets(): Promise<object[]> {
  const server = pair("server");
  const serving = { "tls.crt": server.certificate, "tls.key": server.key };
  const ca = authority.certificate;
  return [
    secret("rotated", { "tls.crt": pair("first").certificate, "tls.key": pair("first").key }),
    secret("server", serving),
    secret("older", { cert: server.certificate, key: server.key, cacert: ca }),
    secret("apart", serving),
    secret("apart-cacert", { "ca.crt": ca }),
    secret("listed", { ...serving, "ca.crt": ca, "ca.crl": await authority.revoking(pair("revoked")) }),
    secret("mutual", { ...serving, "ca.crt": ca }),
    secret("rsa", { "tls.crt": pair("rsa").certificate, "tls.key": pair("rsa").key }),
    secret("malformed", { "tls.crt": garbage, "tls.key": server.key }),
    secret("mismatched", { "tls.crt": server.certificate, "tls.key": pair("client").key }),
    secret("unreadable", { ...serving, "ca.crt": ca, "ca.crl": garbage }),
    secret("foreign", serving, "default"),
    secret(
      "client",
      { "tls.crt": pair("client").certificate, "tls.key": pair("client").key, "ca.crt": ca },
      "default",
    ),
    secret(
      "client-files",
      {
        "own.crt": pair("client").certificate,
        "own.key": pair("client").key,
        "ca.crt": ca,
        "of-server.crl": await authority.revoking(server),
      },
      "default",
    ),
  ];
}

/** Looks like PEM, and is none. */
const garbage = "-----BEGIN CERTIFICATE-----\nMAAB\n-----END CERTIFICATE-----\n";

function secret(secretName: string, texts: Readonly<Record<string, string>>, namespace = gatewayNamespace) {
  return {
    apiVersion: "v1",
    kind: "Secret",
    metadata: { name: secretName, namespace },
    stringData: texts,
  };
}

function gateways(): object[] {
  return [
    gateway("modes", gatewayNamespace, {
      simple: { mode: "SIMPLE", credentialName: "server" },
      rotated: { mode: "SIMPLE", credentialName: "rotated" },
      older: { mode: "MUTUAL", credentialName: "older" },
      apart: { mode: "MUTUAL", credentialName: "apart" },
      optional: { mode: "OPTIONAL_MUTUAL", credentialName: "mutual" },
      listed: { mode: "MUTUAL", credentialName: "listed" },
      mesh: { mode: "ISTIO_MUTUAL" },
      kinds: { mode: "SIMPLE", credentialNames: ["rsa", "server"] },
      spki: {
        mode: "MUTUAL",
        credentialName: "mutual",
        verifyCertificateSpki: [spkiPin(pair("client"))],
      },
      hash: {
        mode: "MUTUAL",
        credentialName: "mutual",
        verifyCertificateHash: [hashPin(pair("client"))],
      },
      newest: { mode: "SIMPLE", credentialName: "server", minProtocolVersion: "TLSV1_3" },
      bounded: {
        mode: "SIMPLE",
        credentialName: "server",
        maxProtocolVersion: "TLSV1_2",
        cipherSuites: ["ECDHE-ECDSA-AES256-GCM-SHA384"],
        ecdhCurves: ["P-384"],
      },
    }),
    // Another Gateway on the same port, of another namespace.
    gateway("teams", "teams", { teams: { mode: "SIMPLE", credentialName: "server" } }, "teams/"),
    gateway("unusable", gatewayNamespace, {
      missing: { mode: "SIMPLE", credentialName: "missing" },
      malformed: { mode: "SIMPLE", credentialName: "malformed" },
      mismatched: { mode: "SIMPLE", credentialName: "mismatched" },
      foreign: { mode: "SIMPLE", credentialName: "kubernetes://default/foreign" },
      lacking: { mode: "MUTUAL", credentialName: "server" },
      unreadable: { mode: "MUTUAL", credentialName: "unreadable" },
    }),
  ];
}

function gateway(
  gatewayName: string,
  namespace: string,
  servers: Readonly<Record<string, object>>,
  before = "",
): object {
  return {
    apiVersion: "networking.istio.io/v1",
    kind: "Gateway",
    metadata: { name: gatewayName, namespace },
    spec: {
      selector: { istio: "ingressgateway" },
      servers: Object.entries(servers).map(([label, tls]) => ({
        port: { number: 443, name: label, protocol: "HTTPS" },
        hosts: [`${before}${label}.example.com`],
        tls,
      })),
    },
  };
}

function routes(): object[] {
  const bound = ["modes", "unusable"].map((gatewayName) => `${gatewayNamespace}/${gatewayName}`);
  const toWeb = { route: [{ destination: { host: "web.default.svc.cluster.local", port: { number: 80 } } }] };
  const said = (body: string) => ({ directResponse: { status: 200, body: { string: body } } });
  return [
    virtualService("web", "default", [...bound, "teams/teams"], ["*.example.com"], toWeb),
    virtualService("teams", "teams", ["teams"], ["teams.example.com"], said("of the team")),
  ];
}

function virtualService(
  routeName: string,
  namespace: string,
  of: readonly string[],
  hosts: readonly string[],
  route: object,
): object {
  return {
    apiVersion: "networking.istio.io/v1",
    kind: "VirtualService",
    metadata: { name: routeName, namespace },
    spec: { hosts, gateways: of, http: [route] },
  };
}

async function apply(...objects: readonly object[]): Promise<void> {
  await mesh.kubectl(["apply", "-f", "-"], objects.map((object) => stringify(object)).join("---\n"));
}

function call(host: string, more: Partial<TlsCall> = {}): Promise<TlsAnswer> {
  return callTls({ port, host, ...more });
}

function fingerprint({ certificate }: Pair): string {
  return new X509Certificate(certificate).fingerprint256;
}

function headersIn({ body }: TlsAnswer): Readonly<Record<string, string>> {
  return (JSON.parse(body) as Echo).headers;
}

async function admitted(host: string, client?: string): Promise<TlsAnswer> {
  const answer = await call(host, client === undefined ? {} : { client: pair(client) });
  assert.equal(answer.status, 200, `${host} with ${client}`);
  return answer;
}

async function refused(host: string, client?: string): Promise<void> {
  const calling = call(host, client === undefined ? {} : { client: pair(client) });
  await assert.rejects(calling, `${host} with ${client ?? "no certificate"}`);
}

test("a new certificate in the Secret is served to new connections, and open ones go on without a failed request", async () => {
  const agent = new Agent({ keepAlive: true, maxSockets: 1 });
  const host = "rotated.example.com";
  const seen: TlsAnswer[] = [];
  const stop = new AbortController();
  const going = (async () => {
    while (!stop.signal.aborted) {
      seen.push(await call(host, { agent }));
      await pause(10);
    }
  })();
  const { certificate, key } = pair("second");
  await eventually("a first answer", async () => (seen.length > 0 ? true : undefined));
  await apply(secret("rotated", { "tls.crt": certificate, "tls.key": key }));
  await eventually("new handshakes see the new certificate", async () => {
    const answer = await call(host);
    assert.equal(answer.status, 200);
    return answer.fingerprint === fingerprint(pair("second")) ? true : undefined;
  });
  const sofar = seen.length;
  await eventually("more answers on the old connection", async () =>
    seen.length > sofar + 5 ? true : undefined,
  );
  stop.abort();
  await going;
  agent.destroy();
  assert.deepEqual([...new Set(seen.map(({ status }) => status))], [200]);
  assert.equal(new Set(seen.map(({ localPort }) => localPort)).size, 1, "one connection");
  assert.equal(seen.at(-1)?.fingerprint, fingerprint(pair("first")), "made under the old certificate");
});

test("mutual TLS takes clients of the Secret's CA alone, in both layouts and with the CA apart", async () => {
  for (const host of ["older.example.com", "apart.example.com"]) {
    const answer = await admitted(host, "client");
    const said = headersIn(answer)["x-forwarded-client-cert"] ?? "";
    assert.match(said, /Subject="CN=client\.example\.com"/, "the application hears who called");
    assert.match(said, /DNS=client\.example\.com/);
    await refused(host);
    await refused(host, "stranger");
  }
});

test("optional mutual TLS takes clients without a certificate, and refuses those with a foreign one", async () => {
  const without = headersIn(await admitted("optional.example.com"));
  assert.equal(without["x-forwarded-client-cert"], undefined);
  const forged = { "x-forwarded-client-cert": "Subject=admin" };
  const claimed = await call("optional.example.com", { headers: forged });
  assert.equal(headersIn(claimed)["x-forwarded-client-cert"], undefined, "nobody may claim one");
  const known = headersIn(await admitted("optional.example.com", "client"));
  assert.match(known["x-forwarded-client-cert"] ?? "", /Subject="CN=client\.example\.com"/);
  await refused("optional.example.com", "stranger");
});

test("a client certificate that the Secret's list revokes is refused, and another is taken; a new list counts", async () => {
  await admitted("listed.example.com", "client");
  await refused("listed.example.com", "revoked");
  const patch = { stringData: { "ca.crl": await authority.revoking(pair("client")) } };
  const words = ["patch", "secret", "listed", "-n", gatewayNamespace, "--type=merge", "-p"];
  await mesh.kubectl([...words, JSON.stringify(patch)]);
  await eventually("the one that was revoked before is taken", async () => {
    await admitted("listed.example.com", "revoked");
    return true;
  });
  await refused("listed.example.com", "client");
});

test("mutual TLS of the mesh takes workloads' certificates and nobody else's", async () => {
  await refused("mesh.example.com");
  await refused("mesh.example.com", "client");
  const workload = await workloadPair();
  const answer = await call("mesh.example.com", { client: workload });
  assert.equal(answer.status, 200);
  assert.match(
    headersIn(answer)["x-forwarded-client-cert"] ?? "",
    /URI=spiffe:\/\/cluster\.local\/ns\/default\/sa\/web/,
  );
});

test("a server with certificates of both key types shows each client what it can verify", async () => {
  const asking = (ciphers: string) => call("kinds.example.com", { tls: { ciphers, maxVersion: "TLSv1.2" } });
  const answers = await Promise.all([
    asking("ECDHE-RSA-AES128-GCM-SHA256"),
    asking("ECDHE-ECDSA-AES128-GCM-SHA256"),
  ]);
  assert.deepEqual(
    answers.map((answer) => [answer.status, answer.fingerprint]),
    [
      [200, fingerprint(pair("rsa"))],
      [200, fingerprint(pair("server"))],
    ],
  );
});

test("pins of key or certificate take the one client that they name, and no other of the same CA", async () => {
  for (const host of ["spki.example.com", "hash.example.com"]) {
    await admitted(host, "client");
    await refused(host, "other-client");
    await refused(host);
  }
});

test("a server speaks the versions, ciphers and curves that it names, and no others", async () => {
  const newest = await admitted("newest.example.com");
  assert.equal(newest.protocol, "TLSv1.3");
  await assert.rejects(call("newest.example.com", { tls: { maxVersion: "TLSv1.2" } }));
  const bounded = await admitted("bounded.example.com");
  assert.deepEqual(
    [bounded.protocol, bounded.cipher, bounded.curve],
    ["TLSv1.2", "ECDHE-ECDSA-AES256-GCM-SHA384", "secp384r1"],
  );
  await assert.rejects(call("bounded.example.com", { tls: { minVersion: "TLSv1.3" } }));
  await assert.rejects(call("bounded.example.com", { tls: { ciphers: "ECDHE-ECDSA-AES128-GCM-SHA256" } }));
  await assert.rejects(call("bounded.example.com", { tls: { ecdhCurve: "prime256v1" } }));
  const free = await call("simple.example.com", { tls: { maxVersion: "TLSv1.2" } });
  assert.equal(free.status, 200, "others take what these refuse");
});

test("several Gateways share the port, and a host of one namespace is routed by that namespace alone", async () => {
  const answer = await call("teams.example.com");
  assert.deepEqual([answer.status, answer.body], [200, "of the team"]);
});

test("where HTTP/3 is on, clients of TCP hear of it, but not at servers that ask for their certificates", async () => {
  await eventually("the header names the port", async () =>
    (await call("simple.example.com")).headers["alt-svc"] === 'h3=":443"; ma=86400' ? true : undefined,
  );
  assert.equal((await call("older.example.com", { client: pair("client") })).headers["alt-svc"], undefined);
});

test("over HTTP/3 a client reaches the application by each server's name, but none that asks for certificates", async () => {
  await eventually("two answer", async () => {
    const answers = await overQuic("istio-ingressgateway", calledOverQuic);
    const statuses = answers.map(({ status }) => status);
    assert.deepEqual(statuses, [200, 200, 503], JSON.stringify(answers));
    for (const { body } of answers.slice(0, 2)) assert.equal((JSON.parse(body) as Echo).service, "web");
    return true;
  });
  // The one that is not there over QUIC takes the same client over TCP.
  await admitted("optional.example.com");
});

test("what is posted over HTTP/3 arrives whole", async () => {
  const bodyBytes = 300_000;
  const [answer] = await overQuic("istio-ingressgateway", ["simple.example.com"], bodyBytes);
  assert.equal(answer?.status, 200, JSON.stringify(answer));
  const echo = JSON.parse(answer.body) as Echo;
  assert.deepEqual([echo.service, echo.method, echo.bodyBytes], ["web", "POST", bodyBytes]);
});

test("a Gateway of Gateway API speaks HTTP/3 by itself, and its clients of TCP hear of it", async () => {
  await apply(...gatewayOfGatewayApi());
  await eventually("an answer over QUIC, to a GET and a POST", async () => {
    for (const bodyBytes of [0, 10_000]) {
      const [answer] = await overQuic("front-istio", [gatewayApiHost], bodyBytes);
      assert.equal(answer?.status, 200, JSON.stringify(answer));
      const echo = JSON.parse(answer.body) as Echo;
      assert.deepEqual([echo.service, echo.bodyBytes], ["web", bodyBytes]);
    }
    return true;
  });
  const to = `${gatewayApiHost}:443:${await clusterIpOf("front-istio")}`;
  const words = ["curl", "-ski", "--resolve", to, `https://${gatewayApiHost}/`];
  const { stdout } = await mesh.inNode(words);
  assert.match(stdout, /^alt-svc: h3=":443"; ma=86400/m);
});

function gatewayOfGatewayApi(): object[] {
  const apiVersion = "gateway.networking.k8s.io/v1";
  const namespace = gatewayNamespace;
  const tls = { mode: "Terminate", certificateRefs: [{ name: "server" }] };
  return [
    {
      apiVersion,
      kind: "Gateway",
      metadata: { name: "front", namespace },
      spec: {
        gatewayClassName: "istio",
        listeners: [
          {
            name: "https",
            port: 443,
            protocol: "HTTPS",
            hostname: gatewayApiHost,
            tls,
            allowedRoutes: { namespaces: { from: "All" } },
          },
        ],
      },
    },
    {
      apiVersion,
      kind: "HTTPRoute",
      metadata: { name: "front", namespace: "default" },
      spec: {
        parentRefs: [{ name: "front", namespace }],
        hostnames: [gatewayApiHost],
        rules: [{ backendRefs: [{ name: "web", port: 80 }] }],
      },
    },
  ];
}

function clusterIpOf(service: string): Promise<string> {
  const words = ["get", `service/${service}`, "-n", gatewayNamespace, "-o", "jsonpath={.spec.clusterIP}"];
  return mesh.kubectl(words);
}

/** Calls hosts of a gateway's Service over QUIC, from inside the node's network. */
async function overQuic(
  service: string,
  hosts: readonly string[],
  bodyBytes = 0,
): Promise<readonly Http3Answer[]> {
  const address = await clusterIpOf(service);
  const calls: Http3Calls = { address, port: 443, root: authority.certificate, hosts, bodyBytes };
  const program = [process.execPath, `${root}/test/e2e/http3-client.ts`];
  const ran = await mesh.inNode(program, JSON.stringify(calls));
  assert.equal(ran.code, 0, ran.stderr);
  return JSON.parse(ran.stdout) as Http3Answer[];
}

test("a missing, malformed, mismatched or foreign Secret leaves its own host without TLS, and its Gateway says so", async () => {
  for (const label of ["missing", "malformed", "mismatched", "foreign"])
    await refused(`${label}.example.com`);
  for (const label of ["lacking", "unreadable"]) await refused(`${label}.example.com`, "client");
  await admitted("simple.example.com");
  await eventually("the status names each", async () => {
    const status = await mesh.kubectl([
      ...["get", "gateways.networking.istio.io", "unusable", "-n", gatewayNamespace, "-o"],
      "jsonpath={.status}",
    ]);
    for (const said of [
      /servers\[0\][^"]*Secret sm-gateways\/missing does not exist/,
      /servers\[1\][^"]*Secret sm-gateways\/malformed: holds a CERTIFICATE that/,
      /servers\[2\][^"]*Secret sm-gateways\/mismatched: the key is not that of the certificate/,
      /servers\[3\][^"]*Secret default\/foreign is not in the namespace of the gateway's pods, sm-gateways/,
      /servers\[4\][^"]*Secret sm-gateways\/server has neither ca\.crt nor cacert/,
      /servers\[5\][^"]*Secret sm-gateways\/unreadable: holds no X509 CRL in PEM/,
    ])
      assert.match(status, said);
    return true;
  });
});

test("a Secret that comes later is served, and the other hosts go on meanwhile", async () => {
  const { certificate, key } = pair("server");
  await apply(secret("missing", { "tls.crt": certificate, "tls.key": key }));
  await eventually("its host", async () =>
    (await call("missing.example.com")).status === 200 ? true : undefined,
  );
  await admitted("simple.example.com");
});

const files = { caCertificates: "/etc/client/ca.crt" };
const ownFiles = { ...files, clientCertificate: "/etc/client/own.crt", privateKey: "/etc/client/own.key" };

test("a sidecar shows the certificate of a Secret to servers outside, where a rule selects its workload", async () => {
  const host = "older.example.com";
  const rule = ["destinationrule", host, "-n", "default"];
  await originate(host, { mode: "MUTUAL", credentialName: "client" });
  await eventually("the rule says that the caller's service account may not read Secrets", async () => {
    const status = await mesh.kubectl(["get", ...rule, "-o", "jsonpath={.status}"]);
    assert.match(status, /MZ0404/);
    assert.match(status, /may not list the Secrets of default \(default\/caller\)/);
    return true;
  });
  await assert.rejects(called("caller", host), "nobody has allowed it the key");

  const reader = { name: "secret-reader", namespace: "default" };
  const ofRoles = (kind: string, rest: object) => ({
    ...{ apiVersion: "rbac.authorization.k8s.io/v1", kind, metadata: reader },
    ...rest,
  });
  await apply(
    ofRoles("Role", { rules: [{ apiGroups: [""], resources: ["secrets"], verbs: ["list"] }] }),
    ofRoles("RoleBinding", {
      roleRef: { apiGroup: "rbac.authorization.k8s.io", kind: "Role", name: reader.name },
      subjects: [{ kind: "ServiceAccount", name: "caller", namespace: "default" }],
    }),
  );
  // A rule that comes anew asks anew, without the minute that a refusal is remembered for. What a later rule does says that the
  // control plane knows that this one was gone.
  await mesh.kubectl(["delete", ...rule]);
  await originate("simple.example.com", { mode: "SIMPLE", ...files });
  await eventually("a later rule has its effect", async () => called("caller", "simple.example.com"));
  await originate(host, { mode: "MUTUAL", credentialName: "client" });
  await eventually("the caller is taken", async () => {
    const seen = await called("caller", host);
    assert.match(seen.headers["x-forwarded-client-cert"] ?? "", /Subject="CN=client\.example\.com"/);
    return true;
  });
  await assert.rejects(called("other", "older.example.com"), "no rule selects it");
});

test("a sidecar shows the certificate of files in its container to servers outside", async () => {
  await originate("apart.example.com", { mode: "MUTUAL", ...ownFiles });
  await eventually("the caller is taken", async () => {
    const seen = await called("caller", "apart.example.com");
    assert.match(seen.headers["x-forwarded-client-cert"] ?? "", /Subject="CN=client\.example\.com"/);
    return true;
  });
});

test("a sidecar refuses a server whose certificate a file of revoked ones names, and follows the file", async () => {
  const host = "simple.example.com";
  await originate(host, { mode: "SIMPLE", ...files, caCrl: "/etc/client/of-server.crl" });
  await eventually("by a list that names it", async () => {
    const [result] = await order(mesh, await caller("caller"), {
      url: "http://web.default/",
      headers: { host },
    });
    assert.equal(result?.status, 503);
    const log = await mesh.kubectl([
      "logs",
      "-n",
      "default",
      "-l",
      "app=caller",
      "-c",
      "istio-proxy",
      "--tail=5",
    ]);
    assert.match(log, /CERTIFICATE_VERIFY_FAILED.*simple\.example\.com/);
    return true;
  });
  const patch = { stringData: { "of-server.crl": await authority.revoking(pair("revoked")) } };
  const words = ["patch", "secret", "client-files", "-n", "default", "--type=merge", "-p"];
  await mesh.kubectl([...words, JSON.stringify(patch)]);
  await eventually("by the same file once it names others", async () => called("caller", host), 60_000);
});

/** Has the workload `caller` call a host of the gateway as one outside of the mesh, with TLS that its sidecar makes. */
async function originate(host: string, tls: object): Promise<void> {
  const address = await podIp(mesh, gatewayNamespace, "istio=ingressgateway");
  const ofHost = (kind: string, spec: object) => ({
    apiVersion: "networking.istio.io/v1",
    kind,
    metadata: { name: host, namespace: "default" },
    spec,
  });
  await apply(
    ofHost("ServiceEntry", {
      hosts: [host],
      location: "MESH_EXTERNAL",
      resolution: "STATIC",
      addresses: [`240.1.1.${addressesGiven++}`],
      ports: [{ number: 80, name: "http", protocol: "HTTP", targetPort: 8443 }],
      endpoints: [{ address }],
    }),
    ofHost("DestinationRule", {
      host,
      workloadSelector: { matchLabels: { app: "caller" } },
      trafficPolicy: { tls: { ...tls, sni: host, subjectAltNames: ["server.example.com"] } },
    }),
  );
}

let addressesGiven = 1;

async function caller(app: string): Promise<string> {
  return podIp(mesh, "default", `app=${app}`);
}

/** What the server saw; rejects with what came instead. */
async function called(app: string, host: string): Promise<Echo> {
  const url = "http://web.default/";
  const [result] = await order(mesh, await caller(app), { url, headers: { host } });
  assert.equal(result?.status, 200, JSON.stringify(result));
  const seen = echoIn(result);
  assert.equal(seen?.service, "web");
  return seen;
}

/** A certificate of the mesh's CA for the workload `web`, got as its proxy gets it. */
async function workloadPair(): Promise<Pair> {
  const pod = await mesh.kubectl([
    ...["get", "pods", "-n", "default", "-l", "app=web", "-o", "jsonpath={.items[0].metadata.name}"],
  ]);
  const token = await mesh.kubectl([
    ...["create", "token", "web", "-n", "default", "--audience", "istio-ca"],
    ...["--bound-object-kind", "Pod", "--bound-object-name", pod],
  ]);
  const knock: Knock = {
    ask: { kind: "certificate", csrFor: "spiffe://cluster.local/ns/default/sa/web" },
    address: await podIp(mesh, "istio-d", "app=istiod"),
    root: await mesh.kubectl([
      ...["get", "configmap/istio-ca-root-cert", "-n", "default", "-o", "jsonpath={.data.root-cert\\.pem}"],
    ]),
    token: token.trim(),
  };
  const ran = await mesh.inNode([process.execPath, `${root}/test/e2e/knock.ts`], JSON.stringify([knock]));
  assert.equal(ran.code, 0, ran.stderr);
  const [reply] = JSON.parse(ran.stdout) as Reply[];
  assert.ok(reply?.certificate, reply?.message ?? "no reply");
  return { certificate: reply.certificate.chain, key: reply.certificate.key };
}
