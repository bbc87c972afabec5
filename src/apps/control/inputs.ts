// Objects on their way into the engine: changes of tables, and the few objects that the control plane itself goes by
// (MeshConfig, injection values). A text that cannot be read changes nothing: the last good one stays.

import { isDeepStrictEqual } from "node:util";
import { parse } from "yaml";
import { renderProblem, type Logger, type ObjectRef } from "#base";
import type { Change, Engine, Table } from "#engine";
import { defaultValues, mergeValues, type InjectionValues } from "#inject";
import {
  meshConfigChange,
  meshConfigOf,
  meshNetworksChange,
  objectChange,
  removalChange,
  tables,
  type ConfigMap,
  type Pod,
} from "#model";
import {
  defaultMeshConfig,
  objectKey,
  parseMeshConfig,
  refOf,
  parseMeshNetworks,
  unsupportedMeshFields,
  type KubeObject,
  type MeshConfig,
  type MeshNetworks,
} from "#objects";
import { DiscoveredNamespaces } from "./discovered-namespaces.ts";
import { withHeaderVariables } from "./header-variables.ts";
import { controlPlaneLimits, type ReachControlLimit } from "./limits.ts";
import { isIstio, type StandingStatuses } from "./standing-statuses.ts";

export interface InputsOptions {
  readonly engine: Engine;
  readonly namespace: string;
  readonly log: Logger;
  readonly add: (changes: readonly Change[]) => void;
  readonly counted: (kind: string, event: "set" | "removed") => void;
  readonly misread: () => void;
  readonly standing: StandingStatuses;
  /** Nothing but an object's status changed. */
  readonly restated: (object: ObjectRef) => void;
  readonly reached: ReachControlLimit;
  readonly meshChanged: () => void;
  /** Of the control plane's environment. */
  readonly variable: (name: string) => string | undefined;
}

const meshConfigMap = "istio";
const injectorConfigMap = "istio-sidecar-injector";

const podWaitMs = controlPlaneLimits.podWait.value;

/** Throws on what is wrong, so that the last good networks stay. */
function checkedNetworks(map: ConfigMap): MeshNetworks {
  const { networks, problems } = parseMeshNetworks(map.data?.["meshNetworks"] ?? "");
  const wrong = problems.find(({ severity }) => severity === "error");
  if (wrong !== undefined) throw new Error(renderProblem(wrong));
  return networks;
}

export class Inputs {
  readonly #options: InputsOptions;
  readonly #podWaiters = new Map<string, Set<(pod: Pod) => void>>();
  #changedPods = new Set<string>();
  #changedObjects: KubeObject[] = [];
  #mesh: MeshConfig = {};
  #injection: InjectionValues = defaultValues;
  readonly #discovered: DiscoveredNamespaces;

