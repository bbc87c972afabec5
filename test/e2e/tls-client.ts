// Calls of a gateway's HTTPS port from outside of the mesh, with what the handshake said.

import type { IncomingHttpHeaders } from "node:http";
import { request, type Agent } from "node:https";
import { connect as connectTcp } from "node:net";
import { connect as connectTls, type ConnectionOptions, type TLSSocket } from "node:tls";
import type { Pair } from "../support/test-authority.ts";

export interface TlsCall {
  readonly port: number;
  /** Server name and Host. */
  readonly host: string;
  /** "/" unless given. */
  readonly path?: string;
  readonly client?: Pair;
  readonly agent?: Agent;
  readonly headers?: Readonly<Record<string, string>>;
  /** What a load balancer says before the handshake. */
  readonly preface?: string | Uint8Array;
  readonly tls?: ConnectionOptions;
}

export interface TlsAnswer {
  readonly status: number;
  readonly body: string;
  readonly headers: IncomingHttpHeaders;
  /** Names and values by turns, as the server wrote them. */
  readonly rawHeaders: readonly string[];
  /** SHA-256 of the server's certificate. */
  readonly fingerprint: string;
  readonly protocol: string;
  readonly cipher: string;
  /** By which curve keys were agreed on; "" where it was not newly agreed. */
  readonly curve: string;
  /** Of the connection: two answers with one number came over one connection. */
  readonly localPort: number;
}

const timeoutMs = 10_000;

/** One request; rejects where there is no TLS, or none any more. */
export async function callTls(call: TlsCall): Promise<TlsAnswer> {
  const { port, host, path = "/", client, agent, headers: own = {}, tls = {} } = call;
  const options: ConnectionOptions = {
    host: "127.0.0.1",
    port,
    servername: host,
    // The certificates are the test's own; which one is served is what it looks at.
    rejectUnauthorized: false,
    ...(client === undefined ? {} : { key: client.key, cert: client.certificate }),
    ...tls,
  };
  const opened = call.preface === undefined ? undefined : await afterPreface(call.preface, options);
  return new Promise((resolve, reject) => {
    // An agent, even the one that `false` makes, would open a connection of its own.
    const connection = opened === undefined ? { agent: agent ?? false } : { createConnection: () => opened };
    const all = { ...options, ...connection, path, headers: { ...own, host } };
    const sent = request({ ...all, timeout: timeoutMs }, (response) => {
      const socket = response.socket as TLSSocket;
      const handshake = facts(socket);
      const { headers, rawHeaders } = response;
      let body = "";
      response.on("data", (chunk: Buffer) => (body += chunk.toString()));
      response.on("error", reject);
      response.on("end", () =>
        resolve({ status: response.statusCode ?? 0, headers, rawHeaders, body, ...handshake }),
      );
    });
    sent.on("timeout", () => sent.destroy(new Error("timed out")));
    sent.on("error", reject);
    sent.end();
  });
}

/** Milliseconds until the server closes a connection of which one request has been answered. */
export function idleMs({ port, host }: TlsCall): Promise<number> {
  return new Promise((resolve, reject) => {
    const options = { host: "127.0.0.1", port, servername: host, rejectUnauthorized: false };
    const socket = connectTls(options, () => socket.write(`GET / HTTP/1.1\r\nhost: ${host}\r\n\r\n`));
    let answeredMs = 0;
    socket.on("data", () => (answeredMs = performance.now()));
    socket.setTimeout(timeoutMs, () => socket.destroy(new Error("the connection stays open")));
    socket.on("error", reject);
    socket.on("end", () => resolve(performance.now() - answeredMs));
  });
}

/** A connection whose handshake is done, and nothing else. */
export function holdTls({ port, host }: TlsCall): Promise<TLSSocket> {
  return new Promise((resolve, reject) => {
    const options = { host: "127.0.0.1", port, servername: host, rejectUnauthorized: false };
    const socket = connectTls(options, () => resolve(socket));
    socket.on("error", reject);
  });
}

function facts(socket: TLSSocket): Omit<TlsAnswer, "status" | "body" | "headers" | "rawHeaders"> {
  const ephemeral = socket.getEphemeralKeyInfo() as { readonly name?: string } | null;
  return {
    fingerprint: socket.getPeerX509Certificate()?.fingerprint256 ?? "",
    protocol: socket.getProtocol() ?? "",
    cipher: socket.getCipher().name,
    curve: ephemeral?.name ?? "",
    localPort: socket.localPort ?? 0,
  };
}

function afterPreface(preface: string | Uint8Array, options: ConnectionOptions): Promise<TLSSocket> {
  return new Promise((resolve, reject) => {
    const socket = connectTcp({ host: "127.0.0.1", port: options.port ?? 0 }, () => {
      socket.write(preface);
      const secured = connectTls({ ...options, socket }, () => resolve(secured));
      secured.once("error", reject);
    });
    socket.once("error", reject);
  });
}
