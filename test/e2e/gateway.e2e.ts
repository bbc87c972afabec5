// A router in a real Envoy on loopback, with all that it gets for a handful of objects: what clients from outside see of
// HTTP, redirects, TLS from Secrets, client certificates and TLS that passes through.

import assert from "node:assert/strict";
import type { ChildProcess } from "node:child_process";
import {
  request as httpRequest,
  createServer,
  type IncomingMessage,
  type Server as HttpServer,
} from "node:http";
import { createServer as createHttpsServer, request as httpsRequest } from "node:https";
import { mkdtempSync, rmSync } from "node:fs";
import type { AddressInfo, Server } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { Engine } from "#engine";
import { snapshotOf } from "#envoy";
import { CertificateAuthority, createSelfSignedMaterial } from "#identity";
import { worldChanges, type ProxyClass } from "#model";
import type { KubeObject } from "#objects";
import { withoutEnvoy } from "../support/envoy.ts";
import { startEnvoy, staticForm } from "../support/envoy-process.ts";
import { freePorts } from "../support/free-ports.ts";
import { readersOfSecrets } from "../support/secret-readers.ts";

const clock = {
  nowMs: () => Date.now(),
  monotonicMs: () => performance.now(),
  after: (): (() => void) => () => {},
};
const folder = mkdtempSync(join(tmpdir(), "envoy-gateway-"));
const servers: (HttpServer | Server)[] = [];
const namespace = "sm-gateways";
let envoy: ChildProcess | undefined;
let ports: { readonly http: number; readonly redirect: number; readonly https: number };
let root: string;
let client: { readonly key: string; readonly chain: string };

const proxy: ProxyClass = {
  kind: "router",
  namespace,
  labels: { istio: "ingressgateway" },
  serviceAccount: "istio-ingressgateway",
  network: "",
  locality: "",
  clusterId: "Kubernetes",
  dnsDomain: `${namespace}.svc.cluster.local`,
  interception: "NONE",
  envoyVersion: "1.40.0",
  metadata: {},
};

describe("a router", { skip: withoutEnvoy }, () => {
  before(async () => {
    const authority = await CertificateAuthority.load(await createSelfSignedMaterial(clock), { clock });
    root = authority.rootPem;
    client = await authority.issueServing(["client"]);
    const [http = 0, redirect = 0, https = 0, admin = 0] = await freePorts(4);
    ports = { http, redirect, https };
    const behind = await authority.issueServing(["pass.example.com"]);
    const app = await listening(createServer((_request, response) => response.end("plain")));
    const secure = await listening(
      createHttpsServer({ key: behind.key, cert: behind.chain }, (_request, response) =>
        response.end("own TLS"),
      ),
    );
    const simple = await authority.issueServing(["a.example.com"]);
    const mutual = await authority.issueServing(["m.example.com"]);
    const engine = new Engine();
    engine.apply(
      worldChanges([
        ...backends(app, secure),
        gatewayObject(),
        virtualService("plain", ["a.example.com", "m.example.com"], { http: [route("app.test", 80)] }),
        virtualService("pass", ["pass.example.com"], {
          tls: [{ match: [{ sniHosts: ["pass.example.com"] }], ...route("secure.test", 443) }],
        }),
        secret("simple", { "tls.crt": simple.chain, "tls.key": simple.key }),
        secret("mutual", { "tls.crt": mutual.chain, "tls.key": mutual.key, "ca.crt": root }),
      ]),
    );
    engine.apply(readersOfSecrets(`${namespace}/${proxy.serviceAccount}`));
    const resources = staticForm(Object.values(snapshotOf(engine, proxy)).flat());
    const own = [
      {
        name: "default",
        tlsCertificate: {
          certificateChain: { inlineString: client.chain },
          privateKey: { inlineString: client.key },
        },
      },
      { name: "ROOTCA", validationContext: { trustedCa: { inlineString: root } } },
    ];
    const secrets = [...resources.secrets, ...own];
    envoy = await startEnvoy(folder, "router", admin, { ...resources, secrets });
  });

  after(() => {
    envoy?.kill("SIGKILL");
    for (const server of servers) server.close();
    rmSync(folder, { recursive: true, force: true });
  });

  test("answers for the hosts that are bound, and 404 for others", async () => {
    assert.equal(await plain(ports.http, "a.example.com"), "200 plain");
    assert.match(await plain(ports.http, "b.example.com"), /^404/);
  });

  test("sends clients to HTTPS where the server says so", async () => {
    assert.equal(await plain(ports.redirect, "a.example.com"), "301 https://a.example.com/");
  });

  test("ends TLS with the certificate of the Secret that the server name belongs to", async () => {
    assert.equal(await secured("a.example.com"), "200 plain");
    await assert.rejects(secured("unknown.example.com"), "no chain is for that name");
  });

  test("demands a client certificate of the CA in the Secret where TLS is mutual", async () => {
    await assert.rejects(secured("m.example.com"));
    assert.equal(await secured("m.example.com", { key: client.key, cert: client.chain }), "200 plain");
  });

  test("leaves TLS alone that is to pass through", async () => {
    assert.equal(await secured("pass.example.com"), "200 own TLS");
  });
});

