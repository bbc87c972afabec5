// The proxy's DNS: what the workload asks its servers is captured to here, UDP and TCP. Names of the mesh are Envoy's to
// answer (a table that the control plane sends, asked over loopback); every other question goes on to the pod's own
// servers as it came, whatever its type. As long as Envoy has no table, all do.

import { createSocket, type Socket as UdpSocket } from "node:dgram";
import { connect, createServer, isIPv6, type Server, type Socket } from "node:net";
import { randomInt } from "node:crypto";
import type { Logger } from "#base";
import {
  idOf,
  parseQuestion,
  readdress,
  recordCount,
  recordTypes,
  renderEmptyAnswer,
  renderQuery,
  responseCodes,
  type Question,
} from "./dns-message.ts";

export interface DnsOptions {
  readonly port: number;
  /** Where Envoy's table answers, on 127.0.0.1. */
  readonly tablePort: number;
  /** The pod's own servers, tried in this order. */
  readonly servers: readonly string[];
  /** The port of these; 53. */
  readonly serverPort: number;
  /** Names below these domains are never the mesh's to refuse. */
  readonly ownDomains: readonly string[];
  /** What becomes of names that the mesh does not know: asked of the pod's servers, or refused as not existing. */
  readonly unknownNames: "forward" | "refuse";
  readonly log: Logger;
}

const loopback = "127.0.0.1";
/**
 * A port without a table refuses at once, so silence is an Envoy that is busy: others would say that there is no such name. Resolvers
 * wait for 5 s.
 */
const tableTimeoutMs = 2_500;
const serverTimeoutMs = 3_000;
const tcpIdleMs = 10_000;
/** Questions at a time; beyond it they are dropped, and the asker asks again. */
const openQuestionsMax = 512;
/** Beyond it connections are refused. */
const tcpConnectionsMax = 128;
const messageBytesMax = 65_535;
/** The address of hosts that the mesh knows and has no address for: their own DNS says it. */
const addressOfOthers = Buffer.from([0, 0, 0, 0]);

export class DnsProxy {
  readonly #options: DnsOptions;
  readonly #sockets: UdpSocket[] = [];
  readonly #listeners: Server[] = [];
  #open = 0;
  #closed = false;

  constructor(options: DnsOptions) {
    this.#options = options;
  }

  /** Resolves when the ports are open. Rejects when one is taken. */
  async listen(): Promise<void> {
    // Questions to a server with an IPv6 address are redirected to the loopback address of that family.
    const addresses = [loopback, ...(this.#options.servers.some((server) => isIPv6(server)) ? ["::1"] : [])];
    for (const address of addresses) {
      this.#sockets.push(await this.#listenUdp(address));
      this.#listeners.push(await this.#listenTcp(address));
    }
  }

  close(): void {
    this.#closed = true;
    for (const socket of this.#sockets) socket.close();
    for (const listener of this.#listeners) listener.close();
  }

  async #listenUdp(address: string): Promise<UdpSocket> {
    const { port, log } = this.#options;
    const udp = createSocket(isIPv6(address) ? "udp6" : "udp4");
    udp.on("message", (query, peer) => {
      void this.#answer(query, "udp").then((answer) => {
        if (answer !== undefined && !this.#closed) udp.send(answer, peer.port, peer.address);
      });
    });
    await new Promise<void>((resolve, reject) => {
      udp.once("error", reject);
      udp.bind(port, address, resolve);
    });
    udp.removeAllListeners("error");
    udp.on("error", (error) => log.warn({ reason: error.message }, "the DNS socket failed"));
    return udp;
  }

  async #listenTcp(address: string): Promise<Server> {
    const tcp = createServer((socket) => this.#serve(socket));
    tcp.maxConnections = tcpConnectionsMax;
    await new Promise<void>((resolve, reject) => {
      tcp.once("error", reject);
      tcp.listen(this.#options.port, address, resolve);
    });
    return tcp;
  }

  /** Undefined for what is no question, or one too many. Never rejects. */
  async #answer(query: Buffer, by: "udp" | "tcp"): Promise<Buffer | undefined> {
    const question = parseQuestion(query);
    if (question === undefined || this.#open >= openQuestionsMax) return undefined;
    this.#open++;
    try {
      const known = await this.#known(query, question);
      if (known !== undefined) return known;
      return await this.#forward(query, question, by);
    } finally {
      this.#open--;
    }
  }

  /** What the mesh answers: its records, or that there are none; undefined where others are to be asked. */
  async #known(query: Buffer, question: Question): Promise<Buffer | undefined> {
    const found = await this.#lookUp(question);
    switch (found.kind) {
      case "records":
        return readdress(found.answer, query);
      case "other-family":
        return renderEmptyAnswer(query, question, responseCodes.noError);
      case "elsewhere":
        return undefined;
      case "unknown":
        return this.#refuses(question)
          ? renderEmptyAnswer(query, question, responseCodes.noSuchName)
          : undefined;
    }
  }

  async #lookUp(question: Question): Promise<Found> {
    const { a, aaaa } = recordTypes;
    const isAddress = question.type === a || question.type === aaaa;
    if (!isAddress && this.#options.unknownNames === "forward") return { kind: "elsewhere" };
    const first = await this.#askTable(question, isAddress ? question.type : a);
    if (first === undefined) return { kind: "elsewhere" };
    if (recordCount(first) > 0) {
      return !isAddress || isElsewhere(first) ? { kind: "elsewhere" } : { kind: "records", answer: first };
    }
    // Envoy says the same of a name without addresses of this family as of one that it does not know.
    const other = await this.#askTable(question, question.type === a ? aaaa : a);
    if (other === undefined || recordCount(other) === 0) return { kind: "unknown" };
    return isElsewhere(other) || !isAddress ? { kind: "elsewhere" } : { kind: "other-family" };
  }

  #refuses({ name }: Question): boolean {
    const { unknownNames, ownDomains } = this.#options;
    if (unknownNames === "forward") return false;
    return !ownDomains.some((domain) => name === domain || name.endsWith(`.${domain}`));
  }

  #askTable(question: Question, type: number): Promise<Buffer | undefined> {
    const query = renderQuery(randomInt(65_536), question, type);
    return askUdp(query, loopback, this.#options.tablePort, tableTimeoutMs);
  }

  async #forward(query: Buffer, question: Question, by: "udp" | "tcp"): Promise<Buffer> {
    const { servers, serverPort } = this.#options;
    const ask = by === "udp" ? askUdp : askTcp;
    for (const server of servers) {
      const answer = await ask(query, server, serverPort, serverTimeoutMs);
      if (answer !== undefined) return answer;
    }
    return renderEmptyAnswer(query, question, responseCodes.serverFailure);
  }

