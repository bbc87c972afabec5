// A server that fails as it is asked to: `node faulty-server.ts PORTS`, each port a server of its own for HTTP/2 without TLS.
// It runs beside a workload without a sidecar and writes a line for each request: the port and the path. What it answers is the
// number of the connection, for which it writes lines as well: when it is pinged and when it closes. The path's first word says on which ports something becomes of it, its second what: `/7001/refused` at 7001, and at the others 200.

import {
  constants,
  createServer as createHttp2Server,
  type Http2ServerRequest,
  type Http2ServerResponse,
} from "node:http2";

const ports = (process.argv[2] ?? "").split(",").map(Number);

const numbers = new WeakMap<object, number>();
let opened = 0;

for (const port of ports) {
  const http2 = createHttp2Server((request, response) => answer(port, request, response));
  http2.on("session", (session) => {
    const number = ++opened;
    numbers.set(session, number);
    session.on("ping", () => console.log(`ping ${number}`));
    session.on("close", () => console.log(`close ${number}`));
    // Who leaves without a word is no failure of the server's.
    session.on("error", () => session.destroy());
  });
  await new Promise<void>((resolve) => http2.listen(port, "0.0.0.0", resolve));
}
console.log("ready");

function answer(port: number, request: Http2ServerRequest, response: Http2ServerResponse): void {
  const path = request.url.split("?")[0] ?? "";
  const [, where = "", wish = ""] = path.split("/");
  console.log(`${port} ${path}`);
  const isMeant = where === "all" || where === String(port);
  if (isMeant && wish === "refused") response.stream.close(constants.NGHTTP2_REFUSED_STREAM);
  else if (isMeant && wish === "reset") response.stream.close(constants.NGHTTP2_INTERNAL_ERROR);
  else if (isMeant && wish === "unavailable") endGrpc(response, 14);
  else if (isMeant && wish === "cancelled") endGrpc(response, 1);
  else {
    response.statusCode = isMeant && /^[1-5]\d\d$/.test(wish) ? Number(wish) : 200;
    const { session } = response.stream;
    response.end(String(session === undefined ? "" : numbers.get(session)));
  }
}

/** A gRPC call that ends before it began: its status is among the headers. */
function endGrpc(response: Http2ServerResponse, status: number): void {
  response.writeHead(200, { "content-type": "application/grpc", "grpc-status": String(status) });
  response.end();
}
