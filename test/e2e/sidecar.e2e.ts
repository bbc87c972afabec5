// What a Sidecar says about its own workload: where its application takes what comes in, with which TLS and how much at once, and
// where the application finds the mesh without capture.

import assert from "node:assert/strict";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import type { KubeObject } from "#objects";
import { TestAuthority, type Pair } from "../support/test-authority.ts";
import { echoIn, type Echo, type EchoApp, type Order } from "./echoes.ts";
import { assertMutualTls, Ground, namespace, serviceEntry, sidecarOf } from "./ground.ts";
import { command, eventually } from "./mesh.ts";

const callerPorts = [{ name: "http", servicePort: 80, workloadPort: 8080, flag: "http" }] as const;
const serverPorts = [
  { name: "http", servicePort: 80, workloadPort: 8080, flag: "http" },
  { name: "http-localhost", servicePort: 8183, workloadPort: 8083, flag: "http-localhost" },
  { name: "http-own-ip", servicePort: 8184, workloadPort: 8084, flag: "http-pod-ip" },
  { name: "tcp", servicePort: 9000, workloadPort: 9001, flag: "tcp" },
] as const;
/** Ports of the server that a Sidecar opens; no application listens there. */
const proxyPorts = [
  { name: "https-simple", port: 443, targetPort: 8443 },
  { name: "https-mutual", port: 444, targetPort: 8444 },
  { name: "http-bound", port: 8186, targetPort: 8086 },
];
const mounts = {
  "sidecar.istio.io/userVolume": JSON.stringify({ tls: { secret: { secretName: "server-files" } } }),
  "sidecar.istio.io/userVolumeMount": JSON.stringify({ tls: { mountPath: "/etc/tls", readOnly: true } }),
  "traffic.sidecar.istio.io/excludeInboundPorts": "8999,8086",
};
const apps: readonly EchoApp[] = [
  { name: "caller", namespace, ports: callerPorts },
  { name: "server", namespace, ports: serverPorts, annotations: mounts },
];

let ground: Ground;
let folder = "";
const certificateHost = "server.example.com";

before(async () => {
  const authority = await TestAuthority.create("ours");
  const server = await authority.issue([certificateHost]);
  folder = mkdtempSync(join(tmpdir(), "mizzen-sidecar-"));
  writeFileSync(join(folder, "ca.crt"), authority.certificate);
  keep("client", await authority.issue(["client.example.com"]));
  keep("stranger", await (await TestAuthority.create("stranger")).issue(["client.example.com"]));
  const files = { "own.crt": server.certificate, "own.key": server.key, "ca.crt": authority.certificate };
  ground = await Ground.start({
    name: "sidecar-e2e",
    port: 18_870,
    apps,
    objects: [secret("server-files", files), opened],
  });
});
after(async () => {
  rmSync(folder, { recursive: true, force: true });
  await ground?.down();
});

function keep(name: string, { certificate, key }: Pair): void {
  writeFileSync(join(folder, `${name}.crt`), certificate);
  writeFileSync(join(folder, `${name}.key`), key);
}

function secret(name: string, stringData: Readonly<Record<string, string>>): KubeObject {
  return { apiVersion: "v1", kind: "Secret", metadata: { name, namespace }, stringData } as KubeObject;
}

const opened: KubeObject = {
  apiVersion: "v1",
  kind: "Service",
  metadata: { name: "opened", namespace },
  spec: { selector: { app: "server" }, ports: proxyPorts },
};

test("a Sidecar's pool limits what an application gets at once", async () => {
  const inboundConnectionPool = {
    tcp: { maxConnections: 1 },
    http: { http1MaxPendingRequests: 1, http2MaxRequests: 1 },
  };
  const limited: KubeObject = {
    apiVersion: "networking.istio.io/v1",
    kind: "Sidecar",
    metadata: { name: "limited", namespace },
    spec: { workloadSelector: { labels: { app: "server" } }, inboundConnectionPool },
  };
  const many: Order = { url: "http://server/?delay=300", count: 12, concurrency: 12 };
  const statuses = async () => new Set((await ground.calls(many)).map(({ status }) => status));
  assert.deepEqual(await statuses(), new Set([200]), "without it all are answered");
  await ground.applied([limited], () =>
    eventually("some are refused", async () => {
      assert.deepEqual(await statuses(), new Set([200, 503]));
      return true;
    }),
  );
});

