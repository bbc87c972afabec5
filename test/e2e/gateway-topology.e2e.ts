// What stands before a gateway, as MeshConfig's and the Pod's `gatewayTopology` say it: whose connection it is by the
// PROXY protocol, how many proxies before it are believed, and which words on clients' certificates go on; the TLS that
// MeshConfig's `tlsDefaults` have it speak; and what `proxyHeaders` and `connectionSettings` make of headers and connections, at
// the gateway and at sidecars.

import assert from "node:assert/strict";
import type { Socket } from "node:net";
import { after, before, test } from "node:test";
import { parse, stringify } from "yaml";
import type { MeshConfig } from "#objects";
import { TestAuthority, type Pair } from "../support/test-authority.ts";
import { layoutOf, podNetns } from "#cluster";
import { deployEchoes, echoIn, order, podIp, type Echo } from "./echoes.ts";
import { leftovers } from "./leftovers.ts";
import { command, configText, eventually, type Mesh, patchConfig, startMesh } from "./mesh.ts";
import { callTls, holdTls, idleMs, type TlsCall } from "./tls-client.ts";

const name = "gateway-topology-e2e";
const apiPort = 18_760;
const port = apiPort + 1;
const host = "web.example.com";
/** What the gateway makes of it for the application. */
const innerHost = "inner.example.com";
const gatewayNamespace = "sm-gateways";
const forwardedFor = "x-forwarded-for";
const externalAddress = "x-envoy-external-address";
const clientCertificate = "x-forwarded-client-cert";
/** Of the gateway's listener, once its Pod says so. */
const connectionsMax = 3;
/** What the Pods of `tuned` say for themselves. */
const ofTuned = {
  server: { value: "tuned/1" },
  setCurrentClientCertDetails: { subject: true, uri: false },
  attemptCount: { disabled: true },
};

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
  const app = { namespace: "default", ports };
  const labels = { "sidecar.istio.io/inject": "true" };
  const annotations = {
    "proxy.istio.io/config": stringify({
      proxyHeaders: ofTuned,
      caCertificatesPem: [authority.certificate],
    }),
  };
  await deployEchoes(mesh, [
    { ...app, name: "web", naked: true },
    { ...app, name: "plain", labels },
    { ...app, name: "tuned", labels, annotations },
  ]);
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
  const routed = (service: string, more: object = {}) => ({
    match: [{ uri: { prefix: service === "web" ? "/" : `/${service}` } }],
    route: [{ destination: { host: `${service}.default.svc.cluster.local`, port: { number: 80 } } }],
    ...more,
  });
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
      spec: {
        hosts: [host],
        gateways: ["web"],
        http: [routed("plain"), routed("tuned"), routed("web", { rewrite: { authority: innerHost } })],
      },
    },
  ];
}

/** MeshConfig as the mesh came with it, and this of its gateways. */
function stand(gatewayTopology: object, more: MeshConfig = {}): Promise<void> {
  return configure({ gatewayTopology }, more);
}

/** MeshConfig as the mesh came with it, with these of its defaultConfig's fields and of its own. */
async function configure(ofProxies: object, more: MeshConfig = {}): Promise<void> {
  const defaultConfig = { ...(written["defaultConfig"] as object), ...ofProxies };
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
  for (const [named, address] of [
    ["203.0.113.9", Buffer.from([203, 0, 113, 9])],
    ["2001:db8::9", Buffer.from("20010db8000000000000000000000009", "hex")],
  ] as const)
    assert.equal((await seen({ preface: proxyVersion2(address) }))[forwardedFor], named);
  await assert.rejects(seen(), "a connection without the header is nobody's");
  await stand({});
  await eventually("and without it again", async () => seen());
  await assert.rejects(seen({ preface }), "now it is no TLS");
});

/** The header of the PROXY protocol's second version for a connection of TCP from an address, to an address of as many bytes. */
function proxyVersion2(from: Buffer): Buffer {
  const ports = Buffer.from([0x10, 0xe1, 0x01, 0xbb]);
  const addresses = Buffer.concat([from, Buffer.alloc(from.length, 1), ports]);
  const family = from.length === 4 ? 0x11 : 0x21;
  const fixed = Buffer.from([0x21, family, 0, addresses.length]);
  return Buffer.concat([Buffer.from("0d0a0d0a000d0a515549540a", "hex"), fixed, addresses]);
}

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