function gatewayObject(): KubeObject {
  const server = (number: number, protocol: string, name: string, hosts: string[], tls?: object): object => ({
    port: { number, protocol, name },
    bind: "127.0.0.1",
    hosts,
    ...(tls === undefined ? {} : { tls }),
  });
  return object("Gateway", "web", {
    selector: { istio: "ingressgateway" },
    servers: [
      server(ports.http, "HTTP", "http", ["*"]),
      server(ports.redirect, "HTTP", "redirect", ["*"], { httpsRedirect: true }),
      server(ports.https, "HTTPS", "simple", ["a.example.com"], { mode: "SIMPLE", credentialName: "simple" }),
      server(ports.https, "HTTPS", "mutual", ["m.example.com"], { mode: "MUTUAL", credentialName: "mutual" }),
      server(ports.https, "TLS", "pass", ["pass.example.com"], { mode: "PASSTHROUGH" }),
    ],
  });
}

function backends(app: number, secure: number): KubeObject[] {
  const entry = (host: string, number: number, protocol: string, target: number): KubeObject =>
    object("ServiceEntry", host, {
      hosts: [host],
      location: "MESH_INTERNAL",
      resolution: "STATIC",
      ports: [{ number, protocol, name: protocol.toLowerCase(), targetPort: target }],
      endpoints: [{ address: "127.0.0.1" }],
    });
  return [entry("app.test", 80, "HTTP", app), entry("secure.test", 443, "TLS", secure)];
}

function virtualService(name: string, hosts: readonly string[], routes: object): KubeObject {
  return object("VirtualService", name, { hosts, gateways: ["web"], ...routes });
}

function route(host: string, number: number): object {
  return { route: [{ destination: { host, port: { number } } }] };
}

function object(kind: string, name: string, spec: object): KubeObject {
  return { apiVersion: "networking.istio.io/v1", kind, metadata: { name, namespace }, spec };
}

function secret(name: string, texts: Readonly<Record<string, string>>): KubeObject {
  const data = Object.entries(texts).map(([field, text]) => [field, Buffer.from(text).toString("base64")]);
  const fields = {
    apiVersion: "v1",
    kind: "Secret",
    metadata: { name, namespace },
    data: Object.fromEntries(data),
  };
  return fields as KubeObject;
}

function plain(port: number, host: string): Promise<string> {
  return answer((done) => httpRequest({ host: "127.0.0.1", port, headers: { host } }, done));
}

function secured(
  servername: string,
  own: { readonly key?: string; readonly cert?: string } = {},
): Promise<string> {
  const options = { host: "127.0.0.1", port: ports.https, servername, ca: root, agent: false, ...own };
  return answer((done) => httpsRequest({ ...options, headers: { host: servername } }, done));
}

/** Status and body, or where a redirect leads. */
function answer(
  send: (done: (response: IncomingMessage) => void) => ReturnType<typeof httpRequest>,
): Promise<string> {
  return new Promise((resolve, reject) => {
    send((response) => {
      let body = "";
      response.on("data", (data) => (body += String(data)));
      response.once("end", () => resolve(`${response.statusCode} ${response.headers.location ?? body}`));
    })
      .once("error", reject)
      .end();
  });
}

async function listening(server: HttpServer | Server): Promise<number> {
  servers.push(server);
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  return (server.address() as AddressInfo).port;
}
