// Gateway API as its users meet it: a Gateway whose proxies the mesh deploys, routes that kubectl shapes, routes between
// services, and the status of each object. One mesh serves all tests of this file, in order.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { deployEchoes, echoIn, order, podIp, type Echo, type EchoApp } from "./echoes.ts";
import { deciderManifest, password } from "./decider.ts";
import { leftovers } from "./leftovers.ts";
import { curl, eventually, startMesh, type Mesh } from "./mesh.ts";

const name = "gateway-api-e2e";
const seen: EchoApp = {
  name: "seen",
  namespace: "default",
  replicas: 2,
  certificateNames: ["seen.example.com"],
  ports: [
    { name: "http", servicePort: 80, workloadPort: 8080, flag: "http" },
    { name: "https", servicePort: 443, workloadPort: 8443, flag: "https" },
    { name: "tcp", servicePort: 9000, workloadPort: 9001, flag: "tcp" },
    { name: "udp", servicePort: 9000, workloadPort: 9002, flag: "udp" },
  ],
};
let mesh: Mesh;
let address: string;

before(async () => {
  mesh = await startMesh({ name, port: 18_480, args: ["--demo"] });
  await mesh.kubectl(["apply", "-f", "-"], `${gateway}---\n${page}`);
});
after(async () => {
  await mesh.down();
  assert.deepEqual(await leftovers(name), [], "nothing of ours is left on the machine");
});

const gateway = `
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: { name: front }
spec:
  gatewayClassName: istio
  defaultScope: All
  allowedListeners: { namespaces: { from: Same } }
  listeners:
    - { name: http, port: 80, protocol: HTTP, hostname: "*.example.com" }
    - name: open
      port: 80
      protocol: HTTP
      hostname: borrowed.example.com
      allowedRoutes: { namespaces: { from: All } }
`;

const page = `
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: { name: page }
spec:
  parentRefs: [{ name: front }]
  hostnames: [shop.example.com]
  rules:
    - matches: [{ path: { type: Exact, value: /productpage } }]
      backendRefs: [{ name: productpage, port: 9080 }]
    - matches: [{ path: { value: /old } }]
      filters:
        - type: RequestRedirect
          requestRedirect: { path: { type: ReplacePrefixMatch, replacePrefixMatch: /new } }
    - matches: [{ path: { value: /lost } }]
      backendRefs: [{ name: nowhere, port: 80 }]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: { name: anywhere }
spec:
  useDefaultGateways: All
  hostnames: [anywhere.example.com]
  rules: [{ backendRefs: [{ name: productpage, port: 9080 }] }]
`;

interface Answer {
  readonly status: number;
  readonly location: string;
  readonly body: string;
}

/** Asks the Gateway from inside the node's network. */
async function ask(path: string, host = "shop.example.com", more: readonly string[] = []): Promise<Answer> {
  const format = "\n%{http_code} %{redirect_url}";
  const url = `http://${address}${path}`;
  const words = ["curl", "-s", "-m", "5", "-w", format, "-H", `Host: ${host}`, ...more, url];
  const { stdout } = await mesh.inNode(words);
  const end = stdout.lastIndexOf("\n");
  const [status = "0", location = ""] = stdout.slice(end + 1).split(" ");
  return { status: Number(status), location, body: stdout.slice(0, end) };
}

async function reasonsOf(kind: string, object: string, path: string): Promise<string> {
  return mesh.kubectl(["get", kind, object, "-o", `jsonpath={${path}}`]);
}

test("a Gateway gets proxies, an address and the word that it is served", async () => {
  address = await eventually("the Gateway's address", async () => {
    const reason = await reasonsOf("gateway", "front", ".status.conditions[?(@.type=='Programmed')].reason");
    const given = await reasonsOf("gateway", "front", ".status.addresses[0].value");
    return reason === "Programmed" && given !== "" ? given : undefined;
  });
  const attached = await reasonsOf("gateway", "front", ".status.listeners[0].attachedRoutes");
  assert.equal(attached, "2", "one names it, the other uses default Gateways");
});

test("requests take the routes, and nothing else gets through", async () => {
  await eventually("the page", async () => ((await ask("/productpage")).status === 200 ? true : undefined));
  assert.equal((await ask("/elsewhere")).status, 404);
  assert.equal((await ask("/productpage", "other.example.com")).status, 404);
  assert.equal((await ask("/productpage", "anywhere.example.com")).status, 200);
  const redirect = await ask("/old/thing");
  assert.equal(redirect.status, 302);
  assert.match(redirect.location, /\/new\/thing$/);
});

