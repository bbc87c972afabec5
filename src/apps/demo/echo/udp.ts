// Datagrams, which a mesh leaves alone: a server that repeats them, and one call.

import { createSocket, type Socket } from "node:dgram";
import type { Answer, Order } from "./forward.ts";

/** Resolves once it listens. */
export function startUdpEcho(port: number, address: string, name: string): Promise<Socket> {
  const socket = createSocket("udp4");
  socket.on("message", (message, from) =>
    socket.send(`${name} from=${from.address} echo=${message.toString("latin1")}`, from.port, from.address),
  );
  return new Promise((resolve, reject) => {
    socket.once("error", reject);
    socket.bind(port, address, () => resolve(socket));
  });
}

/** One datagram there and one back. */
export function callUdp(url: URL, order: Order, timeoutMs: number): Promise<Answer> {
  const { promise, resolve, reject } = Promise.withResolvers<Answer>();
  const socket = createSocket("udp4");
  const timer = setTimeout(() => reject(new Error("timed out")), timeoutMs);
  socket.on("message", (message) => resolve({ status: 200, headers: {}, body: message.toString("latin1") }));
  socket.on("error", reject);
  socket.send(order.message ?? "hello", Number(url.port), url.hostname);
  return promise.finally(() => {
    clearTimeout(timer);
    socket.close();
  });
}
