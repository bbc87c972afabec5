// What stands before a gateway, as MeshConfig's and the Pod's `gatewayTopology` say it: whose connection it is by the
// PROXY protocol, how many proxies before it are believed, and which words on clients' certificates go on; and the TLS that
// MeshConfig's `tlsDefaults` have it speak.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { parse, stringify } from "yaml";
import type { MeshConfig } from "#objects";
import { TestAuthority, type Pair } from "../support/test-authority.ts";
import { deployEchoes, type Echo } from "./echoes.ts";
import { leftovers } from "./leftovers.ts";
import { configText, eventually, type Mesh, patchConfig, startMesh } from "./mesh.ts";
import { callTls, type TlsCall } from "./tls-client.ts";

const name = "gateway-topology-e2e";
const apiPort = 18_760;
const port = apiPort + 1;
const host = "web.example.com";
const gatewayNamespace = "sm-gateways";
const forwardedFor = "x-forwarded-for";
const externalAddress = "x-envoy-external-address";
const clientCertificate = "x-forwarded-client-cert";

let mesh: Mesh;
let client: Pair;
let written: Readonly<Record<string, unknown>>;

before(async () => {
  const authority = await TestAuthority.create("ours");
  client = await authority.issue(["client.example.com"]);
  const server = await authority.issue([host]);
  mesh = await startMesh({ name, port: apiPort });
  written = parse(await configText(mesh, "istio", "mesh")) as typeof written;
  // Without a sidecar, so that it shows what the gateway sent.
  const ports = [{ name: "http", servicePort: 80, workloadPort: 8080, flag: "http" }] as const;
  await deployEchoes(mesh, [{ name: "web", namespace: "default", ports, naked: true }]);
  const objects = [...gateway(), secret(server, authority.certificate)];
  await mesh.kubectl(["apply", "-f", "-"], objects.map((object) => stringify(object)).join("---\n"));
  await eventually("the gateway serves", async () => seen());
});
after(async () => {
  await mesh?.down();
  assert.deepEqual(await leftovers(name), [], "nothing of ours is left on the machine");
});

function secret({ certificate, key }: Pair, ca: string): object {
  return {
    apiVersion: "v1",
    kind: "Secret",
    metadata: { name: "server", namespace: gatewayNamespace },
    stringData: { "tls.crt": certificate, "tls.key": key, "ca.crt": ca },
  };
}

function gateway(): object[] {
  const metadata = { name: "web", namespace: gatewayNamespace };
  const destination = { host: "web.default.svc.cluster.local", port: { number: 80 } };
  return [
    {
      apiVersion: "networking.istio.io/v1",
      kind: "Gateway",
      metadata,
      spec: {
        selector: { istio: "ingressgateway" },
        servers: [
          {
            port: { number: 443, name: "https", protocol: "HTTPS" },
            hosts: [host],
            tls: { mode: "OPTIONAL_MUTUAL", credentialName: "server" },
          },
        ],
      },
    },
    {
      apiVersion: "networking.istio.io/v1",
      kind: "VirtualService",
      metadata,
      spec: { hosts: [host], gateways: ["web"], http: [{ route: [{ destination }] }] },
    },
  ];
}

/** MeshConfig as the mesh came with it, and this of its gateways. */
async function stand(gatewayTopology: object, more: MeshConfig = {}): Promise<void> {
  const defaultConfig = { ...(written["defaultConfig"] as object), gatewayTopology };
  await patchConfig(mesh, "istio", { mesh: stringify({ ...written, ...more, defaultConfig }) });
}

/** The headers as the application got them; rejects where it was not reached. */
async function seen(more: Partial<TlsCall> = {}): Promise<Readonly<Record<string, string>>> {
  const answer = await callTls({ port, host, ...more });
  assert.equal(answer.status, 200);
  return (JSON.parse(answer.body) as Echo).headers;
}

/** Until the gateway does as it is told now; what it said before counts as little as what it does meanwhile. */
async function becomes(what: string, call: Partial<TlsCall>, wanted: Readonly<Record<string, unknown>>) {
  await eventually(what, async () => {
    const headers = await seen(call);
    assert.deepEqual(Object.fromEntries(Object.keys(wanted).map((key) => [key, headers[key]])), wanted);
    return true;
  });
}

