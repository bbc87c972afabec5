// The agent with a real Envoy, against a control plane of this test's own: a CA that is the real one and an ADS server that
// serves one inbound listener. No namespaces and no root are needed, only Envoy.

import assert from "node:assert/strict";
import { spawn, type ChildProcess } from "node:child_process";
import { X509Certificate } from "node:crypto";
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createSocket, type Socket } from "node:dgram";
import { lookup } from "node:dns/promises";
import { createServer as createHttp, request as httpRequest, type Server } from "node:http";
import { Agent, request as httpsRequest } from "node:https";
import { tmpdir } from "node:os";
import { connect as connectTls } from "node:tls";
import { dirname, join } from "node:path";
import { after, before, describe, test } from "node:test";
import { fileURLToPath } from "node:url";
import { packService, packWorkload, silentLog, type Clock } from "#base";
import { decodeMessage, encodeMessage } from "#envoy";
import { CertificateAuthority, createSelfSignedMaterial } from "#identity";
import { adsPath, GrpcServer, type GrpcServerOptions } from "#xds";
import { fetchCertificate } from "../../src/apps/agent/ca-client.ts";
import {
  createAuthenticator,
  createCertificateMethod,
  createCertificatePath,
} from "../../src/apps/control/ca-service.ts";
import { tcpProxy } from "../../src/envoy/filters.ts";
import { accessLogs, tcpAccessLogOptions } from "../../src/envoy/telemetry.ts";
import { freePorts } from "../support/free-ports.ts";

const root = dirname(dirname(dirname(fileURLToPath(import.meta.url))));
const envoy = process.env["MIZZEN_ENVOY"] ?? join(root, ".cache/bin/envoy");
const skip = existsSync(envoy) ? false : `there is no Envoy at ${envoy}; run \`sh scripts/run.sh setup\``;

const clock: Clock = { nowMs: () => Date.now(), monotonicMs: () => performance.now(), after: () => () => {} };
const prefix = "type.googleapis.com/";
const certificateSeconds = 6;

const portNames = [
  "xds",
  "admin",
  "agent",
  "ready",
  "stats",
  "inbound",
  "app",
  "outbound",
  "tcp",
  "tcpInbound",
] as const;

interface World {
  readonly dir: string;
  readonly ports: Readonly<Record<(typeof portNames)[number], number>>;
  readonly ca: CertificateAuthority;
  readonly control: GrpcServer;
  readonly app: Server;
  readonly agent: ChildProcess;
  readonly output: string[];
  /** What has come by statsd's protocol. */
  readonly statsd: { readonly socket: Socket; readonly texts: string[] };
}

