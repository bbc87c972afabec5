// Joins the engine to the proxies: watches the views of every connected class of proxy, the plan of every view and
// every planned resource, each once however many proxies want it, and carries what changed into the views' logs.
// Only sessions that asked for something that changed are woken.

import { renderRef, type ObjectRef } from "#base";
import type { Change, Changed, Engine, Query, Failure } from "#engine";
import type { EnvoyResource } from "#envoy";
import { emptyPlan, resourceTypes, type Chunk, type Plan, type Planned, type ResourceType } from "#plan";
import { OriginIndex } from "./origin-index.ts";
import { LiveView, type Rejection, type Subscriber } from "./view.ts";
import type { Offers } from "./claims.ts";
import { concerned, entryOf, isOfferedIn, offerNames, plannedAs } from "./offers.ts";
import { rejectionsKeptMax, viewLingerMs, type ReachXdsLimit } from "./limits.ts";

/** The queries between a class of proxies and the bytes that they get; C is the class, V a view. */
export interface Translation<C, V> {
  readonly viewsOf: Query<C, readonly V[]>;
  readonly planOf: Query<V, Plan>;
  readonly resourceOf: Readonly<Record<ResourceType, Query<never, EnvoyResource | undefined>>>;
}

/** What the mesh reports; the program counts, logs and writes statuses. */
export interface MeshReports {
  failed(failure: Failure): void;
  /** @param news false if another proxy already said the same of the same version */
  rejected(rejection: Rejection, news: boolean): void;
  /** A rejected resource changed or left: what was said of it no longer holds. */
  cleared(rejection: Rejection): void;
  published(batch: Published): void;
  readonly reached: ReachXdsLimit;
}

export interface Published {
  readonly changed: Readonly<Record<ResourceType, number>>;
  readonly woken: number;
  readonly computed: number;
  /** Every watched answer that changed, also of others than the mesh: they share the engine. */
  readonly answers: readonly Changed[];
}

interface ViewUse<V> {
  readonly live: LiveView;
  readonly view: V;
  plan: Plan;
  classes: number;
  cancelLinger: (() => void) | undefined;
}

interface ClassUse<C, V> {
  readonly proxyClass: C;
  views: readonly ViewUse<V>[];
  readonly sessions: Set<ClassSubscriber>;
}

interface Cell {
  readonly type: ResourceType;
  readonly key: unknown;
  readonly text: string;
  value: EnvoyResource | undefined;
  /** The views that plan it, and under which name. */
  readonly uses: Map<LiveView, string>;
}

/** One view's use of a resource. */
export interface ResourceUse {
  readonly type: ResourceType;
  readonly name: string;
  readonly version: string;
  readonly view: LiveView;
  /** Which parts of the object it is made from, as far as that is noted. */
  readonly paths: readonly string[];
}

/** A session: it is told when its class has other views. */
export interface ClassSubscriber extends Subscriber {
  viewsChanged(views: readonly LiveView[]): void;
}

export interface MeshOptions<C, V> {
  readonly engine: Engine;
  readonly translation: Translation<C, V>;
  readonly nowMs: () => number;
  /** Calls back once after a time; returns how to cancel. */
  readonly after: (delayMs: number, callback: () => void) => () => void;
  readonly reports: MeshReports;
}

export class Mesh<C, V> {
  readonly #options: MeshOptions<C, V>;
  readonly #engine: Engine;
  readonly #classes = new Map<string, ClassUse<C, V>>();
  readonly #views = new Map<string, ViewUse<V>>();
  readonly #cells: Readonly<Record<ResourceType, Map<string, Cell>>>;
  readonly #origins = new OriginIndex<Cell>();
  readonly #typeOfQuery: ReadonlyMap<number, ResourceType>;
  readonly #touched = new Set<LiveView>();
  readonly #rejections = new Map<string, Rejection>();
  #removals: (() => void)[] = [];
  #wokenTotal = 0;

  constructor(options: MeshOptions<C, V>) {
    this.#options = options;
    this.#engine = options.engine;
    const types = resourceTypes.map((type) => [type, new Map<string, Cell>()] as const);
    this.#cells = Object.fromEntries(types) as Record<ResourceType, Map<string, Cell>>;
    const { resourceOf } = options.translation;
    this.#typeOfQuery = new Map(resourceTypes.map((type) => [resourceOf[type].id, type]));
  }

  get nowMs(): number {
    return this.#options.nowMs();
  }

  /** How often a session was woken since the start. */
  get wokenTotal(): number {
    return this.#wokenTotal;
  }

  get viewCount(): number {
    return this.#views.size;
  }

