// Protocols, and what a rule does to a call that neither the explainer nor one answer can show: retries, ejection, limits, mirrors.
// One mesh serves all tests of this file.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { after, before, test } from "node:test";
import { stringify } from "yaml";
import { layoutOf, podNetns } from "#cluster";
import type { KubeObject } from "#objects";
import { deployEchoes, echoIn, order, podIp, type EchoApp, type Order, type Result } from "./echoes.ts";
import { leftovers } from "./leftovers.ts";
import { command, eventually, startMesh, type Mesh } from "./mesh.ts";

const name = "traffic-e2e";
const namespace = "default";
const serverPorts = [
  { name: "http", servicePort: 80, workloadPort: 8080, flag: "http" },
  { name: "grpc", servicePort: 7070, workloadPort: 8081, flag: "http" },
  { name: "any", servicePort: 8181, workloadPort: 8082, flag: "http" },
  { name: "any-tcp", servicePort: 8182, workloadPort: 9003, flag: "tcp" },
  { name: "http-localhost", servicePort: 8183, workloadPort: 8083, flag: "http-localhost" },
  { name: "http-own-ip", servicePort: 8184, workloadPort: 8084, flag: "http-pod-ip" },
  { name: "tls", servicePort: 443, workloadPort: 8443, flag: "https" },
  { name: "tcp", servicePort: 9000, workloadPort: 9001, flag: "tcp" },
  { name: "tcp-first", servicePort: 9100, workloadPort: 9002, flag: "tcp-server-first" },
  { name: "udp", servicePort: 5300, workloadPort: 5353, flag: "udp" },
] as const;
const pairPorts = [
  { name: "http", servicePort: 80, workloadPort: 8080, flag: "http" },
  { name: "tcp", servicePort: 9000, workloadPort: 9001, flag: "tcp" },
] as const;
const setPorts = [
  { name: "http", servicePort: 8080, workloadPort: 8080, flag: "http" },
  { name: "tcp", servicePort: 9001, workloadPort: 9001, flag: "tcp" },
] as const;
/** Zone-aware balancing compares where a proxy's own service is with where the called one is. */
const knowsItself = {
  "proxy.istio.io/config": 'proxyMetadata: { ISTIO_META_ENABLE_SELF_DISCOVERY: "true" }',
};
const apps: readonly EchoApp[] = [
  { name: "caller", namespace, ports: pairPorts, annotations: knowsItself, labels: inZone(1) },
  { name: "caller-v2", service: "caller", version: "v2", namespace, ports: pairPorts, labels: inZone(2) },
  { name: "server", namespace, ports: serverPorts, certificateNames: ["server.example.com"] },
  { name: "pair-v1", service: "pair", version: "v1", namespace, ports: pairPorts, labels: inZone(1) },
  { name: "pair-v2", service: "pair", version: "v2", namespace, ports: pairPorts, labels: inZone(2) },
  { name: "set", namespace, ports: setPorts, headless: true, stateful: true, replicas: 2 },
  { name: "stranger", namespace: "outside", ports: pairPorts, naked: true },
];

const configured: KubeObject = {
  apiVersion: "networking.istio.io/v1beta1",
  kind: "ProxyConfig",
  metadata: { name: "set", namespace },
  spec: {
    selector: { matchLabels: { app: "set" } },
    concurrency: 3,
    environmentVariables: { ISTIO_META_TASTE: "sour" },
  },
};

let mesh: Mesh;
const pods = new Map<string, string>();

before(async () => {
  mesh = await startMesh({ name, port: 18_680 });
  await mesh.kubectl(["create", "namespace", "outside"]);
  await mesh.kubectl(["label", "namespace", namespace, "istio-injection=enabled", "--overwrite"]);
  await mesh.kubectl(["apply", "-f", "-"], stringify(configured));
  await deployEchoes(mesh, apps);
  for (const { name: app, namespace: of, service = app, version = "v1" } of apps)
    pods.set(app, await podIp(mesh, of, `app=${service},version=${version}`));
});
after(async () => {
  await mesh?.down();
  assert.deepEqual(await leftovers(name), [], "nothing of ours is left on the machine");
});

