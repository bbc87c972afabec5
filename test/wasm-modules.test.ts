// Wasm modules on their whole way: from a registry through the control plane's fetcher and the port of xDS, with TLS and proof of
// identity, into a real Envoy on loopback. No cluster and no root needed.

import assert from "node:assert/strict";
import http2 from "node:http2";
import { mkdtempSync, rmSync } from "node:fs";
import { connect, createServer, type AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { text as textOf } from "node:stream/consumers";
import { after, before, describe, test } from "node:test";
import { silentLog } from "#base";
import { Engine } from "#engine";
import { snapshotOf, type Message } from "#envoy";
import { fetchedModules, worldChanges } from "#model";
import type { KubeObject } from "#objects";
import { GrpcServer } from "#xds";
import { createAuthenticator } from "../src/apps/control/ca-service.ts";
import { moduleDownloads } from "../src/apps/control/module-downloads.ts";
import { ModuleFetcher } from "../src/apps/control/module-fetcher.ts";
import { staticCluster, withoutEnvoy } from "./support/envoy.ts";
import { startEnvoy, staticForm } from "./support/envoy-process.ts";
import { freePorts } from "./support/free-ports.ts";
import { proxyOf } from "./support/proxies.ts";
import { RealClock, until } from "./support/real-clock.ts";
import { moduleLayer, sha256Of, TestRegistry } from "./support/registry.ts";
import { TestAuthority, type Pair } from "./support/test-authority.ts";
import { wasmModule, wasmNetworkModule } from "./support/wasm.ts";

const router = proxyOf({
  kind: "router",
  namespace: "gw",
  labels: { istio: "edge" },
  interception: "NONE",
});
/** As large as the network's buffers are not, but for its first part without meaning. */
const module = padded(wasmModule("x-image", "yes"), 3_000_000);
const sha256 = sha256Of(module);

describe("a module of an image", () => {
  const folder = mkdtempSync(join(tmpdir(), "mizzen-wasm-"));
  const engine = new Engine();
  const asked: string[] = [];
  const pairs = new Map<string, Pair>();
  let authority: TestAuthority;
  let registry: TestRegistry;
  let fetcher: ModuleFetcher;
  let server: GrpcServer;

  before(async () => {
    authority = await TestAuthority.create("mesh");
    for (const namespace of ["gw", "other"])
      pairs.set(namespace, await authority.issue([`spiffe://cluster.local/ns/${namespace}/sa/edge`]));
    registry = await TestRegistry.listen();
    registry.putImage("team/plugin", "1", [{ mediaType: moduleLayer, bytes: module }]);
    fetcher = new ModuleFetcher({
      engine,
      clock: new RealClock(),
      log: silentLog,
      publish: (changes) => engine.apply(changes),
      readSecret: () => Promise.resolve(undefined),
      insecureRegistries: [registry.host],
      allowLocal: true,
    });
    const serving = await authority.issue(["istiod.istio-d.svc"]);
    const downloads = moduleDownloads({
      modules: fetcher,
      authenticate: createAuthenticator({
        trustDomain: "cluster.local",
        reviewToken: () => Promise.resolve({ authenticated: false }),
      }),
      unauthenticated: () => {},
      rootNamespace: () => "istio-d",
    });
    server = await GrpcServer.listen({
      host: "127.0.0.1",
      port: 0,
      tls: { certificate: serving.certificate, key: serving.key, clientRoots: authority.certificate },
      streams: {},
      unary: {},
      downloads: {
        ...downloads,
        find: (name, peer) => {
          asked.push(name);
          return downloads.find(name, peer);
        },
      },
      log: silentLog,
    });
  });
  after(async () => {
    fetcher.stop();
    registry.close();
    await server.close(0);
    rmSync(folder, { recursive: true, force: true });
  });

  /** The cluster of the agent's bootstrap that leads to the control plane, for a proxy of a namespace. */
  function controlPlane(namespace: string): Message {
    const { certificate, key } = pairs.get(namespace)!;
    return {
      ...staticCluster("xds-grpc", server.port),
      transportSocket: {
        name: "envoy.transport_sockets.tls",
        typedConfig: {
          "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
          sni: "istiod.istio-d.svc",
          commonTlsContext: {
            alpnProtocols: ["h2"],
            tlsCertificates: [
              { certificateChain: { inlineString: certificate }, privateKey: { inlineString: key } },
            ],
            validationContext: { trustedCa: { inlineString: authority.certificate } },
          },
        },
      },
    };
  }

  test(
    "reaches the proxy by its connection for xDS; one that cannot be had closes what it would see",
    {
      skip: withoutEnvoy,
    },
    async () => {
      const [open = 0, closed = 0, lax = 0, admin = 0] = await freePorts(4);
      const image = (tag: string): string => `oci://${registry.host}/team/plugin:${tag}`;
      engine.apply(
        worldChanges([
          ...gateway([open, closed, lax]),
          plugin("there", { url: image("1"), match: [{ ports: [{ number: open }] }] }),
          plugin("missing", { url: image("2"), match: [{ ports: [{ number: closed }] }] }),
          plugin("optional", {
            url: image("2"),
            failStrategy: "FAIL_OPEN",
            match: [{ ports: [{ number: lax }] }],
          }),
        ]),
      );
      await fetcher.start();
      const form = staticForm(Object.values(snapshotOf(engine, router)).flat());
      const resources = { ...form, clusters: [...form.clusters, controlPlane("gw")] };
      const envoy = await startEnvoy(folder, "edge", admin, resources);
      const get = (port: number): Promise<Response> => fetch(`http://127.0.0.1:${port}/`);
      try {
        await until("the module runs", async () => (await get(open)).headers.get("x-image") === "yes");
        assert.equal((await get(open)).status, 200);
        assert.equal((await get(closed)).status, 503);
        assert.equal((await get(lax)).status, 200);
        assert.deepEqual(asked, [sha256]);
      } finally {
        envoy.kill("SIGKILL");
      }
    },
  );

  test(
    "of type NETWORK sees the bytes of a TCP connection; one that cannot be had lets none through",
    {
      skip: withoutEnvoy,
    },
    async () => {
      const backend = createServer((socket) => socket.end("world"));
      await new Promise<void>((resolve) => backend.listen(0, "127.0.0.1", resolve));
      const [open = 0, closed = 0, admin = 0] = await freePorts(3);
      registry.putImage("team/bytes", "1", [{ mediaType: moduleLayer, bytes: wasmNetworkModule("hello ") }]);
      const network = (tag: string, number: number): object => ({
        url: `oci://${registry.host}/team/bytes:${tag}`,
        type: "NETWORK",
        match: [{ ports: [{ number }] }],
      });
      const { port } = backend.address() as AddressInfo;
      engine.apply(
        worldChanges([
          ...streamGateway([open, closed], port),
          plugin("bytes", network("1", open)),
          plugin("no-bytes", network("2", closed)),
        ]),
      );
      fetcher.settled(engine.settle().changed);
      await until("both fetches have an outcome", () =>
        ["bytes", "no-bytes"].every((name) => engine.rows(fetchedModules).has(`WasmPlugin/gw/${name}`)),
      );
      const form = staticForm(Object.values(snapshotOf(engine, router)).flat());
      const resources = { ...form, clusters: [...form.clusters, controlPlane("gw")] };
      const envoy = await startEnvoy(folder, "stream", admin, resources);
      const hear = (from: number): Promise<string> => textOf(connect(from, "127.0.0.1")).catch(() => "");
      try {
        await until("the module runs", async () => (await hear(open)) === "hello world");
        assert.equal(await hear(closed), "");
      } finally {
        envoy.kill("SIGKILL");
        backend.close();
      }
    },
  );

  test("goes to nobody without proof, and not to namespaces that have no object with it", async () => {
    engine.apply(worldChanges([plugin("there", { url: `oci://${registry.host}/team/plugin:1` })]));
    fetcher.settled(engine.settle().changed);
    await until("the module is fetched", () => fetcher.find(sha256, "gw", "istio-d") !== undefined);
    assert.deepEqual(await download(`/wasm/${sha256}`, "gw"), { status: 200, sum: sha256 });
    assert.equal((await download(`/wasm/${sha256}`, "other")).status, 404);
    assert.equal((await download(`/wasm/${sha256}`, undefined)).status, 401);
    assert.equal((await download("/wasm/../x", "gw")).status, 404);
    assert.equal((await download("/elsewhere", "gw")).status, 415);
  });

  function download(
    path: string,
    namespace: string | undefined,
  ): Promise<{ readonly status: number; readonly sum: string }> {
    const pair = namespace === undefined ? undefined : pairs.get(namespace);
    const client = http2.connect(`https://127.0.0.1:${server.port}`, {
      ca: authority.certificate,
      servername: "istiod.istio-d.svc",
      cert: pair?.certificate,
      key: pair?.key,
    });
    return new Promise<{ status: number; sum: string }>((resolve, reject) => {
      const stream = client.request({ ":path": path });
      const chunks: Buffer[] = [];
      let status = 0;
      stream.on("response", (headers) => (status = headers[":status"] ?? 0));
      stream.on("data", (chunk: Buffer) => chunks.push(chunk));
      stream.on("end", () => resolve({ status, sum: sha256Of(Buffer.concat(chunks)) }));
      stream.on("error", reject);
    }).finally(() => client.destroy());
  }
});

function object(apiVersion: string, kind: string, name: string, spec: object): KubeObject {
  return { apiVersion, kind, metadata: { name, namespace: "gw" }, spec };
}

function plugin(name: string, spec: object): KubeObject {
  return object("extensions.istio.io/v1alpha1", "WasmPlugin", name, spec);
}

function gateway(ports: readonly number[]): KubeObject[] {
  const networking = "networking.istio.io/v1";
  const servers = ports.map((number) => ({
    port: { number, name: `http-${number}`, protocol: "HTTP" },
    hosts: ["*"],
  }));
  return [
    object(networking, "Gateway", "edge", { selector: { istio: "edge" }, servers }),
    object(networking, "VirtualService", "v", {
      hosts: ["*"],
      gateways: ["edge"],
      http: [{ directResponse: { status: 200 } }],
    }),
  ];
}

function streamGateway(ports: readonly number[], backend: number): KubeObject[] {
  const networking = "networking.istio.io/v1";
  const host = "backend.example.com";
  const servers = ports.map((number) => ({
    port: { number, name: `tcp-${number}`, protocol: "TCP" },
    hosts: ["*"],
  }));
  return [
    object(networking, "ServiceEntry", "backend", {
      hosts: [host],
      ports: [{ number: 9000, name: "tcp", protocol: "TCP" }],
      resolution: "STATIC",
      endpoints: [{ address: "127.0.0.1", ports: { tcp: backend } }],
    }),
    object(networking, "Gateway", "streams", { selector: { istio: "edge" }, servers }),
    object(networking, "VirtualService", "streams", {
      hosts: ["*"],
      gateways: ["streams"],
      tcp: [{ route: [{ destination: { host, port: { number: 9000 } } }] }],
    }),
  ];
}

/** With a custom section at its end, which says nothing. */
function padded(wasm: Uint8Array, bytes: number): Uint8Array {
  const size: number[] = [];
  for (let rest = bytes; rest > 0; rest >>= 7) size.push((rest & 0x7f) | (rest > 0x7f ? 0x80 : 0));
  const section = Buffer.alloc(bytes);
  section.set([1, 0x78]);
  return Buffer.concat([wasm, Buffer.from([0, ...size]), section]);
}
