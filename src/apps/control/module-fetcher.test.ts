import assert from "node:assert/strict";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { after, before, describe, test } from "node:test";
import { gzipSync } from "node:zlib";
import { silentLog, type Clock, type Logger } from "#base";
import { Engine } from "#engine";
import { fetchedModules, objectChange, objectProblemsOf, removalChange, type FetchedModule } from "#model";
import type { KubeObject, WasmPluginSpec } from "#objects";
import {
  archiveLayer,
  dockerLayer,
  dockerManifest,
  moduleLayer,
  ociIndex,
  pullSecret,
  sha256Of,
  TestRegistry,
} from "../../../test/support/registry.ts";
import { RealClock, until } from "../../../test/support/real-clock.ts";
import { wasmModule } from "../../../test/support/wasm.ts";
import { controlPlaneLimits } from "./limits.ts";
import { ModuleFetcher, type ModuleFetcherOptions } from "./module-fetcher.ts";
import type { PullSecret } from "./pull-secret.ts";

const clock = new RealClock();

const module = wasmModule("x-a", "1");
const other = wasmModule("x-b", "2");

function plugin(
  name: string,
  spec: Partial<WasmPluginSpec>,
  namespace = "default",
  generation = 1,
): KubeObject {
  return {
    apiVersion: "extensions.istio.io/v1alpha1",
    kind: "WasmPlugin",
    metadata: { name, namespace, generation },
    spec: { ...spec },
  };
}

/** A mesh of plugins, and a fetcher that is told of each change. */
class World {
  readonly engine = new Engine();
  readonly modules: ModuleFetcher;
  readonly reached: string[] = [];

  constructor(options: Partial<ModuleFetcherOptions> = {}) {
    this.modules = new ModuleFetcher({
      engine: this.engine,
      clock,
      log: silentLog,
      publish: (changes) => this.engine.apply(changes),
      readSecret: () => Promise.resolve(undefined),
      insecureRegistries: ["*"],
      allowLocal: true,
      reached: (limit) => this.reached.push(limit),
      ...options,
    });
  }

  set(...objects: readonly KubeObject[]): void {
    this.engine.apply(objects.flatMap((object) => objectChange(object)));
    this.modules.settled(this.engine.settle().changed);
  }

  remove(object: KubeObject): void {
    this.engine.apply(removalChange(object));
    this.modules.settled(this.engine.settle().changed);
  }

  row(name: string, namespace = "default"): FetchedModule | undefined {
    return this.engine.rows(fetchedModules).get(`WasmPlugin/${namespace}/${name}`);
  }

  async until(
    holds: (row: FetchedModule) => boolean,
    name = "p",
    namespace = "default",
  ): Promise<FetchedModule> {
    let found: FetchedModule | undefined;
    await until(
      `the row of ${name} is as it should be`,
      () => {
        found = this.row(name, namespace);
        return found !== undefined && holds(found);
      },
      60_000,
    );
    return found ?? {};
  }
}

async function outcome(
  spec: Partial<WasmPluginSpec>,
  options: Partial<ModuleFetcherOptions> = {},
): Promise<FetchedModule> {
  const world = new World(options);
  world.set(plugin("p", spec));
  await world.modules.start();
  world.modules.stop();
  return world.row("p") ?? {};
}