  #serve(socket: Socket): void {
    socket.setTimeout(tcpIdleMs, () => socket.destroy());
    socket.on("error", () => socket.destroy());
    const take = createSplitter((query) => {
      void this.#answer(query, "tcp").then((answer) => {
        if (answer === undefined) socket.destroy();
        else if (socket.writable) socket.write(withLength(answer));
      });
    });
    socket.on("data", take);
  }
}

type Found =
  | { readonly kind: "records"; readonly answer: Buffer }
  | { readonly kind: "other-family" }
  | { readonly kind: "elsewhere" }
  | { readonly kind: "unknown" };

/** The one record's data stands at the end of an answer that has nothing behind it. */
function isElsewhere(answer: Buffer): boolean {
  return recordCount(answer) === 1 && answer.subarray(-4).equals(addressOfOthers);
}

/** Asks from a port of its own, so that nobody can guess where the answer is awaited. Undefined when none comes. */
function askUdp(
  query: Buffer,
  address: string,
  port: number,
  timeoutMs: number,
): Promise<Buffer | undefined> {
  return new Promise((resolve) => {
    const socket = createSocket(isIPv6(address) ? "udp6" : "udp4");
    let done = false;
    const end = (answer: Buffer | undefined): void => {
      if (done) return;
      done = true;
      clearTimeout(timer);
      socket.close();
      resolve(answer);
    };
    const timer = setTimeout(() => end(undefined), timeoutMs);
    socket.on("error", () => end(undefined));
    socket.on("message", (answer) => {
      if (answer.length >= 12 && idOf(answer) === idOf(query)) end(answer);
    });
    // Connected, so that a closed port is heard of at once.
    socket.connect(port, address, () => {
      if (!done) socket.send(query);
    });
  });
}

function askTcp(
  query: Buffer,
  address: string,
  port: number,
  timeoutMs: number,
): Promise<Buffer | undefined> {
  return new Promise((resolve) => {
    const socket = connect(port, address);
    const timer = setTimeout(() => socket.destroy(), timeoutMs);
    socket.on("error", () => socket.destroy());
    socket.on("close", () => {
      clearTimeout(timer);
      resolve(undefined);
    });
    const take = createSplitter((answer) => {
      resolve(answer);
      socket.destroy();
    });
    socket.on("data", take);
    socket.write(withLength(query));
  });
}

/** Over TCP each message comes after its length in two bytes. */
function withLength(message: Buffer): Buffer {
  const length = Buffer.alloc(2);
  length.writeUInt16BE(message.length);
  return Buffer.concat([length, message]);
}

function createSplitter(callback: (message: Buffer) => void): (chunk: Buffer) => void {
  let rest: Buffer = Buffer.alloc(0);
  return (chunk) => {
    rest = rest.length === 0 ? chunk : Buffer.concat([rest, chunk]);
    while (rest.length >= 2 && rest.length >= 2 + rest.readUInt16BE(0)) {
      const end = 2 + rest.readUInt16BE(0);
      callback(rest.subarray(2, end));
      rest = rest.subarray(end);
    }
    // A peer that sends many questions at once is answered as they come; more than two messages never wait.
    if (rest.length > 2 * messageBytesMax) rest = Buffer.alloc(0);
  };
}
