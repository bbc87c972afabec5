// Asks the real Envoy whether it takes resources: all of them as static ones of a bootstrap.

import { spawnSync } from "node:child_process";
import { existsSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import {
  decodeMessage,
  encodeMessage,
  messageNameOf,
  withHostsInTables,
  type EnvoyResource,
  type Message,
} from "#envoy";

export const envoyPath = process.env["MIZZEN_ENVOY"] ?? join(import.meta.dirname, "../../.cache/bin/envoy");

/** Why the real Envoy cannot be asked here, or undefined. */
export const withoutEnvoy = existsSync(envoyPath) ? undefined : `no Envoy at ${envoyPath}`;

/** Envoy's complaint about these resources; "" when it takes them. Route tables are checked in place of their name. */
export function envoyComplaint(resources: readonly EnvoyResource[]): string {
  const folder = mkdtempSync(join(tmpdir(), "envoy-validate-"));
  try {
    const file = join(folder, "bootstrap.pb");
    writeFileSync(file, encodeMessage("envoy.config.bootstrap.v3.Bootstrap", bootstrapOf(resources)));
    const { status, stderr } = spawnSync(
      envoyPath,
      [
        "--mode",
        "validate",
        "-c",
        file,
        "--service-node",
        "test",
        "--service-cluster",
        "test",
        "-l",
        "error",
      ],
      { encoding: "utf8", timeout: 30_000 },
    );
    return status === 0 ? "" : stderr || `exit status ${status}`;
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

function bootstrapOf(given: readonly EnvoyResource[]): Message {
  const resources = withHostsInTables(given);
  const messages = (type: EnvoyResource["type"]): Message[] =>
    resources
      .filter((resource) => resource.type === type)
      .map(({ bytes }) => decodeMessage(messageNameOf(type), bytes));
  const routes = new Map(messages("route").map((table) => [table["name"] as string, table]));
  const clusters = [...messages("cluster"), staticCluster("sds-grpc"), staticCluster("xds-grpc")];
  return {
    node: { id: "test", cluster: "test" },
    staticResources: {
      listeners: messages("listener").map((listener) => prepared(listener, routes)),
      clusters: clusters.map((cluster) => prepared(cluster, routes)),
    },
    dynamicResources: {
      adsConfig: {
        apiType: "DELTA_GRPC",
        transportApiVersion: "V3",
        grpcServices: [{ envoyGrpc: { clusterName: "xds-grpc" } }],
      },
    },
    statsFlushInterval: { seconds: 10 },
    // As every agent's bootstrap has it.
    layeredRuntime: {
      layers: [
        {
          name: "static",
          staticLayer: { fields: { "re2.max_program_size.error_level": { numberValue: 32_768 } } },
        },
      ],
    },
  };
}

/** A cluster that every agent's bootstrap has; nobody need listen there unless a port is given. */
export function staticCluster(name: string, port = 9): Message {
  return {
    name,
    type: "STATIC",
    connectTimeout: { seconds: 1 },
    typedExtensionProtocolOptions: {
      "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
        "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
        explicitHttpConfig: { http2ProtocolOptions: {} },
      },
    },
    loadAssignment: {
      clusterName: name,
      endpoints: [
        {
          lbEndpoints: [
            { endpoint: { address: { socketAddress: { address: "127.0.0.1", portValue: port } } } },
          ],
        },
      ],
    },
  };
}

/** Envoy 1.40 crashes at the end of a validation with a shared stats scope, and it cannot fetch route tables then. */
function prepared(message: Message, routes: ReadonlyMap<string, Message>): Message {
  return visit(message) as Message;

  function visit(value: unknown): unknown {
    if (Array.isArray(value)) return value.map(visit);
    if (typeof value !== "object" || value === null || value instanceof Uint8Array) return value;
    const entries = Object.entries(value).filter(([name]) => name !== "sharingName");
    const copy = Object.fromEntries(entries.map(([name, field]) => [name, visit(field)]));
    const table = routes.get(
      (copy["rds"] as { routeConfigName?: string } | undefined)?.routeConfigName ?? "",
    );
    if (table === undefined) return copy;
    const { rds: _named, ...rest } = copy;
    return { ...rest, routeConfig: visit(table) };
  }
}
