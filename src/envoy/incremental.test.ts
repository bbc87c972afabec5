import assert from "node:assert/strict";
import { test } from "node:test";
import { Engine } from "#engine";
import type { KubeObject } from "#objects";
import { objectChange, removalChange, worldChanges, type ProxyClass } from "#model";
import { planOf, viewsOf, viewText, keyText, type ResourceType, type View } from "#plan";
import type { EnvoyResource } from "./resource.ts";
import { resourceOf } from "./resources.ts";
import { proxyClasses, randomObject, seeded } from "./random-world.ts";
import { snapshotOf } from "./snapshot.ts";

const changesTotal = 100_000;
/** The first changes come in small bursts, the rest in larger ones: what costs time is settling, about 10 ms. */
const smallBurstsUntil = 4_000;
/** A world from scratch costs some ten milliseconds, so not every change is compared. */
const compareEvery = (step: number): number => (step <= smallBurstsUntil ? 200 : 2_000);

test(`${changesTotal} random changes: what is computed step by step is what is computed at once, byte for byte`, () => {
  const random = seeded(20_260_101);
  const engine = new Engine();
  engine.apply(worldChanges([]));
  const proxies = proxyClasses();
  const watcher = new Watcher(engine, proxies);
  const world = new Map<string, KubeObject>();
  for (let step = 1; step <= changesTotal; step++) {
    const object = randomObject(random);
    const key = `${object.kind} ${object.metadata.namespace}/${object.metadata.name}`;
    if (random(4) === 0) {
      world.delete(key);
      engine.apply(removalChange(object));
    } else {
      world.set(key, object);
      engine.apply(objectChange(object));
    }
    // Changes come one by one and in bursts.
    const compares = step % compareEvery(step) === 0;
    if (compares || random(step <= smallBurstsUntil ? 8 : 150) === 0) watcher.settle();
    if (compares) compare(watcher, [...world.values()], proxies, step);
  }
});

test("the order of objects changes no byte", () => {
  const random = seeded(7);
  const byKey = new Map<string, KubeObject>();
  for (let at = 0; at < 120; at++) {
    const object = randomObject(random);
    byKey.set(`${object.kind} ${object.metadata.namespace}/${object.metadata.name}`, object);
  }
  const objects = [...byKey.values()];
  const proxies = proxyClasses();
  const first = versionsOf(objects, proxies);
  for (let round = 0; round < 5; round++) {
    const shuffled = objects
      .map((object) => ({ object, at: random(1_000_000) }))
      .toSorted((a, b) => a.at - b.at)
      .map(({ object }) => object);
    assert.deepEqual(versionsOf(shuffled, proxies), first);
  }
});

function compare(
  watcher: Watcher,
  objects: readonly KubeObject[],
  proxies: readonly ProxyClass[],
  step: number,
): void {
  const expected = versionsOf(objects, proxies);
  const actual = proxies.map((proxy) => watcher.versions(proxy));
  assert.deepEqual(actual, expected, `after change ${step}`);
}

/** For each proxy: type and name to the version, which is a hash of the bytes. */
function versionsOf(
  objects: readonly KubeObject[],
  proxies: readonly ProxyClass[],
): Readonly<Record<string, string>>[] {
  const engine = new Engine();
  engine.apply(worldChanges(objects));
  const worlds = proxies.map((proxy) => {
    const snapshot = snapshotOf(engine, proxy);
    const all = Object.values(snapshot).flat();
    return sorted(all.map(({ type, name, version }) => [`${type} ${name}`, version]));
  });
  assert.deepEqual(engine.settle().failures, []);
  return worlds;
}

/** Follows views, plans and resources as the xDS server does: watches what is planned, and nothing else. */
class Watcher {
  readonly #engine: Engine;
  readonly #views = new Map<string, View>();
  readonly #keys = new Map<string, { type: ResourceType; key: unknown }>();
  readonly #proxies: readonly ProxyClass[];

  constructor(engine: Engine, proxies: readonly ProxyClass[]) {
    this.#engine = engine;
    this.#proxies = proxies;
    for (const proxy of proxies) engine.watch(viewsOf, proxy);
    this.#follow();
  }

  settle(): void {
    const { changed, failures } = this.#engine.settle();
    assert.deepEqual(failures, []);
    const plans = changed.some(({ query }) => query.name === viewsOf.name || query.name === planOf.name);
    if (plans) this.#follow();
  }

  /** Watches what is wanted now, and lets go of the rest. */
  #follow(): void {
    const views = this.#proxies.flatMap((proxy) => this.#engine.get(viewsOf, proxy));
    const wantedViews = new Map(views.map((view) => [viewText(view), view]));
    for (const [text, view] of wantedViews) {
      if (!this.#views.has(text)) this.#engine.watch(planOf, view);
    }
    for (const [text, view] of this.#views) {
      if (!wantedViews.has(text)) this.#engine.unwatch(planOf, view);
    }
    this.#views.clear();
    for (const [text, view] of wantedViews) this.#views.set(text, view);
    const wanted = new Map<string, { type: ResourceType; key: unknown }>();
    for (const view of wantedViews.values()) {
      for (const [name, chunks] of Object.entries(this.#engine.get(planOf, view))) {
        const type = name as ResourceType;
        for (const { key } of chunks.flatMap(({ entries }) => entries))
          wanted.set(keyText(type, key), { type, key });
      }
    }
    for (const [text, { type, key }] of wanted) {
      if (!this.#keys.has(text)) this.#engine.watch(resourceOf[type], key as never);
    }
    for (const [text, { type, key }] of this.#keys) {
      if (!wanted.has(text)) this.#engine.unwatch(resourceOf[type], key as never);
    }
    this.#keys.clear();
    for (const [text, entry] of wanted) this.#keys.set(text, entry);
  }

  versions(proxy: ProxyClass): Readonly<Record<string, string>> {
    const found = new Map<string, string>();
    for (const view of this.#engine.get(viewsOf, proxy)) {
      for (const [name, chunks] of Object.entries(this.#engine.get(planOf, view))) {
        const type = name as ResourceType;
        for (const { key } of chunks.flatMap(({ entries }) => entries)) {
          const built: EnvoyResource | undefined = this.#engine.get(resourceOf[type], key as never);
          const text = built === undefined ? "" : `${type} ${built.name}`;
          if (built !== undefined && !found.has(text)) found.set(text, built.version);
        }
      }
    }
    return sorted([...found]);
  }
}

function sorted(entries: readonly (readonly [string, string])[]): Readonly<Record<string, string>> {
  return Object.fromEntries(entries.toSorted(([a], [b]) => (a < b ? -1 : 1)));
}
