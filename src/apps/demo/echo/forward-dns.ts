// Asks a DNS server for the addresses of a name, by UDP or by TCP, and past every cache of the machine.

import { createSocket } from "node:dgram";
import { getServers } from "node:dns";
import { connect } from "node:net";
import { decode, encode, RECURSION_DESIRED } from "dns-packet";
import type { Answer } from "./forward.ts";

const dnsPort = 53;

/** `http://name?protocol=tcp&server=ADDRESS`: the body is a JSON list of addresses, sorted. */
export async function lookupDns(url: URL, timeoutMs: number): Promise<Answer> {
  const server = url.searchParams.get("server") ?? getServers()[0] ?? "127.0.0.1";
  const ask = url.searchParams.get("protocol") === "tcp" ? overTcp : overUdp;
  const [host = "", portText] = server.split(":");
  const port = Number(portText ?? dnsPort);
  const answers = await Promise.all(
    (["A", "AAAA"] as const).map(async (type) =>
      addressesIn(await ask(queryOf(url.hostname, type), host, port, timeoutMs)),
    ),
  );
  const found = answers.flat().toSorted();
  if (found.length === 0) throw new Error("no addresses");
  return { status: 200, headers: {}, body: JSON.stringify(found) };
}

function queryOf(name: string, type: "A" | "AAAA"): Buffer {
  return encode({
    type: "query",
    id: Math.floor(Math.random() * 65_536),
    flags: RECURSION_DESIRED,
    questions: [{ type, name }],
  });
}

function overUdp(query: Buffer, host: string, port: number, timeoutMs: number): Promise<Buffer> {
  const { promise, resolve, reject } = Promise.withResolvers<Buffer>();
  const socket = createSocket("udp4");
  const timer = setTimeout(() => reject(new Error("timed out")), timeoutMs);
  socket.on("message", resolve);
  socket.on("error", reject);
  // A connected socket hears of a port that is closed.
  socket.connect(port, host, () => socket.send(query));
  return promise.finally(() => {
    clearTimeout(timer);
    socket.close();
  });
}

/** By TCP, two bytes of length lead each message. */
function overTcp(query: Buffer, host: string, port: number, timeoutMs: number): Promise<Buffer> {
  const { promise, resolve, reject } = Promise.withResolvers<Buffer>();
  const socket = connect({ host, port });
  const timer = setTimeout(() => reject(new Error("timed out")), timeoutMs);
  const length = Buffer.alloc(2);
  length.writeUInt16BE(query.length);
  let received = Buffer.alloc(0);
  socket.on("connect", () => socket.write(Buffer.concat([length, query])));
  socket.on("data", (chunk: Buffer) => {
    received = Buffer.concat([received, chunk]);
    if (received.length >= 2 && received.length >= 2 + received.readUInt16BE(0))
      resolve(received.subarray(2));
  });
  socket.on("error", reject);
  socket.on("close", () => reject(new Error("closed")));
  return promise.finally(() => {
    clearTimeout(timer);
    socket.destroy();
  });
}

function addressesIn(message: Buffer): string[] {
  return (decode(message).answers ?? []).flatMap((answer) =>
    answer.type === "A" || answer.type === "AAAA" ? [answer.data] : [],
  );
}