test("with the PROXY protocol the application hears of the client that the load balancer names", async () => {
  await stand({ proxyProtocol: {} });
  const told = { [forwardedFor]: "203.0.113.7", [externalAddress]: "203.0.113.7" };
  const preface = "PROXY TCP4 203.0.113.7 192.0.2.1 4321 443\r\n";
  await becomes("the named client", { preface }, told);
  const over6 = "PROXY TCP6 2001:db8::7 2001:db8::1 4321 443\r\n";
  assert.equal((await seen({ preface: over6 }))[forwardedFor], "2001:db8::7");
  await assert.rejects(seen(), "a connection without the header is nobody's");
  await stand({});
  await eventually("and without it again", async () => seen());
  await assert.rejects(seen({ preface }), "now it is no TLS");
});

test("as many proxies are believed as MeshConfig counts, and no address that the client made up before them", async () => {
  const headers = { [forwardedFor]: "198.51.100.1, 203.0.113.8, 203.0.113.9" };
  const asTold = async (numTrustedProxies: number) => {
    await stand({ numTrustedProxies });
    const believed = numTrustedProxies === 1 ? "203.0.113.9" : "203.0.113.8";
    await becomes(`${numTrustedProxies} proxies`, { headers }, { [externalAddress]: believed });
  };
  await asTold(1);
  await asTold(2);
  await stand({});
  await eventually("nobody is believed", async () => {
    const direct = await seen({ headers });
    assert.doesNotMatch(direct[externalAddress] ?? "", /^(203\.0\.113|198\.51\.100)\./);
    return true;
  });
});

test("what clients say of certificates is dropped, passed on or added to, as MeshConfig has it", async () => {
  const said = 'By=spiffe://elsewhere;Subject="CN=said"';
  const call = { client, headers: { [clientCertificate]: said } };
  await stand({ forwardClientCertDetails: "SANITIZE" });
  await becomes("nothing", call, { [clientCertificate]: undefined });
  await stand({ forwardClientCertDetails: "FORWARD_ONLY" });
  await becomes("what was said", call, { [clientCertificate]: said });
  assert.equal((await seen({ headers: call.headers }))[clientCertificate], undefined, "of nobody unknown");
  await stand({ forwardClientCertDetails: "ALWAYS_FORWARD_ONLY" });
  await becomes("even so", { headers: call.headers }, { [clientCertificate]: said });
  await stand({ forwardClientCertDetails: "APPEND_FORWARD" });
  await eventually("both", async () => {
    const both = (await seen(call))[clientCertificate] ?? "";
    assert.ok(both.startsWith(`${said},`), both);
    assert.match(both.slice(said.length), /Subject="CN=client\.example\.com"/);
    return true;
  });
  await stand({});
  await eventually("the client's own alone", async () => {
    const own = (await seen(call))[clientCertificate] ?? "";
    assert.doesNotMatch(own, /CN=said/);
    assert.match(own, /Subject="CN=client\.example\.com"/);
    return true;
  });
});

test("handshakes below MeshConfig's least version are refused, and its curves are those that keys are agreed on by", async () => {
  const old = { port, host, tls: { maxVersion: "TLSv1.2" } } as const;
  await stand({});
  await eventually("the older version", async () => {
    assert.equal((await callTls(old)).protocol, "TLSv1.2");
    return true;
  });
  await stand({}, { tlsDefaults: { minProtocolVersion: "TLSV1_3", ecdhCurves: ["P-384"] } });
  await eventually("the named curve", async () => {
    const { protocol, curve } = await callTls({ port, host });
    assert.deepEqual([protocol, curve], ["TLSv1.3", "secp384r1"]);
    return true;
  });
  await assert.rejects(callTls(old), /alert|protocol version|handshake/i);
  await stand({});
  await eventually("the older version again", async () => {
    assert.equal((await callTls(old)).status, 200);
    return true;
  });
});

test("what the gateway's Pod says goes before MeshConfig, and the rest of MeshConfig holds beside it", async () => {
  await stand({ numTrustedProxies: 1, forwardClientCertDetails: "SANITIZE" });
  const annotations = { "proxy.istio.io/config": stringify({ gatewayTopology: { numTrustedProxies: 2 } }) };
  const patch = JSON.stringify({ spec: { template: { metadata: { annotations } } } });
  const of = ["deployment/istio-ingressgateway", "-n", gatewayNamespace];
  await mesh.kubectl(["patch", ...of, "--type=strategic", "-p", patch]);
  await mesh.kubectl(["rollout", "status", ...of, "--timeout=60s"]);
  const headers = { [forwardedFor]: "198.51.100.1, 203.0.113.8, 203.0.113.9" };
  const wanted = { [externalAddress]: "203.0.113.8", [clientCertificate]: undefined };
  await becomes("the Pod's count", { client, headers }, wanted);
});