test("a Sidecar says at which port and at which unix socket its application takes what comes in", async () => {
  const socket = "mizzen-ingress";
  const led: KubeObject = {
    apiVersion: "networking.istio.io/v1",
    kind: "Sidecar",
    metadata: { name: "led", namespace },
    spec: {
      workloadSelector: { labels: { app: "server" } },
      ingress: [
        { port: { ...entryPort, number: 8080 }, defaultEndpoint: "127.0.0.1:8083" },
        { port: { ...entryPort, name: "http-socket", number: 8084 }, defaultEndpoint: `unix://@${socket}` },
      ],
    },
  };
  const reached = (port: number) =>
    ground.answered({ url: "http://server/" }, (result) => {
      assert.equal(echoIn(result)?.port, port, JSON.stringify(result));
      assertMutualTls(result);
    });
  await reached(8080);
  await listening("server", socket, () =>
    ground.applied([led], async () => {
      await reached(8083);
      await ground.answered({ url: "http://server:8184/" }, ({ body }) =>
        assert.equal(body, `GET / at ${socket}`),
      );
    }),
  );
  await reached(8080);
});

test("a ServiceEntry leads to a unix socket beside the caller", async () => {
  const socket = "mizzen-entry";
  const entry = serviceEntry("socket.example.com", {
    resolution: "STATIC",
    ports: [{ ...entryPort, number: 80 }],
    endpoints: [{ address: `unix://@${socket}` }],
  });
  await listening("caller", socket, () =>
    ground.applied([entry], () =>
      ground.answered({ url: "http://server/there", headers: { Host: "socket.example.com" } }, ({ body }) =>
        assert.equal(body, `GET /there at ${socket}`),
      ),
    ),
  );
});

test("a Sidecar's ingress ends TLS of its own, with files, where mutual TLS of the mesh is off", async () => {
  const files = { serverCertificate: "/etc/tls/own.crt", privateKey: "/etc/tls/own.key" };
  const https = (number: number, name: string) => ({ number, name, protocol: "HTTPS" });
  const mutual = { mode: "MUTUAL", ...files, caCertificates: "/etc/tls/ca.crt" };
  const defaultEndpoint = "127.0.0.1:8083";
  const secured = sidecarOf("server", {
    ingress: [
      { port: https(8443, "simple"), defaultEndpoint, tls: { mode: "SIMPLE", ...files } },
      { port: https(8444, "mutual"), defaultEndpoint, tls: mutual },
      { port: { ...entryPort, number: 8080 } },
    ],
  });
  await ground.applied([secured, peerAuthentication({ 8443: "DISABLE", 8444: "DISABLE" })], async () => {
    await eventually("the port for everyone", async () => {
      const echo = await tlsCall(8443);
      assert.deepEqual([echo.service, echo.port], ["server", 8083]);
      assert.equal(echo.headers["x-forwarded-client-cert"], undefined);
      return true;
    });
    const known = await tlsCall(8444, "client");
    assert.match(known.headers["x-forwarded-client-cert"] ?? "", /client\.example\.com/);
    await assert.rejects(tlsCall(8444), "without a certificate");
    await assert.rejects(tlsCall(8444, "stranger"), "with a foreign one");
    // A caller's proxy knows that there is no TLS of the mesh on that port, and leaves the application's as it is.
    await ground.answered({ url: "https://opened/", serverName: certificateHost }, (result) =>
      assert.equal(echoIn(result)?.port, 8083, JSON.stringify(result)),
    );
    await ground.answered({ url: "http://server/" }, assertMutualTls);
  });
});

test("a Sidecar's port without capture is a listener of its own, also in a Pod whose other ports are captured", async () => {
  const bound = sidecarOf("server", {
    ingress: [
      { port: { ...entryPort, number: 8080 } },
      {
        port: { ...entryPort, name: "bound", number: 8086 },
        captureMode: "NONE",
        defaultEndpoint: "127.0.0.1:8083",
      },
    ],
  });
  const reaches = (port: number) =>
    ground.answered({ url: `http://opened:${port}/` }, (result) => {
      assert.equal(echoIn(result)?.port, 8083, JSON.stringify(result));
      assertMutualTls(result);
    });
  await ground.applied([bound], async () => {
    await reaches(8186);
    assert.match(await ground.admin("server", "/listeners"), /^0\.0\.0\.0_8086::0\.0\.0\.0:8086$/m);
    await ground.answered({ url: "http://server/" }, assertMutualTls);
  });
});

