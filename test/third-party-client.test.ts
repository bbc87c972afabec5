// Somebody else's client: @grpc/grpc-js, with the service as Envoy's own .proto files describe it, speaks delta ADS to the
// control plane's gRPC server, which is written on node:http2. Two implementations of gRPC have to agree.

import assert from "node:assert/strict";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { Client, credentials, status, type ServiceError } from "@grpc/grpc-js";
import { silentLog } from "#base";
import { decodeMessage, encodeMessage, typePrefix } from "#envoy";
import { ControlPlane } from "../src/apps/control/control-plane.ts";
import { parseSettings } from "../src/apps/control/settings.ts";
import { RealClock } from "./support/real-clock.ts";

const clock = new RealClock();

const world = `
apiVersion: v1
kind: Pod
metadata: { name: sleep-1, namespace: default, labels: { app: sleep } }
spec: { serviceAccountName: sleep, containers: [{ name: app }] }
status: { phase: Running, podIP: 127.0.0.1 }
---
apiVersion: v1
kind: Service
metadata: { name: reviews, namespace: default }
spec: { clusterIP: 10.96.0.5, selector: { app: reviews }, ports: [{ name: http, port: 9080, protocol: TCP }] }
`;

const clusters = `${typePrefix}envoy.config.cluster.v3.Cluster`;
const method = "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources";
const requestType = "envoy.service.discovery.v3.DeltaDiscoveryRequest";
const responseType = "envoy.service.discovery.v3.DeltaDiscoveryResponse";

interface Response {
  readonly nonce: string;
  readonly typeUrl: string;
  readonly resources?: readonly { readonly name: string; readonly version: string }[];
}

function openStream(client: Client) {
  return client.makeBidiStreamRequest(
    method,
    (request: Record<string, unknown>) => Buffer.from(encodeMessage(requestType, request)),
    (bytes: Buffer) => decodeMessage(responseType, bytes) as unknown as Response,
  );
}

test("grpc-js reads clusters by delta ADS, and a node of no known pod is refused with a gRPC status", async () => {
  const directory = mkdtempSync(join(tmpdir(), "mizzen-third-"));
  writeFileSync(join(directory, "world.yaml"), world);
  const ports = ["--xds-port", "0", "--monitoring-port", "0", "--webhook-port", "0", "--host", "127.0.0.1"];
  const settings = parseSettings(
    ["discovery", "--config-dir", directory, "--plaintext", "127.0.0.1:0", ...ports],
    {},
  );
  const controlPlane = new ControlPlane({
    settings,
    version: "test",
    clock,
    random: () => 0.5,
    log: silentLog,
  });
  await controlPlane.start();
  const client = new Client(`127.0.0.1:${controlPlane.ports.plaintext}`, credentials.createInsecure());
  try {
    const known = openStream(client);
    const answered = new Promise<Response>((resolve, reject) =>
      known.on("data", resolve).on("error", reject),
    );
    const id = "sidecar~127.0.0.1~sleep-1.default~default.svc.cluster.local";
    known.write({ node: { id }, typeUrl: clusters, resourceNamesSubscribe: ["*"] });
    const response = await answered;
    assert.equal(response.typeUrl, clusters);
    const names = response.resources?.map(({ name }) => name) ?? [];
    assert.ok(names.includes("outbound|9080||reviews.default.svc.cluster.local"), names.join());
    known.write({ typeUrl: clusters, responseNonce: response.nonce });
    known.removeAllListeners("error").on("error", () => undefined);
    known.cancel();

    const unknown = openStream(client);
    const refused = new Promise<ServiceError>((resolve) =>
      unknown.on("data", () => undefined).on("error", resolve),
    );
    unknown.write({
      node: { id: id.replace("sleep-1", "nobody") },
      typeUrl: clusters,
      resourceNamesSubscribe: ["*"],
    });
    const { code, details } = await refused;
    // The pod may only be unknown so far: the client is to come again.
    assert.equal(code, status.UNAVAILABLE);
    assert.match(details, /pod default\/nobody is not known/);
  } finally {
    client.close();
    await controlPlane.stop();
    rmSync(directory, { recursive: true, force: true });
  }
});
