// Protocols, and where calls go: what neither the explainer nor one answer can show. One mesh serves all tests of this file.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import type { KubeObject } from "#objects";
import { echoIn, type EchoApp, type Order } from "./echoes.ts";
import {
  assertMutualTls,
  destinationRule,
  Ground,
  namespace,
  networking,
  serviceEntry,
  sidecarOf,
  virtualService,
} from "./ground.ts";
import { eventually } from "./mesh.ts";

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

let ground: Ground;

before(async () => {
  ground = await Ground.start({
    name: "traffic-e2e",
    port: 18_680,
    apps,
    otherNamespaces: ["outside"],
    objects: [configured],
  });
});
after(() => ground?.down());

test("a WebSocket opens through both proxies, and what is sent comes back", async () => {
  await ground.answered({ url: "ws://server/", message: "over there" }, ({ status, body }) => {
    assert.deepEqual([status, body], [200, "over there"]);
  });
});

test("gRPC messages flow one way, the other way, and both ways in turn", async () => {
  const streamed = (kind: string, messages: readonly string[], expected: readonly string[]) =>
    ground.answered({ url: `grpc://server:7070/echo.Echo/${kind}`, messages }, (result) => {
      assert.equal(result.grpcStatus, 0, JSON.stringify(result));
      assert.deepEqual(result.body.split("\n"), expected);
    });
  await ground.answered({ url: "grpc://server:7070/echo.Echo/Unary" }, (result) => {
    assert.equal(result.grpcStatus, 0, JSON.stringify(result));
    assertMutualTls(result);
  });
  await streamed("ServerStream", ["3"], ["1 of 3", "2 of 3", "3 of 3"]);
  await streamed("ClientStream", ["a", "b", "c"], ["3 came"]);
  await streamed("BidiStream", ["a", "b", "c"], ["a", "b", "c"]);
});

test("HTTP/1.0 is served where it names its host", async () => {
  const message = "GET /old HTTP/1.0\r\nHost: server\r\n\r\n";
  await ground.answered({ url: "tcp://server:80", message, expect: '"service":"server"' }, ({ body }) =>
    assert.match(body, /^HTTP\/1\.[01] 200 /),
  );
});

test("a server that speaks first is heard", async () => {
  await ground.answered({ url: "tcp://server:9100", serverFirst: true, message: "thanks" }, ({ body }) =>
    assert.match(body, /^ready .*service=server[^]*echo=thanks/),
  );
});

test("a port of no known protocol takes HTTP/1.1, HTTP/2 and plain TCP", async () => {
  for (const http2 of [false, true])
    await ground.answered({ url: "http://server:8181/", http2 }, (result) => {
      assert.equal(echoIn(result)?.protocol, http2 ? "HTTP/2.0" : "HTTP/1.1");
      assertMutualTls(result);
    });
  await ground.answered({ url: "tcp://server:8182", message: "plain" }, ({ body }) =>
    assert.match(body, /service=server .*echo=plain/),
  );
});

test("TLS of the application's own goes through as it is", async () => {
  await ground.answered({ url: "https://server/", serverName: "server.example.com" }, (result) => {
    assert.equal(echoIn(result)?.sni, "server.example.com", JSON.stringify(result));
    assert.equal(echoIn(result)?.headers["x-forwarded-client-cert"], undefined);
  });
});

test("UDP is left alone, to a Service and to a pod", async () => {
  const from = ground.pods.get("caller") ?? "";
  for (const url of [`udp://server:5300`, `udp://${ground.pods.get("server")}:5353`])
    await ground.answered({ url, message: "datagram" }, ({ body }) =>
      assert.equal(body, `service=server from=${from} echo=datagram`),
    );
});

