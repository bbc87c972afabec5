// A small world and simulated proxies for the tests of this room: the world is a table of resources by view, a proxy
// keeps to the protocol as Envoy does (wildcards for clusters and listeners, endpoints by cluster, routes by listener)
// and rejects resources whose text says "bad".

import protobuf from "protobufjs/minimal.js";
import { defineKeyedQuery, defineTable, Engine, type Change } from "#engine";
import { resource, resourceTypeOf, sameResource, typeUrlOf, type EnvoyResource } from "#envoy";
import {
  discoversHosts,
  emptyPlan,
  partsOfDiscovered,
  resourceTypes,
  type Plan,
  type ResourceType,
} from "#plan";
import { Mesh, type Translation } from "./mesh.ts";
import { AdsSession } from "./session.ts";
import type { Rejection } from "./view.ts";
import type { DeltaRequest } from "./wire.ts";

export interface Row {
  readonly view: string;
  readonly type: ResourceType;
  readonly name: string;
  readonly text: string;
}

export const rowTable = defineTable("Row", { view: (row: Row) => [row.view] });

const resourceQuery = (type: ResourceType) =>
  defineKeyedQuery<string, EnvoyResource | undefined>(
    `resource.${type}`,
    (key) => key,
    (read, key) => {
      const row = read(rowTable, key);
      // As endpoints really are: without anything to make them from, none is left, and that is an answer.
      if (row === undefined)
        return type === "endpoint"
          ? resource(type, nameOf(key), { clusterName: `${nameOf(key)}~` })
          : undefined;
      return resource(type, row.name, textMessage(type, row));
    },
    sameResource,
  );

export const translation: Translation<string, string> = {
  viewsOf: defineKeyedQuery<string, readonly string[]>(
    "viewsOf",
    (key) => key,
    (_read, key) => key.split("+"),
  ),
  planOf: defineKeyedQuery<string, Plan>(
    "planOf",
    (key) => key,
    (read, view) => {
      const plan: Record<
        ResourceType,
        { id: string; entries: { name: string; key: string }[]; onDemand?: true }[]
      > = {
        ...structuredClone(emptyPlan),
      } as never;
      for (const key of read(rowTable.by.view.members, view)) {
        const [, type = "cluster", ...names] = key.split("/") as [string, ResourceType, ...string[]];
        const name = names.join("/");
        const isOffered = isOffering(view) && isOfferedType(type) && !isForEveryone(name);
        const id = isOffered ? "offered" : "all";
        let chunk = plan[type].find((one) => one.id === id);
        if (chunk === undefined) {
          chunk = { id, entries: [], ...(isOffered ? { onDemand: true } : {}) };
          plan[type].push(chunk);
        }
        chunk.entries.push({ name, key });
      }
      if (isOffering(view))
        for (const type of ["cluster", "endpoint"] as const)
          plan[type].push({ id: "none", entries: [], onDemand: true });
      return plan;
    },
  ),
  resourceOf: Object.fromEntries(resourceTypes.map((type) => [type, resourceQuery(type)])) as never,
};

/** Views whose name begins so have clusters and their endpoints for those who ask; the first two names are everyone's. */
export function isOffering(view: string): boolean {
  return view.startsWith("o");
}

export function isForEveryone(name: string): boolean {
  return /[01]$/.test(name);
}

function isOfferedType(type: ResourceType): boolean {
  return type === "cluster" || type === "endpoint";
}

/** Something of each type that carries a text. */
function textMessage(type: ResourceType, { name, text }: Row): Record<string, unknown> {
  if (type === "cluster") return { name, altStatName: text };
  if (type === "endpoint") return { clusterName: `${name}~${text}` };
  if (type === "listener") return { name, statPrefix: text };
  if (type === "route") return { name: `${name}~${text}` };
  if (type === "virtualHost") return { name, domains: [text] };
  return { name: `${name}~${text}` };
}

const nameOf = (key: string): string => key.split("/").slice(2).join("/");

export function rowChange(row: Row): Change {
  return { table: rowTable as never, key: `${row.view}/${row.type}/${row.name}`, value: row };
}

export function rowRemoval({ view, type, name }: Omit<Row, "text">): Change {
  return { table: rowTable as never, key: `${view}/${type}/${name}`, value: undefined };
}

