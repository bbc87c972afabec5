import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { Engine } from "#engine";
import { worldChanges } from "#model";
import type { KubeObject } from "#objects";
import { TestAuthority } from "../../test/support/test-authority.ts";
import { envoyComplaint, withoutEnvoy } from "../../test/support/envoy.ts";
import { proxyOf } from "../../test/support/proxies.ts";
import { decodeMessage } from "./proto/api.ts";
import { snapshotOf, type Snapshot } from "./snapshot.ts";

const proxy = proxyOf({
  kind: "router",
  namespace: "edge",
  labels: { "gateway.networking.k8s.io/gateway-name": "web" },
  serviceAccount: "web-istio",
  dnsDomain: "edge.svc.cluster.local",
  interception: "NONE",
});

const authority = await TestAuthority.create("test");
const { certificate: testCertificate, key: testKey } = await authority.issue(["a.example.com"]);

type Spec = Readonly<Record<string, unknown>>;

function object(kind: string, name: string, spec: Spec, namespace = "default"): KubeObject {
  return { apiVersion: "gateway.networking.k8s.io/v1", kind, metadata: { name, namespace }, spec };
}

function service(name: string, namespace = "default"): KubeObject {
  const spec = { clusterIP: "10.0.0.1", ports: [{ name: "http", port: 80 }] };
  return { apiVersion: "v1", kind: "Service", metadata: { name, namespace }, spec };
}

/** What the deployment of Gateway `web` brings: a Service whose ports lead to others of the proxy. */
const edge: KubeObject = {
  apiVersion: "v1",
  kind: "Service",
  metadata: { name: "web-istio", namespace: "edge" },
  spec: {
    clusterIP: "10.0.0.9",
    selector: { "gateway.networking.k8s.io/gateway-name": "web" },
    ports: [80, 443, 9000].map((port) => ({ name: `p${port}`, port, targetPort: port + 8000 })),
  } as object,
};

const all = { namespaces: { from: "All" } };

function gateway(...listeners: readonly Spec[]): KubeObject {
  return object("Gateway", "web", { gatewayClassName: "istio", listeners }, "edge");
}

const http = { name: "http", port: 80, protocol: "HTTP", allowedRoutes: all };

function route(name: string, rules: readonly Spec[], more: Spec = {}, kind = "HTTPRoute"): KubeObject {
  return object(kind, name, { parentRefs: [{ name: "web", namespace: "edge" }], rules, ...more });
}

function to(name: string, more: Spec = {}): Spec {
  return { backendRefs: [{ name, port: 80 }], ...more };
}

function snapshot(...objects: readonly KubeObject[]): Snapshot {
  const engine = new Engine();
  engine.apply(worldChanges([edge, service("a"), service("b"), service("far", "other"), ...objects]));
  return snapshotOf(engine, proxy);
}

interface BuiltRoute {
  readonly name?: string;
  readonly match: Spec;
  readonly route?: Spec;
  readonly redirect?: Spec;
  readonly directResponse?: Spec;
}

function routesOf({ route: tables }: Snapshot, domain: string, name = "http.8080"): readonly BuiltRoute[] {
  const table = tables.find((one) => one.name === name);
  assert.ok(table, `there is no table ${name}`);
  const { virtualHosts } = decodeMessage("envoy.config.route.v3.RouteConfiguration", table.bytes) as {
    readonly virtualHosts: readonly {
      readonly domains: readonly string[];
      readonly routes?: readonly BuiltRoute[];
    }[];
  };
  return virtualHosts.find(({ domains }) => domains.includes(domain))?.routes ?? [];
}