describe("the agent with a real Envoy", { skip, concurrency: false }, () => {
  let world: World;
  before(async () => {
    world = await start();
    await until(
      "15021 is ready",
      async () => (await get(world.ports.ready, "/healthz/ready")).status === 200,
    );
  });
  after(async () => {
    world.agent.kill("SIGKILL");
    const envoyPid = envoyPidOf(world);
    if (envoyPid !== undefined && world.agent.exitCode === null) process.kill(envoyPid, "SIGKILL");
    await world.control.close(0);
    world.statsd.socket.close();
    world.app.close();
    world.app.closeAllConnections();
    rmSync(world.dir, { recursive: true, force: true });
  });

  test("Envoy serves the certificate that the CA signed, and the client's workload is in the metrics", async () => {
    const client = await clientOf(world);
    const answer = await call(world, client, "/hello");
    assert.equal(answer.status, 200);
    assert.equal(answer.body, "hello");
    assert.equal(answer.peer.subjectAltName, "URI:spiffe://cluster.local/ns/default/sa/server");
    const metrics = await until("the request is counted", async () => {
      const { body } = await get(world.ports.agent, "/stats/prometheus");
      return body.includes("istio_requests_total{") ? body : undefined;
    });
    const line = metrics.split("\n").find((text) => text.startsWith("istio_requests_total{")) ?? "";
    const expected = {
      reporter: "destination",
      source_workload: "client",
      source_workload_namespace: "default",
      source_app: "client",
      source_version: "v1",
      source_canonical_service: "client",
      source_canonical_revision: "v1",
      source_cluster: "Kubernetes",
      source_principal: "spiffe://cluster.local/ns/default/sa/client",
      destination_workload: "server-v2",
      destination_workload_namespace: "default",
      destination_app: "server",
      destination_version: "v2",
      destination_canonical_service: "server",
      destination_canonical_revision: "v2",
      destination_cluster: "Kubernetes",
      destination_principal: "spiffe://cluster.local/ns/default/sa/server",
      destination_service: "server.default.svc.cluster.local",
      destination_service_name: "server",
      destination_service_namespace: "default",
      request_protocol: "http",
      response_code: "200",
      grpc_response_status: "",
      response_flags: "-",
      connection_security_policy: "mutual_tls",
    };
    const labels = Object.fromEntries(
      [...line.matchAll(/([a-z_]+)="([^"]*)"/g)].map(([, name, value]) => [name, value]),
    );
    assert.deepEqual(labels, expected);
    assert.match(metrics, /istio_request_duration_milliseconds_bucket\{/);
    assert.match(metrics, /istio_request_bytes_sum\{/);
    const raw = await get(world.ports.stats, "/stats/prometheus");
    assert.match(raw.body, /envoy_istio_requests_total\{/);
  });

  test("the source side names service and workload, and what it cannot know is unknown", async () => {
    for (const path of ["/hello", "/plain", "/direct", "/nowhere"]) await get(world.ports.outbound, path);
    await get(world.ports.tcp, "/hello");
    const series = await until("four requests and a connection are counted", async () => {
      const { body } = await get(world.ports.agent, "/stats/prometheus");
      const found = seriesOf(body).filter(({ labels }) => labels["reporter"] === "source");
      const done = ["istio_tcp_connections_closed_total", "istio_tcp_sent_bytes_total"].every((metric) =>
        found.some(({ name }) => name === metric),
      );
      return found.filter(({ name }) => name === "istio_requests_total").length === 4 && done
        ? found
        : undefined;
    });
    const requests = series.filter(({ name }) => name === "istio_requests_total");
    const told = requests.map(({ labels }) => [
      labels["destination_service"],
      labels["destination_service_namespace"],
      labels["destination_workload"],
      labels["destination_version"],
      labels["destination_canonical_revision"],
      labels["response_code"],
      labels["response_flags"],
    ]);
    assert.deepEqual(told.toSorted(), [
      ["server.default.svc.cluster.local", "default", "server-v2", "unknown", "latest", "200", "-"],
      ["server.default.svc.cluster.local", "default", "unknown", "unknown", "latest", "418", "-"],
      ["unknown", "unknown", "unknown", "unknown", "latest", "200", "-"],
      ["unknown", "unknown", "unknown", "unknown", "latest", "404", "NR"],
    ]);
    assert.ok(
      requests.every(({ labels }) => Object.keys(labels).length === 25 && labels["source_app"] === "server"),
    );
    const sent = series.find(({ name }) => name === "istio_tcp_sent_bytes_total");
    assert.ok(sent !== undefined && sent.value > 50, `${sent?.value} bytes sent`);
    assert.equal(sent.labels["destination_workload"], "server-v2");
    assert.equal(sent.labels["request_protocol"], "tcp");
    assert.equal(series.find(({ name }) => name === "istio_tcp_connections_opened_total")?.value, 1);
  });

  test("a TCP connection under mutual TLS is counted with its peer from the first moment", async () => {
    const { key, cert, ca } = await clientOf(world);
    const options = { host: "127.0.0.1", port: world.ports.tcpInbound, key, cert, ca };
    const tls = connectTls({ ...options, checkServerIdentity: () => undefined });
    tls.on("error", () => {});
    await new Promise<void>((resolve) => tls.once("secureConnect", () => resolve()));
    const opened = await until("the open connection is counted", async () => {
      const { body } = await get(world.ports.agent, "/stats/prometheus");
      const inbound = seriesOf(body).filter(({ labels }) => labels["reporter"] === "destination");
      return inbound.find(({ name }) => name === "istio_tcp_connections_opened_total");
    });
    assert.equal(opened.labels["source_workload"], "client");
    assert.equal(opened.labels["connection_security_policy"], "mutual_tls");
    assert.equal(opened.labels["destination_service_name"], "server");
    tls.destroy();
    await until("its end is counted", async () => {
      const { body } = await get(world.ports.agent, "/stats/prometheus");
      const closed = seriesOf(body).find(
        ({ name, labels }) =>
          name === "istio_tcp_connections_closed_total" && labels["reporter"] === "destination",
      );
      return closed?.labels["source_workload"] === "client" ? true : undefined;
    });
  });

  test("ProxyConfig's statistics, runtime values and flushes are Envoy's", async () => {
    assert.equal((await call(world, await clientOf(world), "/hello")).status, 200);
    const { admin } = world.ports;
    const page = (await get(admin, "/stats/prometheus?filter=downstream_rq_active")).body;
    assert.match(page, /\{[^}]*tier="gold"[^}]*\}/);
    const { entries } = JSON.parse((await get(admin, "/runtime?format=json")).body) as {
      readonly entries: Readonly<Record<string, { readonly final_value: string }>>;
    };
    assert.equal(entries["own.value"]?.final_value, "7");
    const { command_line_options: options } = JSON.parse((await get(admin, "/server_info")).body) as {
      readonly command_line_options: Readonly<Record<string, unknown>>;
    };
    assert.equal(options["file_flush_interval"], "0.250s");
    const told = await until("statistics by statsd", async () =>
      world.statsd.texts.find((text) => text.includes("istio_requests_total")),
    );
    assert.match(told, /:\d+\|c/);
  });

  test("certificates are renewed and a new root is followed, and no request fails meanwhile", async () => {
    const client = await clientOf(world);
    const secondRoot = (await createSelfSignedMaterial(clock)).rootCert;
    writeFileSync(join(world.dir, "root.pem"), world.ca.rootPem + secondRoot);
    const serials = new Set<string>();
    const failures: unknown[] = [];
    const endMs = Date.now() + certificateSeconds * 1_500;
    let requests = 0;
    while (Date.now() < endMs) {
      const answer = await call(world, client, "/hello").catch((error: unknown) => error);
      requests += 1;
      if (answer instanceof Error || (answer as Answer).status !== 200) failures.push(answer);
      else serials.add((answer as Answer).peer.serialNumber);
      await sleep(20);
    }
    assert.deepEqual(failures, []);
    assert.ok(requests > 100, `${requests} requests`);
    assert.ok(serials.size >= 2, `${serials.size} certificates seen`);
    const { body } = await get(world.ports.admin, "/certs");
    assert.ok(body.includes(serialOf(secondRoot)), "Envoy trusts the second root too");
  });

  test("a client without a certificate is refused", async () => {
    await assert.rejects(call(world, { ca: world.ca.rootPem, key: "", cert: "" }, "/hello"));
  });

  test("Envoy, killed, is back within two seconds with the same listeners", async () => {
    const client = await clientOf(world);
    const pid = envoyPidOf(world);
    assert.ok(pid !== undefined);
    process.kill(pid, "SIGKILL");
    const killedMs = Date.now();
    await until("Envoy serves again", async () => (await call(world, client, "/hello")).status === 200);
    assert.ok(Date.now() - killedMs < 2_000, `${Date.now() - killedMs} ms`);
    assert.notEqual(envoyPidOf(world), pid);
  });

  test("on SIGTERM an open request is finished, readiness goes, and everything ends", async () => {
    const client = await clientOf(world);
    const open = call(world, client, "/slow");
    await sleep(200);
    const exited = new Promise<number | null>(
      (resolve) => void world.agent.on("exit", (code) => resolve(code)),
    );
    const pid = envoyPidOf(world);
    world.agent.kill("SIGTERM");
    await until(
      "15021 says draining",
      async () => (await get(world.ports.ready, "/healthz/ready")).status === 503,
    );
    const answer = await open;
    assert.equal(answer.status, 200);
    assert.equal(answer.body, "slow");
    assert.equal(await exited, 0);
    assert.ok(pid === undefined || !existsSync(`/proc/${pid}/stat`), "Envoy is gone");
  });
});

async function start(): Promise<World> {
  const dir = mkdtempSync(join(tmpdir(), "mizzen-agent-"));
  const free = await freePorts(portNames.length);
  const ports = Object.fromEntries(portNames.map((name, at) => [name, free[at]])) as World["ports"];
  const ca = await CertificateAuthority.load(await createSelfSignedMaterial(clock), { clock });
  const control = await startControl(ca, ports);
  const app = createHttp((question, answer) => {
    if (question.url === "/slow") setTimeout(() => answer.end("slow"), 1_500);
    else answer.end("hello");
  });
  await new Promise<void>((resolve) => app.listen(ports.app, "127.0.0.1", resolve));
  writeFileSync(join(dir, "root.pem"), ca.rootPem);
  writeFileSync(join(dir, "token"), "server");
  writeFileSync(join(dir, "labels"), 'app="server"\nversion="v2"\n');
  writeFileSync(join(dir, "annotations"), 'sidecar.istio.io/statsFlushInterval="1s"\n');
  const statsd = await startStatsd();
  const agent = spawn(process.execPath, [join(root, "src/apps/agent/main.ts"), "proxy", "sidecar"], {
    env: { ...process.env, ...agentEnv(dir, ports, statsd.socket.address().port) },
    stdio: ["ignore", "pipe", "pipe"],
  });
  const output: string[] = [];
  for (const stream of [agent.stdout, agent.stderr]) {
    stream.on("data", (chunk: Buffer) => {
      output.push(chunk.toString());
      if (process.env["MIZZEN_E2E_VERBOSE"] !== undefined) process.stderr.write(chunk);
    });
  }
  return { dir, ports, ca, control, app, agent, output, statsd };
}

/** At the address that the agent will find for the name. */
async function startStatsd(): Promise<World["statsd"]> {
  const { address, family } = await lookup("localhost");
  const socket = createSocket(family === 6 ? "udp6" : "udp4");
  const texts: string[] = [];
  socket.on("message", (text) => void texts.push(text.toString()));
  await new Promise<void>((resolve) => socket.bind(0, address, resolve));
  return { socket, texts };
}

function agentEnv(dir: string, ports: World["ports"], statsdPort: number): Record<string, string> {
  return {
    POD_NAME: "server-v2-1",
    POD_NAMESPACE: "default",
    SERVICE_ACCOUNT: "server",
    INSTANCE_IP: "127.0.0.1",
    ISTIO_META_WORKLOAD_NAME: "server-v2",
    ISTIO_META_CLUSTER_ID: "Kubernetes",
    PROXY_CONFIG: JSON.stringify({
      discoveryAddress: `localhost:${ports.xds}`,
      statusPort: ports.agent,
      proxyAdminPort: ports.admin,
      concurrency: 1,
      terminationDrainDuration: "5s",
      extraStatTags: ["tier"],
      fileFlushInterval: "0.25s",
      fileFlushMinSizeKb: 16,
      runtimeValues: { "own.value": "7" },
      statsdUdpAddress: `localhost:${statsdPort}`,
    }),
    ENVOY_STATUS_PORT: String(ports.ready),
    ENVOY_PROMETHEUS_PORT: String(ports.stats),
    SECRET_TTL: `${certificateSeconds}s`,
    MINIMUM_DRAIN_DURATION: "300ms",
    MIZZEN_ENVOY: envoy,
    MIZZEN_TOKEN_PATH: join(dir, "token"),
    MIZZEN_ROOT_PATH: join(dir, "root.pem"),
    MIZZEN_SDS_SOCKET: join(dir, "uds/socket"),
    MIZZEN_PROXY_DIR: join(dir, "proxy"),
    MIZZEN_PODINFO: dir,
  };
}

/** The CA and an ADS server on one port, as istiod's 15012. */
async function startControl(ca: CertificateAuthority, ports: World["ports"]): Promise<GrpcServer> {
  const facts = { namespace: "default", app: "client", version: "v1", canonicalService: "client" };
  const method = createCertificateMethod({
    ca: () => ca,
    authenticate: createAuthenticator({
      trustDomain: "cluster.local",
      reviewToken: (token) =>
        Promise.resolve({
          authenticated: true,
          username: `system:serviceaccount:default:${token}`,
          audiences: ["istio-ca"],
          podName: `${token}-1`,
        }),
    }),
    lookupPod: () => ({ ...facts, workload: "client", canonicalRevision: "v1", cluster: "Kubernetes" }),
    log: silentLog,
    metrics: { csr() {}, issued() {}, unauthenticated() {}, refused() {} },
  });
  const serving = await ca.issueServing(["localhost"]);
  return GrpcServer.listen({
    host: "127.0.0.1",
    port: ports.xds,
    tls: { certificate: serving.chain, key: serving.key, clientRoots: ca.rootPem },
    streams: { [adsPath]: serveDelta(ports) },
    unary: { [createCertificatePath]: method },
    log: silentLog,
  });
}

function serveDelta(ports: World["ports"]): GrpcServerOptions["streams"][string] {
  return (stream) => {
    assert.ok(stream.peer.certificate !== undefined, "Envoy comes with its certificate");
    const answered = new Set<string>();
    return {
      closed: () => {},
      message: (bytes) => {
        const request = decodeMessage("envoy.service.discovery.v3.DeltaDiscoveryRequest", bytes);
        const typeUrl = String(request["typeUrl"]);
        if (request["errorDetail"] !== undefined)
          process.stderr.write(`${JSON.stringify(request["errorDetail"])}\n`);
        if (answered.has(typeUrl)) return;
        answered.add(typeUrl);
        const resources = resourcesOf(typeUrl, ports).map((resource) => ({
          name: resource["name"],
          version: "1",
          resource: { "@type": typeUrl, ...resource },
        }));
        const response = { resources, typeUrl, nonce: `${answered.size}`, systemVersionInfo: "1" };
        stream.send(encodeMessage("envoy.service.discovery.v3.DeltaDiscoveryResponse", response));
      },
    };
  };
}

function resourcesOf(typeUrl: string, ports: World["ports"]): Record<string, unknown>[] {
  if (typeUrl === `${prefix}envoy.config.cluster.v3.Cluster`)
    return [inboundCluster(ports.app), outboundCluster(ports.app), plainCluster(ports.app)];
  if (typeUrl === `${prefix}envoy.config.listener.v3.Listener`) {
    return [
      inboundListener(ports.inbound),
      outboundListener(ports.outbound),
      tcpListener(ports.tcp),
      tcpInboundListener(ports.tcpInbound),
    ];
  }
  return [];
}

function inboundCluster(port: number): Record<string, unknown> {
  const service = packService("server.default.svc.cluster.local", "server", "default");
  const fields = { service: { stringValue: service } };
  return {
    name: "inbound|80||",
    type: "STATIC",
    connectTimeout: { seconds: 1 },
    metadata: { filterMetadata: { mesh: { fields } } },
    loadAssignment: {
      clusterName: "inbound|80||",
      endpoints: [{ lbEndpoints: [{ endpoint: { address: socket(port) } }] }],
    },
  };
}

/** A cluster as the mesh makes it: the service in its metadata, the workload in the endpoint's. */
function outboundCluster(port: number): Record<string, unknown> {
  const service = packService("server.default.svc.cluster.local", "server", "default");
  const peer = packWorkload({
    workload: "server-v2",
    namespace: "default",
    app: "server",
    cluster: "Kubernetes",
  });
  const mesh = (name: string, stringValue: string): object => ({
    filterMetadata: { mesh: { fields: { [name]: { stringValue } } } },
  });
  return {
    name: "outbound|80||server.default.svc.cluster.local",
    type: "STATIC",
    connectTimeout: { seconds: 1 },
    metadata: mesh("service", service),
    loadAssignment: {
      clusterName: "outbound|80||server.default.svc.cluster.local",
      endpoints: [{ lbEndpoints: [{ endpoint: { address: socket(port) }, metadata: mesh("peer", peer) }] }],
    },
  };
}

/** A cluster about which nothing is known, as an EnvoyFilter may add it. */
function plainCluster(port: number): Record<string, unknown> {
  const endpoints = [{ lbEndpoints: [{ endpoint: { address: socket(port) } }] }];
  return {
    name: "plain",
    type: "STATIC",
    connectTimeout: { seconds: 1 },
    loadAssignment: { clusterName: "plain", endpoints },
  };
}

function outboundListener(port: number): Record<string, unknown> {
  const service = packService("server.default.svc.cluster.local", "server", "default");
  const cluster = "outbound|80||server.default.svc.cluster.local";
  const routes = [
    { match: { path: "/hello" }, route: { cluster } },
    { match: { path: "/plain" }, route: { cluster: "plain" } },
    {
      match: { path: "/direct" },
      directResponse: { status: 418 },
      metadata: { filterMetadata: { mesh: { fields: { service: { stringValue: service } } } } },
    },
  ];
  const manager = {
    "@type": `${prefix}envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager`,
    statPrefix: "outbound_0.0.0.0_80",
    accessLog: accessLogs({}, { side: "client", protocol: "http" }),
    routeConfig: { virtualHosts: [{ name: "outbound", domains: ["*"], routes }] },
    httpFilters: [
      {
        name: "envoy.filters.http.router",
        typedConfig: { "@type": `${prefix}envoy.extensions.filters.http.router.v3.Router` },
      },
    ],
  };
  const filters = [{ name: "envoy.filters.network.http_connection_manager", typedConfig: manager }];
  return {
    name: "outbound",
    trafficDirection: "OUTBOUND",
    address: socket(port),
    filterChains: [{ filters }],
  };
}

function tcpListener(port: number): Record<string, unknown> {
  const proxy = {
    "@type": `${prefix}envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy`,
    statPrefix: "outbound|80||server.default.svc.cluster.local",
    cluster: "outbound|80||server.default.svc.cluster.local",
    accessLog: accessLogs({}, { side: "client", protocol: "tcp" }),
    accessLogOptions: tcpAccessLogOptions,
  };
  const filters = [{ name: "envoy.filters.network.tcp_proxy", typedConfig: proxy }];
  return { name: "tcp", trafficDirection: "OUTBOUND", address: socket(port), filterChains: [{ filters }] };
}

function inboundTls(): object {
  const secret = (name: string): object => ({
    name,
    sdsConfig: {
      resourceApiVersion: "V3",
      apiConfigSource: {
        apiType: "GRPC",
        transportApiVersion: "V3",
        grpcServices: [{ envoyGrpc: { clusterName: "sds-grpc" } }],
      },
    },
  });
  return {
    "@type": `${prefix}envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext`,
    requireClientCertificate: { value: true },
    commonTlsContext: {
      tlsCertificateSdsSecretConfigs: [secret("default")],
      validationContextSdsSecretConfig: secret("ROOTCA"),
    },
  };
}

function inboundListener(port: number): Record<string, unknown> {
  const manager = {
    "@type": `${prefix}envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager`,
    // A tag in a name as Istio's extensions write them.
    statPrefix: "inbound.tier=.=gold;.;80",
    accessLog: accessLogs({}, { side: "server", protocol: "http" }),
    routeConfig: {
      virtualHosts: [
        {
          name: "inbound",
          domains: ["*"],
          routes: [{ match: { prefix: "/" }, route: { cluster: "inbound|80||" } }],
        },
      ],
    },
    httpFilters: [
      {
        name: "envoy.filters.http.router",
        typedConfig: { "@type": `${prefix}envoy.extensions.filters.http.router.v3.Router` },
      },
    ],
  };
  return {
    name: "virtualInbound",
    trafficDirection: "INBOUND",
    address: socket(port),
    filterChains: [
      {
        transportSocket: { name: "envoy.transport_sockets.tls", typedConfig: inboundTls() },
        filters: [{ name: "envoy.filters.network.http_connection_manager", typedConfig: manager }],
      },
    ],
  };
}

/** A TCP filter chain under mutual TLS, as the mesh makes it. */
function tcpInboundListener(port: number): Record<string, unknown> {
  const to = { kind: "cluster", name: "inbound|80||" } as const;
  const filters = [tcpProxy({}, { side: "server", statPrefix: "inbound|80||", to, afterHandshake: true })];
  const transportSocket = { name: "envoy.transport_sockets.tls", typedConfig: inboundTls() };
  const filterChains = [{ transportSocket, filters }];
  return { name: "tcpInbound", trafficDirection: "INBOUND", address: socket(port), filterChains };
}

function socket(portValue: number): object {
  return { socketAddress: { address: "127.0.0.1", portValue } };
}

interface ClientCertificate {
  readonly key: string;
  readonly cert: string;
  readonly ca: string;
}

async function clientOf(world: World): Promise<ClientCertificate> {
  const certificate = await fetchCertificate({
    address: `localhost:${world.ports.xds}`,
    spiffeId: "spiffe://cluster.local/ns/default/sa/client",
    token: "client",
    rootPem: world.ca.rootPem,
    ttlSeconds: 3_600,
  });
  return { key: certificate.keyPem, cert: certificate.chainPem, ca: world.ca.rootPem };
}

interface Answer {
  readonly status: number;
  readonly body: string;
  readonly peer: X509Certificate;
}

/** One request on a connection of its own, by mutual TLS. */
function call(world: World, client: ClientCertificate, path: string): Promise<Answer> {
  const identity = client.key === "" ? {} : { key: client.key, cert: client.cert };
  const options = {
    host: "127.0.0.1",
    port: world.ports.inbound,
    path,
    ...identity,
    ca: client.ca,
    agent: new Agent({ keepAlive: false, maxCachedSessions: 0 }),
    checkServerIdentity: () => undefined,
  };
  return new Promise((resolve, reject) => {
    const question = httpsRequest(options, (answer) => {
      const tls = answer.socket as unknown as { getPeerX509Certificate(): X509Certificate };
      const peer = tls.getPeerX509Certificate();
      let body = "";
      answer.on("data", (chunk: Buffer) => (body += chunk.toString()));
      answer.on("end", () => resolve({ status: answer.statusCode ?? 0, body, peer }));
      answer.on("error", reject);
    });
    question.on("error", reject);
    question.end();
  });
}

/** A certificate's serial number as Envoy prints it. */
function serialOf(pem: string): string {
  return new X509Certificate(pem).serialNumber.toLowerCase();
}

function get(port: number, path: string): Promise<{ status: number; body: string }> {
  return new Promise((resolve, reject) => {
    const question = httpRequest({ host: "127.0.0.1", port, path, agent: false }, (answer) => {
      let body = "";
      answer.on("data", (chunk: Buffer) => (body += chunk.toString()));
      answer.on("end", () => resolve({ status: answer.statusCode ?? 0, body }));
    });
    question.on("error", reject);
    question.end();
  });
}

interface Series {
  readonly name: string;
  readonly labels: Record<string, string>;
  readonly value: number;
}

function seriesOf(text: string): Series[] {
  return text.split("\n").flatMap((line) => {
    const [, name, labels, value] = /^(istio_[a-z_]+)\{(.*)\} (\S+)$/.exec(line) ?? [];
    if (name === undefined || labels === undefined) return [];
    const pairs = [...labels.matchAll(/([a-z_]+)="([^"]*)"/g)].map(([, key = "", told = ""]) => [key, told]);
    return [{ name, labels: Object.fromEntries(pairs) as Record<string, string>, value: Number(value) }];
  });
}

/** Asks until the answer is neither false nor undefined nor an error; fails after 15 seconds with what was awaited. */
async function until<Value>(what: string, ask: () => Promise<Value | undefined>): Promise<Value> {
  const endMs = Date.now() + 15_000;
  let last: unknown = "";
  while (Date.now() < endMs) {
    try {
      const value = await ask();
      if (value !== undefined && value !== false) return value;
    } catch (error) {
      last = error;
    }
    await sleep(50);
  }
  throw new Error(`waited 15 s in vain: ${what} (${String(last)})`);
}

function envoyPidOf(world: World): number | undefined {
  const path = `/proc/${world.agent.pid}/task/${world.agent.pid}/children`;
  if (!existsSync(path)) return undefined;
  const [first] = readFileSync(path, "utf8").trim().split(" ");
  return first === undefined || first === "" ? undefined : Number(first);
}

function sleep(ms: number): Promise<void> {
  return new Promise((resolve) => void setTimeout(resolve, ms));
}
