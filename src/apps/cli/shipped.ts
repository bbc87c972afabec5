// Objects that come with the mesh and are the user's from then on: the mesh's settings, its first policies, the demo's routes. What
// was changed or taken away stays so over a restart; a newer version of Mizzen that ships them otherwise brings them anew.

import { createHash } from "node:crypto";
import { ApiError, type KubeClient, type KubeObjectLike } from "./kube.ts";
import { applyAll } from "./manifests.ts";

/** Holds, for each such object, the hash of what was shipped when it was applied. */
const recordName = "mizzen-shipped";

export interface Shipped {
  readonly object: KubeObjectLike;
  /** What cannot be done without comes back when it was deleted. */
  readonly needed: boolean;
}

export class ShippedObjects {
  readonly #kube: KubeClient;
  readonly #namespace: string;

  /** @param namespace where the record is kept */
  constructor(kube: KubeClient, namespace: string) {
    this.#kube = kube;
    this.#namespace = namespace;
  }

  /** Applies those that this cluster does not have as they are shipped now. Resolves to how many were left alone. */
  async apply(shipped: readonly Shipped[]): Promise<number> {
    const before = await this.#recorded();
    const due: KubeObjectLike[] = [];
    for (const { object, needed } of shipped) {
      const isNew = before[keyOf(object)] !== hashOf(object);
      if (isNew || (needed && !(await this.#exists(object)))) due.push(object);
    }
    if (due.length > 0) {
      await applyAll(this.#kube, due);
      await this.#record({ ...before, ...Object.fromEntries(due.map((one) => [keyOf(one), hashOf(one)])) });
    }
    return shipped.length - due.length;
  }

  async #recorded(): Promise<Readonly<Record<string, string>>> {
    const path = `/api/v1/namespaces/${this.#namespace}/configmaps/${recordName}`;
    const found = await orAbsent(this.#kube.get<{ readonly data?: Readonly<Record<string, string>> }>(path));
    return found?.data ?? {};
  }

  async #record(data: Readonly<Record<string, string>>): Promise<void> {
    const metadata = { name: recordName, namespace: this.#namespace };
    await this.#kube.apply({ apiVersion: "v1", kind: "ConfigMap", metadata, data });
  }

  async #exists(object: KubeObjectLike): Promise<boolean> {
    return (await orAbsent(this.#kube.get(await this.#kube.pathOf(object)))) !== undefined;
  }
}

function keyOf({ kind, metadata }: KubeObjectLike): string {
  return `${kind}.${metadata.namespace ?? "default"}.${metadata.name}`;
}

function hashOf(object: KubeObjectLike): string {
  return createHash("sha256").update(JSON.stringify(object)).digest("hex");
}

async function orAbsent<T>(found: Promise<T>): Promise<T | undefined> {
  try {
    return await found;
  } catch (cause) {
    if (cause instanceof ApiError && cause.status === 404) return undefined;
    throw cause;
  }
}
