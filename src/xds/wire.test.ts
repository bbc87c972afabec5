import assert from "node:assert/strict";
import { test } from "node:test";
import { decodeMessage, encodeMessage, resource } from "#envoy";
import { parseRequest, renderResponse } from "./wire.ts";

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
  const request = parseRequest(bytes);
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
  assert.throws(() => parseRequest(Buffer.from([0xff, 0xff])));
});
