// Two real Envoys on loopback, a client's and a server's, with certificates of our CA: what they count bears Istio's
// names and says who called whom, on both sides, for HTTP and TCP; policies are enforced on the caller's certificate.

import assert from "node:assert/strict";
import type { ChildProcess } from "node:child_process";
import type { webcrypto } from "node:crypto";
import { createServer as createHttpServer, get, type Server as HttpServer } from "node:http";
import { connect, createServer as createTcpServer, type AddressInfo, type Server } from "node:net";
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import * as http2 from "node:http2";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";

import * as x509 from "../../src/identity/x509.ts";
import { packService, packWorkload, subjectPrefix, telemetryMetadata, unknownWorkload } from "#base";
import { Engine } from "#engine";
import { decodeMessage, type Message } from "#envoy";
import { CertificateAuthority, createSelfSignedMaterial } from "#identity";
import { inboundScopeOf, worldChanges } from "#model";
import type { KubeObject } from "#objects";
import {
  httpConnectionManager,
  meshHttpAlpnFilter,
  meshHttpAlpnOn,
  tcpProxy,
} from "../../src/envoy/filters.ts";
import { inboundCluster } from "../../src/envoy/inbound-cluster.ts";
import { inboundListener } from "../../src/envoy/inbound-listener.ts";
import { structOf } from "../../src/envoy/proto/api.ts";
import { createExpander } from "../../src/apps/agent/metrics.ts";
import { createStreamServer } from "../../src/apps/agent/grpc.ts";
import { recordPaths, TelemetryRecords } from "../../src/apps/agent/records.ts";
import { clientTransportSocket, meshAlpn, meshClientTls } from "../../src/envoy/tls.ts";
import { withoutEnvoy } from "../support/envoy.ts";
import { loopbackAddress, startEnvoy } from "../support/envoy-process.ts";
import { freePorts } from "../support/free-ports.ts";

const clock = {
  nowMs: () => Date.now(),
  monotonicMs: () => performance.now(),
  after: (): (() => void) => () => {},
};
const folder = mkdtempSync(join(tmpdir(), "envoy-metrics-"));
const children: ChildProcess[] = [];
/** What the server's agent counts in Envoy's place. */
const records = new TelemetryRecords(() => performance.now());
const servers: (HttpServer | Server)[] = [];
const host = "reviews.default.svc.cluster.local";
const serverFacts = { ...unknownWorkload, workload: "reviews-v1", namespace: "default", app: "reviews" };
const clientFacts = { ...unknownWorkload, workload: "productpage-v1", namespace: "shop", app: "productpage" };

interface Ports {
  readonly app: number;
  readonly tcpApp: number;
  readonly http: number;
  readonly tcp: number;
  /** A port whose protocol is found by looking. */
  readonly any: number;
  readonly outHttp: number;
  readonly outTcp: number;
  readonly clientAdmin: number;
  readonly serverAdmin: number;
  /** The server's agent. */
  readonly agent: number;
}
let ports: Ports;