test("a WebSocket opens through both proxies, and what is sent comes back", async () => {
  await answered({ url: "ws://server/", message: "over there" }, ({ status, body }) => {
    assert.deepEqual([status, body], [200, "over there"]);
  });
});

test("gRPC messages flow one way, the other way, and both ways in turn", async () => {
  const streamed = (kind: string, messages: readonly string[], expected: readonly string[]) =>
    answered({ url: `grpc://server:7070/echo.Echo/${kind}`, messages }, (result) => {
      assert.equal(result.grpcStatus, 0, JSON.stringify(result));
      assert.deepEqual(result.body.split("\n"), expected);
    });
  await answered({ url: "grpc://server:7070/echo.Echo/Unary" }, (result) => {
    assert.equal(result.grpcStatus, 0, JSON.stringify(result));
    assertMutualTls(result);
  });
  await streamed("ServerStream", ["3"], ["1 of 3", "2 of 3", "3 of 3"]);
  await streamed("ClientStream", ["a", "b", "c"], ["3 came"]);
  await streamed("BidiStream", ["a", "b", "c"], ["a", "b", "c"]);
});

test("HTTP/1.0 is served where it names its host", async () => {
  const message = "GET /old HTTP/1.0\r\nHost: server\r\n\r\n";
  await answered({ url: "tcp://server:80", message, expect: '"service":"server"' }, ({ body }) =>
    assert.match(body, /^HTTP\/1\.[01] 200 /),
  );
});

test("a server that speaks first is heard", async () => {
  await answered({ url: "tcp://server:9100", serverFirst: true, message: "thanks" }, ({ body }) =>
    assert.match(body, /^ready .*service=server[^]*echo=thanks/),
  );
});

test("a port of no known protocol takes HTTP/1.1, HTTP/2 and plain TCP", async () => {
  for (const http2 of [false, true])
    await answered({ url: "http://server:8181/", http2 }, (result) => {
      assert.equal(echoIn(result)?.protocol, http2 ? "HTTP/2.0" : "HTTP/1.1");
      assertMutualTls(result);
    });
  await answered({ url: "tcp://server:8182", message: "plain" }, ({ body }) =>
    assert.match(body, /service=server .*echo=plain/),
  );
});

test("TLS of the application's own goes through as it is", async () => {
  await answered({ url: "https://server/", serverName: "server.example.com" }, (result) => {
    assert.equal(echoIn(result)?.sni, "server.example.com", JSON.stringify(result));
    assert.equal(echoIn(result)?.headers["x-forwarded-client-cert"], undefined);
  });
});

test("UDP is left alone, to a Service and to a pod", async () => {
  const from = pods.get("caller") ?? "";
  for (const url of [`udp://server:5300`, `udp://${pods.get("server")}:5353`])
    await answered({ url, message: "datagram" }, ({ body }) =>
      assert.equal(body, `service=server from=${from} echo=datagram`),
    );
});

test("a headless Service is called by its name and by its pods' names, for HTTP and TCP", async () => {
  for (const host of ["set", "set-0.set", "set-1.set"]) {
    const pod = /-\d/.test(host) ? host.split(".")[0] : undefined;
    await answered({ url: `http://${host}:8080/` }, (result) => {
      assertMutualTls(result);
      if (pod !== undefined) assert.equal(echoIn(result)?.hostname, pod);
    });
    await answered({ url: `tcp://${host}:9001`, message: "hello" }, ({ body }) =>
      assert.match(body, pod === undefined ? /service=set/ : new RegExp(`hostname=${pod} `)),
    );
  }
});

