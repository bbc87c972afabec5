import assert from "node:assert/strict";
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { type TestContext, test } from "node:test";
import { details, ratings, reviews } from "./backends.ts";
import { runClient } from "./client.ts";
import { productpage } from "./productpage.ts";
import { get, type Route } from "./web.ts";

/** Serves a route on a free port of the loopback for the length of a test. */
async function start(context: TestContext, route: Route): Promise<string> {
  const server: Server = createServer((incoming, response) => {
    void Promise.resolve(route(new URL(incoming.url ?? "/", "http://x"), incoming)).then((answer) => {
      response.writeHead(answer?.status ?? 404, answer?.headers).end(answer?.body);
    });
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  context.after(() => {
    server.closeAllConnections();
    server.close();
  });
  return `127.0.0.1:${(server.address() as AddressInfo).port}`;
}

/** Nobody listens there. */
const nowhere = "127.0.0.1:9";

test("the page shows red stars from reviews v3, and says which version answered", async (context) => {
  const atRatings = await start(context, ratings());
  const atReviews = await start(context, reviews({ version: "v3", addressOf: () => atRatings }));
  const atDetails = await start(context, details());
  const addressOf = (service: string) => (service === "reviews" ? atReviews : atDetails);
  const page = await get(
    `http://${await start(context, productpage({ version: "v1", addressOf }))}/productpage`,
    {},
    5_000,
  );
  assert.equal(page.status, 200);
  assert.match(page.body, /class="stars red"[^>]*>★★★★★</);
  assert.match(page.body, /reviews v3 on pod/);
  assert.match(page.body, /William Shakespeare/);
});

test("the page stands and says so when a backend fails", async (context) => {
  const page = await get(
    `http://${await start(context, productpage({ version: "v1", addressOf: () => nowhere }))}/productpage`,
    {},
    5_000,
  );
  assert.equal(page.status, 200);
  assert.match(page.body, /Error fetching product reviews!/);
  assert.match(page.body, /Error fetching product details!/);
});

test("reviews v1 has no stars, and v2 says when ratings cannot be asked", async (context) => {
  const plain = await get(
    `http://${await start(context, reviews({ version: "v1", addressOf: () => nowhere }))}/reviews/0`,
    {},
    5_000,
  );
  assert.doesNotMatch(plain.body, /rating/);
  const black = await get(
    `http://${await start(context, reviews({ version: "v2", addressOf: () => nowhere }))}/reviews/0`,
    {},
    5_000,
  );
  assert.match(black.body, /Ratings service is currently unavailable/);
});

test("who is signed in goes to the backends as the header end-user, with the trace", async (context) => {
  const seen: Record<string, unknown>[] = [];
  const backend = await start(context, (_url, incoming) => {
    seen.push(incoming.headers);
    return { status: 200, body: '{"reviews":[]}' };
  });
  const at = await start(context, productpage({ version: "v1", addressOf: () => backend }));
  await get(
    `http://${at}/productpage`,
    { cookie: "session=jason", "x-request-id": "r1", "x-other": "no" },
    5_000,
  );
  assert.deepEqual(
    seen.map((headers) => [headers["end-user"], headers["x-request-id"], headers["x-other"]]),
    [
      ["jason", "r1", undefined],
      ["jason", "r1", undefined],
    ],
  );
});

test("the client counts every request, and names the failures", async (context) => {
  let asked = 0;
  const at = await start(context, () => ({ status: (asked += 1) % 4 === 0 ? 503 : 200, body: "" }));
  const report = await runClient(
    { url: `http://${at}/`, perSecond: 200, seconds: 0.2, headers: {}, timeoutMs: 2_000 },
    new AbortController().signal,
  );
  assert.deepEqual([report.sent, report.failed, report.outcomes], [40, 10, { "200": 30, "503": 10 }]);
  assert.equal(report.failures[0]?.outcome, "503");
});
