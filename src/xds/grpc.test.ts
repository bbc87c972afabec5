import assert from "node:assert/strict";
import http2 from "node:http2";
import { describe, it, before, after } from "node:test";
import { silentLog } from "#base";
import { GrpcError, GrpcServer } from "./grpc.ts";

interface Reply {
  readonly http: number;
  readonly status: string;
  readonly message: string;
  readonly bytes: Buffer;
}

describe("the gRPC server", () => {
  let server: GrpcServer;
  const closed: string[] = [];

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
      streams: {
        "/twice": (stream) => ({
          message: (bytes) => {
            stream.send(bytes);
            stream.send(bytes);
          },
          closed: () => closed.push("twice"),
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
});