test("a ProxyConfig gives the proxies that it selects their threads and environment", async () => {
  const netns = await netnsOf("set");
  const asked = await command("nsenter", [netns, "--", "curl", "-sS", "http://127.0.0.1:15000/server_info"]);
  assert.equal(asked.code, 0, asked.stderr);
  const { command_line_options: options, node } = JSON.parse(asked.stdout) as {
    readonly command_line_options: { readonly concurrency: number };
    readonly node: { readonly metadata: Readonly<Record<string, unknown>> };
  };
  assert.equal(options.concurrency, 3);
  assert.equal(node.metadata["TASTE"], "sour");
});

test("an ExternalName leads to the Service that it names", async () => {
  const spec = { type: "ExternalName", externalName: "server.default.svc.cluster.local", ports: [webPort] };
  await applied([{ apiVersion: "v1", kind: "Service", metadata: { name: "alias", namespace }, spec }], () =>
    answered({ url: "http://alias/" }, (result) => {
      assert.equal(echoIn(result)?.service, "server", JSON.stringify(result));
      assertMutualTls(result);
    }),
  );
});

test("a workload calls itself: by its Service, its own address and localhost", async () => {
  for (const { url, attempts } of [
    { url: "http://server/", attempts: "1" },
    { url: `http://${pods.get("server")}:8080/`, attempts: undefined },
    { url: "http://127.0.0.1:8080/", attempts: undefined },
  ])
    await answered(
      { url },
      (result) => {
        assert.equal(echoIn(result)?.service, "server", JSON.stringify(result));
        // Only what goes through the outbound side is counted.
        assert.equal(echoIn(result)?.headers["x-envoy-attempt-count"], attempts, url);
      },
      "server",
    );
});

test("a pod is called by its address, as far as its application listens there", async () => {
  const url = `http://${pods.get("server")}:8080/`;
  await answered({ url }, ({ status }) => assert.equal(status, 502, "the mesh blocks what it does not know"));
  const open: KubeObject = {
    apiVersion: "networking.istio.io/v1",
    kind: "Sidecar",
    metadata: { name: "open", namespace },
    spec: {
      workloadSelector: { labels: { app: "caller" } },
      outboundTrafficPolicy: { mode: "ALLOW_ANY" },
      egress: [{ hosts: ["*/*"] }],
    },
  };
  const permissive: KubeObject = {
    apiVersion: "security.istio.io/v1",
    kind: "PeerAuthentication",
    metadata: { name: "server", namespace },
    spec: { selector: { matchLabels: { app: "server" } }, mtls: { mode: "PERMISSIVE" } },
  };
  await applied([open], () =>
    answered({ url }, ({ status }) => assert.equal(status, 503, "it goes there as it is, and is refused")),
  );
  await applied([open, permissive], () =>
    answered({ url }, (result) => assert.equal(echoIn(result)?.service, "server", JSON.stringify(result))),
  );
  await answered({ url: "http://server:8184/" }, (result) => assert.equal(result.status, 200));
  await answered({ url: "http://server:8183/" }, (result) => assert.equal(result.status, 503));
});

test("two Services of one port are told apart, for HTTP by their host and for TCP by their address", async () => {
  for (const service of ["server", "pair"]) {
    await answered({ url: `http://${service}/` }, (result) => assert.equal(echoIn(result)?.service, service));
    await answered({ url: `tcp://${service}:9000` }, ({ body }) =>
      assert.match(body, new RegExp(`service=${service} `)),
    );
  }
});

const failing = "http://pair/?status=503&version=v1";

test("a failed try is made again elsewhere, as often as the route says and the budget allows", async () => {
  const route = [{ destination: { host: "pair" } }];
  const tried = (attempts: number) =>
    virtualService("pair", [{ route, retries: { attempts, ...(attempts > 0 && { retryOn: "5xx" }) } }]);
  await applied([tried(0)], () =>
    eventuallyOf(failing, 20, (results) => {
      const failed = results.filter(({ status }) => status === 503).length;
      assert.ok(failed > 2 && failed < 18, `${failed} of 20 fail without retries`);
    }),
  );
  await applied([tried(4)], () =>
    eventuallyOf(failing, 20, (results) => {
      assert.deepEqual(new Set(results.map(({ status }) => status)), new Set([200]));
      const attempts = results.map((result) => echoIn(result)?.headers["x-envoy-attempt-count"]);
      assert.ok(attempts.includes("2"), attempts.join());
    }),
  );
  const nothing = { retryBudget: { percent: 0, minRetryConcurrency: 0 } };
  await applied([tried(4), destinationRule("pair", nothing)], () =>
    eventuallyOf(failing, 20, (results) =>
      assert.ok(
        results.some(({ status }) => status === 503),
        "a budget of nothing allows no retry",
      ),
    ),
  );
});

