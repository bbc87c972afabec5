// The status of Istio's objects as it stands in the API. Configuration does not depend on it, so it is kept beside the
// engine: a status that is written changes no row, and whoever writes need not ask first what is there.

import { isDeepStrictEqual } from "node:util";
import type { ObjectRef } from "#base";
import { groupOf, kinds, objectKey, type KubeObject } from "#objects";

export interface StandingCondition {
  readonly type: string;
  readonly status: string;
  readonly reason?: string;
  readonly message?: string;
  readonly lastTransitionTime?: string;
  readonly observedGeneration?: number;
}

export interface ObjectStatus {
  readonly observedGeneration?: number;
  readonly conditions?: readonly StandingCondition[];
  readonly validationMessages?: readonly {
    readonly type?: { readonly code?: string; readonly name?: string };
    readonly level?: string;
  }[];
}

export interface Standing {
  readonly resourceVersion: string;
  readonly status: ObjectStatus;
  /** What the object says beside. */
  readonly said: KubeObject;
}

export interface Taken {
  /** Without what the control plane writes there. */
  readonly object: KubeObject;
  /** Whether it says the same as before: its version alone changes with each status. */
  readonly same: boolean;
}

/** What the control plane itself writes into a status: no reader of configuration sees it. */
const ownConditions: ReadonlySet<string> = new Set(["Reconciled", "PassedValidation", "Programmed"]);

const istioKinds = new Set(
  kinds.filter(({ family }) => family === "istio").map(({ group, kind }) => `${group}/${kind}`),
);

export class StandingStatuses {
  readonly #statuses = new Map<string, Standing>();

  of({ kind, namespace, name }: ObjectRef): Standing | undefined {
    return this.#statuses.get(`${kind} ${namespace}/${name}`);
  }

  /** Takes the status of an object of Istio's in; any other object is as it is. */
  take(object: KubeObject): Taken {
    if (!isIstio(object)) return { object, same: false };
    const key = `${object.kind} ${objectKey(object)}`;
    const said = withoutOwn(object);
    const before = this.#statuses.get(key)?.said;
    const same = before !== undefined && isDeepStrictEqual(withoutVersion(before), withoutVersion(said));
    this.#statuses.set(key, { ...standingOf(object), said: same ? before : said });
    return { object: said, same };
  }

  forget(object: KubeObject): void {
    this.#statuses.delete(`${object.kind} ${objectKey(object)}`);
  }

  /** The answer to a write; the watch brings it too, but perhaps after the next look. */
  wrote({ kind, namespace, name }: ObjectRef, after: KubeObject): void {
    const key = `${kind} ${namespace}/${name}`;
    const before = this.#statuses.get(key);
    if (before !== undefined) this.#statuses.set(key, { ...standingOf(after), said: before.said });
  }
}

export function isIstio({ apiVersion, kind }: KubeObject): boolean {
  return istioKinds.has(`${groupOf(apiVersion)}/${kind}`);
}

function standingOf({ metadata, status }: KubeObject): Omit<Standing, "said"> {
  return { resourceVersion: metadata.resourceVersion ?? "", status: (status ?? {}) as ObjectStatus };
}

function withoutOwn(object: KubeObject): KubeObject {
  if (object.status === undefined) return object;
  const { status, ...rest } = object;
  const {
    conditions = [],
    observedGeneration: _generation,
    validationMessages: _messages,
    ...others
  } = status as ObjectStatus;
  const kept = conditions.filter(({ type }) => !ownConditions.has(type));
  const left = { ...others, ...(kept.length === 0 ? {} : { conditions: kept }) };
  return Object.keys(left).length === 0 ? rest : { ...rest, status: left };
}

function withoutVersion({ metadata, ...rest }: KubeObject): unknown {
  const { resourceVersion: _version, ...kept } = metadata;
  return { ...rest, metadata: kept };
}
