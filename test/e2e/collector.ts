// A tiny collector for tests: keeps what is posted to it, by HTTP/1.1 on one port and as gRPC on the next, and says it as
// lines of JSON on its standard output. Runs where its caller puts it: `collector.ts PORT`.

import { createServer } from "node:http";
import {
  createServer as createHttp2Server,
  type IncomingHttpHeaders,
  type ServerHttp2Stream,
} from "node:http2";
import type { Readable } from "node:stream";

export interface Collected {
  readonly path: string;
  /** Of the body, byte for byte a character. */
  readonly text: string;
}

const port = Number(process.argv[2]);

function keep(path: string, from: Readable, done: () => void): void {
  const chunks: Buffer[] = [];
  from.on("data", (chunk: Buffer) => {
    chunks.push(chunk);
    // A stream of logs stays open: what has come is told as it comes.
    if (path.startsWith("/opentelemetry") || path.startsWith("/envoy.service")) tell(path, chunks.splice(0));
  });
  from.on("end", () => {
    tell(path, chunks);
    done();
  });
}

function tell(path: string, chunks: readonly Buffer[]): void {
  const said: Collected = { path, text: Buffer.concat(chunks).toString("latin1") };
  process.stdout.write(`${JSON.stringify(said)}\n`);
}

createServer((request, response) => {
  keep(request.url ?? "", request, () => response.writeHead(202).end());
}).listen(port, "0.0.0.0");

createHttp2Server()
  .on("stream", (stream: ServerHttp2Stream, headers: IncomingHttpHeaders) => {
    keep(headers[":path"] ?? "", stream, () => {
      stream.respond({ ":status": 200, "content-type": "application/grpc" }, { waitForTrailers: true });
      stream.on("wantTrailers", () => stream.sendTrailers({ "grpc-status": "0" }));
      stream.end(Buffer.from([0, 0, 0, 0, 0]));
    });
    stream.on("error", () => undefined);
  })
  .listen(port + 1, "0.0.0.0");