test("a workload that fails is ejected, and the other has all requests", async () => {
  const outlierDetection = {
    consecutive5xxErrors: 2,
    interval: "1s",
    baseEjectionTime: "60s",
    maxEjectionPercent: 100,
  };
  const once = virtualService("pair", [
    { route: [{ destination: { host: "pair" } }], retries: { attempts: 0 } },
  ]);
  await applied([once, destinationRule("pair", { outlierDetection })], () =>
    eventuallyOf(failing, 20, (results) =>
      assert.deepEqual(new Set(results.map((result) => echoIn(result)?.version)), new Set(["v2"])),
    ),
  );
});

test("a request that takes longer than the route allows gets 504", async () => {
  const slow = virtualService("pair", [{ route: [{ destination: { host: "pair" } }], timeout: "0.2s" }]);
  await applied([slow], () =>
    answered({ url: "http://pair/?delay=2000" }, (result) => {
      assert.equal(result.status, 504, JSON.stringify(result));
      assert.ok(result.durationMs < 1_500, `${result.durationMs} ms`);
    }),
  );
});

test("the first answer sets the cookie that keeps a client at one workload", async () => {
  const httpCookie = { name: "session", path: "/", ttl: "60s" };
  const sticky = destinationRule("pair", { loadBalancer: { consistentHash: { httpCookie } } });
  await applied([sticky], async () => {
    let cookie = "";
    await answered({ url: "http://pair/" }, ({ headers }) => {
      assert.match(headers["set-cookie"] ?? "", /^session="?[^;]+; Max-Age=60; Path=\/; HttpOnly/);
      cookie = (headers["set-cookie"] ?? "").split(";")[0] ?? "";
    });
    const results = await calls({ url: "http://pair/", count: 20, headers: { cookie } });
    assert.equal(new Set(results.map((result) => echoIn(result)?.version)).size, 1, "one workload answers");
    assert.ok(results.every(({ headers }) => headers["set-cookie"] === undefined));
  });
});

test("a share of the requests is mirrored, and nobody waits for the copies", async () => {
  const route = [{ destination: { host: "server", port: { number: 80 } } }];
  const mirrored = (value: number) => {
    const destination = { host: "pair", port: { number: 80 } };
    return virtualService("server", [{ route, mirrors: [{ destination, percentage: { value } }] }]);
  };
  for (const { share, least, most } of [
    { share: 100, least: 100, most: 100 },
    { share: 50, least: 25, most: 75 },
  ]) {
    await applied([mirrored(share)], async () => {
      const before = await eventually("a copy", async () => {
        const earlier = await served("pair");
        await calls({ url: "http://server/?mirrored" });
        return (await served("pair")) > earlier ? served("pair") : undefined;
      });
      const results = await calls({ url: "http://server/?mirrored", count: 100, concurrency: 4 });
      assert.ok(results.every(({ status }) => status === 200));
      await eventually(`${least} to ${most} copies`, async () => {
        const copies = (await served("pair")) - before;
        if (copies < least || copies > most) throw new Error(`${copies} copies`);
        return true;
      });
    });
  }
});

test("calls stay in the caller's zone where the rule asks for it, as long as the zone can take its share", async () => {
  const versions = async () =>
    (await calls({ url: "http://pair/", count: 40 })).map((result) => echoIn(result)?.version);
  assert.deepEqual(
    new Set(await versions()),
    new Set(["v1", "v2"]),
    "a service of two is too small by default",
  );
  const aware = (enabled: boolean) => {
    const zoneAwareLbSetting = { enabled, minClusterSize: 1 };
    return destinationRule("pair", { loadBalancer: { simple: "ROUND_ROBIN", zoneAwareLbSetting } });
  };
  for (const { enabled, expected } of [
    { enabled: true, expected: ["v1"] },
    { enabled: false, expected: ["v1", "v2"] },
  ])
    await applied([aware(enabled)], () =>
      eventually(`enabled: ${enabled}`, async () => {
        assert.deepEqual(new Set(await versions()), new Set(expected));
        return true;
      }),
    );
});

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
  const statuses = async () => new Set((await calls(many)).map(({ status }) => status));
  assert.deepEqual(await statuses(), new Set([200]), "without it all are answered");
  await applied([limited], () =>
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
    answered({ url: "http://server/" }, (result) => {
      assert.equal(echoIn(result)?.port, port, JSON.stringify(result));
      assertMutualTls(result);
    });
  await reached(8080);
  await listening("server", socket, () =>
    applied([led], async () => {
      await reached(8083);
      await answered({ url: "http://server:8184/" }, ({ body }) => assert.equal(body, `GET / at ${socket}`));
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
    applied([entry], () =>
      answered({ url: "http://pair/there", headers: { Host: "socket.example.com" } }, ({ body }) =>
        assert.equal(body, `GET /there at ${socket}`),
      ),
    ),
  );
});

test("a ServiceEntry of a range of addresses takes calls to each of them, and to no other", async () => {
  const address = pods.get("stranger") ?? "";
  const entry = serviceEntry("range.example.com", {
    addresses: ["240.77.0.0/16"],
    resolution: "STATIC",
    ports: [{ name: "tcp", protocol: "TCP", number: 9500, targetPort: 9001 }],
    endpoints: [{ address }],
  });
  const call = (to: string): Order => ({ url: `tcp://${to}:9500`, message: "hello", expect: "echo=hello" });
  await applied([entry], async () => {
    for (const to of ["240.77.0.1", "240.77.255.9"])
      await answered(call(to), ({ body }) => assert.match(body, /service=stranger/));
    const [beside] = await calls(call("240.78.0.1"));
    assert.doesNotMatch(beside?.body ?? "", /service=stranger/);
  });
});

test("hosts of a wildcard are looked up as requests name them, also from another port by a rule", async () => {
  const wildcard = "*.outside.svc.cluster.local";
  const entry = (own: string, spec: object): KubeObject => ({
    apiVersion: "networking.istio.io/v1",
    kind: "ServiceEntry",
    metadata: { name: own, namespace },
    spec: { location: "MESH_EXTERNAL", ...spec },
  });
  // The caller knows the stranger's Service by this entry alone.
  const blind: KubeObject = {
    apiVersion: "networking.istio.io/v1",
    kind: "Sidecar",
    metadata: { name: "blind", namespace },
    spec: {
      workloadSelector: { labels: { app: "caller" } },
      outboundTrafficPolicy: { mode: "REGISTRY_ONLY" },
      egress: [{ hosts: ["./*"] }],
    },
  };
  const hosts = ["one.example.com"];
  const rule = virtualService("one.example.com", [
    {
      rewrite: { authority: "stranger.outside.svc.cluster.local" },
      route: [{ destination: { host: wildcard, port: { number: 80 } } }],
    },
  ]);
  await applied(
    [
      blind,
      entry("wild", { hosts: [wildcard], resolution: "DYNAMIC_DNS", ports: [{ ...entryPort, number: 80 }] }),
      entry("one", { hosts, resolution: "NONE", ports: [{ ...entryPort, number: 8088 }] }),
      rule,
    ],
    async () => {
      const stranger = "stranger.outside.svc.cluster.local";
      await answered({ url: `http://${stranger}/` }, (result) => {
        assert.equal(echoIn(result)?.service, "stranger", JSON.stringify(result));
        assert.ok(echoIn(result)?.headers["x-envoy-attempt-count"], "by the route, not past it");
      });
      const headers = { Host: "nobody.outside.svc.cluster.local" };
      await answered({ url: `http://${stranger}/`, headers }, ({ status }) => assert.equal(status, 503));
      const elsewhere = { Host: "one.example.com:8088" };
      await answered({ url: "http://192.0.2.80:8088/", headers: elsewhere }, (result) => {
        assert.equal(echoIn(result)?.service, "stranger", JSON.stringify(result));
        assert.equal(echoIn(result)?.host, stranger);
      });
    },
  );
});

test("ten thousand routes in one object arrive, are told, and leave other hosts alone", async (t) => {
  const many = Array.from({ length: 10_000 }, (_, at) => ({
    match: [{ uri: { exact: `/${at}` } }],
    directResponse: { status: 418 },
  }));
  const object = virtualService("pair", many);
  const fromMs = performance.now();
  // `kubectl apply` would keep a copy of the object in an annotation, which is too long for one.
  const said = await mesh.ranKubectl(["create", "-f", "-"], JSON.stringify(object));
  try {
    assert.equal(said.code, 0, said.stderr);
    assert.match(said.stderr, /Warning: .*the object has 10000 routes/, said.stderr);
    await answered({ url: "http://pair/9999" }, ({ status }) => assert.equal(status, 418));
    t.diagnostic(`the last route answers after ${Math.round(performance.now() - fromMs)} ms`);
    await answered({ url: "http://pair/none" }, ({ status }) => assert.equal(status, 404));
    await answered({ url: "http://server/9999" }, ({ status }) => assert.equal(status, 200));
  } finally {
    await mesh.kubectl(["delete", "virtualservice", "pair", "-n", namespace]);
  }
  await answered({ url: "http://pair/9999" }, ({ status }) => assert.equal(status, 200));
});

test("names that lead nowhere are told in the object's status, and its sound routes go on", async () => {
  const destinationOf = (host: string, subset?: string) => [
    { destination: { host, ...(subset && { subset }) } },
  ];
  const odd = virtualService("pair", [
    { match: [{ uri: { prefix: "/host" } }], route: destinationOf("no-such-host") },
    { match: [{ uri: { prefix: "/subset" } }], route: destinationOf("pair", "no-such-subset") },
    { match: [{ uri: { prefix: "/loop" } }], delegate: { name: "pair" } },
    { route: destinationOf("pair") },
  ]);
  const foreign: KubeObject = {
    ...virtualService("server.default.svc.cluster.local", [{ directResponse: { status: 418 } }]),
    metadata: { name: "foreign", namespace: "outside" },
  };
  const later: KubeObject = { ...odd, metadata: { name: "z-later", namespace } };
  await applied([odd, foreign], async () => {
    await toldIn("virtualservice/pair", namespace, ["MZ0601", "MZ0602", "MZ0605"]);
    await toldIn("virtualservice/foreign", "outside", ["MZ0614"]);
    await applied([later], () => toldIn("virtualservice/z-later", namespace, ["MZ0606"]));
    for (const path of ["/host", "/subset"])
      await answered({ url: `http://pair${path}` }, ({ status }) => assert.equal(status, 503));
    for (const url of ["http://pair/loop", "http://pair/", "http://server/"])
      await answered({ url }, ({ status }) => assert.equal(status, 200, url));
  });
});

function serviceEntry(host: string, spec: object): KubeObject {
  return {
    apiVersion: "networking.istio.io/v1",
    kind: "ServiceEntry",
    metadata: { name: host, namespace },
    spec: { hosts: [host], location: "MESH_EXTERNAL", ...spec },
  };
}

/** Does something while an HTTP server listens at an abstract unix socket, which a Pod's containers share as they share its network. */
async function listening(app: string, socket: string, work: () => Promise<unknown>): Promise<void> {
  const server = `require("node:http").createServer(({ method, url }, response) => response.end(method + " " + url + " at ${socket}"))
    .listen("\\0${socket}", () => console.log("listening"));`;
  const child = spawn("nsenter", [await netnsOf(app), "--", process.execPath, "-e", server], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  try {
    const [first] = await Promise.race([once(child.stdout, "data"), once(child, "exit")]);
    assert.equal(String(first).trim(), "listening");
    await work();
  } finally {
    child.kill();
  }
}

/** The network of an app's first Pod, as nsenter takes it. */
async function netnsOf(app: string): Promise<string> {
  const uid = await mesh.kubectl([
    ...["get", "pods", "-n", namespace, "-l", `app=${app},version=v1`],
    ...["-o", "jsonpath={.items[0].metadata.uid}"],
  ]);
  return `--net=/run/netns/${podNetns(layoutOf(name), uid)}`;
}

/** Waits until an object's status names the problems. */
async function toldIn(object: string, of: string, codes: readonly string[]): Promise<void> {
  await eventually(`${codes.join()} in the status of ${object}`, async () => {
    const status = await mesh.kubectl(["get", object, "-n", of, "-o", "jsonpath={.status}"]);
    const missing = codes.filter((code) => !status.includes(code));
    if (missing.length > 0) throw new Error(`${missing.join()} not in ${status}`);
    return true;
  });
}

const entryPort = { name: "http", protocol: "HTTP" };
function inZone(zone: number): Record<string, string> {
  return { "istio-locality": `r1.z${zone}` };
}

const webPort = { name: "http", port: 80 };

/** Calls until the check of the only result holds. */
async function answered(what: Order, check: (result: Result) => void, from = "caller"): Promise<void> {
  await eventually(`${what.url} from ${from}`, async () => {
    const [result] = await calls(what, from);
    assert.ok(result !== undefined);
    check(result);
    return true;
  });
}

/** Calls so many times, until the check of all results holds. */
async function eventuallyOf(url: string, count: number, check: (all: readonly Result[]) => void) {
  await eventually(url, async () => {
    check(await calls({ url, count }));
    return true;
  });
}

function calls(what: Order, from = "caller"): Promise<readonly Result[]> {
  return order(mesh, pods.get(from) ?? "", { timeoutMs: 5_000, ...what });
}

function assertMutualTls(result: Result): void {
  assert.match(
    echoIn(result)?.headers["x-forwarded-client-cert"] ?? "",
    /URI=spiffe:\/\/cluster\.local\/ns\/default\/sa\/caller/,
    JSON.stringify(result),
  );
}

/** How many requests the proxies of a service's pods have let in. */
async function served(service: string): Promise<number> {
  const counts = [...pods].flatMap(([pod, address]) => (pod.startsWith(`${service}-`) ? [address] : []));
  const sums = await Promise.all(
    counts.map(async (address) => {
      const { stdout } = await mesh.inNode(["curl", "-sS", `http://${address}:15020/stats/prometheus`]);
      const lines = stdout
        .split("\n")
        .filter((line) => /^istio_requests_total\{.*reporter="destination"/.test(line));
      return lines.reduce((sum, line) => sum + Number(line.split(" ").at(-1)), 0);
    }),
  );
  return sums.reduce((sum, one) => sum + one, 0);
}

function virtualService(host: string, http: readonly object[]): KubeObject {
  return {
    apiVersion: "networking.istio.io/v1",
    kind: "VirtualService",
    metadata: { name: host, namespace },
    spec: { hosts: [host], http },
  };
}

function destinationRule(host: string, trafficPolicy: object): KubeObject {
  return {
    apiVersion: "networking.istio.io/v1",
    kind: "DestinationRule",
    metadata: { name: host, namespace },
    spec: { host, trafficPolicy },
  };
}

/** Does something while these objects are there. */
async function applied(objects: readonly KubeObject[], work: () => Promise<unknown>): Promise<void> {
  const text = objects.map((object) => stringify(object, { version: "1.1" })).join("---\n");
  await mesh.kubectl(["apply", "-f", "-"], text);
  try {
    await work();
  } finally {
    await mesh.kubectl(["delete", "-f", "-"], text);
  }
}