  constructor(options: InputsOptions) {
    this.#options = options;
    const { engine, namespace } = options;
    this.#discovered = new DiscoveredNamespaces({
      own: namespace,
      objectsIn: (name) =>
        Object.values(tables).flatMap((table) =>
          [...engine.rows(table as Table<KubeObject>).values()].filter(
            ({ metadata }) => metadata.namespace === name,
          ),
        ),
    });
  }

  get mesh(): MeshConfig {
    return this.#mesh;
  }

  get injection(): InjectionValues {
    return this.#injection;
  }

  changed(set: readonly KubeObject[], removed: readonly KubeObject[]): void {
    const discovered = this.#discovered.take(set, removed);
    const selectors = this.#mesh.discoverySelectors;
    this.#take(discovered.set, discovered.removed);
    if (isDeepStrictEqual(this.#mesh.discoverySelectors, selectors)) return;
    const others = this.#discovered.select(this.#mesh.discoverySelectors ?? []);
    this.#take(others.set, others.removed);
  }

  #take(set: readonly KubeObject[], removed: readonly KubeObject[]): void {
    const changes: Change[] = [];
    for (const given of set) {
      this.#options.counted(given.kind, "set");
      const { object, same } = this.#options.standing.take(given);
      if (same) {
        this.#options.restated(refOf(object));
        continue;
      }
      if (isIstio(object)) this.#changedObjects.push(object);
      changes.push(...objectChange(object), ...this.#ownConfiguration(object));
      if (object.kind === "Pod") this.#changedPods.add(objectKey(object));
    }
    for (const object of removed) {
      this.#options.counted(object.kind, "removed");
      this.#options.standing.forget(object);
      if (isIstio(object)) this.#changedObjects.push(object);
      changes.push(...removalChange(object));
      if (object.kind === "Pod") this.#changedPods.add(objectKey(object));
    }
    if (changes.length > 0) this.#options.add(changes);
  }

  /** The Pods that changed since the last call; to be called after their changes are published. */
  takeChangedPods(): ReadonlySet<string> {
    const changed = this.#changedPods;
    if (changed.size === 0) return changed;
    this.#changedPods = new Set();
    const pods = this.#options.engine.rows(tables.Pod);
    for (const key of changed) {
      const pod = pods.get(key);
      if (pod === undefined) continue;
      for (const tell of this.#podWaiters.get(key) ?? []) tell(pod);
    }
    return changed;
  }

  /** The objects of Istio's API that were set or removed since the last call. */
  takeChangedObjects(): readonly KubeObject[] {
    const changed = this.#changedObjects;
    if (changed.length > 0) this.#changedObjects = [];
    return changed;
  }

  /** The Pod, as soon as it is known; undefined if it does not become so. */
  awaitPod(key: string): Promise<Pod | undefined> {
    const known = this.#options.engine.rows(tables.Pod).get(key);
    if (known !== undefined) return Promise.resolve(known);
    return new Promise((resolve) => {
      let waiters = this.#podWaiters.get(key);
      if (waiters === undefined) this.#podWaiters.set(key, (waiters = new Set()));
      const done = (pod: Pod | undefined): void => {
        clearTimeout(timer);
        waiters.delete(tell);
        if (waiters.size === 0) this.#podWaiters.delete(key);
        resolve(pod);
      };
      const tell = (pod: Pod): void => done(pod);
      const timer = setTimeout(() => {
        this.#options.reached("podWait");
        done(undefined);
      }, podWaitMs);
      waiters.add(tell);
    });
  }

  #ownConfiguration(object: KubeObject): Change[] {
    const { kind, metadata } = object;
    if (kind !== "ConfigMap" || metadata.namespace !== this.#options.namespace) return [];
    if (metadata.name === meshConfigMap) {
      const mesh = this.#read(meshConfigMap, () => this.#checkedMesh(object as ConfigMap));
      if (mesh === undefined) return [];
      this.#mesh = mesh;
      this.#options.meshChanged();
      const networks = this.#read(meshConfigMap, () => checkedNetworks(object as ConfigMap));
      // Only what is built for proxies knows the values.
      const filled = withHeaderVariables(mesh, this.#options.variable);
      return [meshConfigChange(filled), ...(networks === undefined ? [] : [meshNetworksChange(networks)])];
    }
    if (metadata.name === injectorConfigMap) {
      const text = (object as ConfigMap).data?.["values"] ?? "";
      this.#injection =
        this.#read(injectorConfigMap, () => mergeValues(defaultValues, (parse(text) ?? {}) as object)) ??
        this.#injection;
    }
    return [];
  }

  /** Throws on a wrong setting, so that the last good ones stay; says which settings have no effect yet. */
  #checkedMesh(map: ConfigMap): MeshConfig {
    const text = map.data?.["mesh"] ?? "";
    const { mesh, problems } = parseMeshConfig(text);
    const wrong = problems.find(({ severity }) => severity === "error");
    if (wrong !== undefined) throw new Error(renderProblem(wrong));
    for (const problem of [...problems, ...unsupportedMeshFields(mesh, defaultMeshConfig)])
      this.#options.log.warn({ configMap: meshConfigMap, code: problem.code }, renderProblem(problem));
    return meshConfigOf(map);
  }

  #read<T>(name: string, readText: () => T): T | undefined {
    try {
      return readText();
    } catch (error) {
      const configMap = `${this.#options.namespace}/${name}`;
      this.#options.log.error(
        { configMap, error: String(error) },
        "cannot be read; the last good one stays in use",
      );
      this.#options.misread();
      return undefined;
    }
  }
}