test("a headless Service is called by its name and by its pods' names, for HTTP and TCP", async () => {
  for (const host of ["set", "set-0.set", "set-1.set"]) {
    const pod = /-\d/.test(host) ? host.split(".")[0] : undefined;
    await ground.answered({ url: `http://${host}:8080/` }, (result) => {
      assertMutualTls(result);
      if (pod !== undefined) assert.equal(echoIn(result)?.hostname, pod);
    });
    await ground.answered({ url: `tcp://${host}:9001`, message: "hello" }, ({ body }) =>
      assert.match(body, pod === undefined ? /service=set/ : new RegExp(`hostname=${pod} `)),
    );
  }
});

test("a ProxyConfig gives the proxies that it selects their threads and environment", async () => {
  const { command_line_options: options, node } = JSON.parse(await ground.admin("set", "/server_info")) as {
    readonly command_line_options: { readonly concurrency: number };
    readonly node: { readonly metadata: Readonly<Record<string, unknown>> };
  };
  assert.equal(options.concurrency, 3);
  assert.equal(node.metadata["TASTE"], "sour");
});

test("an ExternalName leads to the Service that it names", async () => {
  const spec = { type: "ExternalName", externalName: "server.default.svc.cluster.local", ports: [webPort] };
  await ground.applied(
    [{ apiVersion: "v1", kind: "Service", metadata: { name: "alias", namespace }, spec }],
    () =>
      ground.answered({ url: "http://alias/" }, (result) => {
        assert.equal(echoIn(result)?.service, "server", JSON.stringify(result));
        assertMutualTls(result);
      }),
  );
});