  /** Resources held, for each type. */
  resourceCounts(): Record<ResourceType, number> {
    return counts((type) => this.#cells[type].size);
  }

  /** What proxies refused and what is still wanted, oldest first. */
  rejections(): readonly Rejection[] {
    return [...this.#rejections.values()];
  }

  /** The classes of connected proxies. */
  *classes(): Generator<C> {
    for (const { proxyClass } of this.#classes.values()) yield proxyClass;
  }

  /** Every resource that is made from an object, with the views that plan it and its name there. */
  resourcesFrom(object: ObjectRef): readonly ResourceUse[] {
    const ref = renderRef(object);
    return [...this.#origins.of(object)].flatMap(({ type, value, uses }): ResourceUse[] => {
      const own = value?.origins.filter((origin) => renderRef(origin.object) === ref) ?? [];
      if (value === undefined || own.length === 0) return [];
      const paths = own.flatMap(({ path }) => path ?? []);
      return [...uses].map(([view, name]) => ({ type, name, version: value.version, view, paths }));
    });
  }

  /** Takes a session in. Its views are returned, and `viewsChanged` tells of others later. */
  attach(subscriber: ClassSubscriber, proxyClass: C): readonly LiveView[] {
    const text = this.#options.translation.viewsOf.keyText(proxyClass);
    let use = this.#classes.get(text);
    if (use === undefined) {
      const views = this.#watch(this.#options.translation.viewsOf, proxyClass) ?? [];
      use = { proxyClass, views: this.#useViews(views), sessions: new Set() };
      this.#classes.set(text, use);
    }
    use.sessions.add(subscriber);
    for (const { live } of use.views) live.join(subscriber, this.nowMs);
    this.flush();
    return use.views.map(({ live }) => live);
  }

  detach(subscriber: ClassSubscriber, proxyClass: C): void {
    const { viewsOf } = this.#options.translation;
    const text = viewsOf.keyText(proxyClass);
    const use = this.#classes.get(text);
    if (use === undefined || !use.sessions.delete(subscriber)) return;
    for (const view of use.views) this.#leave(view, subscriber);
    if (use.sessions.size === 0) {
      this.#classes.delete(text);
      this.#engine.unwatch(viewsOf, proxyClass);
      this.#dropViews(use.views);
    }
    this.flush();
  }

  /** What a session's views have for those alone who ask. The session is asked for late: it takes this to begin with. */
  offersFor(session: () => Subscriber & { readonly views: readonly LiveView[] }): Offers {
    const usesOf = (type: ResourceType): readonly ViewUse<V>[] =>
      session().views.flatMap((view) =>
        view.demand(type).isOffering ? (this.#views.get(view.text) ?? []) : [],
      );
    return {
      ask: (type, names) => {
        for (const use of usesOf(type)) this.#ask(session(), use, type, names);
      },
      release: (type, names) => {
        for (const use of usesOf(type))
          for (const name of names)
            if (use.live.demand(type).release(name, session())) this.#forgetAsked(use, type, name);
      },
      isOffered: (type, name) => {
        const isForEveryone = (view: LiveView): boolean =>
          view.demand(type).isForEveryone(name) && view.entry(type, name) !== undefined;
        if (session().views.some(isForEveryone)) return false;
        return usesOf(type).some(({ plan }) => isOfferedIn(plan[type], name));
      },
    };
  }

  #ask(
    subscriber: Subscriber,
    { live, plan }: ViewUse<V>,
    type: ResourceType,
    names: Iterable<string>,
  ): void {
    for (const name of names) {
      if (!live.demand(type).ask(name, subscriber)) continue;
      const planned = plannedAs(live, type, plan[type], name);
      if (planned !== undefined) this.#link(live, type, planned);
    }
  }

  #leave(use: ViewUse<V>, subscriber: Subscriber): void {
    use.live.leave(subscriber, this.nowMs);
    for (const type of resourceTypes) {
      const demand = use.live.demand(type);
      if (!demand.isOffering) continue;
      for (const name of demand.releaseAll(subscriber)) this.#forgetAsked(use, type, name);
    }
  }

  #forgetAsked({ live, plan }: ViewUse<V>, type: ResourceType, name: string): void {
    if (live.demand(type).isForEveryone(name)) return;
    const planned = plan[type].flatMap((chunk) => entryOf(chunk, name) ?? [])[0];
    const left = planned === undefined ? undefined : this.#unlink(live, type, planned);
    live.forget(type, name);
    if (left !== undefined) this.#dropUnused(left);
  }

  /** Stores changed inputs, brings everything watched up to date and wakes whom it concerns. */
  publish(changes: Iterable<Change>): Published {
    const computedBefore = this.#engine.computedTotal;
    const { viewsOf, planOf } = this.#options.translation;
    this.#engine.apply(changes);
    const { changed, failures } = this.#engine.settle();
    const changedCounts = counts(() => 0);
    for (const { query, keyText, value } of changed) {
      if (query.id === viewsOf.id) this.#classChanged(keyText, value as readonly V[]);
    }
    for (const { query, keyText, value } of changed) {
      const use = query.id === planOf.id ? this.#views.get(keyText) : undefined;
      if (use !== undefined) this.#planChanged(use, value as Plan);
    }
    for (const { query, keyText, value } of changed) {
      const type = this.#typeOfQuery.get(query.id);
      const cell = type === undefined ? undefined : this.#cells[type].get(keyText);
      if (type === undefined || cell === undefined) continue;
      changedCounts[type]++;
      this.#cellChanged(cell, value as EnvoyResource | undefined);
    }
    this.#applyRemovals();
    for (const failure of failures) this.#options.reports.failed(failure);
    const woken = this.flush();
    const published = {
      changed: changedCounts,
      woken,
      computed: this.#engine.computedTotal - computedBefore,
      answers: changed,
    };
    this.#options.reports.published(published);
    return published;
  }

  /** Wakes the sessions that asked for what changed in the views since the last flush. Returns how many. */
  flush(): number {
    const concerned = new Set<Subscriber>();
    for (const view of this.#touched) {
      for (const subscriber of view.subscribers) {
        if (!concerned.has(subscriber) && wantsAny(subscriber, view.touched)) concerned.add(subscriber);
      }
      view.touched.clear();
    }
    this.#touched.clear();
    for (const subscriber of concerned) subscriber.wake();
    this.#wokenTotal += concerned.size;
    return concerned.size;
  }

  /** Looks after trials whose canary keeps silent. To be called every second or so. */
  tick(): void {
    for (const { live } of this.#views.values()) {
      const limit = live.checkTrial(this.nowMs);
      if (limit !== undefined) this.#options.reports.reached(limit);
    }
    this.#forgetRejections();
    this.flush();
  }

  /** A session's proxy rejected a resource. */
  reject(rejection: Rejection, views: readonly LiveView[]): boolean {
    let verdict = false;
    for (const view of views) verdict = view.reject(rejection) || verdict;
    const key = rejectionKey(rejection);
    const known = this.#rejections.get(key);
    if (verdict) this.#rejections.set(key, rejection);
    if (this.#rejections.size > rejectionsKeptMax) {
      this.#options.reports.reached("rejections");
      const oldest = this.#rejections.keys().next();
      if (oldest.done !== true) this.#rejections.delete(oldest.value);
    }
    this.#options.reports.rejected(rejection, known === undefined);
    return verdict;
  }

  #forgetRejections(): void {
    if (this.#rejections.size === 0) return;
    const standing = new Set<string>();
    for (const { live } of this.#views.values()) {
      for (const rejection of live.rejections()) standing.add(rejectionKey(rejection));
    }
    for (const [key, rejection] of this.#rejections) {
      if (standing.has(key)) continue;
      this.#rejections.delete(key);
      this.#options.reports.cleared(rejection);
    }
  }

  #classChanged(text: string, views: readonly V[]): void {
    const use = this.#classes.get(text);
    if (use === undefined) return;
    const before = use.views;
    use.views = this.#useViews(views);
    this.#dropViews(before);
    const left = before.filter((view) => !use.views.includes(view));
    const entered = use.views.filter((view) => !before.includes(view));
    for (const session of use.sessions) {
      for (const view of left) this.#leave(view, session);
      for (const { live } of entered) live.join(session, this.nowMs);
      session.viewsChanged(use.views.map(({ live }) => live));
    }
  }