export class World {
  readonly engine = new Engine();
  nowMs = 1_000_000;
  readonly rejections: Rejection[] = [];
  readonly reached: string[] = [];
  readonly mesh: Mesh<string, string>;
  readonly proxies = new Set<FakeProxy>();
  #timers: { atMs: number; callback: () => void }[] = [];

  constructor() {
    this.mesh = new Mesh({
      engine: this.engine,
      translation,
      nowMs: () => this.nowMs,
      after: (delayMs, callback) => {
        const timer = { atMs: this.nowMs + delayMs, callback };
        this.#timers.push(timer);
        return () => {
          this.#timers = this.#timers.filter((one) => one !== timer);
        };
      },
      reports: {
        failed: ({ error }) => {
          throw error;
        },
        rejected: (rejection) => this.rejections.push(rejection),
        cleared: () => {},
        published: () => {},
        reached: (limit) => this.reached.push(limit),
      },
    });
  }

  put(...rows: readonly Row[]): ReturnType<Mesh<string, string>["publish"]> {
    return this.mesh.publish(rows.map(rowChange));
  }

  drop(...rows: readonly Omit<Row, "text">[]): ReturnType<Mesh<string, string>["publish"]> {
    return this.mesh.publish(rows.map(rowRemoval));
  }

  /** Lets time pass, with the ticks that the server makes. */
  pass(ms: number): void {
    this.nowMs += ms;
    const due = this.#timers.filter(({ atMs }) => atMs <= this.nowMs);
    this.#timers = this.#timers.filter(({ atMs }) => atMs > this.nowMs);
    for (const { callback } of due) callback();
    this.mesh.tick();
    for (const proxy of this.proxies) proxy.session?.tick();
  }

  connect(id: string, proxyClass: string): FakeProxy {
    const proxy = new FakeProxy(this, id, proxyClass);
    proxy.connect();
    this.proxies.add(proxy);
    return proxy;
  }

  /** Answers whatever is unanswered until all is quiet. */
  settle(): void {
    for (let round = 0; round < 10_000; round++) {
      let answered = 0;
      for (const proxy of this.proxies) answered += proxy.answerAll();
      if (answered === 0) return;
    }
    throw new Error("the proxies never come to rest");
  }
}

/** The type whose resources a proxy asks for by the names of this type's. */
const namedType: Partial<Record<ResourceType, ResourceType>> = { cluster: "endpoint", listener: "route" };
const namingType: Partial<Record<ResourceType, ResourceType>> = { endpoint: "cluster", route: "listener" };

interface Response {
  readonly type: ResourceType;
  readonly nonce: string;
  readonly resources: readonly { name: string; version: string; bad: boolean }[];
  readonly removed: readonly string[];
}

export class FakeProxy {
  #world: World;
  /** Virtual hosts asked for one by one, as a request for them came. */
  readonly #onDemand = new Set<string>();
  readonly id: string;
  readonly proxyClass: string;
  session: AdsSession | undefined;
  /** Whether messages of rejection name the resource. */
  namesCulprits = true;
  /** Takes bad resources, too, as after what they clashed with is gone. */
  lenient = false;
  readonly held = new Map<ResourceType, Map<string, string>>();
  /** Whether it has asked for the virtual hosts of its tables: as Envoy does once, when the first such table comes. */
  #discovers = false;
  /** What it will say that it holds of virtual hosts: Envoy forgets none when their table goes. */
  readonly #claimedHosts = new Map<string, string>();
  /** Tables whose listener waits for a virtual host, or for word that there is none. */
  readonly warming = new Set<string>();
  /** Virtual hosts that came for a table that it does not hold. */
  readonly strayHosts: string[] = [];
  readonly inbox: Response[] = [];
  /** All responses ever, and all bad versions ever seen. */
  readonly received: Response[] = [];
  readonly badSeen = new Set<string>();

  constructor(world: World, id: string, proxyClass: string) {
    this.#world = world;
    this.id = id;
    this.proxyClass = proxyClass;
  }

