// All kinds that the server offers now: the built-in ones and those of CustomResourceDefinitions.

import { noSuchPath } from "./errors.ts";
import { builtinKinds } from "./kinds/builtin.ts";
import { customKind, compareVersions } from "./kinds/crd.ts";
import type { Kind, KindVersion } from "./kinds/kind.ts";
import type { ApiObject, ResourceName } from "./store.ts";

export class Registry {
  readonly #kinds = new Map<ResourceName, Kind>(builtinKinds.map((kind) => [kind.resource, kind]));
  #generation = 0;

  /** Changes with the set of kinds, so that what is derived from it can be kept until then. */
  get generation(): number {
    return this.#generation;
  }

  kinds(): Kind[] {
    return [...this.#kinds.values()];
  }

  byResource(resource: ResourceName): Kind {
    const kind = this.#kinds.get(resource);
    if (!kind) throw noSuchPath();
    return kind;
  }

  find(resource: ResourceName): Kind | undefined {
    return this.#kinds.get(resource);
  }

  /** By what an object says of itself; undefined when there is no such kind. */
  byGroupKind(group: string, kind: string): Kind | undefined {
    return this.kinds().find((one) => one.group === group && one.kind === kind);
  }

  /** By what a path says. Throws ApiError 404. */
  byPath(group: string, version: string, plural: string): { kind: Kind; version: KindVersion } {
    const kind = this.#kinds.get(group === "" ? plural : `${plural}.${group}`);
    const found = kind?.versions.find((one) => one.name === version && one.served);
    if (!kind || !found) throw noSuchPath();
    return { kind, version: found };
  }

  /** Follows a CustomResourceDefinition's change. Its names may not be those of a built-in kind. */
  define(crd: ApiObject): void {
    const kind = customKind(crd);
    if (this.#kinds.get(kind.resource)?.custom === false) return;
    this.#kinds.set(kind.resource, kind);
    this.#generation += 1;
  }

  undefine(crd: ApiObject): void {
    const kind = this.#kinds.get(crd.metadata.name);
    if (!kind?.custom) return;
    this.#kinds.delete(kind.resource);
    this.#generation += 1;
  }

  /** Groups with their served versions, the preferred one first; the core group is not among them. */
  groups(): Array<{ name: string; versions: string[] }> {
    const versions = new Map<string, Set<string>>();
    for (const kind of this.#kinds.values()) {
      if (kind.group === "") continue;
      const set = versions.get(kind.group) ?? new Set();
      for (const version of kind.versions) if (version.served) set.add(version.name);
      versions.set(kind.group, set);
    }
    return [...versions]
      .map(([name, set]) => ({ name, versions: [...set].sort(compareVersions) }))
      .sort((a, b) => (a.name < b.name ? -1 : 1));
  }

  versionOf(kind: Kind, name: string): KindVersion {
    return kind.versions.find((version) => version.name === name) ?? kind.versions[0]!;
  }
}
