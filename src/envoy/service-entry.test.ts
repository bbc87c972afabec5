import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { Engine } from "#engine";
import { worldChanges, type ProxyClass } from "#model";
import type { KubeObject, MeshConfig, ServiceEntrySpec, ServiceEntryStatus } from "#objects";
import { envoyComplaint, withoutEnvoy } from "../../test/support/envoy.ts";
import { proxyOf } from "../../test/support/proxies.ts";
import { decodeMessage } from "./proto/api.ts";
import { messageNameOf, type EnvoyResource } from "./resource.ts";
import { snapshotOf, type Snapshot } from "./snapshot.ts";

const client = proxyOf({ labels: { app: "sleep" }, serviceAccount: "sleep" });
const dnsClient: ProxyClass = { ...client, metadata: { DNS_CAPTURE: "true" } };
const machine: ProxyClass = { ...client, metadata: { DNS_CAPTURE: "true", INSTANCE_IPS: "192.0.2.9" } };

const http = { number: 80, name: "http", protocol: "HTTP" };
const tls = { number: 443, name: "tls", protocol: "TLS" };
const tcp = { number: 9000, name: "tcp", protocol: "TCP" };

describe("a ServiceEntry with DYNAMIC_DNS", () => {
  const wild = entry("wild", { hosts: ["*.example.com"], ports: [http, tls], resolution: "DYNAMIC_DNS" });

  test("has clusters that look up the name of each request, and listeners that take it from Host or SNI", () => {
    const world = worldOf([wild]);
    for (const port of [80, 443])
      assert.match(text(world, "cluster", `outbound|${port}||*.example.com`), /dynamic_forward_proxy/);
    assert.match(text(world, "listener", "0.0.0.0_80"), /envoy\.filters\.http\.dynamic_forward_proxy/);
    const sniChain = text(world, "listener", "0.0.0.0_443");
    assert.match(sniChain, /"serverNames":\["\*\.example\.com"\].*sni_dynamic_forward_proxy.*tcp_proxy/);
  });

  test("leaves the listeners of other ports as they are", () => {
    const other = entry("other", {
      hosts: ["a.example.org"],
      ports: [{ ...http, number: 81 }],
      resolution: "DNS",
    });
    assert.doesNotMatch(text(worldOf([wild, other]), "listener", "0.0.0.0_81"), /dynamic_forward/);
  });

  test("is reached from another port's HTTP where a rule sends it there, by the name that the rule may give it", () => {
    const rule: KubeObject = {
      apiVersion: "networking.istio.io/v1",
      kind: "VirtualService",
      metadata: { name: "there", namespace: "default" },
      spec: {
        hosts: ["a.example.org"],
        http: [
          {
            rewrite: { authority: "b.example.com" },
            route: [{ destination: { host: "*.example.com", port: { number: 80 } } }],
          },
        ],
      },
    };
    const other = entry("other", {
      hosts: ["a.example.org"],
      ports: [{ ...http, number: 81 }],
      resolution: "DNS",
    });
    const world = worldOf([wild, other, rule]);
    assert.match(text(world, "listener", "0.0.0.0_81"), /filters\.http\.dynamic_forward_proxy/);
    const routes = text(world, "virtualHost", "81/a.example.org:81");
    assert.match(routes, /\{"hostRewriteLiteral":"b\.example\.com","@type":"[^"]+PerRouteConfig"\}/);
  });

  test(
    "is reached through an egress gateway, by the Host of a request or by the SNI",
    { skip: withoutEnvoy },
    () => {
      const router: ProxyClass = { ...client, kind: "router", labels: { istio: "egressgateway" } };
      const gateway: KubeObject = {
        apiVersion: "networking.istio.io/v1",
        kind: "Gateway",
        metadata: { name: "egress", namespace: "default" },
        spec: {
          selector: { istio: "egressgateway" },
          servers: [
            { port: http, hosts: ["*.example.com"] },
            { port: tls, hosts: ["*.example.com"], tls: { mode: "PASSTHROUGH" } },
          ],
        },
      };
      const route = (port: number) => [{ destination: { host: "*.example.com", port: { number: port } } }];
      const virtualService: KubeObject = {
        apiVersion: "networking.istio.io/v1",
        kind: "VirtualService",
        metadata: { name: "egress", namespace: "default" },
        spec: {
          hosts: ["*.example.com"],
          gateways: ["egress"],
          http: [{ route: route(80) }],
          tls: [{ match: [{ port: 443, sniHosts: ["*.example.com"] }], route: route(443) }],
        },
      };
      const world = worldOf([wild, gateway, virtualService], router);
      assert.match(text(world, "listener", "0.0.0.0_80"), /envoy\.filters\.http\.dynamic_forward_proxy/);
      assert.match(text(world, "listener", "0.0.0.0_443"), /sni_dynamic_forward_proxy.*tcp_proxy/);
      assert.equal(envoyComplaint(Object.values(world).flat()), "");
    },
  );

  test("is taken by the real Envoy, with TLS originated too", { skip: withoutEnvoy }, () => {
    const origination: KubeObject = {
      apiVersion: "networking.istio.io/v1",
      kind: "DestinationRule",
      metadata: { name: "tls", namespace: "default" },
      spec: {
        host: "*.example.com",
        trafficPolicy: { portLevelSettings: [{ port: { number: 80 }, tls: { mode: "SIMPLE" } }] },
      },
    };
    const world = worldOf([wild, origination]);
    assert.match(text(world, "cluster", "outbound|80||*.example.com"), /autoSni/);
    assert.equal(envoyComplaint(Object.values(world).flat()), "");
  });
});

describe("endpoints of a ServiceEntry", () => {
  test("may be sockets, have ports, weights and places of their own, and be selected among WorkloadEntries", () => {
    const inline = entry("inline", {
      hosts: ["inline.example.com"],
      ports: [{ ...http, targetPort: 8080 }],
      resolution: "STATIC",
      endpoints: [
        { address: "unix:///var/run/app.sock" },
        { address: "10.0.0.1", ports: { http: 9090 }, weight: 3, locality: "eu/west" },
      ],
    });
    const said = text(worldOf([inline]), "endpoint", "outbound|80||inline.example.com");
    assert.match(said, /"pipe":\{"path":"\/var\/run\/app\.sock"/);
    assert.match(said, /"address":"10\.0\.0\.1","portValue":9090/);
    assert.match(said, /"region":"eu","zone":"west"/);
    const selecting = entry("selecting", {
      hosts: ["selected.example.com"],
      ports: [{ ...http, targetPort: 8080 }],
      resolution: "STATIC",
      workloadSelector: { labels: { app: "vm" } },
    });
    const workload = (name: string, app: string, status?: unknown): KubeObject => ({
      apiVersion: "networking.istio.io/v1",
      kind: "WorkloadEntry",
      metadata: {
        name,
        namespace: "default",
        annotations: { "proxy.istio.io/health-checks-enabled": "true" },
      },
      spec: { address: name, labels: { app } },
      status,
    });
    const healthy = (status: string) => ({ conditions: [{ type: "Healthy", status }] });
    const entries = [
      workload("10.0.1.1", "vm", healthy("True")),
      workload("10.0.1.2", "vm", healthy("False")),
      workload("10.0.1.3", "vm"),
      workload("10.0.1.4", "other", healthy("True")),
    ];
    const selected = text(worldOf([selecting, ...entries]), "endpoint", "outbound|80||selected.example.com");
    assert.deepEqual(selected.match(/10\.0\.1\.\d/g), ["10.0.1.1"]);
  });

  test("a Kubernetes Service selects WorkloadEntries beside its Pods", () => {
    const service: KubeObject = {
      apiVersion: "v1",
      kind: "Service",
      metadata: { name: "vm", namespace: "default" },
      spec: {
        clusterIP: "10.96.0.8",
        selector: { app: "vm" },
        ports: [{ port: 80, name: "http", targetPort: 8080 }],
      },
    };
    const workload: KubeObject = {
      apiVersion: "networking.istio.io/v1",
      kind: "WorkloadEntry",
      metadata: { name: "vm", namespace: "default", labels: { app: "vm" } },
      spec: { address: "10.0.1.1" },
    };
    const said = text(worldOf([service, workload]), "endpoint", "outbound|80||vm.default.svc.cluster.local");
    assert.match(said, /"address":"10\.0\.1\.1","portValue":8080/);
  });

  test("with resolution NONE are the addresses that clients ask for, in a range too", () => {
    const range = entry("range", {
      hosts: ["range.example.com"],
      addresses: ["10.7.0.0/16"],
      ports: [tcp],
      resolution: "NONE",
    });
    const world = worldOf([range]);
    assert.match(text(world, "cluster", "outbound|9000||range.example.com"), /"type":"ORIGINAL_DST"/);
    assert.match(text(world, "listener", "0.0.0.0_9000"), /"addressPrefix":"10\.7\.0\.0"/);
  });
});

describe("names and addresses of ServiceEntries", () => {
  const chosen = (host: string) => ({
    addresses: [
      { value: "240.240.1.2", host },
      { value: "2001:2::102", host },
    ],
  });
  const one = entry(
    "one",
    { hosts: ["one.example.com"], ports: [tcp], resolution: "STATIC" },
    chosen("one.example.com"),
  );
  const passed = entry("passed", { hosts: ["*.example.org"], ports: [tls], resolution: "NONE" });
  const ranged = entry("ranged", {
    hosts: ["range.example.net"],
    addresses: ["10.0.0.0/24", "10.9.9.9"],
    ports: [tcp],
    resolution: "STATIC",
  });
  const service: KubeObject = {
    apiVersion: "v1",
    kind: "Service",
    metadata: { name: "shop", namespace: "default" },
    spec: { clusterIP: "10.96.0.7", ports: [{ port: 80, name: "http" }] },
  };

  test("are told to workloads whose DNS is captured, and nobody else has listeners at chosen addresses", () => {
    const world = worldOf([one, passed, ranged, service], dnsClient);
    assert.deepEqual(namesIn(world), {
      "*.example.org": ["0.0.0.0"],
      "one.example.com": ["2001:2::102", "240.240.1.2"],
      "range.example.net": ["10.9.9.9"],
    });
    assert.ok(names(world).includes("240.240.1.2_9000"));
    const plain = names(worldOf([one, passed, ranged, service]));
    assert.ok(
      !plain.includes("dns") && !plain.includes("240.240.1.2_9000") && plain.includes("0.0.0.0_9000"),
    );
  });

  test("a machine outside of the cluster is told the cluster's Services as well", () => {
    assert.deepEqual(namesIn(worldOf([one, service], machine))["shop.default.svc.cluster.local"], [
      "10.96.0.7",
    ]);
  });

  test("chosen addresses no longer hold when the entry names its own or says no", () => {
    const named = entry(
      "one",
      { ...(one.spec as ServiceEntrySpec), addresses: ["10.1.1.1"] },
      one.status as ServiceEntryStatus,
    );
    assert.deepEqual(namesIn(worldOf([named], dnsClient))["one.example.com"], ["10.1.1.1"]);
    const refused = {
      ...one,
      metadata: { ...one.metadata, labels: { "networking.istio.io/enable-autoallocate-ip": "false" } },
    };
    assert.deepEqual(namesIn(worldOf([refused], dnsClient))["one.example.com"], ["0.0.0.0"]);
  });

  test("are limited to what the workload's Sidecar lets in", () => {
    const sidecar: KubeObject = {
      apiVersion: "networking.istio.io/v1",
      kind: "Sidecar",
      metadata: { name: "default", namespace: "default" },
      spec: { egress: [{ hosts: ["./one.example.com"] }] },
    };
    assert.deepEqual(Object.keys(namesIn(worldOf([one, ranged, sidecar], dnsClient))), ["one.example.com"]);
  });

  test("are taken by the real Envoy", { skip: withoutEnvoy }, () => {
    const world = worldOf([one, passed, ranged, service], machine);
    assert.equal(envoyComplaint(Object.values(world).flat()), "");
  });
});

function entry(name: string, spec: ServiceEntrySpec, status: ServiceEntryStatus = {}): KubeObject {
  return {
    apiVersion: "networking.istio.io/v1",
    kind: "ServiceEntry",
    metadata: { name, namespace: "default" },
    spec,
    status,
  };
}

function worldOf(objects: readonly KubeObject[], proxy = client, mesh: MeshConfig = {}): Snapshot {
  const engine = new Engine();
  engine.apply(worldChanges(objects, { rootNamespace: "istio-d", mesh }));
  return snapshotOf(engine, proxy);
}

function names(world: Snapshot): readonly string[] {
  return world.listener.map(({ name }) => name);
}

function decoded(world: Snapshot, type: EnvoyResource["type"], name: string): unknown {
  const found = world[type].find((one) => one.name === name);
  assert.ok(found !== undefined, `${type} ${name}`);
  return decodeMessage(messageNameOf(type), found.bytes);
}

function text(world: Snapshot, type: EnvoyResource["type"], name: string): string {
  return JSON.stringify(decoded(world, type, name));
}

/** The table of the listener `dns`. */
function namesIn(world: Snapshot): Readonly<Record<string, readonly string[]>> {
  const { listenerFilters } = decoded(world, "listener", "dns") as {
    listenerFilters: readonly {
      typedConfig: {
        serverConfig?: {
          inlineDnsTable?: {
            virtualDomains?: readonly { name: string; endpoint: { addressList: { address: string[] } } }[];
          };
        };
      };
    }[];
  };
  const domains = listenerFilters[0]?.typedConfig.serverConfig?.inlineDnsTable?.virtualDomains ?? [];
  return Object.fromEntries(domains.map(({ name, endpoint }) => [name, endpoint.addressList.address]));
}