/** A header of the answer, or of the request as the application got it: its name with `<` or `>` before it. */
async function shows(what: string, path: string, wanted: Readonly<Record<string, RegExp | null>>) {
  await eventually(what, async () => {
    const answer = await callTls({ port, host, path });
    const { headers } = JSON.parse(answer.body) as Echo;
    for (const [key, pattern] of Object.entries(wanted)) {
      const value = (key.startsWith("<") ? answer.headers : headers)[key.slice(1)];
      if (pattern === null) assert.equal(value, undefined, key);
      else assert.match(String(value ?? ""), pattern, key);
    }
    return true;
  });
}

test("headers that proxies add are added, called otherwise, left out or asked for, as MeshConfig's proxyHeaders say", async () => {
  await configure({});
  await shows("Istio's usual headers", "/", {
    "<server": /^istio-envoy$/,
    "<x-envoy-upstream-service-time": /^\d+$/,
    ">x-request-id": /./,
    ">x-envoy-attempt-count": /^1$/,
    ">x-forwarded-host": null,
    ">x-forwarded-port": null,
  });
  assert.ok((await callTls({ port, host })).rawHeaders.includes("date"));
  const disabled = { disabled: true };
  const enabled = { enabled: true };
  const proxyHeaders = {
    ...{ requestId: disabled, attemptCount: disabled, envoyDebugHeaders: disabled },
    ...{ server: { value: "edge/1" }, xForwardedHost: enabled, xForwardedPort: enabled },
  };
  await configure({ proxyHeaders });
  await shows("the others", "/", {
    "<server": /^edge\/1$/,
    "<x-envoy-upstream-service-time": null,
    ">x-request-id": null,
    ">x-envoy-attempt-count": null,
    ">host": new RegExp(`^${innerHost}$`),
    ">x-forwarded-host": new RegExp(`^${host}$`),
    ">x-forwarded-port": /^\d+$/,
  });
  await configure({ proxyHeaders: { server: disabled, preserveHttp1HeaderCase: true } });
  await eventually("names of headers stay as the application writes them", async () => {
    const { headers, rawHeaders } = await callTls({ port, host });
    assert.equal(headers["server"], undefined, "the application says nothing of itself");
    assert.ok(rawHeaders.includes("Date"), rawHeaders.join());
    return true;
  });
});