test("a rule whose regex Envoy would refuse is left out and told, and the other routes go on and change", async () => {
  const odd = (sound: string) => `
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: { name: odd }
spec:
  parentRefs: [{ name: front }]
  hostnames: [odd.example.com]
  rules:
    - matches: [{ path: { type: RegularExpression, value: "/(?!a).*" } }]
      backendRefs: [{ name: productpage, port: 9080 }]${sound}
`;
  const conditions = ".status.parents[0].conditions";
  const reasonOf = (type: string) =>
    reasonsOf("httproute", "odd", `${conditions}[?(@.type=='${type}')].reason`);
  await mesh.kubectl(["apply", "-f", "-"], odd(""));
  try {
    await eventually("the route is not accepted", async () =>
      (await reasonOf("Accepted")) === "UnsupportedValue" ? true : undefined,
    );
    assert.equal((await ask("/b", "odd.example.com")).status, 404);
    const sound = `
    - matches: [{ path: { type: Exact, value: /productpage } }]
      backendRefs: [{ name: productpage, port: 9080 }]`;
    await mesh.kubectl(["apply", "-f", "-"], odd(sound));
    await eventually("the sound rule holds", async () =>
      (await ask("/productpage", "odd.example.com")).status === 200 ? true : undefined,
    );
    assert.equal((await ask("/b", "odd.example.com")).status, 404);
    await eventually("the other is told of", async () => {
      const told = await reasonsOf(
        "httproute",
        "odd",
        `${conditions}[?(@.type=='PartiallyInvalid')]['status', 'reason', 'message']`,
      );
      assert.match(told, /^True UnsupportedValue Dropped Rule default\.odd\.0: .*no look-around/);
      assert.equal(await reasonOf("Accepted"), "Accepted");
      return true;
    });
    assert.equal((await ask("/productpage")).status, 200);
  } finally {
    await mesh.kubectl(["delete", "httproute", "odd"]);
  }
});

test("a backend that does not exist is told in the status and answers 500", async () => {
  assert.equal((await ask("/lost")).status, 500);
  const reasons = await reasonsOf("httproute", "page", ".status.parents[0].conditions[*].reason");
  assert.equal(reasons, "Accepted BackendNotFound");
});

test("a route of a Service splits the calls between services", async () => {
  const versions = ["v1", "v3"].map(
    (version) => `
apiVersion: v1
kind: Service
metadata: { name: reviews-${version} }
spec:
  selector: { app: reviews, version: ${version} }
  ports: [{ name: http, port: 9080 }]
`,
  );
  const route = `
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: { name: reviews }
spec:
  parentRefs: [{ group: "", kind: Service, name: reviews, port: 9080 }]
  rules:
    - backendRefs:
        - { name: reviews-v1, port: 9080, weight: 50 }
        - { name: reviews-v3, port: 9080, weight: 50 }
`;
  await mesh.kubectl(["apply", "-f", "-"], [...versions, route].join("---\n"));
  await eventually("v1 and v3, and no v2", async () => {
    const seen = new Set<string>();
    for (let i = 0; i < 20; i++) {
      const { body } = await ask("/productpage");
      seen.add(/reviews (v\d) on pod/.exec(body)?.[1] ?? "none");
    }
    return [...seen].toSorted().join() === "v1,v3" ? true : undefined;
  });
});

const streams = `
apiVersion: gateway.networking.k8s.io/v1
kind: ListenerSet
metadata: { name: more }
spec:
  parentRef: { name: front }
  listeners:
    - { name: plain, port: 9000, protocol: TCP }
    - { name: pass, port: 9443, protocol: TLS, hostname: seen.example.com, tls: { mode: Passthrough } }
    - { name: web, port: 8081, protocol: HTTP }
    - { name: datagrams, port: 9000, protocol: UDP }
---
apiVersion: gateway.networking.k8s.io/v1
kind: TCPRoute
metadata: { name: plain }
spec:
  parentRefs: [{ kind: ListenerSet, name: more, sectionName: plain }]
  rules: [{ backendRefs: [{ name: seen, port: 9000 }] }]
---
apiVersion: gateway.networking.k8s.io/v1
kind: UDPRoute
metadata: { name: datagrams }
spec:
  parentRefs: [{ kind: ListenerSet, name: more, sectionName: datagrams }]
  rules: [{ backendRefs: [{ name: seen, port: 9000 }] }]
---
apiVersion: gateway.networking.k8s.io/v1
kind: TLSRoute
metadata: { name: pass }
spec:
  parentRefs: [{ kind: ListenerSet, name: more, sectionName: pass }]
  hostnames: [seen.example.com]
  rules: [{ backendRefs: [{ name: seen, port: 443 }] }]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: { name: web }
spec:
  parentRefs: [{ kind: ListenerSet, name: more, sectionName: web }]
  rules:
    - backendRefs: [{ name: seen, port: 80 }]
      sessionPersistence: { sessionName: seat }
`;

