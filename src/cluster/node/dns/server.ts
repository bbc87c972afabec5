// The cluster's DNS server, UDP and TCP, in the node's network namespace.

import { createSocket } from "node:dgram";
import { createServer, type Socket } from "node:net";
import * as dnsPacket from "dns-packet";
import type { Logger } from "#base";
import type { ClusterStore } from "../../api/index.ts";
import type { EndpointSlice, Service } from "../../types.ts";
import { answerDns, type DnsView } from "./answers.ts";

const ttlSeconds = 5; // as short as what it names: Pods come and go
const udpBytesMax = 1_232; // beyond it the answer is marked truncated and the client asks by TCP
const tcpIdleMs = 10_000;
const tcpConnectionsMax = 200; // beyond it connections are refused
const responseCodes = { noError: 0, formatError: 1, noSuchName: 3, refused: 5 } as const;
const truncatedFlag = 0x0200;

export interface DnsServer {
  close(): Promise<void>;
}

/** Listens on `address`:`port`. Throws when the port is taken. */
export async function startDnsServer(
  view: DnsView,
  options: { address: string; port: number; domain: string; log: Logger },
): Promise<DnsServer> {
  const { address, port, domain, log } = options;
  const udp = createSocket("udp4");
  udp.on("message", (message, peer) => {
    const answer = answerMessage(message, view, domain, udpBytesMax);
    if (answer !== undefined) udp.send(answer, peer.port, peer.address);
  });
  udp.on("error", (error) => log.warn({ error: String(error) }, "the DNS server's socket failed"));
  await new Promise<void>((resolve, reject) => {
    udp.once("error", reject);
    udp.bind(port, address, () => {
      udp.off("error", reject);
      resolve();
    });
  });
  const tcp = createServer((socket) => serveTcp(socket, view, domain));
  tcp.maxConnections = tcpConnectionsMax;
  await new Promise<void>((resolve, reject) => {
    tcp.once("error", reject);
    tcp.listen(port, address, resolve);
  });
  return {
    close: () =>
      new Promise((resolve) => {
        udp.close();
        tcp.close(() => resolve());
      }),
  };
}

function serveTcp(socket: Socket, view: DnsView, domain: string): void {
  let pending = Buffer.alloc(0);
  socket.setTimeout(tcpIdleMs, () => socket.destroy());
  socket.on("error", () => socket.destroy());
  socket.on("data", (chunk: Buffer) => {
    pending = Buffer.concat([pending, chunk]);
    while (pending.length >= 2 && pending.length >= 2 + pending.readUInt16BE(0)) {
      const length = pending.readUInt16BE(0);
      const answer = answerMessage(pending.subarray(2, 2 + length), view, domain, 65_535);
      pending = pending.subarray(2 + length);
      if (answer === undefined) continue;
      const head = Buffer.alloc(2);
      head.writeUInt16BE(answer.length);
      socket.write(Buffer.concat([head, answer]));
    }
  });
}

/** The answer to one message, or undefined for what is not a query. */
export function answerMessage(
  message: Buffer,
  view: DnsView,
  domain: string,
  bytesMax: number,
): Buffer | undefined {
  let query: dnsPacket.DecodedPacket;
  try {
    query = dnsPacket.decode(message);
  } catch {
    if (message.length < 12) return undefined;
    return encode(message.readUInt16BE(0), responseCodes.formatError, 0, [], []);
  }
  if (query.type !== "query") return undefined;
  const question = query.questions?.[0];
  const id = query.id ?? 0;
  if (question === undefined) return encode(id, responseCodes.formatError, 0, [], []);
  const recursion = (query.flags ?? 0) & dnsPacket.RECURSION_DESIRED;
  const answer = answerDns(question.type, question.name, view, domain);
  if (answer.kind === "refused") {
    // "No such name" rather than "refused": a resolver then stops at once instead of trying again and again.
    return encode(id, responseCodes.noSuchName, recursion, [question], []);
  }
  if (answer.kind === "noSuchName")
    return encode(id, responseCodes.noSuchName, recursion | dnsPacket.AUTHORITATIVE_ANSWER, [question], []);
  const records: dnsPacket.Answer[] = answer.records.map((record) => ({
    ...record,
    ttl: ttlSeconds,
    class: "IN",
  }));
  const flags = recursion | dnsPacket.AUTHORITATIVE_ANSWER;
  const whole = encode(id, responseCodes.noError, flags, [question], records);
  if (whole.length <= bytesMax) return whole;
  return encode(id, responseCodes.noError, flags | truncatedFlag, [question], []);
}

function encode(
  id: number,
  code: number,
  flags: number,
  questions: dnsPacket.Question[],
  answers: dnsPacket.Answer[],
): Buffer {
  return dnsPacket.encode({
    type: "response",
    id,
    flags: flags | dnsPacket.RECURSION_AVAILABLE | code,
    questions,
    answers,
  });
}

/** Reads the store at each question. */
export function dnsViewOf(store: ClusterStore): DnsView {
  return {
    service: (namespace, name) => store.get("services", namespace, name) as Service | undefined,
    slices: (namespace, service) =>
      store.list("endpointslices.discovery.k8s.io", {
        namespace,
        labelSelector: `kubernetes.io/service-name=${service}`,
      }).items as EndpointSlice[],
    hasNamespace: (name) => store.get("namespaces", "", name) !== undefined,
  };
}
