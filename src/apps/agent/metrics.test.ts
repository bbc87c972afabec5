import assert from "node:assert/strict";
import { test } from "node:test";
import { createExpander, parseLabels, renderAgentMetrics } from "./metrics.ts";

const own = {
  facts: {
    workload: "reviews-v1",
    namespace: "default",
    app: "reviews",
    version: "v1",
    canonicalService: "reviews",
    canonicalRevision: "v1",
    cluster: "Kubernetes",
  },
  principal: "spiffe://cluster.local/ns/default/sa/reviews",
};
const expand = createExpander(own);

function labelsOf(line: string): Record<string, string> {
  return Object.fromEntries(parseLabels(line.slice(line.indexOf("{") + 1, line.lastIndexOf("}"))));
}

test("an inbound request gets the peer of its certificate and the proxy's own side", () => {
  const peer = "description=productpage-v1|default|productpage|v1|productpage|v1|Kubernetes";
  const line =
    `envoy_istio_requests_total{reporter="destination",peer="${peer}",` +
    'peer_principal="spiffe://cluster.local/ns/default/sa/productpage",' +
    'service="reviews.default.svc.cluster.local|reviews|default",request_protocol="http",response_code="200",' +
    'grpc_response_status="-",response_flags="-"} 7';
  const out = expand(line);
  assert.match(out, /^istio_requests_total\{.*\} 7$/);
  const labels = labelsOf(out);
  assert.equal(Object.keys(labels).length, 25);
  assert.equal(labels["source_workload"], "productpage-v1");
  assert.equal(labels["destination_workload"], "reviews-v1");
  assert.equal(labels["destination_principal"], own.principal);
  assert.equal(labels["destination_service_name"], "reviews");
  assert.equal(labels["connection_security_policy"], "mutual_tls");
  assert.equal(labels["grpc_response_status"], "");
});

test("labels that Telemetry takes away are left out, and its own take their place", () => {
  const labels = labelsOf(
    expand(
      'envoy_istio_requests_total{reporter="source",peer="-",peer_principal="-",team="blue",host="-",source_app="mine",' +
        'removed="host,response_code,source_app,source_version,team"} 1',
    ),
  );
  assert.deepEqual([labels["team"], labels["host"], labels["source_app"]], ["blue", "unknown", "mine"]);
  for (const name of ["removed", "response_code", "source_version"]) assert.ok(!(name in labels), name);
  assert.equal(labels["source_workload"], "reviews-v1");
});

test("a plaintext caller is unknown, and so is who answered it", () => {
  const labels = labelsOf(
    expand('envoy_istio_requests_total{reporter="destination",peer="-",peer_principal="-"} 1'),
  );
  assert.equal(labels["source_workload"], "unknown");
  assert.equal(labels["source_canonical_revision"], "latest");
  assert.equal(labels["destination_principal"], "unknown");
  assert.equal(labels["connection_security_policy"], "none");
  assert.equal(labels["response_code"], "0");
});

test("a foreign certificate's subject cannot pose as a workload", () => {
  for (const peer of ["CN=evil", "description=a|b", "O=x,description=", "description=a|b|c|d|e|f|g|h"]) {
    const labels = labelsOf(expand(`envoy_istio_requests_total{reporter="destination",peer="${peer}"} 1`));
    assert.equal(labels["source_workload"], "unknown", peer);
  }
});

test("TCP metrics have no response code and the protocol tcp", () => {
  const labels = labelsOf(
    expand('envoy_istio_tcp_sent_bytes_total{reporter="source",peer="w|n|a|v|c|r|k"} 12'),
  );
  assert.equal(labels["request_protocol"], "tcp");
  assert.equal(labels["destination_workload"], "w");
  assert.equal(labels["response_code"], undefined);
  assert.equal(labels["connection_security_policy"], "unknown");
});

test("a histogram keeps its bounds, and types and other series pass", () => {
  const text = [
    "# TYPE envoy_istio_request_bytes histogram",
    'envoy_istio_request_bytes_bucket{reporter="source",peer="w|n|a|v|c|r|k",le="0.5"} 0',
    'envoy_istio_request_bytes_bucket{reporter="source",peer="w|n|a|v|c|r|k",le="+Inf"} 3',
    'envoy_istio_request_bytes_sum{reporter="source",peer="w|n|a|v|c|r|k"} 30',
    "envoy_server_uptime{} 5",
  ].join("\n");
  const lines = expand(text).split("\n");
  assert.equal(lines[0], "# TYPE istio_request_bytes histogram");
  assert.match(lines[1] ?? "", /^istio_request_bytes_bucket\{.*,le="0\.5"\} 0$/);
  assert.match(lines[2] ?? "", /,le="\+Inf"\} 3$/);
  assert.match(lines[3] ?? "", /^istio_request_bytes_sum\{[^{]*\} 30$/);
  assert.equal(lines[4], "envoy_server_uptime{} 5");
});

test("a tag of a Telemetry object passes beside the labels, escaped as it came", () => {
  const labels = labelsOf(expand('envoy_istio_requests_total{reporter="source",path="/a\\"b"} 1'));
  assert.equal(labels["path"], '/a"b');
});

test("the agent's own metrics tell the certificate's end only when there is one", () => {
  const counts = {
    caFailures: 1,
    rotations: 2,
    envoyRestarts: 3,
    recordsDropped: 0,
    residentBytes: 4,
    version: "0.1.0",
  };
  assert.match(
    renderAgentMetrics({ ...counts, certificateExpirySeconds: 59.6 }),
    /cert_expiry_seconds\{.*\} 60\n/,
  );
  assert.doesNotMatch(renderAgentMetrics({ ...counts, certificateExpirySeconds: undefined }), /cert_expiry/);
});
