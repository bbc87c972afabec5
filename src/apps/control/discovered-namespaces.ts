// MeshConfig's discoverySelectors: the mesh sees the namespaces that one of them selects, and its own. Objects of others are
// kept aside as they come, and join when their namespace does.

import {
  objectKey,
  selectorMatches,
  type KubeObject,
  type LabelSelector,
  type LabelSelectorObject,
} from "#objects";

export interface Discovered {
  readonly set: readonly KubeObject[];
  readonly removed: readonly KubeObject[];
}

export interface DiscoveredNamespacesOptions {
  /** The control plane's, which is always seen. */
  readonly own: string;
  /** The objects of a namespace that are in the mesh now. Asked only when a namespace leaves it, which is rare. */
  readonly objectsIn: (namespace: string) => readonly KubeObject[];
}

export class DiscoveredNamespaces {
  readonly #options: DiscoveredNamespacesOptions;
  readonly #labels = new Map<string, Readonly<Record<string, string>>>();
  /** By namespace, then by kind and name. */
  readonly #aside = new Map<string, Map<string, KubeObject>>();
  #selectors: readonly LabelSelector[] = [];

  constructor(options: DiscoveredNamespacesOptions) {
    this.#options = options;
  }

  /** What of these objects concerns the mesh, with those that join or leave it since their namespace's labels changed. */
  take(set: readonly KubeObject[], removed: readonly KubeObject[]): Discovered {
    const joined: KubeObject[] = [];
    const left: KubeObject[] = [];
    for (const object of set) {
      if (object.kind === "Namespace") {
        const { name, labels = {} } = object.metadata;
        this.#whileChanging([name], joined, left, () => this.#labels.set(name, labels));
      }
      const namespace = namespaceOf(object);
      if (namespace === undefined || this.#sees(namespace)) joined.push(object);
      else this.#keep(namespace, object);
    }
    for (const object of removed) {
      const namespace = namespaceOf(object);
      if (namespace !== undefined && this.#aside.get(namespace)?.delete(keyOf(object)) === true) continue;
      left.push(object);
      if (object.kind === "Namespace") this.#labels.delete(object.metadata.name);
    }
    return { set: joined, removed: left };
  }

  /** What joins and leaves by other selectors; none selects everything. */
  select(selectors: readonly LabelSelector[]): Discovered {
    const set: KubeObject[] = [];
    const removed: KubeObject[] = [];
    this.#whileChanging([...this.#labels.keys()], set, removed, () => (this.#selectors = selectors));
    return { set, removed };
  }

  #whileChanging(
    namespaces: readonly string[],
    joined: KubeObject[],
    left: KubeObject[],
    change: () => void,
  ): void {
    const before = new Set(namespaces.filter((namespace) => this.#sees(namespace)));
    change();
    for (const namespace of namespaces) {
      const sees = this.#sees(namespace);
      if (sees === before.has(namespace)) continue;
      if (sees) {
        joined.push(...(this.#aside.get(namespace)?.values() ?? []));
        this.#aside.delete(namespace);
      } else {
        const leaving = this.#options.objectsIn(namespace);
        for (const object of leaving) this.#keep(namespace, object);
        left.push(...leaving);
      }
    }
  }

  #sees(namespace: string): boolean {
    if (this.#selectors.length === 0 || namespace === this.#options.own) return true;
    // A namespace whose object has not come yet is not seen yet.
    const labels = this.#labels.get(namespace);
    return (
      labels !== undefined &&
      this.#selectors.some((selector) =>
        // The schema has seen to it that every requirement names a key and one of the four operators.
        selectorMatches(selector as LabelSelectorObject, {
          "kubernetes.io/metadata.name": namespace,
          ...labels,
        }),
      )
    );
  }

  #keep(namespace: string, object: KubeObject): void {
    let kept = this.#aside.get(namespace);
    if (kept === undefined) this.#aside.set(namespace, (kept = new Map()));
    kept.set(keyOf(object), object);
  }
}

/** Undefined for cluster-scoped objects, which are everybody's. */
function namespaceOf({ metadata }: KubeObject): string | undefined {
  return metadata.namespace === "" ? undefined : metadata.namespace;
}

function keyOf(object: KubeObject): string {
  return `${object.apiVersion} ${object.kind} ${objectKey(object)}`;
}
