// What a mesh does for calls that fail, or that are too many: tries again elsewhere, puts out who fails, warms up who is new, and
// refuses what is above a limit. Counted where the calls arrive.

import assert from "node:assert/strict";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { parse, stringify } from "yaml";
import type { KubeObject } from "#objects";
import { echoIn, type EchoApp, type Order, type Result } from "./echoes.ts";
import { destinationRule, Ground, namespace, networking, serviceEntry, virtualService } from "./ground.ts";
import { configText, curl, eventually, patchConfig, pause } from "./mesh.ts";

const ports = [{ name: "http", servicePort: 80, workloadPort: 8080, flag: "http" }] as const;
const apps: readonly EchoApp[] = [
  { name: "caller", namespace, ports },
  { name: "pair-v1", service: "pair", version: "v1", namespace, ports },
  { name: "pair-v2", service: "pair", version: "v2", namespace, ports },
  { name: "stranger", namespace: "outside", ports, naked: true },
];
let ground: Ground;

before(async () => {
  ground = await Ground.start({ name: "resilience-e2e", port: 18_840, apps, otherNamespaces: ["outside"] });
});
after(() => ground?.down());

/** Where the faulty server listens, each time as another host. */
const faultyPorts = [7001, 7002, 7003, 7004];
/** Nobody listens there. */
const deadPort = 7009;
const faultyHost = "faulty.example.com";
const faultyAddress = "240.78.0.9";

/** The faulty server as a service of so many hosts. */
function faultyEntry(hosts: readonly number[], host = faultyHost, address = faultyAddress): KubeObject {
  return serviceEntry(host, {
    addresses: [address],
    resolution: "STATIC",
    ports: [{ name: "http2", protocol: "HTTP2", number: 9700 }],
    endpoints: hosts.map((port) => ({ address: ground.addressOf("stranger"), ports: { http2: port } })),
  });
}

/** Does something while the faulty server runs; `tried` makes calls and says on which ports requests arrived for them, in order. */
async function withFaulty(
  work: (
    tried: (
      path: string,
      count: number,
      more?: Partial<Order>,
    ) => Promise<{ results: readonly Result[]; at: string[] }>,
    lines: string[],
  ) => Promise<unknown>,
): Promise<void> {
  const program = join(import.meta.dirname, "faulty-server.ts");
  const args = [program, faultyPorts.join(",")];
  await ground.running({ app: "stranger", of: "outside", args }, (lines) =>
    work(async (path, count, more) => {
      lines.length = 0;
      const url = `http://${faultyAddress}:9700${path}`;
      const results = await ground.calls({ url, count, http2: true, ...more });
      return { results, at: await arrived(lines, path) };
    }, lines),
  );
}

let marks = 0;
/** The ports on which requests for a path have arrived by now: those that a last request, straight to the server, comes after. */
async function arrived(lines: readonly string[], path: string): Promise<string[]> {
  const mark = `/mark/${marks++}`;
  const url = `http://${ground.addressOf("stranger")}:${faultyPorts[0]}${mark}`;
  const asked = await ground.mesh.inNode(["curl", "-sS", "--http2-prior-knowledge", url]);
  assert.equal(asked.code, 0, asked.stderr);
  await eventually(
    "the server's own word",
    async () => lines.some((line) => line.endsWith(mark)) || undefined,
  );
  return lines.flatMap((line) => (line.endsWith(` ${path}`) ? [line.split(" ")[0] ?? ""] : []));
}

const toFaulty = [{ destination: { host: faultyHost } }];

