// The status of Istio's objects: that the control plane goes by the generation that stands there, how many proxies hold it, and what
// is wrong with it.
// One replica writes, the leader, and only what differs from what stands there: an object whose problems stay the same is
// written once for each generation, and endpoints that come and go write nothing.

import { isDeepStrictEqual } from "node:util";
import { renderProblem, type Clock, type ObjectRef, type Problem } from "#base";
import type { Changed, Engine } from "#engine";
import { collectionPath, KubeError, type KubeClient, type RateLimitedWriter } from "#kube";
import { objectProblemsOf, problemsKey, tables, type TableKind } from "#model";
import { groupOf, kinds, problemTable, refOf, type KindInfo, type KubeObject } from "#objects";
import type { DistributionCounter } from "./distribution-counter.ts";
import type { ObjectStatus, StandingStatuses } from "./standing-statuses.ts";

export interface StatusWriterOptions {
  readonly engine: Engine;
  readonly client: KubeClient;
  readonly writer: RateLimitedWriter;
  readonly clock: Clock;
  readonly standing: StandingStatuses;
  /** What an object says wrong by itself. */
  readonly validate: (object: KubeObject) => readonly Problem[];
  readonly counter: DistributionCounter;
  /** What only those know who serve proxies. */
  readonly observed: (object: ObjectRef) => readonly Problem[];
}

interface Condition {
  readonly type: string;
  readonly status: "True" | "False";
  readonly reason: string;
  readonly message: string;
}

/** Writes handed on at a time: what waits longer is asked for anew, and may need no writing then. */
const submittedMax = 8;
/** Problems told in full in the condition's message, and its length: others are counted. */
const messageLengthMax = 2_000;

/** The kinds of Istio's API that the mesh reads. */
const statusKinds = kinds.filter(({ kind, family }) => family === "istio" && Object.hasOwn(tables, kind));

export class StatusWriter {
  readonly #options: StatusWriterOptions;
  readonly #watched = new Set<string>();
  /** Objects whose status may be another, by the key of their problems. */
  readonly #due = new Map<string, ObjectRef>();
  #submitted = 0;
  #leading = false;

  constructor(options: StatusWriterOptions) {
    this.#options = options;
  }

  setLeading(leading: boolean): void {
    if (leading === this.#leading) return;
    this.#leading = leading;
    const { engine } = this.#options;
    if (leading) {
      for (const { kind } of statusKinds) {
        for (const row of engine.rows(tables[kind as TableKind] as typeof tables.Sidecar).values())
          this.#follow(refOf(row));
      }
      return;
    }
    this.#options.counter.clear();
    for (const key of this.#watched) engine.unwatch(objectProblemsOf, key);
    this.#watched.clear();
    this.#due.clear();
  }

  /** To be told of objects that were set or removed, once their changes are settled, and of what that changed. */
  settled(objects: Iterable<KubeObject>, changed: readonly Changed[]): void {
    if (!this.#leading) return;
    for (const object of objects) if (kindOf(object) !== undefined) this.#follow(refOf(object));
    for (const { query, key } of changed) {
      if (query.id !== objectProblemsOf.id) continue;
      const [kind = "", row = ""] = (key as string).split(" ");
      const [namespace = "", name = ""] = row.split("/");
      this.#look({ kind, namespace, name });
    }
  }

  /** The same for all objects of a kind. */
  lookAt(kind: string): void {
    if (!this.#leading) return;
    const rows = this.#options.engine.rows(tables[kind as TableKind] as typeof tables.Sidecar);
    for (const row of rows.values()) this.look(refOf(row));
  }

  /** Something else than an object may have changed what is to be said of this one. */
  look(object: ObjectRef): void {
    if (this.#leading && this.#watched.has(problemsKey(object))) this.#look(object);
  }

  /** Watches an object's problems as long as the object is there. */
  #follow(object: ObjectRef): void {
    const { engine } = this.#options;
    const key = problemsKey(object);
    const row = rowOf(engine, object);
    const exists = row !== undefined;
    if (exists && !this.#watched.has(key)) {
      engine.watch(objectProblemsOf, key);
      this.#watched.add(key);
    } else if (!exists && this.#watched.delete(key)) {
      engine.unwatch(objectProblemsOf, key);
      this.#options.counter.forget(key);
      this.#due.delete(key);
    }
    if (row === undefined) return;
    this.#count(key, object, row.metadata.generation ?? 0);
    this.#look(object);
  }

  /** What stands there of this generation was counted before, by a leader before this one perhaps. */
  #count(key: string, object: ObjectRef, generation: number): void {
    const { counter, standing } = this.#options;
    counter.known(key, generation, toldOf(standing.of(object)?.status, generation));
    counter.changed(key, object, generation);
  }

  #look(object: ObjectRef): void {
    this.#due.set(problemsKey(object), object);
    this.#submitDue();
  }

  #submitDue(): void {
    for (const [key, object] of this.#due) {
      if (this.#submitted >= submittedMax) return;
      this.#due.delete(key);
      if (this.#wanted(object) === undefined) continue;
      this.#submitted++;
      this.#options.writer.submit(`istio status ${key}`, () =>
        this.#write(object).finally(() => {
          this.#submitted--;
          this.#submitDue();
        }),
      );
    }
  }