test("a ListenerSet adds TCP, UDP, TLS and HTTP to the Gateway, each with routes of its own", async () => {
  await deployEchoes(mesh, [seen]);
  await mesh.kubectl(["apply", "-f", "-"], streams);
  for (const transport of ["tcp", "udp"]) {
    const said = await eventually(`${transport} through the Gateway`, async () => {
      const script = `exec 3<>/dev/${transport}/${address}/9000 && echo hello >&3 && dd bs=1500 count=1 <&3`;
      const { stdout } = await mesh.inNode(["timeout", "2", "bash", "-c", script]);
      return stdout === "" ? undefined : stdout;
    });
    assert.match(said, /service=seen/);
  }
  const overTls = async (name: string): Promise<string> => {
    const place = `${name}:9443:${address}`;
    const words = ["curl", "-sk", "-m", "5", "--resolve", place, `https://${name}:9443/`];
    return (await mesh.inNode(words)).stdout;
  };
  const passed = await eventually(
    "TLS through the Gateway",
    async () => (await overTls("seen.example.com")) || undefined,
  );
  assert.equal((JSON.parse(passed) as Echo).sni, "seen.example.com", "the server itself ended the TLS");
  assert.equal(await overTls("other.example.com"), "", "no other name passes");
  const attached = ".status.listeners[*].attachedRoutes";
  await eventually("each listener's route in the status", async () =>
    (await reasonsOf("listenerset", "more", attached)) === "1 1 1 1" ? true : undefined,
  );
});

test("a session stays with its server, and calls without its cookie go to both", async () => {
  const served = async (cookies: readonly string[]): Promise<Set<string>> => {
    const one = ["curl", "-s", "-m", "5", ...cookies, `http://${address}:8081/`];
    const names = new Set<string>();
    for (let i = 0; i < 12; i++) {
      const { stdout } = await mesh.inNode(one);
      names.add((JSON.parse(stdout) as Echo).hostname);
    }
    return names;
  };
  await eventually("both servers", async () => ((await served([])).size === 2 ? true : undefined));
  const { stdout } = await mesh.inNode([
    "curl",
    "-s",
    "-D",
    "-",
    "-o",
    "/dev/null",
    `http://${address}:8081/`,
  ]);
  const cookie = /set-cookie: (seat=[^;\s]+)/i.exec(stdout)?.[1];
  assert.ok(cookie, `a cookie in ${stdout}`);
  assert.equal((await served(["-H", `Cookie: ${cookie}`])).size, 1);
});

const borrowed = `
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: { name: borrower, namespace: borrower }
spec:
  parentRefs: [{ name: front, namespace: default, sectionName: open }]
  hostnames: [borrowed.example.com]
  rules: [{ backendRefs: [{ name: seen, namespace: default, port: 80 }] }]
`;

const grant = `
apiVersion: gateway.networking.k8s.io/v1
kind: ReferenceGrant
metadata: { name: lend }
spec:
  from: [{ group: gateway.networking.k8s.io, kind: HTTPRoute, namespace: borrower }]
  to: [{ group: "", kind: Service, name: seen }]
`;

test("with a ReferenceGrant a route reaches another namespace, and without it any more it does not", async () => {
  await mesh.kubectl(["create", "namespace", "borrower"]);
  await mesh.kubectl(["apply", "-f", "-"], `${borrowed}---\n${grant}`);
  const status = async (): Promise<number> => (await ask("/", "borrowed.example.com")).status;
  const reasons = () =>
    mesh.kubectl([
      "get",
      "httproute",
      "borrower",
      "-n",
      "borrower",
      "-o",
      "jsonpath={.status.parents[0].conditions[*].reason}",
    ]);
  await eventually("the other namespace's server", async () => ((await status()) === 200 ? true : undefined));
  assert.equal(await reasons(), "Accepted ResolvedRefs");
  await mesh.kubectl(["delete", "referencegrant", "lend"]);
  await eventually("no way there", async () => ((await status()) === 500 ? true : undefined));
  await eventually("the reason", async () =>
    (await reasons()) === "Accepted RefNotPermitted" ? true : undefined,
  );
});

