import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { canaryWaitMs, newcomerWaitMs, rejectedRetryMs } from "./limits.ts";
import { isProvisional } from "./table-hosts.ts";
import { rowTable, translation, World, type FakeProxy, type Row } from "./testing.ts";

const row = (type: Row["type"], name: string, text = "t"): Row => ({ view: "v", type, name, text });
const table = (name: string): Row[] => [row("listener", name), row("route", name)];

/** A world with a table and two virtual hosts, and proxies that have all of it. */
function started(proxies: number): { world: World; all: FakeProxy[] } {
  const world = new World();
  world.put(...table("80"), row("virtualHost", "80/a", "a1"), row("virtualHost", "80/b", "b1"));
  const all = Array.from({ length: proxies }, (_, at) => world.connect(`p${at}`, "v"));
  world.settle();
  return { world, all };
}

const hostsOf = (proxy: FakeProxy): string[] => [...(proxy.held.get("virtualHost")?.keys() ?? [])].toSorted();

describe("virtual hosts of tables", () => {
  test("a table comes first, then all its virtual hosts in one response", () => {
    const { all } = started(2);
    for (const proxy of all) {
      assert.deepEqual(hostsOf(proxy), ["80/a", "80/b"]);
      assert.deepEqual(
        proxy.received.filter(({ type }) => type === "virtualHost").map(({ resources }) => resources.length),
        [2],
      );
    }
  });

  test("a changed virtual host comes alone, to the canary first", () => {
    const { world, all } = started(2);
    for (const proxy of all) proxy.received.length = 0;
    world.put(row("virtualHost", "80/a", "a2"));
    assert.deepEqual(
      all.map(({ received }) => received.length),
      [1, 0],
    );
    world.settle();
    for (const { received } of all) {
      assert.deepEqual(
        received.map(({ type, resources }) => [type, resources.map(({ name }) => name)]),
        [["virtualHost", ["80/a"]]],
      );
    }
  });

  test("a table that appears later gets its virtual hosts without asking; one without any gets word of that", () => {
    const { world, all } = started(3);
    world.put(...table("81"), row("virtualHost", "81/c"), ...table("82"));
    world.settle();
    for (const proxy of all) {
      assert.deepEqual(hostsOf(proxy), ["80/a", "80/b", "81/c"]);
      assert.deepEqual([...proxy.warming], []);
      assert.deepEqual(proxy.strayHosts, [], "none came before its table");
    }
  });

  test("a table that goes and comes again gets all its virtual hosts again, whatever Envoy says it holds", () => {
    const { world, all } = started(1);
    const hosts = [row("virtualHost", "80/a", "a1"), row("virtualHost", "80/b", "b1")];
    world.drop(...table("80"), ...hosts);
    world.settle();
    world.put(...table("80"), ...hosts);
    all[0]?.disconnect();
    all[0]?.connect();
    world.settle();
    assert.deepEqual(hostsOf(all[0]!), ["80/a", "80/b"]);
    assert.deepEqual([...all[0]!.warming], []);
  });

  test("after a reconnect only what differs is sent", () => {
    const { world, all } = started(1);
    const [proxy] = all as [FakeProxy];
    proxy.disconnect();
    world.put(row("virtualHost", "80/b", "b2"));
    proxy.received.length = 0;
    proxy.connect();
    world.settle();
    assert.deepEqual(
      proxy.received.flatMap(({ resources }) => resources.map(({ name }) => name)),
      ["80/b"],
    );
  });

  test("one bad virtual host among good ones reaches one proxy, and the good ones reach all", () => {
    const { world, all } = started(4);
    for (const proxy of all) proxy.namesCulprits = false;
    const good = ["c", "d", "e", "f"].map((name) => row("virtualHost", `80/${name}`));
    world.put(...good, row("virtualHost", "80/a", "bad"));
    world.settle();
    for (const proxy of all) {
      assert.deepEqual(hostsOf(proxy), ["80/a", "80/b", "80/c", "80/d", "80/e", "80/f"]);
    }
    assert.equal(all.filter(({ badSeen }) => badSeen.size > 0).length, 1);
    assert.deepEqual(
      world.rejections.map(({ name }) => name),
      ["80/a"],
    );
  });

  test("under random changes, verdicts, reconnects and switches every table comes to hold what is wanted", () => {
    for (let seed = 1; seed <= 1_000; seed++) simulate(seed);
  });
});

function simulate(seed: number): void {
  const below = seeded(seed);
  const worlds = [new World(), new World()] as const;
  const proxies = [0, 1, 2].map((at) => worlds[at % 2]!.connect(`p${at}`, "v"));
  const both = (act: (world: World) => void): void => worlds.forEach(act);
  // A sidecar always has clusters, and a mesh with virtual hosts of its own tables has some at any time.
  both((world) => world.put(row("cluster", "c"), ...table("79"), row("virtualHost", "79/d")));
  for (let step = 0; step < 150; step++) {
    const name = String(80 + below(3));
    const host = `${name}/${"abc"[below(3)]}`;
    const proxy = proxies[below(3)]!;
    const dice = below(100);
    if (dice < 10) both((world) => world.put(...table(name)));
    else if (dice < 14) both((world) => world.drop(...table(name)));
    else if (dice < 30) {
      const text = below(8) === 0 ? "bad" : `t${below(3)}`;
      both((world) => world.put(row("virtualHost", host, text)));
    } else if (dice < 38) both((world) => world.drop(row("virtualHost", host)));
    else if (dice < 41) proxy.disconnect();
    else if (dice < 47) {
      if (proxy.session === undefined) proxy.connect();
    } else if (dice < 49) proxy.moveTo(worlds[below(2)]!);
    else if (dice < 52) both((world) => world.pass(below(3) * canaryWaitMs));
    else proxy.answerOne();
  }
  for (const proxy of proxies) if (proxy.session === undefined) proxy.connect();
  for (const waitMs of [newcomerWaitMs, canaryWaitMs * 4, rejectedRetryMs + 1, canaryWaitMs * 4]) {
    both((world) => world.settle());
    both((world) => world.pass(waitMs));
  }
  both((world) => world.settle());
  for (const proxy of proxies) assertHolds(worlds[0], proxy, seed);
}

function assertHolds(world: World, proxy: FakeProxy, seed: number): void {
  const at = `seed ${seed}: ${proxy.id}`;
  assert.deepEqual([...proxy.warming], [], `${at} has listeners that wait`);
  const tables = proxy.held.get("route") ?? new Map<string, string>();
  for (const version of tables.values())
    assert.ok(!isProvisional(version), `${at} holds a table provisionally`);
  const held = proxy.held.get("virtualHost") ?? new Map<string, string>();
  const wanted = new Set<string>();
  for (const { type, name, text } of world.engine.rows(rowTable).values()) {
    if (type !== "virtualHost" || !tables.has(name.split("/")[0] ?? "")) continue;
    wanted.add(name);
    const version = world.engine.get(
      translation.resourceOf.virtualHost,
      `v/${type}/${name}` as never,
    )?.version;
    if (text !== "bad") assert.equal(held.get(name), version, `${at} ${name}`);
  }
  for (const name of held.keys()) assert.ok(wanted.has(name), `${at} holds ${name}, which is gone`);
}

/** A small generator (mulberry32), so that a failing seed fails again. */
function seeded(seed: number): (limit: number) => number {
  let state = seed;
  return (limit) => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return Math.floor((((mixed ^ (mixed >>> 14)) >>> 0) / 4_294_967_296) * limit);
  };
}