/** Each domain of a table with what it has: routes, none, or the status of its first answer. */
function domainsOf({ route: tables }: Snapshot, name: string): readonly (readonly [string, string])[] {
  const table = tables.find((one) => one.name === name);
  assert.ok(table, `there is no table ${name} of ${tables.map((one) => one.name).join()}`);
  const { virtualHosts } = decodeMessage("envoy.config.route.v3.RouteConfiguration", table.bytes) as {
    readonly virtualHosts: readonly {
      readonly domains: readonly string[];
      readonly routes?: readonly BuiltRoute[];
    }[];
  };
  return virtualHosts.flatMap(({ domains, routes = [] }) => {
    const status = routes[0]?.directResponse?.["status"];
    const what = routes.length === 0 ? "404" : status === undefined ? "any" : String(status);
    return domains.map((domain): [string, string] => [domain, what]);
  });
}

function pathOf({ match }: BuiltRoute): unknown {
  return match["path"] ?? match["pathSeparatedPrefix"] ?? match["prefix"];
}

describe("Gateway API at a router", () => {
  test("a listener is served at the port behind its Service", () => {
    const { listener, cluster } = snapshot(gateway(http), route("r", [to("a")]));
    assert.deepEqual(
      listener.map(({ name }) => name),
      ["0.0.0.0_8080"],
    );
    assert.ok(cluster.some(({ name }) => name === "outbound|80||a.default.svc.cluster.local"));
  });

  test("a listener that is more exact than another is a wall, though no route takes a request for it", () => {
    const hosts = ["*.example.com", "*.foo.example.com", "abc.foo.example.com"];
    const listeners = hosts.map((hostname, at) => ({ ...http, name: `l${at}`, hostname }));
    const built = snapshot(
      gateway(http, ...listeners),
      route("any", [to("a")], { parentRefs: [{ name: "web", namespace: "edge", sectionName: "http" }] }),
      route("one", [to("b")], {
        parentRefs: [{ name: "web", namespace: "edge", sectionName: "l1" }],
        hostnames: ["bar.foo.example.com"],
      }),
    );
    assert.deepEqual(
      domainsOf(built, "http.8080").toSorted((a, b) => a[0]!.localeCompare(b[0]!)),
      [
        ["*", "any"],
        ["*.example.com", "404"],
        ["*.foo.example.com", "404"],
        ["abc.foo.example.com", "404"],
        ["bar.foo.example.com", "any"],
      ],
    );
  });

  test("a request that came over the connection of another listener is misdirected", () => {
    const tls = { mode: "Terminate", options: { "gateway.istio.io/tls-terminate-mode": "ISTIO_SIMPLE" } };
    const listeners = ["", "second.org", "*.wild.org", "fourth.wild.org"].map((hostname, at) => {
      const https = { name: `l${at}`, port: 443, protocol: "HTTPS", tls, allowedRoutes: all };
      return hostname === "" ? https : { ...https, hostname };
    });
    const built = snapshot(gateway(...listeners), route("r", [to("a")]));
    const table = (at: number): unknown =>
      Object.fromEntries(
        domainsOf(built, `https.443.default.web~istio-autogenerated-k8s-gateway~l${at}.edge`),
      );
    const [none, second, wild, fourth] = ["*", "second.org", "*.wild.org", "fourth.wild.org"] as const;
    assert.deepEqual(table(0), { [none]: "any", [second]: "421", [wild]: "421", [fourth]: "421" });
    assert.deepEqual(table(1), { [none]: "421", [second]: "any", [wild]: "421", [fourth]: "421" });
    assert.deepEqual(table(2), { [none]: "421", [second]: "421", [wild]: "any", [fourth]: "421" });
    assert.deepEqual(table(3), { [none]: "421", [second]: "421", [wild]: "421", [fourth]: "any" });
    assert.equal(envoyComplaint(Object.values(built).flat()), "");
  });

  describe("with a BackendTLSPolicy", () => {
    const policy = (name: string): KubeObject =>
      object("BackendTLSPolicy", "p", {
        targetRefs: [{ group: "", kind: "Service", name: "a" }],
        validation: {
          hostname: "a.example.com",
          caCertificateRefs: [{ group: "", kind: "ConfigMap", name }],
        },
      });
    const ca: KubeObject = {
      apiVersion: "v1",
      kind: "ConfigMap",
      metadata: { name: "ca", namespace: "default" },
      data: { "ca.crt": testCertificate },
    } as KubeObject;
    const tlsTowardsA = ({ cluster }: Snapshot): Spec => {
      const found = cluster.find(({ name }) => name === "outbound|80||a.default.svc.cluster.local");
      const message = decodeMessage("envoy.config.cluster.v3.Cluster", found!.bytes);
      const socket = message["transportSocket"] as {
        readonly typedConfig: { readonly commonTlsContext: Spec };
      };
      return socket.typedConfig.commonTlsContext;
    };

    test("the backend is verified by the CA of the ConfigMap", () => {
      const built = snapshot(gateway(http), route("r", [to("a")]), policy("ca"), ca);
      const context = tlsTowardsA(built)["validationContext"] as Spec;
      assert.deepEqual(context["trustedCa"], { inlineString: testCertificate });
      assert.equal(envoyComplaint(Object.values(built).flat()), "");
    });

    test("a CA that is not there lets no connection through, and Envoy takes the cluster all the same", () => {
      const built = snapshot(gateway(http), route("r", [to("a")]), policy("gone"));
      const context = tlsTowardsA(built)["combinedValidationContext"] as Spec;
      assert.deepEqual(
        (context["defaultValidationContext"] as { readonly matchTypedSubjectAltNames: readonly Spec[] })
          .matchTypedSubjectAltNames[0]?.["matcher"],
        { exact: "unverifiable.invalid" },
      );
      assert.equal(envoyComplaint(Object.values(built).flat()), "");
    });

    test("the Gateway's client certificate is shown to the backend", () => {
      const clientCertificateRef = { name: "client" };
      const mine = object(
        "Gateway",
        "web",
        { gatewayClassName: "istio", listeners: [http], tls: { backend: { clientCertificateRef } } },
        "edge",
      );
      const secret = {
        apiVersion: "v1",
        kind: "Secret",
        metadata: { name: "client", namespace: "edge" },
        stringData: { "tls.crt": testCertificate, "tls.key": testKey },
      } as KubeObject;
      const built = snapshot(mine, route("r", [to("a")]), policy("ca"), ca, secret);
      const [shown] = tlsTowardsA(built)["tlsCertificateSdsSecretConfigs"] as readonly Spec[];
      assert.equal(shown?.["name"], "kubernetes-gateway://edge/client");
      assert.deepEqual(
        built.secret.map(({ name }) => name),
        ["kubernetes-gateway://edge/client"],
      );
    });
  });

  test("a listener whose clients cannot be verified as it asks serves nobody", () => {
    const tls = { mode: "Terminate", certificateRefs: [{ name: "pair" }] };
    const https = { name: "https", port: 443, protocol: "HTTPS", tls, allowedRoutes: all };
    const validation = { caCertificateRefs: [{ group: "", kind: "ConfigMap", name: "gone" }] };
    const mine = object(
      "Gateway",
      "web",
      { gatewayClassName: "istio", listeners: [http, https], tls: { frontend: { default: { validation } } } },
      "edge",
    );
    const pair = {
      apiVersion: "v1",
      kind: "Secret",
      metadata: { name: "pair", namespace: "edge" },
      stringData: { "tls.crt": testCertificate, "tls.key": testKey },
    } as KubeObject;
    assert.deepEqual(
      snapshot(mine, route("r", [to("a")]), pair).listener.map(({ name }) => name),
      ["0.0.0.0_8080"],
    );
  });

  test("a session keeps its endpoint by a cookie, and only where a route asks for it", () => {
    const filters = ({ listener }: Snapshot): string => {
      const message = decodeMessage("envoy.config.listener.v3.Listener", listener[0]!.bytes);
      return JSON.stringify(message);
    };
    const sticky = snapshot(
      gateway(http),
      route("r", [to("a", { sessionPersistence: { sessionName: "shop" } })]),
    );
    assert.match(filters(sticky), /stateful_session/);
    assert.match(JSON.stringify(routesOf(sticky, "*")), /CookieBasedSessionState/);
    assert.match(JSON.stringify(routesOf(sticky, "*")), /"name":"shop"/);
    assert.equal(envoyComplaint(Object.values(sticky).flat()), "");
    assert.doesNotMatch(filters(snapshot(gateway(http), route("r", [to("a")]))), /stateful_session/);
  });

  test("a route asks another service whether a request may go on, over HTTP or gRPC, and only where one does", () => {
    const listenersOf = ({ listener }: Snapshot): string =>
      JSON.stringify(decodeMessage("envoy.config.listener.v3.Listener", listener[0]!.bytes));
    const asks = (externalAuth: Spec): Spec => ({ filters: [{ type: "ExternalAuth", externalAuth }] });
    const at = (value: string, externalAuth: Spec): Spec =>
      to("a", { matches: [{ path: { value } }], ...asks(externalAuth) });
    const http1 = {
      protocol: "HTTP",
      backendRef: { name: "b", port: 80 },
      http: { path: "/check", allowedHeaders: ["x-team"] },
      forwardBody: { maxSize: 100 },
    };
    const plainPort = { protocol: "GRPC", backendRef: { name: "b", port: 80 }, grpc: {} };
    const grpcPort = { protocol: "GRPC", backendRef: { name: "decider", port: 90 }, grpc: {} };
    const gone = { protocol: "HTTP", backendRef: { name: "gone", port: 80 }, http: {} };
    const decider: KubeObject = {
      apiVersion: "v1",
      kind: "Service",
      metadata: { name: "decider", namespace: "default" },
      spec: { clusterIP: "10.0.0.3", ports: [{ name: "grpc", port: 90 }] } as object,
    };
    const built = snapshot(
      gateway(http),
      decider,
      route("r", [at("/http", http1), at("/grpc", grpcPort), at("/plain", plainPort), at("/gone", gone)]),
    );
    assert.match(listenersOf(built), /composite/);
    const text = Object.fromEntries(routesOf(built, "*").map((one) => [pathOf(one), JSON.stringify(one)]));
    assert.match(text["/http"]!, /"cluster":"outbound\|80\|\|b\.default.*"pathPrefix":"\/check".*"x-team"/);
    assert.match(text["/http"]!, /"maxRequestBytes":100,"allowPartialMessage":true/);
    assert.match(text["/grpc"]!, /"clusterName":"outbound\|90\|\|decider\.default/);
    for (const closed of ["/plain", "/gone"]) assert.match(text[closed]!, /"directResponse":\{"status":500/);
    const clusters = built.cluster.map(({ name }) => name).filter((name) => name.startsWith("outbound|"));
    assert.deepEqual(
      clusters.map((name) => name.slice(0, name.indexOf(".svc"))),
      ["outbound|80||a.default", "outbound|80||b.default", "outbound|90||decider.default"],
    );
    assert.equal(envoyComplaint(Object.values(built).flat()), "");
    assert.doesNotMatch(listenersOf(snapshot(gateway(http), route("r", [to("a")]))), /composite/);
  });

  test("a rule with a filter that cannot be applied answers 500, and the others stand", () => {
    const unknown = {
      type: "ExtensionRef",
      extensionRef: { group: "example.com", kind: "Thing", name: "t" },
    };
    const at = (value: string, more: Spec): Spec => ({ matches: [{ path: { value } }], ...more });
    const built = routesOf(
      snapshot(
        gateway(http),
        route("r", [
          to("a", at("/unknown", { filters: [unknown] })),
          at("/backend", { backendRefs: [{ name: "a", port: 80, filters: [unknown] }] }),
          to("a", at("/good", {})),
        ]),
      ),
      "*",
    );
    const answers = built.map((one) => `${pathOf(one)} ${one.directResponse?.["status"] ?? "goes on"}`);
    assert.deepEqual(answers.toSorted(), ["/backend 500", "/good goes on", "/unknown 500"]);
  });

  test("rules of several routes stand in the order of their matches", () => {
    const rule = (value: string, type = "PathPrefix"): Spec =>
      to("a", { matches: [{ path: { type, value } }] });
    const built = routesOf(
      snapshot(
        gateway(http),
        route("one", [rule("/"), rule("/long/er")]),
        route("two", [rule("/exact", "Exact"), rule("/long")]),
      ),
      "*",
    );
    assert.deepEqual(built.map(pathOf), ["/exact", "/long/er", "/long", "/"]);
  });

  test("a prefix means whole segments, and so does its replacement", () => {
    const rewrite = (replacePrefixMatch: string): Spec => ({
      filters: [
        { type: "URLRewrite", urlRewrite: { path: { type: "ReplacePrefixMatch", replacePrefixMatch } } },
      ],
    });
    const at = (value: string, more: Spec): Spec => to("a", { matches: [{ path: { value } }], ...more });
    const built = routesOf(
      snapshot(gateway(http), route("r", [at("/one", rewrite("/two")), at("/three", rewrite("/"))])),
      "*",
    );
    const [three, one] = built;
    assert.equal(three?.match["pathSeparatedPrefix"], "/three");
    assert.ok(three?.route !== undefined);
    const { pattern, substitution } = three.route["regexRewrite"] as {
      readonly pattern: { readonly regex: string };
      readonly substitution: string;
    };
    assert.equal("/three/x".replace(new RegExp(pattern.regex), substitution), "/x");
    assert.equal("/three".replace(new RegExp(pattern.regex), substitution), "/");
    assert.equal(one?.route?.["prefixRewrite"], "/two");
  });

  test("a backend of another namespace needs a ReferenceGrant; without it the answer is 500", () => {
    const far = route("r", [{ backendRefs: [{ name: "far", namespace: "other", port: 80 }] }]);
    const grant = object(
      "ReferenceGrant",
      "g",
      {
        from: [{ group: "gateway.networking.k8s.io", kind: "HTTPRoute", namespace: "default" }],
        to: [{ group: "", kind: "Service" }],
      },
      "other",
    );
    const [refused] = routesOf(snapshot(gateway(http), far), "*");
    assert.equal(refused?.route?.["cluster"], "outbound|65535||backend.invalid");
    assert.equal(refused?.route?.["clusterNotFoundResponseCode"], "INTERNAL_SERVER_ERROR");
    const [granted] = routesOf(snapshot(gateway(http), far, grant), "*");
    assert.equal(granted?.route?.["cluster"], "outbound|80||far.other.svc.cluster.local");
  });

  test("a rule without backends answers 500", () => {
    const [built] = routesOf(snapshot(gateway(http), route("r", [{}])), "*");
    assert.equal(built?.directResponse?.["status"], 500);
  });

  test("a host belongs to the listener that names it most exactly", () => {
    const listeners = [http, { ...http, name: "example", hostname: "*.example.com" }];
    const hostnames = ["a.example.com", "b.org"];
    const built = snapshot(
      gateway(...listeners),
      object("HTTPRoute", "r", {
        parentRefs: [{ name: "web", namespace: "edge", sectionName: "http" }],
        hostnames,
        rules: [to("a")],
      }),
    );
    assert.equal(routesOf(built, "b.org").length, 1);
    assert.equal(routesOf(built, "a.example.com").length, 0);
  });

  test("gRPC methods are paths", () => {
    const rules = [to("a", { matches: [{ method: { service: "pkg.Svc", method: "Do" } }] })];
    const [built] = routesOf(snapshot(gateway(http), route("r", rules, {}, "GRPCRoute")), "*");
    assert.equal(built?.match["path"], "/pkg.Svc/Do");
  });

  test("a redirect keeps the listener's port unless it names a scheme", () => {
    const filters = [{ type: "RequestRedirect", requestRedirect: { scheme: "https", hostname: "b.org" } }];
    const [built] = routesOf(snapshot(gateway(http), route("r", [{ filters }])), "*");
    assert.equal(built?.redirect?.["responseCode"], "FOUND");
    assert.equal(built?.redirect?.["schemeRedirect"], "https");
  });

  test("a BackendTLSPolicy has the backend spoken to by TLS, also beside a written rule", () => {
    const ca: KubeObject & { readonly data: Spec } = {
      apiVersion: "v1",
      kind: "ConfigMap",
      metadata: { name: "ca", namespace: "default" },
      data: { "ca.crt": testCertificate },
    };
    const policy = object("BackendTLSPolicy", "p", {
      targetRefs: [{ group: "", kind: "Service", name: "a" }],
      validation: {
        hostname: "a.example.com",
        caCertificateRefs: [{ group: "", kind: "ConfigMap", name: "ca" }],
      },
    });
    const rule: KubeObject = {
      apiVersion: "networking.istio.io/v1",
      kind: "DestinationRule",
      metadata: { name: "a", namespace: "default" },
      spec: { host: "a", trafficPolicy: { loadBalancer: { simple: "RANDOM" } } } as object,
    };
    const { cluster } = snapshot(gateway(http), route("r", [to("a")]), ca, policy, rule);
    const found = cluster.find(({ name }) => name === "outbound|80||a.default.svc.cluster.local");
    assert.ok(found);
    const built = decodeMessage("envoy.config.cluster.v3.Cluster", found.bytes);
    assert.equal(built["lbPolicy"], "RANDOM");
    const text = JSON.stringify(built["transportSocket"]);
    assert.match(text, /"sni":"a.example.com"/);
    assert.match(text, /BEGIN CERTIFICATE/);
  });

  test("Envoy takes HTTP with every filter, TLS that passes, and TCP", { skip: withoutEnvoy }, () => {
    const tls = { name: "tls", port: 443, protocol: "TLS", tls: { mode: "Passthrough" }, allowedRoutes: all };
    const tcp = { name: "tcp", port: 9000, protocol: "TCP", allowedRoutes: all };
    const header = {
      set: [{ name: "X-Set", value: "1" }],
      add: [{ name: "x-add", value: "2" }],
      remove: ["x-gone"],
    };
    const rules = [
      to("a", {
        matches: [
          {
            path: { type: "RegularExpression", value: "/v[0-9]+" },
            headers: [{ name: "X-H", value: "v" }],
            queryParams: [{ name: "q", value: "v" }],
            method: "GET",
          },
        ],
        filters: [
          { type: "RequestHeaderModifier", requestHeaderModifier: header },
          { type: "ResponseHeaderModifier", responseHeaderModifier: header },
          { type: "RequestMirror", requestMirror: { backendRef: { name: "b", port: 80 }, percent: 10 } },
          {
            type: "CORS",
            cors: { allowOrigins: ["https://*.example.com", "*"], allowMethods: ["GET"], maxAge: 5 },
          },
        ],
        timeouts: { request: "2s", backendRequest: "1s" },
        sessionPersistence: {
          sessionName: "shop",
          absoluteTimeout: "1h",
          cookieConfig: { lifetimeType: "Permanent" },
        },
        retry: { attempts: 3, codes: [503], backoff: "10ms" },
      }),
      {
        backendRefs: [
          { name: "a", port: 80, weight: 1 },
          { name: "b", port: 80, weight: 3 },
          { name: "gone", port: 80 },
        ],
      },
    ];
    const built = snapshot(
      gateway(http, tls, tcp),
      route("r", rules, { hostnames: ["*.example.com"] }),
      route("tls", [to("a")], { hostnames: ["db.example.com"] }, "TLSRoute"),
      route("tcp", [to("b")], {}, "TCPRoute"),
    );
    assert.deepEqual(
      built.listener.map(({ name }) => name),
      ["0.0.0.0_17000", "0.0.0.0_8080", "0.0.0.0_8443"],
    );
    assert.equal(envoyComplaint(Object.values(built).flat()), "");
  });
});