describe("the module of an image", () => {
  let registry: TestRegistry;
  before(async () => {
    registry = await TestRegistry.listen();
  });
  after(() => registry.close());

  const url = (reference: string): string => `oci://${registry.host}/${reference}`;

  test("is taken from an artifact's layer, and from plugin.wasm in the last layer of OCI's and Docker's images", async () => {
    const json = { mediaType: "application/vnd.module.wasm.config.v1+json", bytes: Buffer.from("{}") };
    registry.putImage("ns/artifact", "1", [{ mediaType: moduleLayer, bytes: module }, json]);
    registry.putImage("ns/compat", "1", [await archiveLayer({ "a.txt": other, "plugin.wasm": module })]);
    registry.putImage(
      "ns/docker",
      "1",
      [
        await archiveLayer({ "plugin.wasm": other }, dockerLayer),
        await archiveLayer({ "./plugin.wasm": module }, dockerLayer),
      ],
      dockerManifest,
    );
    for (const name of ["artifact", "compat", "docker"])
      assert.deepEqual(await outcome({ url: url(`ns/${name}:1`) }), { sha256: sha256Of(module) }, name);
  });

  test("of an index is the one for linux/amd64, or else the one that says to be WebAssembly", async () => {
    const [amd64, wasm] = [module, other].map((bytes, at) =>
      registry.putImage("ns/many", String(at), [{ mediaType: moduleLayer, bytes }]),
    );
    const entry = (digest: string | undefined, os: string, architecture: string): object => ({
      digest: `sha256:${digest}`,
      platform: { os, architecture },
    });
    const both = [entry(wasm, "wasip1", "wasm"), entry(amd64, "linux", "amd64")];
    const index = registry.putManifest("ns/many", "both", { manifests: both }, ociIndex);
    registry.putManifest("ns/many", "wasm", { manifests: [entry(wasm, "wasip1", "wasm")] }, ociIndex);
    registry.putManifest(
      "ns/many",
      "neither",
      { manifests: [entry(wasm, "linux", "s390x"), entry(wasm, "linux", "arm")] },
      ociIndex,
    );
    assert.equal((await outcome({ url: url("ns/many:both") })).sha256, sha256Of(module));
    assert.equal((await outcome({ url: url("ns/many:wasm") })).sha256, sha256Of(other));
    assert.match((await outcome({ url: url("ns/many:neither") })).failure ?? "", /no image for linux\/amd64/);
    for (const sha256 of [index, amd64])
      assert.equal((await outcome({ url: url("ns/many:both"), sha256 })).sha256, sha256Of(module));
  });

  test("is the one of the digest that the object names, or none", async () => {
    const digest = registry.putImage("ns/sum", "1", [{ mediaType: moduleLayer, bytes: module }]);
    const wrong = "0".repeat(64);
    const expected = { sha256: sha256Of(module) };
    assert.deepEqual(await outcome({ url: url("ns/sum:1"), sha256: digest }), expected);
    assert.deepEqual(await outcome({ url: url(`ns/sum@sha256:${digest}`) }), expected);
    assert.match((await outcome({ url: url("ns/sum:1"), sha256: wrong })).failure ?? "", /not the sha256 of/);
    assert.match((await outcome({ url: url(`ns/sum@sha256:${wrong}`) })).failure ?? "", /does not have it/);
    registry.putImage("ns/spoiled", "1", [{ mediaType: moduleLayer, bytes: other }]);
    registry.spoilBlobs();
    assert.match((await outcome({ url: url("ns/spoiled:1") })).failure ?? "", /other bytes than those of/);
  });

  test("says why it cannot be had", async () => {
    registry.putImage("ns/text", "1", [{ mediaType: moduleLayer, bytes: Buffer.from("<html>") }]);
    registry.putImage("ns/other", "1", [await archiveLayer({ "x.wasm": module })]);
    registry.putImage("ns/layers", "1", [{ mediaType: "text/plain", bytes: module }]);
    registry.putImage("ns/torn", "1", [
      { mediaType: dockerLayer, bytes: gzipSync(Buffer.alloc(4_096, 1)).subarray(0, 20) },
    ]);
    registry.putManifest("ns/strange", "1", ["x"], ociIndex);
    const reasons: readonly (readonly [string, RegExp])[] = [
      ["ns/text:1", /no WebAssembly module/],
      ["ns/other:1", /no file plugin\.wasm/],
      ["ns/layers:1", /no layer of a Wasm module/],
      ["ns/torn:1", /gzip is damaged/],
      ["ns/strange:1", /names no image/],
      ["ns/none:1", /does not have it/],
    ];
    for (const [reference, reason] of reasons)
      assert.match((await outcome({ url: url(reference) })).failure ?? "", reason, reference);
  });

  test("is bounded in what is sent and in what that unpacks to", async () => {
    const { value: bytesMax } = controlPlaneLimits.moduleBytes;
    const bomb = await archiveLayer({ "plugin.wasm": Buffer.alloc(bytesMax + 1) });
    assert.ok(bomb.bytes.length < 100_000);
    registry.putImage("ns/bomb", "1", [bomb]);
    registry.putImage("ns/huge", "1", [{ mediaType: moduleLayer, bytes: Buffer.alloc(bytesMax + 1) }]);
    assert.match(
      (await outcome({ url: url("ns/bomb:1") })).failure ?? "",
      /unpacks to more than 33554432 bytes/,
    );
    assert.match((await outcome({ url: url("ns/huge:1") })).failure ?? "", /has more than 33554432 bytes/);
  });

  test("comes without TLS only from registries that the operator has named", async () => {
    registry.putImage("ns/plain", "1", [{ mediaType: moduleLayer, bytes: module }]);
    const spec = { url: url("ns/plain:1") };
    const { failure = "" } = await outcome(spec, { insecureRegistries: ["registry.example.com"] });
    assert.match(failure, /speaks no TLS, and is not among WASM_INSECURE_REGISTRIES/);
    assert.equal((await outcome(spec, { insecureRegistries: [registry.host] })).failure, undefined);
  });

  test("is never fetched from the machine itself or its link, whatever a registry leads to", async () => {
    const forbidden = /of the machine itself or of its link/;
    const metadata = "http://169.254.169.254/latest";
    assert.match((await outcome({ url: url("ns/a:1") }, { allowLocal: false })).failure ?? "", forbidden);
    assert.match((await outcome({ url: metadata }, { allowLocal: false })).failure ?? "", forbidden);
    registry.putImage("ns/led", "1", [{ mediaType: moduleLayer, bytes: module }]);
    const leading = [
      (path: string) => path.includes("/blobs/") && { status: 307, header: { location: metadata } },
      (path: string) =>
        path.includes("/manifests/") && {
          status: 401,
          header: { "www-authenticate": `Bearer realm="${metadata}"` },
        },
    ];
    for (const lead of leading) {
      registry.intercept = (path, response) => {
        const answer = lead(path);
        if (answer !== false) response.writeHead(answer.status, answer.header).end();
        return answer !== false;
      };
      const { failure = "" } = await outcome({ url: url("ns/led:1") }, { allowLocal: ["127.0.0.1"] });
      assert.match(failure, forbidden);
    }
  });
});

