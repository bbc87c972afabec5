import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { Engine } from "#engine";
import { wantedStatusOf, worldChanges } from "#model";
import type { KubeObject } from "#objects";
import { envoyComplaint, withoutEnvoy } from "../../test/support/envoy.ts";
import { proxyOf } from "../../test/support/proxies.ts";
import { decodeMessage } from "./proto/api.ts";
import { snapshotOf, type Snapshot } from "./snapshot.ts";

const gatewayName = "gateway.networking.k8s.io/gateway-name";
const proxy = proxyOf({
  kind: "router",
  namespace: "edge",
  labels: { [gatewayName]: "web" },
  serviceAccount: "web-istio",
  dnsDomain: "edge.svc.cluster.local",
  interception: "NONE",
});

type Spec = Readonly<Record<string, unknown>>;

function object(kind: string, name: string, spec: Spec, created = "2026-01-01T00:00:00Z"): KubeObject {
  const metadata = { name, namespace: "edge", creationTimestamp: created };
  return { apiVersion: "gateway.networking.k8s.io/v1", kind, metadata, spec };
}

const both = [
  { name: "dns", port: 53, targetPort: 5353, protocol: "UDP" },
  { name: "dns-tcp", port: 53, targetPort: 5354, protocol: "TCP" },
];

function service(name: string, ports: readonly Spec[], selector?: Spec): KubeObject[] {
  const numbers = ports.map((port) => ({ ...port, port: port["targetPort"] }));
  const spec = { clusterIP: "10.0.0.1", ports, ...(selector === undefined ? {} : { selector }) } as object;
  return [
    { apiVersion: "v1", kind: "Service", metadata: { name, namespace: "edge" }, spec },
    {
      apiVersion: "discovery.k8s.io/v1",
      kind: "EndpointSlice",
      metadata: { name, namespace: "edge", labels: { "kubernetes.io/service-name": name } },
      endpoints: [{ addresses: ["192.0.2.3"] }],
      ports: numbers,
    } as KubeObject,
  ];
}

const edge = service(
  "web-istio",
  both.map((port) => ({ ...port, targetPort: port.targetPort + 3000 })),
  { [gatewayName]: "web" },
);

const udp = { name: "udp", port: 53, protocol: "UDP" };
const tcp = { name: "tcp", port: 53, protocol: "TCP" };

function gateway(...listeners: readonly Spec[]): KubeObject {
  return object("Gateway", "web", { gatewayClassName: "istio", listeners });
}

function route(name: string, backends: readonly Spec[], kind = "UDPRoute", created?: string): KubeObject {
  const backendRefs = backends.map((backend) => ({ port: 53, ...backend }));
  return object(kind, name, { parentRefs: [{ name: "web" }], rules: [{ backendRefs }] }, created);
}

function engineOf(...objects: readonly KubeObject[]): Engine {
  const engine = new Engine();
  engine.apply(worldChanges([...edge, ...service("a", both), ...service("b", both), ...objects]));
  return engine;
}

function snapshot(...objects: readonly KubeObject[]): Snapshot {
  return snapshotOf(engineOf(...objects), proxy);
}

interface Choice {
  readonly typedConfig: { readonly cluster: string };
}

function matcherOf({ listener }: Snapshot) {
  const found = listener.find(({ name }) => name === "udp_0.0.0.0_8353");
  assert.ok(found, `there is no listener of UDP among ${listener.map(({ name }) => name).join()}`);
  const built = decodeMessage("envoy.config.listener.v3.Listener", found.bytes) as {
    readonly listenerFilters: readonly {
      readonly typedConfig: {
        readonly matcher: {
          readonly onNoMatch: { readonly action: Choice };
          readonly matcherList?: {
            readonly matchers: readonly {
              readonly predicate: {
                readonly singlePredicate: {
                  readonly customMatch: {
                    readonly typedConfig: {
                      readonly runtimeFraction: { readonly defaultValue: { readonly numerator: number } };
                    };
                  };
                };
              };
              readonly onMatch: { readonly action: Choice };
            }[];
          };
        };
      };
    }[];
  };
  return built.listenerFilters[0]!.typedConfig.matcher;
}

function clusterOf({ action }: { readonly action: Choice }): string {
  return action.typedConfig.cluster;
}

interface Conditions {
  readonly Accepted: { readonly reason: string };
}

function statusOf(engine: Engine, kind: "KubeGateway" | "UDPRoute", key: string) {
  return engine.get(wantedStatusOf, { kind, key })?.found as unknown as {
    readonly status: {
      readonly listeners: readonly {
        readonly supportedKinds: readonly string[];
        readonly attachedRoutes: number;
        readonly conditions: Conditions;
      }[];
      readonly conditions: { readonly Programmed: { readonly reason: string; readonly message: string } };
    };
    readonly entries: readonly { readonly conditions: Conditions }[];
  };
}