test("without a word about retries a call that no one took is tried twice more elsewhere, and one that failed there is not", async () => {
  const rule = virtualService(faultyHost, [{ route: toFaulty }]);
  await withFaulty(async (tried) => {
    for (const objects of [[faultyEntry([7001, 7002])], [faultyEntry([7001, 7002]), rule]])
      await ground.applied(objects, async () => {
        await eventually("the service is there", async () => {
          const { results } = await tried("/none", 1);
          return results[0]?.status === 200 ? true : undefined;
        });
        for (const wish of ["refused", "unavailable", "cancelled"]) {
          const { results, at } = await tried(`/7001/${wish}`, 40);
          // Where others are looked for in vain five times, the same host is taken again; twice in a row, hardly ever.
          const failed = results.filter(({ status, headers }) => status !== 200 || headers["grpc-status"]);
          assert.ok(failed.length <= 1, `${wish} at ${at.join(" ")}`);
          assert.equal(at.filter((port) => port === "7002").length, 40 - failed.length, wish);
          const first = at.filter((port) => port === "7001").length;
          assert.ok(first > 5, `${first} of 40 are ${wish} first`);
          const stayed = at.filter((port, index) => port === "7001" && at[index + 1] === "7001").length;
          assert.ok(stayed <= 3, `${stayed} tries after ${wish} went to the same host`);
        }
        for (const wish of ["503", "500", "reset"]) {
          const { results, at } = await tried(`/7001/${wish}`, 20);
          assert.equal(at.length, 20, `${wish} is not tried again`);
          assert.ok(
            results.some(({ status }) => status !== 200),
            wish,
          );
        }
      });
    await ground.applied([faultyEntry(faultyPorts)], async () => {
      await eventually("three tries", async () => {
        const { results, at } = await tried("/all/refused", 1);
        assert.deepEqual([results[0]?.status, at.length], [503, 3]);
        return true;
      });
    });
    await ground.applied([faultyEntry([7001, deadPort])], () =>
      eventually("who does not listen is gone around", async () => {
        const { results } = await tried("/none", 30);
        assert.deepEqual(new Set(results.map(({ status }) => status)), new Set([200]));
        return true;
      }),
    );
  });
});

test("retries of none, of the route's own and of MeshConfig are as many as they say", async () => {
  const off = virtualService(faultyHost, [{ route: toFaulty, retries: { attempts: 0 } }]);
  const own = virtualService(faultyHost, [{ route: toFaulty, retries: { attempts: 1, retryOn: "503" } }]);
  const becomes = (
    tried: (path: string, count: number) => Promise<{ at: string[] }>,
    path: string,
    tries: number,
  ) =>
    eventually(`${tries} tries`, async () => {
      assert.equal((await tried(path, 3)).at.length, 3 * tries);
      return true;
    });
  await withFaulty(async (tried) => {
    await ground.applied([faultyEntry(faultyPorts), off], async () => {
      await becomes(tried, "/all/refused", 1);
      assert.equal((await tried("/all/refused", 20)).at.length, 20);
    });
    const written = parse(await configText(ground.mesh, "istio", "mesh")) as object;
    const defaultHttpRetryPolicy = { attempts: 4, retryOn: "503", backoff: "1ms" };
    await patchConfig(ground.mesh, "istio", { mesh: stringify({ ...written, defaultHttpRetryPolicy }) });
    try {
      await ground.applied([faultyEntry(faultyPorts)], () => becomes(tried, "/all/503", 5));
      await ground.applied([faultyEntry(faultyPorts), own], () => becomes(tried, "/all/503", 2));
      await ground.applied([faultyEntry(faultyPorts), off], () => becomes(tried, "/all/503", 1));
    } finally {
      await patchConfig(ground.mesh, "istio", { mesh: stringify(written) });
    }
    await ground.applied([faultyEntry(faultyPorts)], () => becomes(tried, "/all/503", 1));
  });
});

test("a gateway tries as often, where its route says nothing", async () => {
  const hosts = [faultyHost];
  const servers = [{ port: { number: 80, name: "http", protocol: "HTTP" }, hosts }];
  const gateway = networking("Gateway", "faulty", { selector: { istio: "ingressgateway" }, servers });
  const bound = networking("VirtualService", "bound", {
    hosts,
    gateways: ["faulty"],
    http: [{ route: toFaulty }],
  });
  await withFaulty((_, lines) =>
    ground.applied([faultyEntry(faultyPorts), gateway, bound], () =>
      eventually("three tries", async () => {
        lines.length = 0;
        const got = await curl(["-H", `Host: ${faultyHost}`, `${ground.mesh.gatewayUrl}/all/refused`]);
        assert.deepEqual([got.status, (await arrived(lines, "/all/refused")).length], [503, 3]);
        return true;
      }),
    ),
  );
});

