// Objects to changes of the input tables: the one way in, for the watch caches and for tests alike.

import { parse } from "yaml";
import type { Change, Table } from "#engine";
import { objectKey, type KubeObject, type MeshConfig, type MeshNetworks } from "#objects";
import type { ConfigMap } from "./core-kinds.ts";
import {
  defaultEnvironment,
  environmentRow,
  environmentTable,
  meshConfigTable,
  meshNetworksTable,
  meshRow,
  tableOf,
  type Environment,
} from "./tables.ts";

export interface WorldOptions extends Partial<Environment> {
  /** Laid over what ConfigMap `istio` says. */
  readonly mesh?: MeshConfig;
}

/** The changes that make a whole world of these objects, the environment and MeshConfig included. */
export function worldChanges(objects: readonly KubeObject[], options: WorldOptions = {}): Change[] {
  const { mesh, ...environment } = options;
  const environmentValue: Environment = { ...defaultEnvironment, ...environment };
  const changes = [change(environmentTable, environmentRow, environmentValue)];
  const meshMap = objects.find(
    ({ kind, metadata }) =>
      kind === "ConfigMap" &&
      metadata.name === "istio" &&
      metadata.namespace === environmentValue.rootNamespace,
  );
  const parsed = meshMap === undefined ? {} : meshConfigOf(meshMap as ConfigMap);
  changes.push(change(meshConfigTable, meshRow, { ...parsed, ...mesh }));
  if (meshMap !== undefined) changes.push(meshNetworksChange(meshNetworksOf(meshMap as ConfigMap)));
  for (const object of objects) changes.push(...objectChange(object));
  return changes;
}

/** The change that one added or changed object makes; none for a kind that the mesh does not read. */
export function objectChange(given: KubeObject): Change[] {
  const table = tableOf(given);
  const object = inNamespace(given);
  return table === undefined ? [] : [change(table, objectKey(object), object)];
}

/** The change that one removed object makes. */
export function removalChange(object: KubeObject): Change[] {
  const table = tableOf(object);
  return table === undefined ? [] : [change(table, objectKey(inNamespace(object)), undefined)];
}

/** MeshConfig from ConfigMap `istio`. Throws on text that is not YAML: the caller keeps the last good row. */
export function meshConfigOf(map: ConfigMap): MeshConfig {
  const parsed: unknown = parse(map.data?.["mesh"] ?? "");
  return typeof parsed === "object" && parsed !== null ? parsed : {};
}

/** MeshNetworks from ConfigMap `istio`. Throws as `meshConfigOf` does. */
export function meshNetworksOf(map: ConfigMap): MeshNetworks {
  const parsed: unknown = parse(map.data?.["meshNetworks"] ?? "");
  return { networks: {}, ...(typeof parsed === "object" && parsed !== null ? parsed : {}) };
}

export function meshNetworksChange(networks: MeshNetworks | undefined): Change {
  return change(meshNetworksTable, meshRow, networks);
}

export function meshConfigChange(mesh: MeshConfig | undefined): Change {
  return change(meshConfigTable, meshRow, mesh);
}

export function environmentChange(environment: Environment): Change {
  return change(environmentTable, environmentRow, environment);
}

const clusterScoped: ReadonlySet<string> = new Set(["Namespace", "Node", "GatewayClass", "IngressClass"]);

/** An object that names no namespace is in "default", as kubectl puts it. */
function inNamespace(object: KubeObject): KubeObject {
  if (object.metadata.namespace !== undefined || clusterScoped.has(object.kind)) return object;
  return { ...object, metadata: { ...object.metadata, namespace: "default" } };
}

function change<V>(table: Table<V>, key: string, value: V | undefined): Change {
  return { table: table as Table<unknown>, key, value };
}
