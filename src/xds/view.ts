// What the proxies of one view share: its resources, a log of their changes for each type, and the rule by which a
// change reaches the proxies.
//
// Canary first. A changed resource goes to one proxy of the view, the canary. Once that has acknowledged it, it is
// *good* and goes to the rest; if it is rejected, the last good version stays served to everyone, newcomers included,
// until the resource changes again. A canary that says nothing is replaced, and after a few silent ones the change goes
// to all: a mesh must not stand still because three proxies hang. Endpoints go to all at once: what they say is only
// which addresses live, and a delay there costs requests. What went out untried is withdrawn when a proxy rejects it.
//
// Break last. What leaves the plan while another resource may still name it (a cluster, a route table) stays served
// until no listener or route of the view is on trial or rejected, since until then someone is served an old one.

import type { EnvoyResource, Origin } from "#envoy";
import { partsOfDiscovered, resourceTypes, type ResourceType } from "#plan";
import { Canary } from "./canary.ts";
import { ChangeLog } from "./change-log.ts";
import { Demand } from "./demand.ts";
import { Fills, type Fill } from "./fill.ts";
import { rejectedRetryMs } from "./limits.ts";

/** A proxy's session as its views see it. */
export interface Subscriber {
  readonly id: string;
  /** Whether the proxy has asked for this name, or for everything of the type. */
  wants(type: ResourceType, name: string): boolean;
  /** Whether the proxy has this version of a resource, and has said so. */
  hasTaken(type: ResourceType, name: string, version: string): boolean;
  /** Something that it wants changed. */
  wake(): void;
  /** The view has begun to offer names: what it wants of them is to be asked for. */
  askAgain(): void;
}

/** A resource that a proxy refused. */
export interface Rejection {
  readonly type: ResourceType;
  readonly name: string;
  readonly version: string;
  /** Envoy's words. */
  readonly reason: string;
  /** The node id of the proxy that refused. */
  readonly proxy: string;
  readonly atMs: number;
  /** The objects that the resource is made from: one of them is at fault. */
  readonly origins: readonly Origin[];
}

/** One name of a view. */
export interface Entry {
  /** What the plan and the translation want; undefined once the name has left the plan. */
  current: EnvoyResource | undefined;
  /** Counts the values of `current`. */
  revision: number;
  /** The last version that a proxy took. */
  good: EnvoyResource | undefined;
  /** The `revision` that `good` was. */
  goodRevision: number;
  /** Set while `good` is served although no proxy has taken it: what was good before. */
  unconfirmed: { readonly before: EnvoyResource | undefined } | undefined;
  /** Why `current` is not served, if so. */
  rejection: Rejection | undefined;
}

/**
 * What one proxy is to have of a name now: a resource, nothing, nothing new until others have tried it, or whatever it
 * has, since what is wanted was rejected and the last good version is known to proxies alone (we started after it).
 */
export type Target =
  | { readonly kind: "resource"; readonly resource: EnvoyResource; readonly trial: number | undefined }
  | { readonly kind: "absent" }
  | { readonly kind: "hold" }
  | { readonly kind: "keep" };

interface TypeState {
  readonly entries: Map<string, Entry>;
  readonly log: ChangeLog;
  readonly onTrial: Set<string>;
  readonly rejected: Set<string>;
  /** Names that have left the plan and are served until nothing can name them. */
  readonly leaving: Set<string>;
  /** Names that are served although no proxy has taken them yet. */
  readonly unconfirmed: Set<string>;
  readonly fills: Fills;
  readonly demand: Demand;
}

const absent: Target = { kind: "absent" };
const hold: Target = { kind: "hold" };
const keep: Target = { kind: "keep" };

const withoutTrial: ReadonlySet<ResourceType> = new Set<ResourceType>(["endpoint"]);

/** The types that may name a resource of each type: while one of those is unsettled, no removal. */
export const namedBy: Readonly<Record<ResourceType, readonly ResourceType[]>> = {
  listener: [],
  route: ["listener"],
  // Two that share a domain exclude each other: an old one must not stay for longer than its table is planned.
  virtualHost: [],
  cluster: ["listener", "route", "virtualHost"],
  endpoint: ["listener", "route", "virtualHost"],
  secret: ["listener"],
};

export class LiveView {
  readonly text: string;
  readonly subscribers = new Set<Subscriber>();
  /** What changed since sessions were last woken; emptied by whoever wakes them. */
  readonly touched = new Map<ResourceType, Set<string>>();
  readonly #types: Readonly<Record<ResourceType, TypeState>>;
  readonly #onTouched: (view: LiveView) => void;
  /** How many entries all logs have got so far. */
  changes = 0;
  readonly #canary = new Canary(this.subscribers);

