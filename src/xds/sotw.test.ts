import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { decodeMessage, encodeMessage, typeUrlOf } from "#envoy";
import type { ResourceType } from "#plan";
import { AdsSession } from "./session.ts";
import { StateOfTheWorld } from "./sotw.ts";
import { World, type Row } from "./testing.ts";

interface Answer {
  readonly versionInfo: string;
  readonly nonce: string;
  readonly typeUrl: string;
  readonly resources?: readonly Record<string, unknown>[];
}

const row = (type: ResourceType, name: string, text = "t"): Row => ({ view: "v", type, name, text });

/** A client that shows what it receives and answers when told to. */
class StateClient {
  readonly answers: Answer[] = [];
  readonly #state = new StateOfTheWorld();
  readonly #session: AdsSession;

  constructor(world: World) {
    const { mesh } = world;
    this.#session = new AdsSession({
      id: "p",
      nowMs: () => world.nowMs,
      render: (response, sent) => this.#state.render(response, sent),
      send: (pieces) => {
        const bytes = Buffer.concat(pieces);
        const answer = decodeMessage("envoy.service.discovery.v3.DiscoveryResponse", bytes);
        this.answers.push(answer as unknown as Answer);
      },
      close: (closing) => assert.fail(closing.message),
      reject: (rejection, views) => mesh.reject(rejection, views),
      flush: () => mesh.flush(),
      offers: mesh.offersFor(() => this.#session),
      reports: { sent() {}, acknowledged() {}, rejected() {}, reached() {} },
    });
    this.#session.viewsChanged(mesh.attach(this.#session, "v"));
  }

  ask(type: ResourceType, names: readonly string[], nonce = "", rejection?: string): void {
    const bytes = encodeMessage("envoy.service.discovery.v3.DiscoveryRequest", {
      typeUrl: typeUrlOf(type),
      resourceNames: names,
      responseNonce: nonce,
      ...(rejection === undefined ? {} : { errorDetail: { code: 3, message: rejection } }),
    });
    const request = this.#state.parse(bytes);
    if (request !== undefined) this.#session.receive(request, type);
  }

  get last(): Answer {
    return this.answers.at(-1)!;
  }

  /** What the last answer holds: the names of clusters and listeners, of the others name and text. */
  names(): string[] {
    return (this.last.resources ?? []).map((one) => String(one["name"] ?? one["clusterName"]));
  }
}

describe("state of the world", () => {
  test("clusters and listeners come whole at each change, under a version that is a hash of them", () => {
    const world = new World();
    world.put(row("cluster", "a"), row("cluster", "b"));
    const client = new StateClient(world);
    client.ask("cluster", []);
    assert.deepEqual(client.names(), ["a", "b"]);
    const { versionInfo } = client.last;
    client.ask("cluster", [], client.last.nonce);
    world.put(row("cluster", "c"));
    assert.deepEqual(client.names(), ["a", "b", "c"]);
    client.ask("cluster", [], client.last.nonce);
    world.drop(row("cluster", "c"));
    assert.deepEqual(client.names(), ["a", "b"]);
    assert.equal(client.last.versionInfo, versionInfo);
  });

  test("routes and endpoints come by name, and only those that changed", () => {
    const world = new World();
    world.put(row("route", "a"), row("route", "b"), row("route", "c"));
    const client = new StateClient(world);
    client.ask("route", []);
    assert.equal(client.answers.length, 0, "who names no route wants none");
    client.ask("route", ["a", "b"]);
    assert.deepEqual(client.names(), ["a~t", "b~t"]);
    client.ask("route", ["a", "b"], client.last.nonce);
    world.put(row("route", "b", "u"), row("route", "c", "u"));
    assert.deepEqual(client.names(), ["b~u"]);
    client.ask("route", ["b", "c"], client.last.nonce);
    assert.deepEqual(client.names(), ["c~u"]);
  });

  test("a client that names clusters gets the state of these alone, and learns what does not exist", () => {
    const world = new World();
    world.put(row("cluster", "a"), row("cluster", "b"));
    const client = new StateClient(world);
    client.ask("cluster", ["b", "nobody"]);
    assert.deepEqual(client.names(), ["b"]);
    client.ask("cluster", ["nobody"], client.last.nonce);
    world.put(row("cluster", "nobody"));
    assert.deepEqual(client.names(), ["nobody"]);
  });

  test("one response is in flight for each type, and an outdated nonce answers nothing", () => {
    const world = new World();
    world.put(row("cluster", "a"));
    const client = new StateClient(world);
    client.ask("cluster", []);
    world.put(row("cluster", "b"));
    client.ask("cluster", [], "another");
    assert.equal(client.answers.length, 1);
    client.ask("cluster", [], client.last.nonce);
    assert.deepEqual(client.names(), ["a", "b"]);
  });

  test("after a rejection the state is what it was, with what is good of the rest", () => {
    const world = new World();
    world.put(row("cluster", "a"));
    const client = new StateClient(world);
    client.ask("cluster", []);
    client.ask("cluster", [], client.last.nonce);
    world.put(row("cluster", "b", "bad"), row("cluster", "c"));
    const { nonce } = client.last;
    assert.deepEqual(client.names(), ["a", "b", "c"]);
    client.ask("cluster", [], nonce, "b: bad");
    assert.deepEqual(client.names(), ["a", "c"]);
    assert.deepEqual(
      world.rejections.map(({ name }) => name),
      ["b"],
    );
  });
});