test("a host that is new gets its share little by little, as fast as the rule says", async () => {
  const names = ["linear", "eager", "whole"] as const;
  const warmups = {
    linear: { duration: "60s", minimumPercent: 1 },
    eager: { duration: "60s", minimumPercent: 1, aggression: 8 },
    whole: { duration: "60s", minimumPercent: 100 },
  };
  const hostOf = (name: string) => `${name}.example.com`;
  const addressOf = (name: (typeof names)[number]) => `240.78.1.${names.indexOf(name) + 1}`;
  const entries = (hosts: readonly number[]) =>
    names.map((name) => faultyEntry(hosts, hostOf(name), addressOf(name)));
  const rules = names.map((name) =>
    destinationRule(hostOf(name), { loadBalancer: { simple: "ROUND_ROBIN", warmup: warmups[name] } }),
  );
  const rounds = 40;
  await withFaulty(async (_, lines) => {
    /** Of so many calls, the share that the new host got. */
    const shareOf = async (name: (typeof names)[number]): Promise<number> => {
      lines.length = 0;
      const url = `http://${addressOf(name)}:9700/${name}`;
      const results = await ground.calls({ url, http2: true, count: rounds });
      assert.ok(
        results.every(({ status }) => status === 200),
        JSON.stringify(results[0]),
      );
      return (await arrived(lines, `/${name}`)).filter((port) => port === "7002").length / rounds;
    };
    await ground.applied([...entries([7001]), ...rules], async () => {
      for (const name of names)
        await eventually(name, async () => ((await shareOf(name)) === 0 ? true : undefined));
      // A host's weight grows with its age: this is how much older the first one is.
      await pause(6_000);
      await ground.applied(entries([7001, 7002]), async () => {
        await eventually("the new host", async () =>
          (await ground.admin("caller", "/clusters")).split(`:7002::health_flags`).length > names.length
            ? true
            : undefined,
        );
        const [linear, eager, whole] = [
          await shareOf("linear"),
          await shareOf("eager"),
          await shareOf("whole"),
        ];
        const shown = JSON.stringify({ linear, eager, whole });
        assert.ok(linear < 0.3 && eager > 0.3 && whole > 0.4 && whole < 0.6 && linear < eager, shown);
        await eventually("its share grows", async () =>
          (await shareOf("linear")) >= 0.3 ? true : undefined,
        );
      });
    });
  });
});

test("limits of a rule refuse what is above them: requests, connections, waiting ones and retries at once", async () => {
  const many: Order = { url: "http://pair/?delay=300", count: 12, concurrency: 12 };
  for (const connectionPool of [
    { http: { http2MaxRequests: 1 } },
    { tcp: { maxConnections: 1 }, http: { http1MaxPendingRequests: 1 } },
  ])
    await ground.applied([destinationRule("pair", { connectionPool })], () =>
      eventually(JSON.stringify(connectionPool), async () => {
        const results = await ground.calls(many);
        assert.deepEqual(new Set(results.map(({ status }) => status)), new Set([200, 503]));
        const refused = results.filter(({ status }) => status === 503);
        assert.ok(refused.every(({ headers }) => headers["x-envoy-overloaded"] === "true"));
        return true;
      }),
    );
  const retries = { attempts: 4, retryOn: "503", backoff: "50ms" };
  const rule = virtualService(faultyHost, [{ route: toFaulty, retries }]);
  const objects = [faultyEntry(faultyPorts), rule];
  await withFaulty(async (tried) => {
    const becomes = (what: string, least: number, most: number) =>
      eventually(`${what}: ${least} to ${most} tries of 10 calls`, async () => {
        const { at } = await tried("/all/503", 10, { concurrency: 10 });
        assert.ok(at.length >= least && at.length <= most, `${at.length}`);
        return true;
      });
    await ground.applied(objects, async () => {
      await becomes("without a limit", 50, 50);
      const limits = { connectionPool: { http: { maxRetries: 1 } } };
      await ground.applied([destinationRule(faultyHost, limits)], () => becomes("maxRetries", 11, 30));
      const retryBudget = { percent: 10, minRetryConcurrency: 2, budgetInterval: "10s" };
      await ground.applied([destinationRule(faultyHost, { retryBudget })], () => becomes("budget", 12, 40));
    });
  });
});

const failing = "http://pair/?status=503&version=v1";