describe("metrics of two Envoys", { skip: withoutEnvoy }, () => {
  before(async () => {
    const app = await listening(
      createHttpServer((request, response) => {
        response.statusCode = request.url === "/any" ? 418 : 200;
        response.end("hello");
      }),
    );
    const tcpApp = await listening(
      createTcpServer((socket) => {
        socket.on("data", (data) => (String(data) === "stay" ? socket.write(data) : socket.end(data)));
      }),
    );
    const [http, tcp, any, outHttp, outTcp, clientAdmin, serverAdmin, agent] = await freePorts(8);
    ports = { app, tcpApp, http, tcp, any, outHttp, outTcp, clientAdmin, serverAdmin, agent } as Ports;
    servers.push(createStreamServer(recordPaths(records)).listen(agent, "127.0.0.1"));
    const material = await createSelfSignedMaterial(clock);
    const authority = await CertificateAuthority.load(material, { clock });
    await Promise.all([
      start(
        "server",
        ports.serverAdmin,
        { ...serverResources(), agentPort: agent as number },
        await secretsFor(authority, "default", "reviews", serverFacts),
      ),
      start(
        "client",
        ports.clientAdmin,
        clientResources(),
        await secretsFor(authority, "shop", "productpage", clientFacts),
      ),
    ]);
  });

  after(() => {
    for (const child of children) child.kill("SIGKILL");
    for (const server of servers) server.close();
    rmSync(folder, { recursive: true, force: true });
  });

  test("both sides count an HTTP request with the other's workload and principal", async () => {
    assert.equal(await statusOf(`http://127.0.0.1:${ports.outHttp}/`), 200);
    const source = await series(ports.clientAdmin, "istio_requests_total");
    assert.equal(source["reporter"], "source");
    assert.equal(source["service"], packService(host, "reviews", "default"));
    assert.equal(source["peer"], packWorkload(serverFacts));
    assert.equal(source["peer_principal"], "spiffe://cluster.local/ns/default/sa/reviews");
    assert.equal(source["response_code"], "200");
    assert.equal(source["request_protocol"], "http");
    const destination = await series(ports.serverAdmin, "istio_requests_total");
    assert.equal(destination["reporter"], "destination");
    assert.equal(destination["peer"], `${subjectPrefix}${packWorkload(clientFacts)}`);
    assert.equal(destination["peer_principal"], "spiffe://cluster.local/ns/shop/sa/productpage");
    for (const admin of [ports.clientAdmin, ports.serverAdmin]) {
      await series(admin, "istio_request_duration_milliseconds_count");
      await series(admin, "istio_request_bytes_count");
      await series(admin, "istio_response_bytes_count");
    }
  });

  test("a caller that a policy denies gets 403, and both sides count it", async () => {
    assert.equal(await statusOf(`http://127.0.0.1:${ports.outHttp}/secret`), 403);
    const denied = await series(ports.serverAdmin, "istio_requests_total", "403");
    assert.equal(denied["peer_principal"], "spiffe://cluster.local/ns/shop/sa/productpage");
    await series(ports.clientAdmin, "istio_requests_total", "403");
  });

  test("HTTP to a port of unknown protocol reaches the server's HTTP chain", async () => {
    assert.equal(await statusOf(`http://127.0.0.1:${ports.outHttp}/any`), 418);
    await series(ports.serverAdmin, "istio_requests_total", "418");
  });

  test("both sides count a TCP connection when it opens and when it ends", async () => {
    assert.equal(await echoed(ports.outTcp, "ping"), "ping");
    for (const admin of [ports.clientAdmin, ports.serverAdmin]) {
      const opened = await series(admin, "istio_tcp_connections_opened_total");
      assert.match(opened["peer"] ?? "", admin === ports.serverAdmin ? /productpage-v1/ : /reviews-v1/);
      await series(admin, "istio_tcp_connections_closed_total");
      await series(admin, "istio_tcp_sent_bytes_total");
      await series(admin, "istio_tcp_received_bytes_total");
    }
  });

  test("the bytes of a TCP connection are counted while it is open, and once", async () => {
    await until(() => countedBytes() === "ping".length);
    const socket = connect(ports.outTcp, "127.0.0.1", () => socket.write("stay"));
    socket.resume();
    await until(() => countedBytes() === "pingstay".length);
    socket.end("more");
    await once(socket, "close");
    await until(() => countedBytes() === "pingstaymore".length);
  });

  test("messages of gRPC calls are counted with the labels of their request", async () => {
    await grpcCall(ports.outHttp, 3);
    await until(() => records.render().includes("istio_request_messages_total"));
    const line = expanded().find((one) => one.startsWith("istio_request_messages_total{"));
    assert.match(line ?? "", /reporter="destination".*source_workload="productpage-v1".* 3$/);
    assert.match(line ?? "", /request_protocol="grpc"/);
  });
});

function expanded(): string[] {
  const expand = createExpander({
    facts: serverFacts,
    principal: "spiffe://cluster.local/ns/default/sa/reviews",
  });
  return expand(records.render()).split("\n");
}

/** Bytes that the server's application has received, as its agent counts them. */
function countedBytes(): number {
  return expanded()
    .filter((line) => line.startsWith("istio_tcp_received_bytes_total{"))
    .reduce((sum, line) => sum + Number(line.slice(line.lastIndexOf(" "))), 0);
}

/** The same configuration, with news of open connections every 100 ms. */
function toldOften(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(toldOften);
  if (typeof value !== "object" || value === null || value instanceof Uint8Array) return value;
  const entries = Object.entries(value).map(([name, field]): [string, unknown] => [
    name,
    name === "accessLogFlushInterval" ? { nanos: 100_000_000 } : toldOften(field),
  ]);
  return Object.fromEntries(entries);
}

async function until(holds: () => boolean): Promise<void> {
  for (let tried = 0; tried < 400; tried++) {
    if (holds()) return;
    await sleep(50);
  }
  assert.fail(`it does not come true; counted is:\n${expanded().join("\n")}`);
}