test("an application finds the mesh at an address, a unix socket and an HTTP proxy where its Sidecar says so", async () => {
  const hosts = [`${namespace}/server.${namespace}.svc.cluster.local`];
  const port = (number: number, protocol: string) => ({ number, protocol, name: `p${number}` });
  const here = { bind: "127.0.0.1", captureMode: "NONE", hosts };
  const local = sidecarOf("caller", {
    egress: [
      { ...here, port: port(8184, "HTTP") },
      { ...here, port: port(9000, "TCP") },
      { ...here, port: port(3128, "HTTP_PROXY") },
      { port: port(0, "HTTP"), bind: "unix://@mizzen-http", hosts },
      { port: port(0, "TCP"), bind: "unix://@mizzen-tcp", hosts },
      { hosts: ["*/*"] },
    ],
  });
  const curled = async (...words: readonly string[]) => {
    const asked = await command("nsenter", [await ground.netnsOf("caller"), "--", "curl", "-sS", ...words]);
    assert.equal(asked.code, 0, asked.stderr);
    return asked.stdout;
  };
  await ground.applied([local], async () => {
    await ground.answered({ url: "http://127.0.0.1:8184/", headers: { Host: "server:8184" } }, (result) => {
      assert.equal(echoIn(result)?.port, 8084, JSON.stringify(result));
      assertMutualTls(result);
    });
    await ground.answered({ url: "tcp://127.0.0.1:9000" }, ({ body }) =>
      assert.match(body, /service=server /),
    );
    for (const where of [
      ["--abstract-unix-socket", "mizzen-http"],
      ["--proxy", "http://127.0.0.1:3128"],
    ])
      await eventually(where.join(" "), async () => {
        for (const [host, at] of [
          ["server", 8080],
          [`server.${namespace}.svc.cluster.local:8184`, 8084],
        ] as const) {
          const body = await curled(...where, `http://${host}/`);
          assert.equal((JSON.parse(body) as Echo).port, at, body);
        }
        const status = await curled(
          ...where,
          "-o",
          "/dev/null",
          "-w",
          "%{http_code}",
          "http://server:8183/x",
        );
        assert.equal(status, "503", "known, and its application listens on localhost alone");
        return true;
      });
    await eventually("a socket for connections", async () => {
      const body = await curled("--abstract-unix-socket", "mizzen-tcp", "http://any/");
      assert.equal((JSON.parse(body) as Echo).port, 8080, body);
      return true;
    });
    await ground.answered({ url: "http://server/" }, assertMutualTls);
  });
});

function peerAuthentication(modes: Readonly<Record<number, string>>): KubeObject {
  const portLevelMtls = Object.fromEntries(Object.entries(modes).map(([port, mode]) => [port, { mode }]));
  return {
    apiVersion: "security.istio.io/v1",
    kind: "PeerAuthentication",
    metadata: { name: "server", namespace },
    spec: { selector: { matchLabels: { app: "server" } }, portLevelMtls },
  };
}

/** Calls a port of the server's Pod from outside of the mesh; rejects where TLS or HTTP fails. */
async function tlsCall(port: number, client?: string): Promise<Echo> {
  const shown = client === undefined ? [] : ["--cert", `${client}.crt`, "--key", `${client}.key`];
  const asked = await ground.mesh.inNode([
    ...["curl", "-sS", "--fail", "--max-time", "5", "--cacert", join(folder, "ca.crt")],
    ...shown.map((word) => (word.startsWith("--") ? word : join(folder, word))),
    ...["--connect-to", `::${ground.addressOf("server")}:${port}`, `https://${certificateHost}:${port}/`],
  ]);
  if (asked.code !== 0) throw new Error(asked.stderr);
  return JSON.parse(asked.stdout) as Echo;
}

const entryPort = { name: "http", protocol: "HTTP" };

/** Does something while an HTTP server listens at an abstract unix socket, which a Pod's containers share as they share its network. */
function listening(app: string, socket: string, work: () => Promise<unknown>): Promise<void> {
  const server = `require("node:http").createServer(({ method, url }, response) => response.end(method + " " + url + " at ${socket}"))
    .listen("\\0${socket}", () => console.log("listening"));`;
  return ground.running({ app, args: ["-e", server] }, work);
}
