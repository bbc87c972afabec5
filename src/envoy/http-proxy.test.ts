import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { Engine } from "#engine";
import { worldChanges } from "#model";
import type { KubeObject, MeshConfig } from "#objects";
import { envoyComplaint, withoutEnvoy } from "../../test/support/envoy.ts";
import { proxyOf } from "../../test/support/proxies.ts";
import { decodeMessage } from "./proto/api.ts";
import { messageNameOf, type EnvoyResource } from "./resource.ts";
import { snapshotOf } from "./snapshot.ts";

function service(name: string, port: number): KubeObject {
  return {
    apiVersion: "v1",
    kind: "Service",
    metadata: { name, namespace: "default" },
    spec: { clusterIP: `10.96.0.${port % 100}`, ports: [{ name: "http", port }] },
  };
}

const services = [service("shop", 80), service("stock", 8081)];

function resourcesOf(mesh: MeshConfig): readonly EnvoyResource[] {
  const engine = new Engine();
  engine.apply(worldChanges(services, { rootNamespace: "istio-d", mesh }));
  return Object.values(snapshotOf(engine, proxyOf({}))).flat();
}

function found(all: readonly EnvoyResource[], type: string, name: string) {
  const one = all.find((resource) => resource.type === type && resource.name === name);
  return one && decodeMessage(messageNameOf(one.type), one.bytes);
}

describe("proxyHttpPort", () => {
  const all = resourcesOf({ proxyHttpPort: 3128 });

  test("is bound at the loopback interface, and nothing is without it", () => {
    const listener = JSON.stringify(found(all, "listener", "127.0.0.1_3128"));
    assert.match(listener, /"routeConfigName":"http_proxy"/);
    assert.doesNotMatch(listener, /"bindToPort"/);
    assert.equal(found(resourcesOf({}), "listener", "127.0.0.1_3128"), undefined);
    assert.equal(found(resourcesOf({}), "route", "http_proxy"), undefined);
  });

  test("leads to services of every port, by the host that the request names", () => {
    const table = found(all, "route", "http_proxy") as {
      readonly virtualHosts: readonly { readonly domains: readonly string[] }[];
    };
    const domains = table.virtualHosts.flatMap((host) => host.domains);
    for (const domain of ["shop.default:80", "shop.default.svc.cluster.local", "stock.default:8081", "*"])
      assert.ok(domains.includes(domain), `${domain} in ${domains.join(" ")}`);
    assert.ok(!domains.includes("stock.default"), "no port in the host means port 80");
  });

  test("is taken by the real Envoy", { skip: withoutEnvoy }, () => assert.equal(envoyComplaint(all), ""));
});