/** A call of several messages over plain HTTP/2, answered by whatever the application says. */
async function grpcCall(port: number, messages: number): Promise<void> {
  const session = http2.connect(`http://127.0.0.1:${port}`);
  const stream = session.request({
    ":method": "POST",
    ":path": "/test.Service/Call",
    ":authority": host,
    "content-type": "application/grpc",
    te: "trailers",
  });
  for (let sent = 0; sent < messages; sent++) stream.write(Buffer.from([0, 0, 0, 0, 2, 1, 2]));
  stream.end();
  stream.resume();
  await once(stream, "close");
  session.close();
}

function serverResources(): { listeners: Message[]; clusters: Message[] } {
  const engine = new Engine();
  const proxy = {
    kind: "sidecar",
    namespace: "default",
    labels: { app: "reviews" },
    interception: "NONE",
    metadata: {},
  } as never;
  engine.apply(worldChanges(serverObjects()));
  const scope = inboundScopeOf(proxy);
  const read = engine.get.bind(engine) as never;
  const listeners = [ports.http, ports.tcp, ports.any].map((port) => {
    const built = inboundListener(read, { kind: "inbound", scope, port });
    assert.ok(built);
    return toldOften(decodeMessage("envoy.config.listener.v3.Listener", built.bytes)) as Message;
  });
  const clusters = (
    [
      [ports.http, ports.app],
      [ports.tcp, ports.tcpApp],
      [ports.any, ports.app],
    ] as const
  ).map(([port, app]) => {
    const built = inboundCluster(read, {
      kind: "inbound",
      port,
      upstream: { kind: "address", address: "127.0.0.1", port: app },
      protocol: port === ports.http ? "http" : "tcp",
      http2: false,
      services: [{ host, name: "reviews", namespace: "default" }],
      servicePort: port,
    });
    return decodeMessage("envoy.config.cluster.v3.Cluster", built.bytes);
  });
  return { listeners, clusters };
}

function serverObjects(): KubeObject[] {
  const ingress = (port: number, protocol: string, app: number): unknown => ({
    port: { number: port, protocol, name: protocol.toLowerCase() || "any" },
    bind: "127.0.0.1",
    captureMode: "NONE",
    defaultEndpoint: `127.0.0.1:${app}`,
  });
  return [
    {
      apiVersion: "networking.istio.io/v1",
      kind: "Sidecar",
      metadata: { name: "reviews", namespace: "default" },
      spec: {
        ingress: [
          ingress(ports.http, "HTTP", ports.app),
          ingress(ports.tcp, "TCP", ports.tcpApp),
          ingress(ports.any, "", ports.app),
        ],
      },
    },
    {
      apiVersion: "security.istio.io/v1",
      kind: "PeerAuthentication",
      metadata: { name: "default", namespace: "default" },
      spec: { mtls: { mode: "STRICT" } },
    },
    {
      apiVersion: "security.istio.io/v1",
      kind: "AuthorizationPolicy",
      metadata: { name: "deny", namespace: "default" },
      spec: {
        action: "DENY",
        rules: [
          {
            from: [{ source: { principals: ["cluster.local/ns/shop/sa/productpage"] } }],
            // Without the port the rule would deny TCP as well, where no path can be seen.
            to: [{ operation: { paths: ["/secret"], ports: [String(ports.http)] } }],
          },
        ],
      },
    },
  ];
}