  #useViews(views: readonly V[]): ViewUse<V>[] {
    return views.map((view) => {
      const { planOf } = this.#options.translation;
      const text = planOf.keyText(view);
      let use = this.#views.get(text);
      if (use === undefined) {
        const live = new LiveView(text, (touched) => this.#touched.add(touched));
        use = { live, view, plan: emptyPlan, classes: 0, cancelLinger: undefined };
        this.#views.set(text, use);
        this.#planChanged(use, this.#watch(planOf, view) ?? emptyPlan);
      }
      use.cancelLinger?.();
      use.cancelLinger = undefined;
      use.classes++;
      return use;
    });
  }

  #dropViews(views: readonly ViewUse<V>[]): void {
    for (const use of views) {
      use.classes--;
      if (use.classes === 0)
        use.cancelLinger = this.#options.after(viewLingerMs, () => this.#removeView(use));
    }
  }

  #removeView(use: ViewUse<V>): void {
    if (use.classes > 0) return;
    this.#planChanged(use, emptyPlan);
    this.#applyRemovals();
    this.#views.delete(use.live.text);
    this.#touched.delete(use.live);
    this.#engine.unwatch(this.#options.translation.planOf, use.view);
  }

  #planChanged(use: ViewUse<V>, plan: Plan): void {
    const before = use.plan;
    use.plan = plan;
    for (const type of resourceTypes) {
      if (before[type] === plan[type]) continue;
      const begins = offerNames(use.live, type, plan[type]);
      this.#chunksChanged(use.live, type, before[type], plan[type]);
      if (begins) for (const subscriber of use.live.subscribers) subscriber.askAgain();
    }
  }

  /** Looks only into chunks that are not identical to before. */
  #chunksChanged(
    view: LiveView,
    type: ResourceType,
    before: readonly Chunk[],
    after: readonly Chunk[],
  ): void {
    const kept = new Set(before);
    const removed = new Map<string, Planned>();
    const entered = after.filter((chunk) => !kept.delete(chunk));
    for (const chunk of kept)
      for (const planned of concerned(view, type, chunk)) removed.set(planned.name, planned);
    for (const chunk of entered) {
      for (const planned of concerned(view, type, chunk)) {
        const was = removed.get(planned.name);
        removed.delete(planned.name);
        if (was !== undefined && (was === planned || was.key === planned.key)) continue;
        if (was !== undefined && this.#keyText(type, was) === this.#keyText(type, planned)) continue;
        const left = was === undefined ? undefined : this.#unlink(view, type, was);
        this.#link(view, type, planned);
        if (left !== undefined) this.#dropUnused(left);
      }
    }
    for (const planned of removed.values()) {
      // What is no longer for everyone may be asked for, and the other way round.
      const still = view.demand(type).isOffering ? plannedAs(view, type, after, planned.name) : undefined;
      if (still !== undefined && this.#keyText(type, still) === this.#keyText(type, planned)) continue;
      // From here on the view hears nothing of it: what is served until it may go is its last value in the plan, and not
      // what is left of it (endpoints of a service that is gone are none).
      const left = this.#unlink(view, type, planned);
      this.#removals.push(() => {
        view.remove(type, planned.name);
        if (left !== undefined) this.#dropUnused(left);
      });
    }
  }

  /**
   * Removals come after everything else of a batch: a view decides about the end of a cluster by whether a route is on
   * trial, and the route's change may stand later in the same batch.
   */
  #applyRemovals(): void {
    const removals = this.#removals;
    this.#removals = [];
    for (const remove of removals) remove();
  }

  #link(view: LiveView, type: ResourceType, planned: Planned): void {
    const text = this.#keyText(type, planned);
    let cell = this.#cells[type].get(text);
    if (cell === undefined) {
      const value = this.#watch(this.#options.translation.resourceOf[type], planned.key as never);
      cell = { type, key: planned.key, text, value, uses: new Map() };
      this.#cells[type].set(text, cell);
      this.#origins.changed(cell, undefined, value);
    }
    cell.uses.set(view, planned.name);
    if (cell.value === undefined) view.remove(type, planned.name);
    else view.set(type, planned.name, cell.value, this.nowMs);
  }

  #unlink(view: LiveView, type: ResourceType, planned: Planned): Cell | undefined {
    const cell = this.#cells[type].get(this.#keyText(type, planned));
    if (cell?.uses.get(view) === planned.name) cell.uses.delete(view);
    return cell;
  }

  #dropUnused(cell: Cell): void {
    // Several views may have let go of it in one batch: the first of them drops it.
    if (cell.uses.size > 0 || this.#cells[cell.type].get(cell.text) !== cell) return;
    this.#cells[cell.type].delete(cell.text);
    this.#origins.changed(cell, cell.value, undefined);
    this.#engine.unwatch(this.#options.translation.resourceOf[cell.type], cell.key as never);
  }

  #cellChanged(cell: Cell, value: EnvoyResource | undefined): void {
    this.#origins.changed(cell, cell.value, value);
    cell.value = value;
    for (const [view, name] of cell.uses) {
      if (value !== undefined) view.set(cell.type, name, value, this.nowMs);
      else this.#removals.push(() => view.remove(cell.type, name));
    }
  }

  #keyText(type: ResourceType, planned: Planned): string {
    return this.#options.translation.resourceOf[type].keyText(planned.key as never);
  }

  /** A query that fails at its first run counts as empty until it succeeds; `settle` reports the failure. */
  #watch<K, T>(query: Query<K, T>, key: K): T | undefined {
    try {
      return this.#engine.watch(query, key);
    } catch {
      return undefined;
    }
  }
}

function wantsAny(subscriber: Subscriber, touched: ReadonlyMap<ResourceType, ReadonlySet<string>>): boolean {
  for (const [type, names] of touched) {
    for (const name of names) if (subscriber.wants(type, name)) return true;
  }
  return false;
}

function counts(count: (type: ResourceType) => number): Record<ResourceType, number> {
  return Object.fromEntries(resourceTypes.map((type) => [type, count(type)])) as Record<ResourceType, number>;
}

function rejectionKey({ type, name, version }: Rejection): string {
  return `${type} ${version} ${name}`;
}
