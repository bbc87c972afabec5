// A real Envoy on loopback with resources of ours as static ones: for tests that need answers and no cluster.

import { spawn, type ChildProcess } from "node:child_process";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import {
  decodeMessage,
  encodeMessage,
  messageNameOf,
  withHostsInTables,
  type EnvoyResource,
  type Message,
} from "#envoy";
import { envoyPath, staticCluster } from "./envoy.ts";

export interface StaticResources {
  readonly listeners: readonly Message[];
  readonly clusters: readonly Message[];
  readonly secrets: readonly Message[];
  /** Where an agent listens for what Envoy tells it. */
  readonly agentPort?: number;
}

/** Starts an Envoy and waits until it is ready; the caller kills it. Its files go into `folder`. */
export async function startEnvoy(
  folder: string,
  name: string,
  adminPort: number,
  resources: StaticResources,
  flags: readonly string[] = [],
): Promise<ChildProcess> {
  const { secrets, agentPort, ...given } = resources;
  const rest = { ...given, clusters: [...given.clusters, staticCluster("sds-grpc", agentPort)] };
  const bootstrap = {
    node: { id: name, cluster: name },
    admin: { address: loopbackAddress(adminPort) },
    staticResources: { ...(withStaticSecrets(rest) as object), secrets },
    statsFlushInterval: { seconds: 10 },
    statsEvictionInterval: { seconds: 1_800 },
  };
  const file = join(folder, `${name}.pb`);
  writeFileSync(file, encodeMessage("envoy.config.bootstrap.v3.Bootstrap", bootstrap));
  const args = ["-c", file, "--disable-hot-restart", "--concurrency", "1", "-l", "error", ...flags];
  const child = spawn(envoyPath, args, { stdio: ["ignore", "inherit", "inherit"] });
  for (let waited = 0; waited < 200; waited++) {
    const ready = await fetch(`http://127.0.0.1:${adminPort}/ready`).then(
      (response) => response.ok,
      () => false,
    );
    if (ready) return child;
    if (child.exitCode !== null) throw new Error(`${name} ended with ${child.exitCode}`);
    await sleep(50);
  }
  child.kill("SIGKILL");
  throw new Error(`${name} does not get ready`);
}

/** What a proxy gets over ADS, as static resources: tables and endpoints stand where they are named. */
export function staticForm(given: readonly EnvoyResource[]): StaticResources {
  const resources = withHostsInTables(given);
  const messages = (type: EnvoyResource["type"]): Message[] =>
    resources
      .filter((resource) => resource.type === type)
      .map(({ bytes }) => decodeMessage(messageNameOf(type), bytes));
  const tables = new Map(messages("route").map((table) => [table["name"], table]));
  const assignments = new Map(messages("endpoint").map((one) => [one["clusterName"], one]));
  return {
    listeners: messages("listener").map((listener) => withTables(listener, tables) as Message),
    clusters: messages("cluster").map((cluster) => {
      const { edsClusterConfig: _config, ...rest } = cluster;
      const loadAssignment = assignments.get(cluster["name"]);
      return cluster["type"] === "EDS" ? { ...rest, type: "STATIC", loadAssignment } : cluster;
    }),
    secrets: messages("secret"),
  };
}

function withTables(value: unknown, tables: ReadonlyMap<unknown, Message>): unknown {
  if (Array.isArray(value)) return value.map((one) => withTables(one, tables));
  if (typeof value !== "object" || value === null || value instanceof Uint8Array) return value;
  const entries = Object.entries(value).map(([name, field]): [string, unknown] => {
    if (name !== "rds") return [name, withTables(field, tables)];
    return ["routeConfig", tables.get((field as { readonly routeConfigName: string }).routeConfigName)];
  });
  return Object.fromEntries(entries);
}

/** Secrets that are named without a source are those of the bootstrap. */
function withStaticSecrets(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(withStaticSecrets);
  if (typeof value !== "object" || value === null || value instanceof Uint8Array) return value;
  const entries = Object.entries(value).filter(([name]) => name !== "sdsConfig");
  return Object.fromEntries(entries.map(([name, field]) => [name, withStaticSecrets(field)]));
}

export function loopbackAddress(port: number): Message {
  return { socketAddress: { address: "127.0.0.1", portValue: port } };
}
