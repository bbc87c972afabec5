import assert from "node:assert/strict";
import { test } from "node:test";
import type { ResourceType } from "#plan";
import { canaryWaitMs } from "./limits.ts";
import { rowTable, translation, World, type FakeProxy, type Row } from "./testing.ts";

const types = ["cluster", "endpoint", "listener", "route", "virtualHost"] as const;

/** A small generator (mulberry32), so that a failing seed fails again. */
function random(seed: number): (below: number) => number {
  let state = seed;
  return (below) => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return Math.floor((((mixed ^ (mixed >>> 14)) >>> 0) / 4_294_967_296) * below);
  };
}

/** Replicas of one control plane. Each hears of every change, in the order in which they happened, but at its own time. */
class Replicas {
  readonly worlds = [new World(), new World(), new World()] as const;
  readonly #behind: (() => void)[][] = this.worlds.map(() => []);

  put(row: Row): void {
    this.worlds.forEach((world, at) => this.#behind[at]!.push(() => world.put(row)));
  }

  drop(row: Omit<Row, "text">): void {
    this.worlds.forEach((world, at) => this.#behind[at]!.push(() => world.drop(row)));
  }

  /** One replica catches up with so many changes. */
  hear(at: number, changes: number): void {
    for (const change of this.#behind[at]!.splice(0, changes)) change();
  }

  hearAll(): void {
    this.worlds.forEach((_world, at) => this.hear(at, Infinity));
  }

  pass(ms: number): void {
    for (const world of this.worlds) world.pass(ms);
  }

  settle(): void {
    for (const world of this.worlds) world.settle();
  }
}

function step(replicas: Replicas, proxies: readonly FakeProxy[], below: (limit: number) => number): void {
  const view = `v${below(3)}`;
  const type: ResourceType = types[below(types.length)] ?? "cluster";
  const name = `${view}n${below(6)}`;
  const proxy = proxies[below(proxies.length)]!;
  const dice = below(100);
  if (dice < 18) replicas.put({ view, type, name, text: `t${below(4)}` });
  else if (dice < 22) replicas.put({ view, type, name, text: "bad" });
  else if (dice < 30) replicas.drop({ view, type, name });
  else if (dice < 45) replicas.hear(below(3), 1 + below(3));
  else if (dice < 48) proxy.disconnect();
  else if (dice < 56) {
    if (proxy.session === undefined) proxy.connect();
  } else if (dice < 58) proxy.moveTo(replicas.worlds[below(3)]!);
  else if (dice < 61) proxy.ask(name);
  else if (dice < 63) proxy.forget(name);
  else if (dice < 66) replicas.pass(below(3) * canaryWaitMs);
  else proxy.answerOne();
}

/** What a proxy must hold in the end, from the tables alone; undefined where the only version is a rejected one. */
function expected(world: World, proxy: FakeProxy, type: ResourceType): Map<string, string | undefined> {
  const wanted = new Map<string, string | undefined>();
  for (const row of world.engine.rows(rowTable).values()) {
    if (row.type !== type || !proxy.proxyClass.split("+").includes(row.view)) continue;
    const resource = world.engine.get(
      translation.resourceOf[type],
      `${row.view}/${type}/${row.name}` as never,
    );
    wanted.set(row.name, row.text === "bad" ? undefined : resource?.version);
  }
  return wanted;
}

function assertConverged(world: World, proxies: readonly FakeProxy[], seed: number): void {
  for (const proxy of proxies) {
    for (const type of ["cluster", "listener"] as const) {
      const held = proxy.held.get(type) ?? new Map<string, string>();
      const wanted = expected(world, proxy, type);
      for (const [name, version] of wanted) {
        if (version !== undefined)
          assert.equal(held.get(name), version, `seed ${seed}: ${proxy.id} ${type} ${name}`);
      }
      const unsettled = (["listener", "route", "virtualHost"] as const).some((naming) =>
        [...expected(world, proxy, naming).values()].includes(undefined),
      );
      // What a rejected listener or route stands in for may keep clusters.
      for (const name of held.keys())
        assert.ok(
          wanted.has(name) || (type === "cluster" && unsettled),
          `seed ${seed}: ${proxy.id} ${type} ${name}`,
        );
    }
    for (const [behind, before] of [
      ["endpoint", "cluster"],
      ["route", "listener"],
    ] as const) {
      for (const [name, version] of expected(world, proxy, behind)) {
        if (version === undefined || proxy.held.get(before)?.has(name) !== true) continue;
        assert.equal(
          proxy.held.get(behind)?.get(name),
          version,
          `seed ${seed}: ${proxy.id} ${behind} ${name}`,
        );
      }
    }
    const hasRejectedListener = [...expected(world, proxy, "listener").values()].includes(undefined);
    const hosts = expected(world, proxy, "virtualHost");
    for (const name of proxy.onDemand) {
      const version = hosts.get(name);
      // A rejected one may be held in any good version, and while a listener is rejected what it names stays.
      if (version === undefined && (hosts.has(name) || hasRejectedListener)) continue;
      assert.equal(
        proxy.held.get("virtualHost")?.get(name),
        version,
        `seed ${seed}: ${proxy.id} virtualHost ${name}`,
      );
    }
  }
}

const seeds = 200;
const stepsPerSeed = 500;

test(`${seeds * stepsPerSeed} steps of changes, verdicts, silences, reconnects, replica switches and subscriptions: every proxy comes to the from-scratch answer`, () => {
  for (let seed = 1; seed <= seeds; seed++) {
    const below = random(seed);
    const replicas = new Replicas();
    const classes = ["v0", "v0", "v0+v1", "v1+v2", "v2", "v2"];
    const proxies = classes.map((proxyClass, at) => replicas.worlds[at % 3]!.connect(`p${at}`, proxyClass));
    proxies[1]!.namesCulprits = false;
    proxies[3]!.namesCulprits = false;
    for (let count = 0; count < stepsPerSeed; count++) step(replicas, proxies, below);
    replicas.hearAll();
    for (const proxy of proxies) if (proxy.session === undefined) proxy.connect();
    for (let round = 0; round < 10; round++) {
      replicas.settle();
      replicas.pass(canaryWaitMs);
    }
    replicas.settle();
    assertConverged(replicas.worlds[0], proxies, seed);
  }
});