  connect(): void {
    const { mesh } = this.#world;
    const session: AdsSession = new AdsSession({
      id: this.id,
      nowMs: () => this.#world.nowMs,
      send: (pieces) => {
        const response = parseResponse(Buffer.concat(pieces));
        this.inbox.push(response);
        this.received.push(response);
      },
      close: () => this.disconnect(),
      reject: (rejection, views) => mesh.reject(rejection, views),
      flush: () => mesh.flush(),
      offers: mesh.offersFor(() => session),
      reports: {
        sent() {},
        acknowledged() {},
        rejected() {},
        reached: (limit) => this.#world.reached.push(limit),
      },
    });
    this.session = session;
    session.viewsChanged(mesh.attach(session, this.proxyClass));
    const wanted = [...this.wantedClusters];
    this.#request("cluster", { initial: true, subscribe: wanted.length === 0 ? [] : ["*", ...wanted] });
    this.#request("listener", { initial: true });
    const endpoints = [...(this.held.get("cluster")?.keys() ?? [])];
    if (endpoints.length > 0) this.#request("endpoint", { initial: true, subscribe: endpoints });
    const routes = [...(this.held.get("listener")?.keys() ?? [])];
    if (routes.length > 0) this.#request("route", { initial: true, subscribe: routes });
    if (this.#discovers) this.#request("virtualHost", { initial: true });
    else if (this.#onDemand.size > 0)
      this.#request("virtualHost", { initial: true, subscribe: [...this.#onDemand] });
  }

  get onDemand(): ReadonlySet<string> {
    return this.#onDemand;
  }

  /** Clusters asked for by name: as Envoy does, once each. */
  readonly wantedClusters = new Set<string>();

  /** A request is on its way to a cluster that it does not hold. */
  callCluster(name: string): void {
    if (this.wantedClusters.has(name) || this.#heldOf("cluster").has(name)) return;
    this.wantedClusters.add(name);
    this.#request("cluster", { subscribe: [name] });
  }

  /** Asks for a virtual host, as Envoy does at the first request for it. */
  ask(name: string): void {
    if (this.#onDemand.has(name)) return;
    this.#onDemand.add(name);
    this.#request("virtualHost", { subscribe: [name] });
  }

  forget(name: string): void {
    if (!this.#onDemand.delete(name)) return;
    this.#heldOf("virtualHost").delete(name);
    this.#request("virtualHost", { unsubscribe: [name] });
  }

  /** Loses its control plane and finds another replica, with all that it holds. */
  moveTo(world: World): void {
    this.disconnect();
    this.#world.proxies.delete(this);
    this.#world = world;
    world.proxies.add(this);
    this.connect();
  }

  disconnect(): void {
    if (this.session !== undefined) this.#world.mesh.detach(this.session, this.proxyClass);
    this.session = undefined;
    this.inbox.length = 0;
  }

  answerAll(): number {
    let answered = 0;
    while (this.answerOne()) answered++;
    return answered;
  }

  /** Answers the oldest response: a rejection if anything in it is bad; the good ones in it are taken, as in CDS. */
  answerOne(): boolean {
    const response = this.inbox.shift();
    if (response === undefined) return false;
    if (response.type === "virtualHost" && this.#discovers) {
      this.#answerHosts(response);
      return true;
    }
    const bad = response.resources.filter((one) => one.bad && !this.lenient);
    for (const { version } of bad) this.badSeen.add(version);
    const held = this.#heldOf(response.type);
    const unsubscribe: string[] = [];
    const subscribe: string[] = [];
    const before = namingType[response.type];
    for (const { name, version } of response.resources.filter((one) => !bad.includes(one))) {
      // What it no longer wants it lets pass.
      if (before !== undefined && !this.#heldOf(before).has(name)) continue;
      if (!held.has(name)) subscribe.push(name);
      held.set(name, version);
    }
    for (const name of response.removed) if (held.delete(name)) unsubscribe.push(name);
    const rejection =
      bad.length === 0
        ? undefined
        : `not taken${this.namesCulprits ? `: ${bad.map(({ name }) => name).join(", ")}: bad` : ""}`;
    this.#request(response.type, { nonce: response.nonce, rejection });
    const behind = namedType[response.type];
    if (behind !== undefined && subscribe.length + unsubscribe.length > 0) {
      for (const name of unsubscribe) this.#heldOf(behind).delete(name);
      if (behind === "route") for (const name of unsubscribe) this.#dropHosts(name);
      this.#request(behind, { subscribe, unsubscribe });
    }
    if (response.type === "route") this.#tablesCame(subscribe);
    return true;
  }

  #tablesCame(tables: readonly string[]): void {
    for (const table of tables.filter(discoversHosts)) {
      this.warming.add(table);
      if (this.#discovers) continue;
      this.#discovers = true;
      this.#request("virtualHost", {});
    }
  }

  #dropHosts(table: string): void {
    this.warming.delete(table);
    const held = this.#heldOf("virtualHost");
    for (const name of held.keys()) if (partsOfDiscovered(name).table === table) held.delete(name);
  }

  /** All or nothing; what belongs to no table of its is dropped, and remembered as held. */
  #answerHosts({ nonce, resources, removed }: Response): void {
    const held = this.#heldOf("virtualHost");
    const bad = resources.filter((one) => one.bad && !this.lenient);
    for (const { version } of bad) this.badSeen.add(version);
    if (bad.length > 0) {
      const names = this.namesCulprits ? `: ${bad.map(({ name }) => name).join(", ")}: bad` : "";
      this.#request("virtualHost", { nonce, rejection: `not taken${names}` });
      return;
    }
    for (const { name, version } of resources) {
      const { table } = partsOfDiscovered(name);
      this.#claimedHosts.set(name, version);
      if (this.#heldOf("route").has(table)) held.set(name, version);
      else this.strayHosts.push(name);
      this.warming.delete(table);
    }
    for (const name of removed) {
      this.#claimedHosts.delete(name);
      held.delete(name);
      this.warming.delete(partsOfDiscovered(name).table);
    }
    this.#request("virtualHost", { nonce });
  }

  #heldOf(type: ResourceType): Map<string, string> {
    let held = this.held.get(type);
    if (held === undefined) this.held.set(type, (held = new Map()));
    return held;
  }

  #heldAsClaimed(type: ResourceType): Map<string, string> {
    return type === "virtualHost" && this.#discovers ? this.#claimedHosts : this.#heldOf(type);
  }

  #request(
    type: ResourceType,
    options: {
      initial?: boolean;
      subscribe?: string[];
      unsubscribe?: string[];
      nonce?: string;
      rejection?: string | undefined;
    },
  ): void {
    const request: DeltaRequest = {
      node: undefined,
      typeUrl: typeUrlOf(type),
      subscribe: options.subscribe ?? [],
      unsubscribe: options.unsubscribe ?? [],
      initialVersions: options.initial === true ? new Map(this.#heldAsClaimed(type)) : new Map(),
      responseNonce: options.nonce ?? "",
      rejection: options.rejection,
    };
    this.session?.receive(request, type);
  }
}

/** Parses a DeltaDiscoveryResponse; a resource whose bytes hold the word "bad" is bad. */
function parseResponse(bytes: Uint8Array): Response {
  const reader = protobuf.Reader.create(bytes);
  const resources: { name: string; version: string; bad: boolean }[] = [];
  const removed: string[] = [];
  let type: ResourceType | undefined;
  let nonce = "";
  while (reader.pos < reader.len) {
    const tag = reader.uint32();
    if (tag >>> 3 === 2) resources.push(parseResource(reader.bytes()));
    else if (tag >>> 3 === 4) type = resourceTypeOf(reader.string());
    else if (tag >>> 3 === 5) nonce = reader.string();
    else if (tag >>> 3 === 6) removed.push(reader.string());
    else reader.skipType(tag & 7);
  }
  if (type === undefined) throw new Error("a response without a type");
  return { type, nonce, resources, removed };
}

function parseResource(bytes: Uint8Array): { name: string; version: string; bad: boolean } {
  const reader = protobuf.Reader.create(bytes);
  const parsed = { name: "", version: "", bad: Buffer.from(bytes).includes("bad") };
  while (reader.pos < reader.len) {
    const tag = reader.uint32();
    if (tag >>> 3 === 1) parsed.version = reader.string();
    else if (tag >>> 3 === 3) parsed.name = reader.string();
    else reader.skipType(tag & 7);
  }
  return parsed;
}