const meshStreams = `
apiVersion: gateway.networking.k8s.io/v1
kind: TCPRoute
metadata: { name: aside }
spec:
  parentRefs: [{ group: "", kind: Service, name: seen, port: 9000 }]
  rules: [{ backendRefs: [{ name: aside, port: 9000 }] }]
---
apiVersion: gateway.networking.k8s.io/v1
kind: TLSRoute
metadata: { name: aside }
spec:
  parentRefs: [{ group: "", kind: Service, name: seen, port: 443 }]
  hostnames: [seen.default.svc.cluster.local]
  rules: [{ backendRefs: [{ name: aside, port: 443 }] }]
`;

test("between services a TCPRoute and a TLSRoute send connections elsewhere", async () => {
  await deployEchoes(mesh, [{ ...seen, name: "aside", replicas: 1 }]);
  const caller = await podIp(mesh, "default", "app=seen");
  const name = "seen.default.svc.cluster.local";
  const serverOf = async (url: string): Promise<string | undefined> => {
    const [result] = await order(mesh, caller, { url, message: "hello\n", serverName: name });
    return echoIn(result)?.service ?? /service=(\w+)/.exec(result?.body ?? "")?.[1];
  };
  assert.equal(await serverOf("tcp://seen:9000"), "seen");
  await mesh.kubectl(["apply", "-f", "-"], meshStreams);
  for (const url of ["tcp://seen:9000", `https://${name}:443/`])
    await eventually(`another server behind ${url}`, async () =>
      (await serverOf(url)) === "aside" ? true : undefined,
    );
  await mesh.kubectl(["delete", "tcproute,tlsroute", "aside"]);
  await eventually("the service's own server again", async () =>
    (await serverOf("tcp://seen:9000")) === "seen" ? true : undefined,
  );
});

const meshFilters = `
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: { name: mesh-filters }
spec:
  parentRefs: [{ group: "", kind: Service, name: seen, port: 80 }]
  rules:
    - matches: [{ path: { value: /kept } }]
      backendRefs: [{ name: seen, port: 80 }]
      sessionPersistence: { sessionName: x-seat, type: Header }
    - matches: [{ path: { value: /asked } }]
      filters:
        - type: ExternalAuth
          externalAuth: { protocol: HTTP, backendRef: { name: decider, port: 80 }, http: { path: /check } }
      backendRefs: [{ name: seen, port: 80 }]
    - backendRefs: [{ name: seen, port: 80 }]
`;

test("between services a route keeps a session with its server, and asks another service", async () => {
  await mesh.kubectl(["apply", "-f", "-"], `${deciderManifest("default")}---\n${meshFilters}`);
  const caller = await podIp(mesh, "default", "app=aside");
  const call = (path: string, headers = {}, count = 1) =>
    order(mesh, caller, { url: `http://seen${path}`, headers, count });
  const serversOf = async (path: string, headers = {}): Promise<number> => {
    const results = await call(path, headers, 12);
    return new Set(results.map((result) => echoIn(result)?.hostname)).size;
  };
  const seat = await eventually("a seat in the answer", async () => {
    const [result] = await call("/kept");
    return result?.headers["x-seat"];
  });
  assert.equal(await serversOf("/kept", { "x-seat": seat }), 1);
  assert.equal(await serversOf("/elsewhere", { "x-seat": seat }), 2, "no other path has sessions");
  const statusOf = async (headers = {}): Promise<number> => (await call("/asked", headers))[0]?.status ?? 0;
  await eventually("the word that lets a request through", async () =>
    (await statusOf({ authorization: password })) === 200 ? true : undefined,
  );
  assert.equal(await statusOf(), 401);
  await mesh.kubectl(["delete", "httproute", "mesh-filters"]);
});

const guarded = `
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: { name: guarded }
spec:
  parentRefs: [{ name: front }]
  hostnames: [guarded.example.com]
  rules:
    - matches: [{ path: { value: /http } }]
      filters:
        - type: ExternalAuth
          externalAuth:
            protocol: HTTP
            backendRef: { name: decider, port: 80 }
            http: { path: /check }
            forwardBody: { maxSize: 4 }
      backendRefs: [{ name: seen, port: 80 }]
    - matches: [{ path: { value: /grpc } }]
      filters:
        - type: ExternalAuth
          externalAuth: { protocol: GRPC, backendRef: { name: decider, port: 90 }, grpc: {} }
      backendRefs: [{ name: seen, port: 80 }]
    - matches: [{ path: { value: /unsaid } }]
      filters:
        - type: ExternalAuth
          externalAuth: { protocol: GRPC, backendRef: { name: decider, port: 91 }, grpc: {} }
      backendRefs: [{ name: seen, port: 80 }]
    - matches: [{ path: { value: /open } }]
      backendRefs: [{ name: seen, port: 80 }]
`;