describe("UDP at a router", () => {
  test("datagrams go to the port of UDP, whatever port of TCP has its number", () => {
    const built = snapshot(
      gateway(udp, tcp),
      route("r", [{ name: "a" }]),
      route("t", [{ name: "a" }], "TCPRoute"),
    );
    assert.deepEqual(
      built.listener.map(({ name }) => name),
      ["0.0.0.0_8354", "udp_0.0.0.0_8353"],
    );
    const name = "outbound-udp|53||a.edge.svc.cluster.local";
    assert.equal(clusterOf(matcherOf(built).onNoMatch), name);
    const assignment = built.endpoint.find((one) => one.name === name);
    assert.ok(assignment);
    const text = JSON.stringify(
      decodeMessage("envoy.config.endpoint.v3.ClusterLoadAssignment", assignment.bytes),
    );
    assert.match(text, /"protocol":"UDP","address":"192\.0\.2\.3","portValue":5353/);
    const streams = built.endpoint.find((one) => one.name === "outbound|53||a.edge.svc.cluster.local");
    assert.ok(streams);
    const other = JSON.stringify(
      decodeMessage("envoy.config.endpoint.v3.ClusterLoadAssignment", streams.bytes),
    );
    assert.match(other, /"portValue":5354/);
    assert.doesNotMatch(other, /5353/);
  });

  test("weights become shares of what is left, and a backend of weight 0 gets nothing", () => {
    const backends = [
      { name: "a", weight: 50 },
      { name: "b", weight: 0 },
      { name: "b", weight: 30 },
      { name: "gone", weight: 20 },
    ];
    const { matcherList, onNoMatch } = matcherOf(snapshot(gateway(udp), route("r", backends)));
    const shares = matcherList?.matchers.map(({ predicate, onMatch }) => [
      clusterOf(onMatch),
      predicate.singlePredicate.customMatch.typedConfig.runtimeFraction.defaultValue.numerator,
    ]);
    assert.deepEqual(shares, [
      ["outbound-udp|53||a.edge.svc.cluster.local", 500_000],
      ["outbound-udp|53||b.edge.svc.cluster.local", 600_000],
    ]);
    // It is no cluster: its share is dropped, as Gateway API wants it.
    assert.equal(clusterOf(onNoMatch), "outbound-udp|53||gone.edge.svc.cluster.local");
  });

  test("of two routes the older one has the port, and both count as attached", () => {
    const engine = engineOf(
      gateway(udp),
      route("newer", [{ name: "b" }], "UDPRoute", "2026-01-02T00:00:00Z"),
      route("older", [{ name: "a" }]),
    );
    const chosen = clusterOf(matcherOf(snapshotOf(engine, proxy)).onNoMatch);
    assert.equal(chosen, "outbound-udp|53||a.edge.svc.cluster.local");
    const { listeners, conditions } = statusOf(engine, "KubeGateway", "edge/web").status;
    assert.equal(listeners[0]?.attachedRoutes, 2);
    assert.deepEqual(listeners[0]?.supportedKinds, ["UDPRoute"]);
    assert.equal(conditions.Programmed.reason, "Programmed", conditions.Programmed.message);
    for (const name of ["older", "newer"])
      assert.equal(
        statusOf(engine, "UDPRoute", `edge/${name}`).entries[0]?.conditions.Accepted.reason,
        "Accepted",
      );
  });

  test("listeners of UDP and TCP share a number, and two of UDP do not", () => {
    const more = { ...udp, name: "again" };
    const { listeners } = statusOf(engineOf(gateway(udp, tcp, more)), "KubeGateway", "edge/web").status;
    assert.deepEqual(
      listeners.map(({ conditions }) => conditions.Accepted.reason),
      ["Accepted", "Accepted", "ProtocolConflict"],
    );
  });

  test("a UDPRoute of a Service, or of a listener of TCP, is told that nothing comes of it", () => {
    const toService = object("UDPRoute", "mesh", {
      parentRefs: [{ group: "", kind: "Service", name: "a" }],
      rules: [{ backendRefs: [{ name: "b", port: 53 }] }],
    });
    const engine = engineOf(gateway(tcp), route("r", [{ name: "a" }]), toService);
    const reasonOf = (key: string) =>
      statusOf(engine, "UDPRoute", key).entries[0]?.conditions.Accepted.reason;
    assert.equal(reasonOf("edge/r"), "NotAllowedByListeners");
    assert.equal(reasonOf("edge/mesh"), "UnsupportedValue");
  });

  test("Envoy takes it", { skip: withoutEnvoy }, () => {
    const rule = {
      apiVersion: "networking.istio.io/v1",
      kind: "DestinationRule",
      metadata: { name: "a", namespace: "edge" },
      spec: { host: "a", trafficPolicy: { loadBalancer: { consistentHash: { useSourceIp: true } } } },
    } as KubeObject;
    const backends = [
      { name: "a", weight: 1 },
      { name: "b", weight: 2 },
    ];
    const built = snapshot(gateway(udp, tcp), route("r", backends), rule);
    assert.equal(envoyComplaint(Object.values(built).flat()), "");
  });
});