describe("a registry with credentials", () => {
  const [user, password] = ["ann", "a secret word"];

  for (const wants of ["password", "token"] as const) {
    test(`that wants a ${wants} gives its modules to those who name the right Secret`, async () => {
      const registry = await TestRegistry.listen({ wants, user, password });
      registry.putImage("team/p", "1", [{ mediaType: moduleLayer, bytes: module }]);
      const lines: string[] = [];
      const note = (fields: object, text: string): void => void lines.push(JSON.stringify(fields) + text);
      const log: Logger = { ...silentLog, debug: note, info: note, warn: note, error: note };
      const secrets: Readonly<Record<string, object>> = {
        "default/right": pullSecret(registry.host, user, password),
        "default/wrong": pullSecret(registry.host, user, "another secret word"),
        "default/elsewhere": pullSecret("ghcr.io", user, password),
        "default/odd": { type: "Opaque", data: { password: "c2VjcmV0" } },
      };
      const readSecret = (namespace: string, name: string): Promise<PullSecret | undefined> =>
        Promise.resolve(secrets[`${namespace}/${name}`] as PullSecret | undefined);
      const ask = (imagePullSecret: string): Promise<FetchedModule> =>
        outcome({ url: `oci://${registry.host}/team/p:1`, imagePullSecret }, { readSecret, log });
      assert.equal((await ask("right")).sha256, sha256Of(module));
      assert.match((await ask("wrong")).failure ?? "", /refuses the credentials/);
      assert.match((await ask("elsewhere")).failure ?? "", /to no one without credentials/);
      assert.match((await ask("")).failure ?? "", /to no one without credentials/);
      assert.match((await ask("none")).failure ?? "", /there is no Secret default\/none/);
      assert.match((await ask("odd")).failure ?? "", /not of type kubernetes\.io\/dockerconfigjson/);
      assert.equal(lines.length, 5, "each failure is told once");
      assert.ok(!lines.join("\n").includes("secret word"), "and nothing of what is secret");
      registry.close();
    });
  }

  test("sends nobody's password on to where it redirects to", async () => {
    const seen: (string | undefined)[] = [];
    const elsewhere = createServer((request, response) => {
      seen.push(request.headers.authorization);
      response.end(module);
    });
    await new Promise<void>((resolve) => elsewhere.listen(0, "127.0.0.1", resolve));
    const registry = await TestRegistry.listen({ wants: "password", user, password });
    registry.putImage("team/p", "1", [{ mediaType: moduleLayer, bytes: module }]);
    const location = `http://127.0.0.1:${(elsewhere.address() as AddressInfo).port}/blob`;
    registry.intercept = (path, response) => {
      if (path.includes("/blobs/")) response.writeHead(307, { location }).end();
      return path.includes("/blobs/");
    };
    const readSecret = (): Promise<PullSecret> => Promise.resolve(pullSecret(registry.host, user, password));
    const spec = { url: `oci://${registry.host}/team/p:1`, imagePullSecret: "s" };
    assert.equal((await outcome(spec, { readSecret })).sha256, sha256Of(module));
    assert.deepEqual(seen, [undefined]);
    elsewhere.close();
    registry.close();
  });

  test("serves no namespace by the Secret of another, and proxies of others get nothing of it", async () => {
    const registry = await TestRegistry.listen({ wants: "token", user, password });
    registry.putImage("team/p", "1", [{ mediaType: moduleLayer, bytes: module }]);
    const world = new World({
      readSecret: (namespace) =>
        Promise.resolve(namespace === "a" ? pullSecret(registry.host, user, password) : undefined),
    });
    const url = `oci://${registry.host}/team/p:1`;
    world.set(plugin("p", { url, imagePullSecret: "s" }, "a"), plugin("p", { url }, "b"));
    await world.modules.start();
    const sha256 = sha256Of(module);
    assert.deepEqual(world.row("p", "a"), { sha256 });
    assert.match(world.row("p", "b")?.failure ?? "", /without credentials/);
    assert.deepEqual(world.modules.find(sha256, "a", "root"), Buffer.from(module));
    assert.equal(world.modules.find(sha256, "b", "root"), undefined);
    assert.deepEqual(
      world.modules.find(sha256, "b", "a"),
      Buffer.from(module),
      "the root namespace's are for all",
    );
    world.modules.stop();
    registry.close();
  });
});

