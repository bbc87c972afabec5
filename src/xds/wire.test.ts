import assert from "node:assert/strict";
import { test } from "node:test";
import { decodeMessage, encodeMessage, resource } from "#envoy";
import { renderResponse, RequestReader } from "./wire.ts";

test("a response put together from frames is the message that Envoy's API describes", () => {
  const cluster = resource("cluster", "a", { name: "a", altStatName: "b" });
  const pieces = renderResponse({
    typeUrl: cluster.typeUrl,
    nonce: "7",
    systemVersion: "s",
    resources: [cluster, cluster],
    removed: ["gone"],
  });
  const decoded = decodeMessage("envoy.service.discovery.v3.DeltaDiscoveryResponse", Buffer.concat(pieces));
  const expected = {
    version: cluster.version,
    name: "a",
    resource: { "@type": cluster.typeUrl, name: "a", altStatName: "b" },
  };
  assert.deepEqual(decoded, {
    systemVersionInfo: "s",
    resources: [expected, expected],
    typeUrl: cluster.typeUrl,
    nonce: "7",
    removedResources: ["gone"],
  });
});

test("a request is read as Envoy's API describes it", () => {
  const bytes = encodeMessage("envoy.service.discovery.v3.DeltaDiscoveryRequest", {
    node: { id: "sidecar~1~a.b~c" },
    typeUrl: "t",
    resourceNamesSubscribe: ["*", "x"],
    resourceNamesUnsubscribe: ["y"],
    initialResourceVersions: { a: "1", b: "2" },
    responseNonce: "n",
    errorDetail: { code: 13, message: "no" },
  });
  const request = new RequestReader().read(bytes);
  assert.equal(request.node?.["id"], "sidecar~1~a.b~c");
  assert.deepEqual(
    { ...request, node: undefined, initialVersions: [...request.initialVersions] },
    {
      node: undefined,
      typeUrl: "t",
      subscribe: ["*", "x"],
      unsubscribe: ["y"],
      initialVersions: [
        ["a", "1"],
        ["b", "2"],
      ],
      responseNonce: "n",
      rejection: "no",
    },
  );
  assert.throws(() => new RequestReader().read(Buffer.from([0xff, 0xff])));
});

test("proxies that say the same in another order are given one map, and others their own", () => {
  const reader = new RequestReader();
  const versionsOf = (versions: Record<string, string>) =>
    reader.read(
      encodeMessage("envoy.service.discovery.v3.DeltaDiscoveryRequest", {
        initialResourceVersions: versions,
      }),
    ).initialVersions;
  const names = Array.from({ length: 100 }, (_, at) => `outbound|${at}||a.b`);
  const held = (version: (at: number) => string, order = names) =>
    Object.fromEntries(order.map((name) => [name, version(names.indexOf(name))]));
  const first = versionsOf(held((at) => `v${at}`));
  assert.deepEqual(
    Object.fromEntries(first),
    held((at) => `v${at}`),
  );
  assert.equal(versionsOf(held((at) => `v${at}`, names.toReversed())), first);
  const other = versionsOf(held((at) => (at === 57 ? "v58" : `v${at}`)));
  assert.equal(other.get("outbound|57||a.b"), "v58");
  // The same parts, put together otherwise.
  const swapped = versionsOf(held((at) => (at < 2 ? `v${1 - at}` : `v${at}`)));
  assert.equal(swapped.get("outbound|0||a.b"), "v1");
  reader.forget();
  assert.equal(versionsOf(held((at) => `v${at}`)), first);
  reader.forget();
  reader.forget();
  const again = versionsOf(held((at) => `v${at}`));
  assert.notEqual(again, first);
  assert.deepEqual(again, first);
});
