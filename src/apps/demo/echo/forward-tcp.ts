// Calls over plain connections, or over TLS without HTTP in it.

import { connect as connectPlain, type Socket } from "node:net";
import { connect as connectTls } from "node:tls";
import type { Answer, Order } from "./forward.ts";

/** What echo repeats follows this. */
const repeated = "echo=";
/** What echo says where it speaks first. */
const greeting = "ready ";

/** Sends the message, and answers with all that came back once what is waited for is among it. */
export function callTcp(url: URL, order: Order, timeoutMs: number): Promise<Answer> {
  const { promise, resolve, reject } = Promise.withResolvers<Answer>();
  const secure = order.url.startsWith("tls:");
  const socket = connect(url, order, secure);
  const timer = setTimeout(() => reject(new Error("timed out")), timeoutMs);
  const awaited = order.expect ?? repeated;
  let body = "";
  let sent = false;
  const send = (): void => {
    sent = true;
    socket.write(`${order.message ?? "hello"}\n`);
  };
  socket.on(secure ? "secureConnect" : "connect", () => {
    if (order.proxyProtocol === true) socket.write(proxyHeader(socket));
    // A client of a protocol in which the server speaks first says nothing before.
    if (order.serverFirst !== true) send();
  });
  socket.on("data", (chunk: Buffer) => {
    body += chunk.toString();
    if (!sent && body.startsWith(greeting) && body.includes("\n")) send();
    if (sent && body.includes(awaited)) resolve({ status: 200, headers: {}, body });
  });
  socket.on("error", reject);
  socket.on("close", () => reject(new Error(`closed after ${body.length} bytes: ${body.slice(0, 200)}`)));
  return promise.finally(() => {
    clearTimeout(timer);
    socket.destroy();
  });
}

function connect(url: URL, { serverName, alpn }: Order, secure: boolean): Socket {
  const to = { host: url.hostname, port: Number(url.port === "" ? 80 : url.port) };
  if (!secure) return connectPlain(to);
  return connectTls({
    ...to,
    rejectUnauthorized: false,
    ...(serverName === undefined ? {} : { servername: serverName }),
    ...(alpn === undefined ? {} : { ALPNProtocols: [...alpn] }),
  });
}

/** Version 1, in letters. */
function proxyHeader({ localAddress, remoteAddress, localPort, remotePort }: Socket): string {
  return `PROXY TCP4 ${localAddress} ${remoteAddress} ${localPort} ${remotePort}\r\n`;
}
