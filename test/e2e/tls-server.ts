// A server outside of the mesh that says what it saw of a client's TLS: `node tls-server.ts PORT CERTIFICATE KEY CA`, the last three
// files. It asks for the client's certificate, and takes clients without one.

import { readFileSync } from "node:fs";
import { createServer } from "node:https";
import type { TLSSocket } from "node:tls";

/** The JSON body of every answer. */
export interface SeenTls {
  readonly serverName: string;
  /** Of the client's certificate; empty without one. */
  readonly client: string;
  /** Whether the CA vouches for it. */
  readonly authorized: boolean;
}

const [, , port, certificate = "", key = "", ca = ""] = process.argv;

createServer(
  {
    cert: readFileSync(certificate),
    key: readFileSync(key),
    ca: readFileSync(ca),
    requestCert: true,
    rejectUnauthorized: false,
  },
  (request, response) => {
    const socket = request.socket as TLSSocket;
    const seen: SeenTls = {
      serverName: typeof socket.servername === "string" ? socket.servername : "",
      client: String(socket.getPeerCertificate().subject?.CN ?? ""),
      authorized: socket.authorized,
    };
    response.end(JSON.stringify(seen));
  },
).listen(Number(port), "0.0.0.0", () => console.log("ready"));