function clientResources(): { listeners: Message[]; clusters: Message[] } {
  const cluster = (name: string, port: number, alpn: readonly string[]): Message => ({
    name,
    type: "STATIC",
    connectTimeout: { seconds: 2 },
    metadata: {
      filterMetadata: {
        [telemetryMetadata.key]: structOf({
          [telemetryMetadata.service]: packService(host, "reviews", "default"),
        }),
      },
    },
    transportSocket: clientTransportSocket(
      meshClientTls({
        sni: `outbound_.80_._.${host}`,
        alpn,
        identities: ["spiffe://cluster.local/ns/default/sa/reviews"],
      }),
    ),
    loadAssignment: {
      clusterName: name,
      endpoints: [
        {
          lbEndpoints: [
            {
              endpoint: { address: loopbackAddress(port) },
              metadata: {
                filterMetadata: {
                  [telemetryMetadata.key]: structOf({ [telemetryMetadata.peer]: packWorkload(serverFacts) }),
                },
              },
            },
          ],
        },
      ],
    },
  });
  const http = httpConnectionManager(
    {},
    {
      side: "client",
      statPrefix: "outbound_http;",
      policyFilters: [meshHttpAlpnFilter],
      routes: {
        kind: "inline",
        table: {
          name: "80",
          virtualHosts: [
            {
              name: "all",
              domains: ["*"],
              routes: [
                { match: { path: "/any" }, route: { cluster: "any" }, typedPerFilterConfig: meshHttpAlpnOn },
                { match: { prefix: "/" }, route: { cluster: "http" } },
              ],
            },
          ],
        },
      },
    },
  );
  const tcp = tcpProxy({}, { side: "client", statPrefix: "tcp", to: { kind: "cluster", name: "tcp" } });
  return {
    listeners: [
      { name: "http", address: loopbackAddress(ports.outHttp), filterChains: [{ filters: [http] }] },
      { name: "tcp", address: loopbackAddress(ports.outTcp), filterChains: [{ filters: [tcp] }] },
    ],
    clusters: [
      cluster("http", ports.http, meshAlpn.http),
      cluster("tcp", ports.tcp, meshAlpn.tcp),
      // What a port of unknown protocol offers by itself would lead to the server's TCP chain.
      cluster("any", ports.any, meshAlpn.tcp),
    ],
  };
}

async function secretsFor(
  authority: CertificateAuthority,
  namespace: string,
  serviceAccount: string,
  facts: typeof serverFacts,
): Promise<Message[]> {
  const algorithm = { name: "ECDSA", namedCurve: "P-256", hash: "SHA-256" };
  const keys = (await crypto.subtle.generateKey(algorithm, true, [
    "sign",
    "verify",
  ])) as webcrypto.CryptoKeyPair;
  const request = await x509.Pkcs10CertificateRequestGenerator.create({
    name: "",
    keys,
    signingAlgorithm: algorithm,
  });
  const chain = await authority.sign(request.toString("pem"), {
    identity: { trustDomain: "cluster.local", namespace, serviceAccount },
    facts,
  });
  const pkcs8 = Buffer.from(await crypto.subtle.exportKey("pkcs8", keys.privateKey)).toString("base64");
  const key = `-----BEGIN PRIVATE KEY-----\n${pkcs8.replace(/(.{64})/g, "$1\n")}\n-----END PRIVATE KEY-----\n`;
  return [
    {
      name: "default",
      tlsCertificate: { certificateChain: inline(chain.join("")), privateKey: inline(key) },
    },
    { name: "ROOTCA", validationContext: { trustedCa: inline(authority.rootPem) } },
  ];
}

async function start(
  name: string,
  admin: number,
  resources: { readonly listeners: Message[]; readonly clusters: Message[]; readonly agentPort?: number },
  secrets: readonly Message[],
): Promise<void> {
  children.push(await startEnvoy(folder, name, admin, { ...resources, secrets }));
}

/** The labels of the first series of a metric, waiting for it to appear: Envoy writes its log after the answer. */
async function series(admin: number, metric: string, code?: string): Promise<Record<string, string>> {
  for (let tried = 0; tried < 40; tried++) {
    const text = await (await fetch(`http://127.0.0.1:${admin}/stats/prometheus`)).text();
    const line = text
      .split("\n")
      .find(
        (one) =>
          one.startsWith(`envoy_${metric}{`) &&
          (code === undefined || one.includes(`response_code="${code}"`)),
      );
    if (line !== undefined)
      return Object.fromEntries(
        [...line.matchAll(/(\w+)="([^"]*)"/g)].map(([, name, value]) => [name, value]),
      );
    await sleep(50);
  }
  return assert.fail(
    `no series of ${metric} at ${admin === ports.serverAdmin ? "the server" : "the client"}`,
  );
}

function statusOf(url: string): Promise<number | undefined> {
  return new Promise((resolve, reject) => {
    get(url, (response) => {
      response.resume();
      response.once("end", () => resolve(response.statusCode));
    }).once("error", reject);
  });
}

function echoed(port: number, text: string): Promise<string> {
  return new Promise((resolve, reject) => {
    const socket = connect(port, "127.0.0.1", () => socket.write(text));
    let got = "";
    socket.on("data", (data) => (got += String(data)));
    socket.once("close", () => resolve(got));
    socket.once("error", reject);
  });
}

async function listening(server: HttpServer | Server): Promise<number> {
  servers.push(server);
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  return (server.address() as AddressInfo).port;
}

function inline(text: string): Message {
  return { inlineString: text };
}