  constructor(text: string, onTouched: (view: LiveView) => void) {
    this.text = text;
    this.#onTouched = onTouched;
    this.#types = Object.fromEntries(resourceTypes.map((type) => [type, emptyState()])) as Record<
      ResourceType,
      TypeState
    >;
  }

  names(type: ResourceType): Iterable<string> {
    return this.#types[type].entries.keys();
  }

  hasAny(type: ResourceType): boolean {
    return this.#types[type].entries.size > 0;
  }

  entry(type: ResourceType, name: string): Entry | undefined {
    return this.#types[type].entries.get(name);
  }

  /** Which names of a type only those get who ask. */
  demand(type: ResourceType): Demand {
    return this.#types[type].demand;
  }

  /** Whether a name goes to those alone who ask for it. */
  isOptional(type: ResourceType, name: string): boolean {
    const { demand, entries } = this.#types[type];
    return demand.isAsked(name) && !demand.isForEveryone(name) && entries.has(name);
  }

  /** Of a type that is offered, the names that are for everyone. */
  setEveryones(type: ResourceType, names: ReadonlySet<string>): void {
    for (const name of this.demand(type).setEveryones(names)) this.#touch(type, name);
  }

  /** Name to version of what all proxies of the view are served; shared, and made anew when it changes. */
  versions(type: ResourceType): ReadonlyMap<string, string> {
    const { fills, log } = this.#types[type];
    return fills.versions(log.head, () => this.#served(type));
  }

  /** What everyone gets who holds nothing; undefined if that is little, or while proxies differ. */
  fill(type: ResourceType, nowMs: number): Fill | undefined {
    const { fills, log, onTrial } = this.#types[type];
    return onTrial.size > 0 ? undefined : fills.fill(log.head, () => this.#served(type), nowMs);
  }

  /** Whether proxies of the view are served different versions. */
  isOnTrial(type: ResourceType): boolean {
    return this.#types[type].onTrial.size > 0;
  }

  /** Whether it makes a difference to the view what proxies take. */
  awaitsVerdict(type: ResourceType): boolean {
    const { onTrial, unconfirmed } = this.#types[type];
    return onTrial.size > 0 || unconfirmed.size > 0;
  }

  /** The names of which it makes a difference what proxies take. */
  awaitedVerdicts(type: ResourceType): readonly string[] {
    const { onTrial, unconfirmed } = this.#types[type];
    return [...onTrial, ...unconfirmed];
  }

  /** Whether a newcomer is to wait for another's verdict. */
  holdsBack(type: ResourceType, subscriber: Subscriber): boolean {
    if (this.canary === subscriber) return false;
    const { onTrial, entries, demand } = this.#types[type];
    for (const name of onTrial) {
      if (!demand.isForEveryone(name)) continue;
      const entry = entries.get(name);
      if (entry?.good === undefined && entry?.rejection === undefined) return true;
    }
    return false;
  }

  *#served(type: ResourceType): Generator<readonly [string, EnvoyResource]> {
    const { entries, demand } = this.#types[type];
    for (const [name, { good }] of entries)
      if (good !== undefined && demand.isForEveryone(name)) yield [name, good];
  }

  log(type: ResourceType): ChangeLog {
    return this.#types[type].log;
  }

  /** Whether a proxy's verdict is awaited. */
  get onTrial(): boolean {
    return resourceTypes.some((type) => this.#types[type].onTrial.size > 0);
  }

  get canary(): Subscriber | undefined {
    return this.#canary.current;
  }

  join(subscriber: Subscriber, nowMs: number): void {
    this.subscribers.add(subscriber);
    if (this.canary !== undefined) return;
    this.#canary.appoint(subscriber, nowMs);
    this.#touchOnTrial();
  }

  leave(subscriber: Subscriber, nowMs: number): void {
    this.subscribers.delete(subscriber);
    if (this.#canary.left(subscriber, nowMs)) this.#touchOnTrial();
    // What it tried out for those who asked for the same is another's to try.
    for (const type of resourceTypes) {
      const { demand, onTrial } = this.#types[type];
      if (demand.isOffering) for (const name of onTrial) this.#touch(type, name);
    }
  }

  /** Nobody asks for the name any more, and it is for nobody else. */
  forget(type: ResourceType, name: string): void {
    const state = this.#types[type];
    if (!state.entries.delete(name)) return;
    for (const names of [state.onTrial, state.rejected, state.leaving, state.unconfirmed]) names.delete(name);
    this.#touch(type, name);
    this.#releaseLeaving();
  }

  /** The translation has a new value for a name. */
  set(type: ResourceType, name: string, resource: EnvoyResource, nowMs: number): void {
    const state = this.#types[type];
    let entry = state.entries.get(name);
    if (entry === undefined) {
      entry = newEntry();
      state.entries.set(name, entry);
    }
    if (entry.current?.version === resource.version) return;
    state.leaving.delete(name);
    entry.current = resource;
    entry.revision++;
    if (entry.rejection !== undefined && entry.rejection.version !== resource.version) {
      entry.rejection = undefined;
      state.rejected.delete(name);
    }
    if (entry.good?.version === resource.version) {
      this.#makeGood(type, name, entry, resource);
    } else if (withoutTrial.has(type)) {
      this.#makeGoodUnconfirmed(type, name, entry, resource);
    } else if (entry.rejection === undefined) {
      if (!this.onTrial) this.#canary.begin(nowMs);
      state.onTrial.add(name);
    }
    this.#touch(type, name);
    this.#releaseLeaving();
  }

  /** The name has left the plan, or its translation came to nothing. */
  remove(type: ResourceType, name: string): void {
    const state = this.#types[type];
    const entry = state.entries.get(name);
    if (entry === undefined) return;
    state.onTrial.delete(name);
    state.rejected.delete(name);
    state.unconfirmed.delete(name);
    entry.rejection = undefined;
    entry.current = undefined;
    if (entry.good !== undefined && (this.mayBeNamed(type) || this.#isOfLeavingTable(type, name)))
      state.leaving.add(name);
    else state.entries.delete(name);
    this.#touch(type, name);
    this.#releaseLeaving();
  }

  /** What a proxy is to have of a name. */
  target(type: ResourceType, name: string, subscriber: Subscriber): Target {
    const { entries, onTrial, demand } = this.#types[type];
    const entry = entries.get(name);
    if (entry === undefined) return absent;
    const { current, good, rejection } = entry;
    if (current === undefined) return good === undefined ? absent : served(good);
    if (good?.version === current.version) return served(good);
    const tries = rejection === undefined || onTrial.has(name);
    if (tries && demand.testerOf(name, this.canary) === subscriber)
      return { kind: "resource", resource: current, trial: entry.revision };
    if (good !== undefined) return served(good);
    return rejection === undefined ? hold : keep;
  }

  /**
   * A proxy holds this version and is content with it.
   * @param trial the revision that it was given on trial, undefined if it held the version already
   */
  accept(
    type: ResourceType,
    name: string,
    resource: EnvoyResource | string,
    trial: number | undefined,
    nowMs: number,
  ): void {
    const entry = this.#types[type].entries.get(name);
    if (entry === undefined) return;
    const version = typeof resource === "string" ? resource : resource.version;
    if (entry.good?.version === version) {
      entry.unconfirmed = undefined;
      this.#types[type].unconfirmed.delete(name);
    }
    if (!this.#types[type].onTrial.has(name)) return;
    if (entry.current?.version === version) {
      this.#makeGood(type, name, entry, entry.current);
    } else if (trial !== undefined && trial > entry.goodRevision && typeof resource !== "string") {
      // It was overtaken by a newer one meanwhile, but is better than what the rest has.
      entry.good = resource;
      entry.goodRevision = trial;
      entry.unconfirmed = undefined;
    } else return;
    this.#canary.spoke(nowMs);
    this.#touch(type, name);
    this.#releaseLeaving();
  }

  /** A proxy rejected a version. True if that is a verdict: the version is wanted, and no other proxy has taken it. */
  reject(rejection: Rejection): boolean {
    const { type, name } = rejection;
    const state = this.#types[type];
    const entry = state.entries.get(name);
    if (entry?.current?.version !== rejection.version) return false;
    const wasOnTrial = state.onTrial.delete(name);
    if (!wasOnTrial && entry.unconfirmed === undefined) return false;
    if (!wasOnTrial) entry.good = entry.unconfirmed?.before;
    entry.unconfirmed = undefined;
    entry.rejection = rejection;
    state.rejected.add(name);
    this.#canary.spoke(rejection.atMs);
    this.#touch(type, name);
    return true;
  }

  rejections(): Rejection[] {
    return resourceTypes.flatMap((type) =>
      [...this.#types[type].rejected].flatMap((name) => this.#types[type].entries.get(name)?.rejection ?? []),
    );
  }

  /**
   * Called now and then while something is on trial: asks another proxy, or lets go, when the canary keeps silent.
   * Gives the limit of patience that was reached, if one was.
   */
  checkTrial(nowMs: number): "canaryWait" | "canaryTries" | undefined {
    for (const type of resourceTypes) this.#types[type].fills.forget(nowMs);
    this.#tryRejectedAgain(nowMs);
    if (!this.onTrial || this.subscribers.size === 0) return undefined;
    switch (this.#canary.check(nowMs)) {
      case "goes on":
        return undefined;
      case "another":
        this.#touchOnTrial();
        return "canaryWait";
      case "nobody":
        this.#release(nowMs);
        return "canaryTries";
    }
  }

  /** A rejection can be the fault of another resource that is mended since: an address that was taken, a missing secret. */
  #tryRejectedAgain(nowMs: number): void {
    for (const type of resourceTypes) {
      const state = this.#types[type];
      for (const name of state.rejected) {
        const rejectedAtMs = state.entries.get(name)?.rejection?.atMs ?? nowMs;
        if (state.onTrial.has(name) || nowMs - rejectedAtMs < rejectedRetryMs) continue;
        if (!this.onTrial) this.#canary.begin(nowMs);
        state.onTrial.add(name);
        this.#touch(type, name);
      }
    }
  }

  /** Nobody gave a verdict: everything on trial goes to all. */
  #release(nowMs: number): void {
    for (const type of resourceTypes) {
      const state = this.#types[type];
      for (const name of state.onTrial) {
        const entry = state.entries.get(name);
        if (entry?.current === undefined || entry.rejection !== undefined) continue;
        this.#makeGoodUnconfirmed(type, name, entry, entry.current);
        this.#touch(type, name);
      }
      state.onTrial.clear();
    }
    this.#canary.spoke(nowMs);
    this.#releaseLeaving();
  }

  /** Another proxy is to try it. */
  #touchOnTrial(): void {
    for (const type of resourceTypes) {
      for (const name of this.#types[type].onTrial) this.#touch(type, name);
    }
  }

  #makeGood(type: ResourceType, name: string, entry: Entry, resource: EnvoyResource): void {
    entry.good = resource;
    entry.goodRevision = entry.revision;
    entry.unconfirmed = undefined;
    this.#types[type].unconfirmed.delete(name);
    entry.rejection = undefined;
    this.#types[type].onTrial.delete(name);
    this.#types[type].rejected.delete(name);
  }

  #makeGoodUnconfirmed(type: ResourceType, name: string, entry: Entry, resource: EnvoyResource): void {
    const before = entry.unconfirmed === undefined ? entry.good : entry.unconfirmed.before;
    this.#makeGood(type, name, entry, resource);
    entry.unconfirmed = { before };
    this.#types[type].unconfirmed.add(name);
  }

  /** Whether proxies may be served a listener or route other than the wanted one, which names what is to go. */
  mayBeNamed(type: ResourceType): boolean {
    return namedBy[type].some(
      (naming) => this.#types[naming].onTrial.size > 0 || this.#types[naming].rejected.size > 0,
    );
  }

  /** A table that is served for the sake of old listeners is served with its virtual hosts. */
  #isOfLeavingTable(type: ResourceType, name: string): boolean {
    return type === "virtualHost" && this.#types.route.leaving.has(partsOfDiscovered(name).table);
  }

  #releaseLeaving(): void {
    for (const type of resourceTypes) {
      const state = this.#types[type];
      if (state.leaving.size === 0 || this.mayBeNamed(type)) continue;
      for (const name of state.leaving) {
        if (this.#isOfLeavingTable(type, name)) continue;
        state.leaving.delete(name);
        state.entries.delete(name);
        this.#touch(type, name);
      }
    }
  }

  #touch(type: ResourceType, name: string): void {
    this.#types[type].log.append(name);
    this.changes++;
    let names = this.touched.get(type);
    if (names === undefined) this.touched.set(type, (names = new Set()));
    names.add(name);
    this.#onTouched(this);
  }
}

function emptyState(): TypeState {
  return {
    entries: new Map(),
    log: new ChangeLog(),
    onTrial: new Set(),
    rejected: new Set(),
    leaving: new Set(),
    unconfirmed: new Set(),
    fills: new Fills(),
    demand: new Demand(),
  };
}

function newEntry(): Entry {
  return {
    current: undefined,
    revision: 0,
    good: undefined,
    goodRevision: 0,
    unconfirmed: undefined,
    rejection: undefined,
  };
}

function served(good: EnvoyResource): Target {
  return { kind: "resource", resource: good, trial: undefined };
}
