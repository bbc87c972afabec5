import assert from "node:assert/strict";
import http2 from "node:http2";
import { describe, it, before, after } from "node:test";
import { silentLog } from "#base";
import { GrpcError, grpcStatus } from "./grpc-api.ts";
import { GrpcServer } from "./grpc.ts";
import { connectionDownloadsMax, connectionStreamsMax, endingMs } from "./limits.ts";

interface Reply {
  readonly http: number;
  readonly status: string;
  readonly message: string;
  readonly bytes: Buffer;
}

describe("the gRPC server", () => {
  let server: GrpcServer;
  const closed: string[] = [];
  const reached: string[] = [];
  /** More than the sockets' buffers take from one that does not read. */
  const large = Buffer.alloc(32 * 1024 * 1024);

  before(async () => {
    server = await GrpcServer.listen({
      host: "127.0.0.1",
      port: 0,
      log: silentLog,
      unary: {
        "/echo": (request) => Promise.resolve(request),
        "/refuse": () => Promise.reject(new GrpcError(7, "not you: ä%")),
        "/fail": () => Promise.reject(new Error("a secret")),
      },
      downloads: {
        prefix: "/files/",
        find: (name) =>
          name === "large"
            ? Promise.resolve(large)
            : Promise.reject(new GrpcError(grpcStatus.notFound, name)),
      },
      reached: (limit) => reached.push(limit),
      streams: {
        "/much": (stream) => ({
          message: () => {
            stream.send(large);
            stream.end(grpcStatus.aborted, "enough");
          },
          closed: () => closed.push("much"),
        }),
        "/twice": (stream) => ({
          message: (bytes) => {
            stream.send(bytes);
            stream.send(bytes);
          },
          closed: () => closed.push("twice"),
        }),
        "/leave": (stream) => ({
          message: (bytes) => {
            stream.send(bytes);
            stream.leave("elsewhere");
          },
          closed: () => {},
        }),
      },
    });
  });
  after(() => server.close(0));

  function call(path: string, chunks: readonly Buffer[], contentType = "application/grpc"): Promise<Reply> {
    const client = http2.connect(`http://127.0.0.1:${server.port}`);
    return new Promise<Reply>((resolve, reject) => {
      const stream = client.request({ ":method": "POST", ":path": path, "content-type": contentType });
      const received: Buffer[] = [];
      let headers: http2.IncomingHttpHeaders & { ":status"?: number } = {};
      stream.on("response", (first) => (headers = { ...first }));
      stream.on("trailers", (trailers) => (headers = { ...headers, ...trailers }));
      stream.on("data", (chunk: Buffer) => received.push(chunk));
      stream.on("error", reject);
      stream.on("end", () =>
        resolve({
          http: headers[":status"] ?? 0,
          status: String(headers["grpc-status"]),
          message: decodeURIComponent(String(headers["grpc-message"] ?? "")),
          bytes: Buffer.concat(received),
        }),
      );
      for (const chunk of chunks) stream.write(chunk);
      stream.end();
    }).finally(() => client.destroy());
  }

  const frame = (text: string, flag = 0, length = text.length): Buffer => {
    const head = Buffer.alloc(5);
    head[0] = flag;
    head.writeUInt32BE(length, 1);
    return Buffer.concat([head, Buffer.from(text)]);
  };

  it("puts messages together, however they were cut", async () => {
    const whole = Buffer.concat([frame("hello"), frame("again")]);
    const cuts = [whole.subarray(0, 3), whole.subarray(3, 8), whole.subarray(8)];
    const { bytes, status } = await call("/twice", cuts);
    assert.equal(status, "0");
    assert.deepEqual(bytes, Buffer.concat(["hello", "hello", "again", "again"].map((text) => frame(text))));
    assert.deepEqual(closed, ["twice"]);
    assert.deepEqual((await call("/echo", [frame("x")])).bytes, frame("x"));
  });

  it("lets a client go: the call ends with what was sent, and its connection takes no further one", async () => {
    const client = http2.connect(`http://127.0.0.1:${server.port}`);
    const goneAway = new Promise<number>((resolve) => client.once("goaway", resolve));
    const gone = new Promise<void>((resolve) => client.once("close", resolve));
    const stream = client.request({
      ":method": "POST",
      ":path": "/leave",
      "content-type": "application/grpc",
    });
    const received: Buffer[] = [];
    const ended = new Promise<http2.IncomingHttpHeaders>((resolve) => stream.once("trailers", resolve));
    stream.on("data", (chunk: Buffer) => received.push(chunk));
    stream.write(frame("x"));
    assert.equal((await ended)["grpc-status"], "14");
    assert.equal(await goneAway, http2.constants.NGHTTP2_NO_ERROR);
    stream.end();
    await gone;
    assert.deepEqual(Buffer.concat(received), frame("x"));
  });

  it("hands out whole bodies by GET, so many at a time on one connection, and calls go on beside them", async () => {
    const client = http2.connect(`http://127.0.0.1:${server.port}`);
    const answer = (path: string): Promise<readonly [number, http2.ClientHttp2Stream]> =>
      new Promise((resolve, reject) => {
        const stream = client.request({ ":path": path });
        stream.on("response", (headers) => resolve([headers[":status"] ?? 0, stream]));
        stream.on("error", reject);
      });
    assert.equal((await answer("/files/none"))[0], 404);
    // Nobody reads these yet.
    const open = await Promise.all(
      Array.from({ length: connectionDownloadsMax }, () => answer("/files/large")),
    );
    assert.ok(open.every(([status]) => status === 200));
    assert.equal((await answer("/files/large"))[0], 503);
    assert.ok(reached.includes("connectionDownloads"));
    assert.deepEqual((await call("/echo", [frame("x")])).bytes, frame("x"));
    const [, first] = open[0]!;
    let bytes = 0;
    for await (const chunk of first) bytes += (chunk as Buffer).length;
    assert.equal(bytes, large.length);
    client.destroy();
  });

  it("says why it refuses, and nothing of what failed inside", async () => {
    const cases: [string, Buffer, string, RegExp][] = [
      ["/refuse", frame("x"), "7", /^not you: ä%$/],
      ["/fail", frame("x"), "13", /^internal error$/],
      ["/nothing", frame("x"), "12", /no method \/nothing/],
      ["/echo", frame("x", 1), "12", /compressed/],
      ["/echo", frame("", 0, 1 << 30), "8", /bytes; \d+ are allowed/],
      ["/echo", Buffer.alloc(0), "3", /without a message/],
    ];
    for (const [path, bytes, status, message] of cases) {
      const reply = await call(path, [bytes]);
      assert.equal(reply.status, status, path);
      assert.match(reply.message, message);
    }
    assert.equal((await call("/echo", [frame("x")], "text/plain")).http, 415);
  });

  it("resets an ended stream whose peer does not read what was sent before, and goes on with others", async () => {
    reached.length = 0;
    const client = http2.connect(`http://127.0.0.1:${server.port}`);
    const stream = client.request({
      ":method": "POST",
      ":path": "/much",
      "content-type": "application/grpc",
    });
    stream.on("error", () => {});
    stream.pause();
    stream.write(frame("x"));
    const fromMs = performance.now();
    while (!closed.includes("much") && performance.now() - fromMs < endingMs * 4)
      await new Promise((resolve) => setTimeout(resolve, 50));
    assert.ok(closed.includes("much"));
    assert.deepEqual(reached, ["ending"]);
    assert.equal((await call("/echo", [frame("still here")])).status, "0");
    client.destroy();
  });

  it("takes so many calls on one connection and refuses further ones", async () => {
    reached.length = 0;
    const client = http2.connect(`http://127.0.0.1:${server.port}`);
    const statuses: string[] = [];
    for (let at = 0; at < connectionStreamsMax + 2; at++) {
      const headers = { ":method": "POST", ":path": "/twice", "content-type": "application/grpc" };
      const stream = client.request(headers);
      stream.on("error", () => {});
      stream.on("response", (answer) => statuses.push(String(answer["grpc-status"] ?? "open")));
      stream.write(frame("x"));
    }
    const fromMs = performance.now();
    while (statuses.length < connectionStreamsMax + 2 && performance.now() - fromMs < 10_000)
      await new Promise((resolve) => setTimeout(resolve, 20));
    assert.equal(statuses.filter((status) => status === String(grpcStatus.resourceExhausted)).length, 2);
    assert.deepEqual(reached, ["connectionStreams", "connectionStreams"]);
    client.destroy();
  });
});