test("a route asks another service, over HTTP and gRPC, and lets nobody by where it cannot", async () => {
  await mesh.kubectl(["apply", "-f", "-"], guarded);
  const host = "guarded.example.com";
  const word = ["-H", `Authorization: Bearer ${password}`];
  const may = await eventually("a request that may", async () => {
    const answer = await ask("/http/a", host, [...word, "-d", "body"]);
    return answer.status === 200 ? (JSON.parse(answer.body) as Echo) : undefined;
  });
  assert.equal(may.url, "/http/a");
  assert.equal(may.headers["x-decided"], "POST /check/http/a body");
  assert.equal(may.headers["content-length"], "4", "the answer's own headers stay away from the request");
  assert.equal((await ask("/http/a", host)).status, 401);
  await eventually("the same over gRPC", async () =>
    (await ask("/grpc", host, word)).status === 200 ? true : undefined,
  );
  assert.equal((await ask("/grpc", host)).status, 403);
  assert.equal((await ask("/open", host)).status, 200);
  assert.equal((await ask("/unsaid", host, word)).status, 500);
  const conditions = ".status.parents[0].conditions[*].reason";
  assert.equal(await reasonsOf("httproute", "guarded", conditions), "Accepted UnsupportedProtocol");
  await mesh.kubectl(["delete", "pod", "decider"]);
  await eventually("nobody to ask", async () =>
    (await ask("/http/a", host, word)).status === 403 ? true : undefined,
  );
});

const ingress = `
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: { name: shop }
spec:
  ingressClassName: istio
  rules:
    - host: ingress.example.com
      http:
        paths:
          - { path: /productpage, pathType: Exact, backend: { service: { name: productpage, port: { name: http } } } }
          - { path: /details, pathType: Prefix, backend: { service: { name: details, port: { number: 9080 } } } }
`;

test("an Ingress of class istio is served by the ingress gateway, told its address, and what is wrong with it", async () => {
  await mesh.kubectl(["apply", "-f", "-"], ingress);
  const at = (path: string, host = "ingress.example.com") =>
    curl(["-H", `Host: ${host}`, `${mesh.gatewayUrl}${path}`]);
  await eventually("the page", async () => ((await at("/productpage")).status === 200 ? true : undefined));
  assert.equal((await at("/details/0")).status, 200);
  assert.equal((await at("/detailsandmore")).status, 404);
  assert.equal((await at("/productpage/more")).status, 404);
  await eventually("its address", async () => {
    const ip = await reasonsOf("ingress", "shop", ".status.loadBalancer.ingress[0].ip");
    return ip === "127.0.0.1" ? true : undefined;
  });
  assert.match(
    await mesh.kubectl(["get", "ingress"]),
    /shop +istio +ingress\.example\.com +127\.0\.0\.1 +80/,
  );
  const lost = ingress.replace("name: shop", "name: lost").replace("name: details", "name: missing");
  const applied = await mesh.ranKubectl(["apply", "-f", "-"], lost);
  assert.match(
    applied.stderr,
    /Warning: .*Ingress default\/shop has this path of host ingress\.example\.com/,
  );
  await eventually("an Event on what is wrong", async () => {
    const events = await mesh.kubectl(["get", "events", "-o", "jsonpath={.items[*].message}"]);
    return events.includes("There is no Service default/missing") ? true : undefined;
  });
  await mesh.kubectl(["delete", "ingress", "shop", "lost"]);
  await eventually("its host is gone", async () =>
    (await at("/details/0")).status === 404 ? true : undefined,
  );
});

test("with the Gateway its proxies go", async () => {
  await mesh.kubectl(["delete", "gateway", "front"]);
  await eventually("the Deployment is gone", async () => {
    const left = await mesh.kubectl(["get", "deployments,services", "-o", "name"]);
    return left.includes("front-istio") ? undefined : true;
  });
  await eventually("the route has no parent", async () => {
    const parents = await reasonsOf("httproute", "page", ".status.parents[*].controllerName");
    return parents === "" ? true : undefined;
  });
});