test("a failed try is made again elsewhere, as often as the route says and the budget allows", async () => {
  const route = [{ destination: { host: "pair" } }];
  const tried = (attempts: number) =>
    virtualService("pair", [{ route, retries: { attempts, ...(attempts > 0 && { retryOn: "5xx" }) } }]);
  await ground.applied([tried(0)], () =>
    ground.eventuallyOf(failing, 20, (results) => {
      const failed = results.filter(({ status }) => status === 503).length;
      assert.ok(failed > 2 && failed < 18, `${failed} of 20 fail without retries`);
    }),
  );
  await ground.applied([tried(4)], () =>
    ground.eventuallyOf(failing, 20, (results) => {
      assert.deepEqual(new Set(results.map(({ status }) => status)), new Set([200]));
      const attempts = results.map((result) => echoIn(result)?.headers["x-envoy-attempt-count"]);
      assert.ok(attempts.includes("2"), attempts.join());
    }),
  );
  const nothing = { retryBudget: { percent: 0, minRetryConcurrency: 0 } };
  await ground.applied([tried(4), destinationRule("pair", nothing)], () =>
    ground.eventuallyOf(failing, 20, (results) =>
      assert.ok(
        results.some(({ status }) => status === 503),
        "a budget of nothing allows no retry",
      ),
    ),
  );
});

test("a workload that fails is ejected, the other has all requests, and after a while it is back", async () => {
  const often = { interval: "1s", baseEjectionTime: "3s", maxEjectionPercent: 100 };
  const once = virtualService("pair", [
    { route: [{ destination: { host: "pair" } }], retries: { attempts: 0 } },
  ]);
  const versions = (results: readonly Result[]) =>
    new Set(results.map(({ headers }) => headers["x-echo-version"]));
  const rule = (errors: object) => destinationRule("pair", { outlierDetection: { ...often, ...errors } });
  await ground.applied([once, rule({ consecutive5xxErrors: 2 })], async () => {
    await ground.eventuallyOf(failing, 20, (results) => assert.deepEqual(versions(results), new Set(["v2"])));
    await ground.eventuallyOf("http://pair/", 20, (results) =>
      assert.deepEqual(versions(results), new Set(["v1", "v2"])),
    );
  });
  // Only what a gateway says counts where the rule says so.
  await ground.applied([once, rule({ consecutive5xxErrors: 0, consecutiveGatewayErrors: 2 })], async () => {
    const gateway = "http://pair/?status=502&version=v1";
    await ground.eventuallyOf(gateway, 20, (results) => assert.deepEqual(versions(results), new Set(["v2"])));
    await ground.eventuallyOf("http://pair/?status=500&version=v1", 20, (results) =>
      assert.deepEqual(versions(results), new Set(["v1", "v2"])),
    );
    const own = await ground.calls({ url: "http://pair/?status=500&version=v1", count: 20 });
    assert.deepEqual(versions(own), new Set(["v1", "v2"]), "the server's own errors do not");
  });
});

test("a host to which no connection comes about is ejected, and what it answers does not count against it", async () => {
  const outlierDetection = {
    splitExternalLocalOriginErrors: true,
    consecutiveLocalOriginFailures: 2,
    consecutive5xxErrors: 0,
    interval: "1s",
    baseEjectionTime: "60s",
    maxEjectionPercent: 100,
  };
  const once = virtualService(faultyHost, [{ route: toFaulty, retries: { attempts: 0 } }]);
  const rule = destinationRule(faultyHost, { outlierDetection });
  await withFaulty((tried) =>
    ground.applied([faultyEntry([7001, 7002, deadPort]), once, rule], async () => {
      const statuses = async (path: string) =>
        new Set((await tried(path, 30)).results.map(({ status }) => status));
      await eventually("the dead host is out", async () => {
        assert.deepEqual(await statuses("/none"), new Set([200]));
        return true;
      });
      for (let round = 0; round < 2; round++)
        assert.deepEqual(await statuses("/7001/500"), new Set([200, 500]), "who answers stays");
    }),
  );
});

test("a request that takes longer than the route allows gets 504", async () => {
  const slow = virtualService("pair", [{ route: [{ destination: { host: "pair" } }], timeout: "0.2s" }]);
  await ground.applied([slow], () =>
    ground.answered({ url: "http://pair/?delay=2000" }, (result) => {
      assert.equal(result.status, 504, JSON.stringify(result));
      assert.ok(result.durationMs < 1_500, `${result.durationMs} ms`);
    }),
  );
});