test("a workload calls itself: by its Service, its own address and localhost", async () => {
  for (const { url, attempts } of [
    { url: "http://server/", attempts: "1" },
    { url: `http://${ground.pods.get("server")}:8080/`, attempts: undefined },
    { url: "http://127.0.0.1:8080/", attempts: undefined },
  ])
    await ground.answered(
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
  const url = `http://${ground.pods.get("server")}:8080/`;
  await ground.answered({ url }, ({ status }) =>
    assert.equal(status, 502, "the mesh blocks what it does not know"),
  );
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
  await ground.applied([open], () =>
    ground.answered({ url }, ({ status }) =>
      assert.equal(status, 503, "it goes there as it is, and is refused"),
    ),
  );
  await ground.applied([open, permissive], () =>
    ground.answered({ url }, (result) =>
      assert.equal(echoIn(result)?.service, "server", JSON.stringify(result)),
    ),
  );
  await ground.answered({ url: "http://server:8184/" }, (result) => assert.equal(result.status, 200));
  await ground.answered({ url: "http://server:8183/" }, (result) => assert.equal(result.status, 503));
});

test("two Services of one port are told apart, for HTTP by their host and for TCP by their address", async () => {
  for (const service of ["server", "pair"]) {
    await ground.answered({ url: `http://${service}/` }, (result) =>
      assert.equal(echoIn(result)?.service, service),
    );
    await ground.answered({ url: `tcp://${service}:9000` }, ({ body }) =>
      assert.match(body, new RegExp(`service=${service} `)),
    );
  }
});

test("the first answer sets the cookie that keeps a client at one workload", async () => {
  const httpCookie = { name: "session", path: "/", ttl: "60s" };
  const sticky = destinationRule("pair", { loadBalancer: { consistentHash: { httpCookie } } });
  await ground.applied([sticky], async () => {
    let cookie = "";
    await ground.answered({ url: "http://pair/" }, ({ headers }) => {
      assert.match(headers["set-cookie"] ?? "", /^session="?[^;]+; Max-Age=60; Path=\/; HttpOnly/);
      cookie = (headers["set-cookie"] ?? "").split(";")[0] ?? "";
    });
    const results = await ground.calls({ url: "http://pair/", count: 20, headers: { cookie } });
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
    await ground.applied([mirrored(share)], async () => {
      const before = await eventually("a copy", async () => {
        const earlier = await ground.served("pair");
        await ground.calls({ url: "http://server/?mirrored" });
        return (await ground.served("pair")) > earlier ? ground.served("pair") : undefined;
      });
      const results = await ground.calls({ url: "http://server/?mirrored", count: 100, concurrency: 4 });
      assert.ok(results.every(({ status }) => status === 200));
      await eventually(`${least} to ${most} copies`, async () => {
        const copies = (await ground.served("pair")) - before;
        if (copies < least || copies > most) throw new Error(`${copies} copies`);
        return true;
      });
    });
  }
});

test("calls stay in the caller's zone where the rule asks for it, as long as the zone can take its share", async () => {
  const versions = async () =>
    (await ground.calls({ url: "http://pair/", count: 40 })).map((result) => echoIn(result)?.version);
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
    await ground.applied([aware(enabled)], () =>
      eventually(`enabled: ${enabled}`, async () => {
        assert.deepEqual(new Set(await versions()), new Set(expected));
        return true;
      }),
    );
});

test("a ServiceEntry of a range of addresses takes calls to each of them, and to no other", async () => {
  const address = ground.pods.get("stranger") ?? "";
  const entry = serviceEntry("range.example.com", {
    addresses: ["240.77.0.0/16"],
    resolution: "STATIC",
    ports: [{ name: "tcp", protocol: "TCP", number: 9500, targetPort: 9001 }],
    endpoints: [{ address }],
  });
  const call = (to: string): Order => ({ url: `tcp://${to}:9500`, message: "hello", expect: "echo=hello" });
  await ground.applied([entry], async () => {
    for (const to of ["240.77.0.1", "240.77.255.9"])
      await ground.answered(call(to), ({ body }) => assert.match(body, /service=stranger/));
    const [beside] = await ground.calls(call("240.78.0.1"));
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
  await ground.applied(
    [
      blind,
      entry("wild", { hosts: [wildcard], resolution: "DYNAMIC_DNS", ports: [{ ...entryPort, number: 80 }] }),
      entry("one", { hosts, resolution: "NONE", ports: [{ ...entryPort, number: 8088 }] }),
      rule,
    ],
    async () => {
      const stranger = "stranger.outside.svc.cluster.local";
      await ground.answered({ url: `http://${stranger}/` }, (result) => {
        assert.equal(echoIn(result)?.service, "stranger", JSON.stringify(result));
        assert.ok(echoIn(result)?.headers["x-envoy-attempt-count"], "by the route, not past it");
      });
      const headers = { Host: "nobody.outside.svc.cluster.local" };
      await ground.answered({ url: `http://${stranger}/`, headers }, ({ status }) =>
        assert.equal(status, 503),
      );
      const elsewhere = { Host: "one.example.com:8088" };
      await ground.answered({ url: "http://192.0.2.80:8088/", headers: elsewhere }, (result) => {
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
  const said = await ground.mesh.ranKubectl(["create", "-f", "-"], JSON.stringify(object));
  try {
    assert.equal(said.code, 0, said.stderr);
    assert.match(said.stderr, /Warning: .*the object has 10000 routes/, said.stderr);
    await ground.answered({ url: "http://pair/9999" }, ({ status }) => assert.equal(status, 418));
    t.diagnostic(`the last route answers after ${Math.round(performance.now() - fromMs)} ms`);
    await ground.answered({ url: "http://pair/none" }, ({ status }) => assert.equal(status, 404));
    await ground.answered({ url: "http://server/9999" }, ({ status }) => assert.equal(status, 200));
  } finally {
    await ground.mesh.kubectl(["delete", "virtualservice", "pair", "-n", namespace]);
  }
  await ground.answered({ url: "http://pair/9999" }, ({ status }) => assert.equal(status, 200));
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
  await ground.applied([odd, foreign], async () => {
    await ground.toldIn("virtualservice/pair", namespace, ["MZ0601", "MZ0602", "MZ0605"]);
    await ground.toldIn("virtualservice/foreign", "outside", ["MZ0614"]);
    await ground.applied([later], () => ground.toldIn("virtualservice/z-later", namespace, ["MZ0606"]));
    for (const path of ["/host", "/subset"])
      await ground.answered({ url: `http://pair${path}` }, ({ status }) => assert.equal(status, 503));
    for (const url of ["http://pair/loop", "http://pair/", "http://server/"])
      await ground.answered({ url }, ({ status }) => assert.equal(status, 200, url));
  });
});

test("a regex that Envoy refuses and a port that is none are refused when they are applied, by their field", async () => {
  const route = [{ destination: { host: "pair" } }];
  const matching = (regex: string) => virtualService("pair", [{ match: [{ uri: { regex } }], route }]);
  const regexAt = "spec.http[0].match[0].uri.regex";
  const ports = (number: number) => [{ name: "http", protocol: "HTTP", number }];
  const hosts = ["any.example.com"];
  for (const [object, field, why] of [
    [matching("(a)\\1"), regexAt, /no back-references/],
    [matching("^/(?!internal)"), regexAt, /no look-around/],
    [matching("\\x{1F600}"), regexAt, /Envoy matches bytes/],
    [matching("[acegikmoqsuwyACEGIKMOQSUWY0123456789]{1000}"), regexAt, /is too complex/],
    [matching("a".repeat(2_000)), regexAt, /2000 characters: at most 1024/],
    [
      virtualService("pair", [{ route: [{ destination: { host: "pair", port: { number: 70_000 } } }] }]),
      "spec.http[0].route[0].destination.port.number",
      /70000/,
    ],
    [
      serviceEntry("any.example.com", { ports: ports(0), resolution: "NONE" }),
      "spec.ports[0].number",
      /\b0\b/,
    ],
    [
      destinationRule("pair", {
        portLevelSettings: [{ port: { number: 99_999 }, loadBalancer: { simple: "RANDOM" } }],
      }),
      "spec.trafficPolicy.portLevelSettings[0].port.number",
      /99999/,
    ],
    [
      networking("Gateway", "any", { servers: [{ port: ports(65_536)[0], hosts }] }),
      "spec.servers[0].port.number",
      /65536/,
    ],
    [
      sidecarOf("caller", { egress: [{ port: ports(70_000)[0], hosts: ["*/*"] }] }),
      "spec.egress[0].port.number",
      /70000/,
    ],
  ] as const) {
    const ran = await ground.mesh.ranKubectl(["apply", "-f", "-"], JSON.stringify(object));
    assert.notEqual(ran.code, 0, `${object.kind} ${field} is taken`);
    assert.ok(ran.stderr.includes(field), `${field} is not in: ${ran.stderr}`);
    assert.match(ran.stderr, why);
  }
  await ground.answered({ url: "http://pair/" }, ({ status }) => assert.equal(status, 200));
});

test("a regex that takes other engines for ever takes a moment, and a host that only a rule knows is the rule's", async () => {
  const to = (host: string) => [{ destination: { host, port: { number: 80 } } }];
  const slow = virtualService("pair", [
    { match: [{ uri: { regex: "/(a+)+" } }], directResponse: { status: 418 } },
    { route: to("pair") },
  ]);
  const unknown = virtualService("nowhere.example.com", [{ route: to("server") }]);
  await ground.applied([slow, unknown], async () => {
    const long = `http://pair/${"a".repeat(2_000)}`;
    await ground.answered({ url: long }, ({ status }) => assert.equal(status, 418));
    await ground.answered({ url: `${long}!` }, ({ status, durationMs }) => {
      assert.equal(status, 200);
      assert.ok(durationMs < 1_000, `${durationMs} ms`);
    });
    const headers = { Host: "nowhere.example.com" };
    await ground.answered({ url: "http://pair/", headers }, (result) =>
      assert.equal(echoIn(result)?.service, "server", JSON.stringify(result)),
    );
  });
});

const entryPort = { name: "http", protocol: "HTTP" };
function inZone(zone: number): Record<string, string> {
  return { "istio-locality": `r1.z${zone}` };
}

const webPort = { name: "http", port: 80 };
