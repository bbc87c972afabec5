// A small closed-loop HTTP/1.1 load generator and its backend, on raw sockets: they should cost less than what they
// measure.

import { createServer, connect, type Server, type Socket } from "node:net";

const body = "ok".repeat(64);
const answer = `HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: ${body.length}\r\n\r\n${body}`;
const endOfHead = "\r\n\r\n";

/** Answers every GET with 128 bytes. */
export async function startBackend(port: number): Promise<Server> {
  const server = createServer((socket) => {
    let rest = "";
    socket.setNoDelay(true);
    socket.on("error", () => socket.destroy());
    socket.on("data", (chunk) => {
      const parts = (rest + chunk.toString("latin1")).split(endOfHead);
      rest = parts.pop() ?? "";
      if (parts.length > 0) socket.write(answer.repeat(parts.length));
    });
  });
  await new Promise<void>((resolve) => server.listen(port, "127.0.0.1", resolve));
  return server;
}

export interface LoadResult {
  readonly requests: number;
  readonly requestsPerSecond: number;
  readonly p50Ms: number;
  readonly p99Ms: number;
  /** Answers that were none, or not 200. */
  readonly failures: number;
}

export interface LoadOptions {
  readonly port: number;
  readonly host: string;
  readonly connections: number;
  readonly forMs: number;
}

/** Each connection asks again as soon as it has its answer. */
export async function load({ port, host, connections, forMs }: LoadOptions): Promise<LoadResult> {
  const tookMs: number[] = [];
  let failures = 0;
  const startedMs = performance.now();
  const untilMs = startedMs + forMs;
  const request = `GET /bench HTTP/1.1\r\nhost: ${host}\r\nuser-agent: bench\r\n\r\n`;
  const one = (): Promise<void> =>
    new Promise((resolve) => {
      const socket: Socket = connect(port, "127.0.0.1");
      let received = "";
      let sentAtMs = 0;
      const ask = (): void => {
        received = "";
        sentAtMs = performance.now();
        socket.write(request);
      };
      socket.setNoDelay(true);
      socket.on("connect", ask);
      socket.on("data", (chunk) => {
        received += chunk.toString("latin1");
        if (!received.includes(endOfHead + body) && received.startsWith("HTTP/1.1 200")) return;
        const nowMs = performance.now();
        if (received.startsWith("HTTP/1.1 200")) tookMs.push(nowMs - sentAtMs);
        else failures++;
        if (nowMs < untilMs && received.startsWith("HTTP/1.1 200")) ask();
        else socket.end();
      });
      socket.on("error", () => {
        failures++;
        socket.destroy();
      });
      socket.on("close", () => resolve());
    });
  await Promise.all(Array.from({ length: connections }, one));
  const seconds = (performance.now() - startedMs) / 1_000;
  tookMs.sort((a, b) => a - b);
  const at = (share: number): number => tookMs[Math.floor(tookMs.length * share)] ?? 0;
  return {
    requests: tookMs.length,
    requestsPerSecond: tookMs.length / seconds,
    p50Ms: at(0.5),
    p99Ms: at(0.99),
    failures,
  };
}
