// The API of a test's mesh without kubectl, for what is to happen many times a second, and questions to its control plane.

import { accessFromKubeconfig, collectionPath, KubeClient } from "#kube";
import { kinds } from "#objects";
import type { Mesh } from "./mesh.ts";

export interface Api {
  readonly client: KubeClient;
  /** Changes fields of an object (a merge patch). */
  patch(kind: string, namespace: string, name: string, body: object): Promise<void>;
  create(kind: string, namespace: string, object: object): Promise<void>;
  get<T>(kind: string, namespace: string, name: string): Promise<T>;
}

export function apiOf(mesh: Mesh): Api {
  const client = new KubeClient(accessFromKubeconfig(mesh.kubeconfig));
  return {
    client,
    patch: async (kind, namespace, name, body) => {
      const path = `${collectionOf(kind, namespace)}/${name}`;
      await client.request(path, { method: "PATCH", patch: "merge", body });
    },
    create: async (kind, namespace, object) => {
      await client.request(collectionOf(kind, namespace), { method: "POST", body: object });
    },
    get: <T>(kind: string, namespace: string, name: string) =>
      client.get<T>(`${collectionOf(kind, namespace)}/${name}`),
  };
}

function collectionOf(kind: string, namespace: string): string {
  const found = kinds.find((info) => info.kind === kind && info.family !== "gateway-api");
  if (found === undefined) throw new Error(`there is no kind ${kind}`);
  return collectionPath({ ...found, version: found.storageVersion }, namespace);
}

export interface Replica {
  readonly pod: string;
  readonly address: string;
  readonly ready: boolean;
}

/** The pods of the control plane. */
export async function replicasOf(mesh: Mesh): Promise<readonly Replica[]> {
  const out = await mesh.kubectl(["get", "pods", "-n", "istio-d", "-l", "app=istiod", "-o", "json"]);
  const { items } = JSON.parse(out) as {
    items: {
      metadata: { name: string; deletionTimestamp?: string };
      status: { podIP?: string; conditions?: { type: string; status: string }[] };
    }[];
  };
  return items
    .filter(({ metadata }) => metadata.deletionTimestamp === undefined)
    .map(({ metadata, status }) => ({
      pod: metadata.name,
      address: status.podIP ?? "",
      ready: status.conditions?.some(({ type, status: is }) => type === "Ready" && is === "True") ?? false,
    }));
}

/** One metric's value, all label sets added up; undefined if the address does not answer. */
export async function metricOf(
  mesh: Mesh,
  address: string,
  name: string,
  labels = "",
  path = ":15014/metrics",
): Promise<number | undefined> {
  const ran = await mesh.inNode(["curl", "-s", "--max-time", "2", `http://${address}${path}`]);
  if (ran.code !== 0) return undefined;
  return ran.stdout
    .split("\n")
    .filter((line) => (line.startsWith(`${name}{`) || line.startsWith(`${name} `)) && line.includes(labels))
    .reduce((sum, line) => sum + Number(line.slice(line.lastIndexOf(" ") + 1)), 0);
}