  /** The status to write; undefined when it stands there already. */
  #wanted(object: ObjectRef): ObjectStatus | undefined {
    const { engine, standing, validate, observed, clock, counter } = this.#options;
    const row = this.#leading ? rowOf(engine, object) : undefined;
    if (row === undefined) return undefined;
    const problems = [
      ...validate(row),
      ...engine.get(objectProblemsOf, problemsKey(object)),
      ...observed(object),
    ];
    const now = standing.of(object)?.status ?? {};
    const generation = row.metadata.generation ?? 0;
    const held = counter.textOf(problemsKey(object), generation) ?? toldOf(now, generation);
    const wanted = renderStatus(row, problems, held, now, new Date(clock.nowMs()).toISOString());
    return isDeepStrictEqual(wanted, pickOwn(now, wanted)) ? undefined : wanted;
  }

  async #write(object: ObjectRef): Promise<void> {
    const kind = statusKinds.find((info) => info.kind === object.kind);
    const status = this.#wanted(object);
    const { client, standing } = this.#options;
    const seen = standing.of(object);
    if (status === undefined || kind === undefined || seen === undefined) return;
    const path = `${collectionPath({ ...kind, version: kind.storageVersion }, object.namespace)}/${object.name}/status`;
    const body = { metadata: { name: object.name, resourceVersion: seen.resourceVersion }, status };
    try {
      const after = await client.request<KubeObject>(path, { method: "PATCH", patch: "merge", body });
      standing.wrote(object, after);
    } catch (error) {
      // Somebody was faster: what they wrote comes by the watch, and asks for this anew.
      if (!(error instanceof KubeError && (error.status === 409 || error.status === 404))) throw error;
    }
  }
}

function rowOf(engine: Engine, { kind, namespace, name }: ObjectRef): KubeObject | undefined {
  return Object.hasOwn(tables, kind)
    ? engine.rows(tables[kind as TableKind] as typeof tables.Sidecar).get(`${namespace}/${name}`)
    : undefined;
}

/** What a status says of the proxies that hold a generation; "" when nothing. */
function toldOf(status: ObjectStatus | undefined, generation: number): string {
  const reconciled = status?.conditions?.find(({ type }) => type === "Reconciled");
  return reconciled?.observedGeneration === generation ? (reconciled.message ?? "") : "";
}

function kindOf({ apiVersion, kind }: KubeObject): KindInfo | undefined {
  return statusKinds.find((info) => info.kind === kind && info.group === groupOf(apiVersion));
}

function renderStatus(
  row: KubeObject,
  problems: readonly Problem[],
  held: string,
  now: ObjectStatus,
  atIso: string,
): ObjectStatus {
  const generation = row.metadata.generation ?? 0;
  const told = [
    { type: "Reconciled", status: "True", reason: "Reconciled", message: held },
    passedValidation(problems),
  ] as const satisfies readonly Condition[];
  const before = now.conditions ?? [];
  const conditions = told.map((condition) => {
    const stood = before.find(({ type }) => type === condition.type);
    const since = stood?.status === condition.status ? stood.lastTransitionTime : undefined;
    return {
      ...condition,
      lastTransitionTime: since ?? atIso.replace(/\.\d+Z$/, "Z"),
      observedGeneration: generation,
    };
  });
  const others = before.filter(({ type }) => !told.some((condition) => condition.type === type));
  return {
    observedGeneration: generation,
    conditions: [...others, ...conditions],
    validationMessages: problems.map(({ code, severity }) => ({
      type: { code, name: titleOf(code) },
      level: severity.toUpperCase(),
    })),
  };
}

/** Istio's words for the reasons. */
function passedValidation(problems: readonly Problem[]): Condition {
  const type = "PassedValidation";
  if (problems.length === 0) return { type, status: "True", reason: "noErrors", message: "" };
  const hasErrors = problems.some(({ severity }) => severity === "error");
  const texts = problems.map(({ at, ...rest }) =>
    renderProblem({ ...rest, at: at.path === undefined ? {} : { path: at.path } }),
  );
  return {
    type,
    status: hasErrors ? "False" : "True",
    reason: hasErrors ? "errorsFound" : "warningsFound",
    message: texts.join("; ").slice(0, messageLengthMax),
  };
}

function titleOf(code: string): string {
  return problemTable[code as keyof typeof problemTable]?.title ?? "";
}

/** The parts of a status that are written here. */
function pickOwn(now: ObjectStatus, wanted: ObjectStatus): ObjectStatus {
  return Object.fromEntries(
    Object.keys(wanted).map((name) => [name, now[name as keyof ObjectStatus]]),
  ) as ObjectStatus;
}