describe("a fetched module", () => {
  test("comes over http without a sum, in gzip and tar too, and is the one of the sum where there is one", async () => {
    const registry = await TestRegistry.listen();
    const layer = await archiveLayer({ "any.wasm": module });
    const bodies: Readonly<Record<string, Uint8Array>> = {
      "/plain": module,
      "/gzip": gzipSync(module),
      "/tar": layer.bytes,
      "/page": Buffer.from("<html>"),
    };
    registry.intercept = (path, response) => {
      const body = bodies[path];
      if (body !== undefined) response.end(body);
      else if (path === "/link") response.writeHead(302, { location: "http://169.254.169.254/" }).end();
      return body !== undefined || path === "/link";
    };
    const sha256 = sha256Of(module);
    for (const path of ["/plain", "/gzip", "/tar"])
      assert.deepEqual(await outcome({ url: `http://${registry.host}${path}`, sha256 }), { sha256 }, path);
    assert.deepEqual(await outcome({ url: `http://${registry.host}/plain` }), { sha256 });
    const wrong = await outcome({ url: `http://${registry.host}/plain`, sha256: sha256Of(other) });
    assert.match(wrong.failure ?? "", /and not the one of the object/);
    assert.match(
      (await outcome({ url: `http://${registry.host}/page` })).failure ?? "",
      /no WebAssembly module/,
    );
    assert.match((await outcome({ url: `http://${registry.host}/none` })).failure ?? "", /status 404/);
    registry.close();
  });

  test("is fetched once for all who ask alike; with Always for each change of its object", async () => {
    const registry = await TestRegistry.listen();
    registry.putImage("ns/p", "1", [{ mediaType: moduleLayer, bytes: module }]);
    const world = new World();
    const url = `oci://${registry.host}/ns/p:1`;
    world.set(plugin("p", { url }), plugin("q", { url }, "b"));
    await world.modules.start();
    const manifests = (): number => registry.asked.filter((path) => path.includes("/manifests/")).length;
    assert.equal(manifests(), 1);
    assert.deepEqual(world.row("q", "b"), world.row("p"));
    registry.putImage("ns/p", "1", [{ mediaType: moduleLayer, bytes: other }]);
    world.set(plugin("p", { url, pluginName: "x" }, "default", 2));
    assert.equal(manifests(), 1);
    assert.equal(world.row("p")?.sha256, sha256Of(module));
    world.set(plugin("p", { url, imagePullPolicy: "Always" }, "default", 3));
    assert.equal(
      world.row("p")?.sha256,
      sha256Of(module),
      "the module from before stays until the new one is there",
    );
    await world.until(({ sha256 }) => sha256 === sha256Of(other));
    assert.equal(manifests(), 2);
    assert.equal(world.row("q", "b")?.sha256, sha256Of(module));
    world.set(plugin("p", { url, imagePullPolicy: "Always" }, "default", 4));
    await until("the manifest is asked for anew", () => manifests() === 3);
    world.modules.stop();
    registry.close();
  });

  test("stays when its object names one that cannot be had, which the status tells; and goes with its object", async () => {
    const registry = await TestRegistry.listen();
    registry.putImage("ns/p", "1", [{ mediaType: moduleLayer, bytes: module }]);
    const world = new World();
    const at = (tag: string, generation: number): KubeObject =>
      plugin("p", { url: `oci://${registry.host}/ns/p:${tag}` }, "default", generation);
    world.set(at("1", 1));
    await world.modules.start();
    world.set(at("2", 2));
    const { sha256 } = await world.until(({ failure }) => failure !== undefined);
    assert.equal(sha256, sha256Of(module));
    const [problem] = world.engine.get(objectProblemsOf, "WasmPlugin default/p");
    assert.equal(problem?.code, "MZ0615");
    assert.match(problem?.text ?? "", /does not have it; the one from before stays in use/);
    // What was missing comes, and whoever writes the object again need not wait for the next attempt.
    registry.putImage("ns/p", "2", [{ mediaType: moduleLayer, bytes: other }]);
    world.set({ ...at("2", 3), metadata: { ...at("2", 3).metadata, labels: { again: "yes" } } });
    assert.deepEqual(await world.until(({ failure }) => failure === undefined), { sha256: sha256Of(other) });
    assert.deepEqual(world.engine.get(objectProblemsOf, "WasmPlugin default/p"), []);
    world.remove(at("2", 3));
    assert.equal(world.row("p"), undefined);
    world.modules.stop();
    registry.close();
  });

  test("that is too much beside all others is refused", async () => {
    const registry = await TestRegistry.listen();
    const large = (first: number): Uint8Array => {
      const bytes = Buffer.alloc(controlPlaneLimits.moduleBytes.value);
      bytes.set(module);
      bytes[bytes.length - 1] = first;
      return bytes;
    };
    const count = controlPlaneLimits.modulesBytes.value / controlPlaneLimits.moduleBytes.value;
    registry.intercept = (path, response) => {
      response.end(large(Number(path.slice(1))));
      return true;
    };
    const world = new World();
    for (let at = 0; at <= count; at++) world.set(plugin(`p${at}`, { url: `http://${registry.host}/${at}` }));
    await world.modules.start();
    // A busy machine takes longer for them than a start waits.
    const isOver = ({ sha256, failure }: FetchedModule): boolean =>
      sha256 !== undefined || /together/.test(failure ?? "");
    const rows = await Promise.all(
      Array.from({ length: count + 1 }, (_, at) => world.until(isOver, `p${at}`)),
    );
    assert.equal(rows.filter((row) => row?.sha256 !== undefined).length, count);
    const refused = rows.find((row) => row?.sha256 === undefined);
    assert.match(refused?.failure ?? "", /all modules together have more than 268435456 bytes/);
    assert.ok(world.reached.includes("modulesBytes"));
    world.modules.stop();
    registry.close();
  });

  test("that nobody sends while the control plane starts counts as failed, and comes later", async () => {
    const registry = await TestRegistry.listen();
    registry.putImage("ns/p", "1", [{ mediaType: moduleLayer, bytes: module }]);
    let answer = (): void => {};
    const asked = new Promise<void>((resolve) => {
      registry.intercept = (_path, response) => {
        answer = () => response.writeHead(302, { location: "/v2/ns/p/manifests/1" }).end();
        registry.intercept = () => false;
        resolve();
        return true;
      };
    });
    const patience: (() => void)[] = [];
    const impatient: Clock = {
      ...clock,
      after: (delayMs, callback) => {
        if (delayMs === controlPlaneLimits.firstModules.value) patience.push(callback);
        return () => {};
      },
    };
    const world = new World({ clock: impatient });
    world.set(plugin("p", { url: `oci://${registry.host}/ns/p:1` }));
    const started = world.modules.start();
    await asked;
    for (const end of patience) end();
    await started;
    assert.match(world.row("p")?.failure ?? "", /no answer within 10000 ms of the control plane's start/);
    answer();
    assert.deepEqual(await world.until(({ failure }) => failure === undefined), { sha256: sha256Of(module) });
    world.modules.stop();
    registry.close();
  });
});
