import assert from "node:assert/strict";
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { after, before, describe, test } from "node:test";
import { silentLog } from "#base";
import { Engine } from "#engine";
import { jwksTable, nobodysKeys, objectChange, objectProblemsOf } from "#model";
import { RealClock } from "../../../test/support/real-clock.ts";
import { JwksFetcher } from "./jwks-fetcher.ts";

const clock = new RealClock();

describe("the keys of a JWT issuer", () => {
  let server: Server;
  let root = "";
  before(async () => {
    server = createServer((request, response) => {
      if (request.url === "/keys") response.end(nobodysKeys);
      else if (request.url === "/moved") response.writeHead(302, { location: "/keys" }).end();
      else if (request.url === "/round") response.writeHead(302, { location: "/round" }).end();
      else if (request.url === "/huge") response.end("x".repeat(2_000_000));
      else if (request.url === "/empty") response.end('{"keys":[]}');
      else if (request.url === "/page") response.end("<html>");
      else response.writeHead(404).end();
    });
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    root = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  });
  after(() => server.close());

  function fetcher(allowLocal: boolean): { engine: Engine; keys: JwksFetcher } {
    const engine = new Engine();
    const keys = new JwksFetcher({
      engine,
      clock,
      log: silentLog,
      allowLocal,
      publish: (changes) => engine.apply(changes),
    });
    return { engine, keys };
  }

  function authentication(engine: Engine, jwksUri: string): void {
    const rule = { issuer: "i", jwksUri };
    const metadata = { name: "r", namespace: "default" };
    const apiVersion = "security.istio.io/v1";
    engine.apply(
      objectChange({ apiVersion, kind: "RequestAuthentication", metadata, spec: { jwtRules: [rule] } }),
    );
  }

  async function outcome(uri: string, allowLocal = true): Promise<{ jwks?: string; failure?: string }> {
    const { engine, keys } = fetcher(allowLocal);
    authentication(engine, uri);
    keys.start();
    try {
      for (;;) {
        const row = engine.rows(jwksTable).get(uri);
        if (row !== undefined) return row;
        await new Promise((resolve) => setTimeout(resolve, 5));
      }
    } finally {
      keys.stop();
    }
  }

  test("are fetched, over a redirect too", async () => {
    assert.deepEqual(await outcome(`${root}/keys`), { jwks: nobodysKeys });
    assert.deepEqual(await outcome(`${root}/moved`), { jwks: nobodysKeys });
  });

  test("that cannot be had say why, and nothing of what was answered", async () => {
    const reasons: [string, RegExp][] = [
      ["/none", /status 404/],
      ["/round", /more than 3 redirects/],
      ["/huge", /more than 1048576 bytes/],
      ["/empty", /no JSON Web Key Set/],
      ["/page", /^the answer is no JSON Web Key Set with a key that can be used$/],
    ];
    for (const [path, reason] of reasons) assert.match((await outcome(root + path)).failure ?? "", reason);
  });

  test("are never fetched from the machine itself or from its link", async () => {
    for (const uri of [`${root}/keys`, "http://localhost/", "http://169.254.169.254/latest", "http://[::1]/"])
      assert.match((await outcome(uri, false)).failure ?? "", /of the machine itself or of its link/, uri);
  });

  test("stand in the object's status when they are missing, and are forgotten with it", async () => {
    const { engine, keys } = fetcher(true);
    authentication(engine, `${root}/none`);
    keys.start();
    const told = () => engine.get(objectProblemsOf, "RequestAuthentication default/r");
    while (told().length === 0) await new Promise((resolve) => setTimeout(resolve, 5));
    assert.equal(told()[0]?.at.path, "spec.jwtRules[0].jwksUri");
    authentication(engine, `${root}/keys`);
    keys.settled(engine.settle().changed);
    assert.equal(engine.rows(jwksTable).has(`${root}/none`), false);
    while (engine.rows(jwksTable).get(`${root}/keys`)?.jwks === undefined)
      await new Promise((resolve) => setTimeout(resolve, 5));
    assert.deepEqual(told(), []);
    keys.stop();
  });
});