test("what a sidecar's Pod says of its headers holds for it alone", async () => {
  await configure({ proxyHeaders: { server: { disabled: true } } });
  await shows("a sidecar without words of its own", "/plain", {
    "<server": null,
    [`>${clientCertificate}`]: /URI=spiffe:/,
  });
  await shows("the same", "/plain", { [`>${clientCertificate}`]: /^(?!.*Subject=)/ });
  await shows("one with", "/tuned", { "<server": /^tuned\/1$/, [`>${clientCertificate}`]: /Subject="/ });
  await shows("the same", "/tuned", { [`>${clientCertificate}`]: /^(?!.*URI=)/ });
});

test("and for the calls that it makes", async () => {
  const countSeenFrom = async (app: string) => {
    const [result] = await order(mesh, await podIp(mesh, "default", `app=${app}`), { url: "http://web/" });
    assert.equal(result?.status, 200);
    return echoIn(result)?.headers["x-envoy-attempt-count"];
  };
  assert.equal(await countSeenFrom("plain"), "1");
  assert.equal(await countSeenFrom("tuned"), undefined);
});

test("roots that a Pod's ProxyConfig adds are in its Envoy, and pages of statistics come compressed to those who ask", async () => {
  const rootsOf = async (app: string) => {
    const { certificates } = JSON.parse(await ofEnvoy(app, "http://127.0.0.1:15000/certs")) as {
      readonly certificates: readonly { readonly ca_cert: readonly { readonly path: string }[] }[];
    };
    return Math.max(...certificates.map((one) => one.ca_cert.length));
  };
  assert.equal(await rootsOf("tuned"), (await rootsOf("plain")) + 1);
  const page = ["-D", "-", "-o", "/dev/null", "http://127.0.0.1:15090/stats/prometheus"];
  assert.match(await ofEnvoy("plain", "-H", "accept-encoding: gzip", ...page), /content-encoding: gzip/i);
  assert.doesNotMatch(await ofEnvoy("plain", ...page), /content-encoding/i);
});

/** What curl says inside of the network of an app's Pod. */
async function ofEnvoy(app: string, ...words: readonly string[]): Promise<string> {
  const uid = await mesh.kubectl([
    "get",
    "pods",
    "-l",
    `app=${app}`,
    "-o",
    "jsonpath={.items[0].metadata.uid}",
  ]);
  const netns = `--net=/run/netns/${podNetns(layoutOf(name), uid.trim())}`;
  return (await command("nsenter", [netns, "--", "curl", "-sS", "--max-time", "5", ...words])).stdout;
}

test("connections are limited as MeshConfig's connectionSettings say, and EDGE holds at gateways alone", async () => {
  const odd = { port, host, headers: { x_odd: "1" } };
  const encoded = { port, host, path: "/plain/a%2Fb" };
  await configure({});
  await eventually("what is odd goes on", async () => {
    assert.equal((await callTls(odd)).status, 200);
    assert.equal((JSON.parse((await callTls(encoded)).body) as Echo).url, "/plain/a%2Fb");
    return true;
  });
  await configure({
    connectionSettings: { profile: "EDGE", httpIdleTimeout: "1s", httpDrainTimeout: "0.1s" },
  });
  await eventually("what is odd goes no further", async () => {
    assert.equal((await callTls(odd)).status, 400);
    const sent = await callTls(encoded);
    assert.deepEqual([sent.status, sent.headers.location], [307, "/plain/a/b"]);
    return true;
  });
  const closedMs = await idleMs({ port, host });
  assert.ok(closedMs >= 900, `an idle connection is left open for its second, and was for ${closedMs} ms`);
  await configure({ connectionSettings: { httpPathWithEscapedSlashesAction: "REJECT_REQUEST" } });
  await eventually("and as it is said else", async () => {
    assert.equal((await callTls(encoded)).status, 400);
    assert.equal((await callTls(odd)).status, 200);
    return true;
  });
});

test("what the gateway's Pod says goes before MeshConfig, and the rest of MeshConfig holds beside it", async () => {
  await stand({ numTrustedProxies: 1, forwardClientCertDetails: "SANITIZE" });
  const ofPod = {
    gatewayTopology: { numTrustedProxies: 2 },
    proxyHeaders: { server: { value: "pod/1" } },
    connectionSettings: {
      httpHeadersWithUnderscoresAction: "HEADERS_WITH_UNDERSCORES_REJECT_REQUEST",
      listenerConnectionLimit: connectionsMax,
    },
  };
  const annotations = { "proxy.istio.io/config": stringify(ofPod) };
  const patch = JSON.stringify({ spec: { template: { metadata: { annotations } } } });
  const of = ["deployment/istio-ingressgateway", "-n", gatewayNamespace];
  await mesh.kubectl(["patch", ...of, "--type=strategic", "-p", patch]);
  await mesh.kubectl(["rollout", "status", ...of, "--timeout=60s"]);
  const headers = { [forwardedFor]: "198.51.100.1, 203.0.113.8, 203.0.113.9" };
  const wanted = { [externalAddress]: "203.0.113.8", [clientCertificate]: undefined };
  await becomes("the Pod's count", { client, headers }, wanted);
  await shows("the Pod's server", "/", { "<server": /^pod\/1$/ });
  assert.equal((await callTls({ port, host, headers: { x_odd: "1" } })).status, 400);
  await eventually("connections beyond the Pod's limit are closed", async () => {
    const tries = Array.from({ length: 2 * connectionsMax }, () => holdTls({ port, host }));
    const held = (await Promise.allSettled(tries)).filter(({ status }) => status === "fulfilled");
    for (const { value } of held as PromiseFulfilledResult<Socket>[]) value.destroy();
    assert.equal(held.length, connectionsMax);
    return true;
  });
  await eventually("and once there is room the next one is taken", async () => seen());
});
