// A service that decides whether requests may go on, over HTTP and over Envoy's gRPC: those that carry a password may. It says in
// a header what it was asked, and goes into the mesh as a Pod of its own.

import { stringify } from "yaml";

export const password = "let-me-in";

/** gRPC's messages are looked at and written as bytes: a CheckResponse has a status, which has a code (7: denied). */
const program = `
const http = require("node:http"), http2 = require("node:http2");
const bodyOf = (request, then) => {
  const chunks = [];
  request.on("data", (chunk) => chunks.push(chunk)).on("end", () => then(Buffer.concat(chunks)));
};
http.createServer((request, response) => bodyOf(request, (body) => {
  const may = (request.headers.authorization ?? "").includes("${password}");
  response.writeHead(may ? 200 : 401, { "x-decided": request.method + " " + request.url + " " + body });
  response.end("decided");
})).listen(8080);
http2.createServer((request, response) => bodyOf(request, (body) => {
  const answer = body.includes("${password}") ? [0x0a, 0] : [0x0a, 2, 8, 7];
  response.writeHead(200, { "content-type": "application/grpc" });
  response.addTrailers({ "grpc-status": "0" });
  response.end(Buffer.from([0, 0, 0, 0, answer.length, ...answer]));
})).listen(9090);
process.once("SIGTERM", () => process.exit(0));
`;

/** Ports 80 (HTTP), 90 (gRPC) and 91, of which nobody says what it speaks. */
export function deciderManifest(namespace: string): string {
  const objects = [
    {
      apiVersion: "v1",
      kind: "Service",
      metadata: { name: "decider", namespace },
      spec: {
        selector: { app: "decider" },
        ports: [
          { name: "http", port: 80, targetPort: 8080 },
          { name: "grpc", port: 90, targetPort: 9090 },
          { name: "unsaid", port: 91, targetPort: 9090 },
        ],
      },
    },
    {
      apiVersion: "v1",
      kind: "Pod",
      metadata: { name: "decider", namespace, labels: { app: "decider" } },
      spec: {
        terminationGracePeriodSeconds: 2,
        containers: [
          {
            name: "decider",
            image: "node",
            args: ["-e", program],
            readinessProbe: { tcpSocket: { port: 9090 }, periodSeconds: 1 },
          },
        ],
      },
    },
  ];
  return objects.map((object) => stringify(object)).join("---\n");
}
