import assert from "node:assert/strict";
import { createSocket, type Socket } from "node:dgram";
import { connect, createServer, type Server } from "node:net";
import { after, before, describe, test } from "node:test";
import * as dnsPacket from "dns-packet";
import { freePorts } from "../../../test/support/free-ports.ts";
import { silentLog } from "#base";
import { parseQuestion } from "./dns-message.ts";
import { DnsProxy } from "./dns.ts";

/** What the pod's own server knows. */
const upstream: Readonly<Record<string, dnsPacket.Answer[]>> = {
  "TXT example.com": [{ type: "TXT", name: "example.com", data: ["hello"] }],
  "A example.com": [{ type: "A", name: "example.com", data: "192.0.2.7" }],
  "AAAA mesh.example.com": [{ type: "AAAA", name: "mesh.example.com", data: "2001:db8::7" }],
  "A passed.example.com": [{ type: "A", name: "passed.example.com", data: "192.0.2.9" }],
  "A ns.svc.cluster.local": [{ type: "A", name: "ns.svc.cluster.local", data: "10.96.0.1" }],
};
/** What Envoy's table knows; it says "no such name" to all else, also to the other family of a name. */
const table: Readonly<Record<string, dnsPacket.Answer[]>> = {
  "A mesh.example.com": [{ type: "A", name: "mesh.example.com", data: "240.240.0.1" }],
  "A passed.example.com": [{ type: "A", name: "passed.example.com", data: "0.0.0.0" }],
};

const ports = { table: 0, upstream: 0, forwarding: 0, refusing: 0 };

describe("the proxy's DNS", () => {
  let servers: Socket[];
  let tcp: Server;
  let forwarding: DnsProxy;
  let refusing: DnsProxy;

  before(async () => {
    const [upstreamPort = 0, forwardingPort = 0, refusingPort = 0] = await freePorts(3);
    const [tableSocket, tablePort] = await udpServer(table);
    const [upstreamSocket] = await udpServer(upstream, upstreamPort);
    servers = [tableSocket, upstreamSocket];
    tcp = createServer((socket) =>
      socket.on("data", (chunk: Buffer) => {
        const answer = answerFrom(upstream, chunk.subarray(2));
        socket.write(Buffer.concat([Buffer.from([answer.length >> 8, answer.length & 255]), answer]));
      }),
    );
    await new Promise<void>((resolve) => void tcp.listen(upstreamPort, "127.0.0.1", resolve));
    Object.assign(ports, { table: tablePort, upstream: upstreamPort });
    [ports.forwarding, ports.refusing] = [forwardingPort, refusingPort];
    forwarding = proxyAt(ports.forwarding, "forward");
    refusing = proxyAt(ports.refusing, "refuse");
    await Promise.all([forwarding.listen(), refusing.listen()]);
  });
  after(() => {
    for (const socket of servers) socket.close();
    tcp.close();
    forwarding.close();
    refusing.close();
  });

  function proxyAt(port: number, unknownNames: "forward" | "refuse"): DnsProxy {
    return new DnsProxy({
      port,
      tablePort: ports.table,
      servers: ["127.0.0.1"],
      serverPort: ports.upstream,
      ownDomains: ["cluster.local"],
      unknownNames,
      log: silentLog,
    });
  }

  test("a name of the mesh gets the mesh's address, by UDP and by TCP", async () => {
    assert.deepEqual(await ask("A", "mesh.example.com"), ["240.240.0.1"]);
    assert.deepEqual(await ask("A", "MESH.example.com"), ["240.240.0.1"]);
    assert.deepEqual(await askByTcp("A", "mesh.example.com"), ["240.240.0.1"]);
  });

  test("a name of the mesh has no address of the other family, whatever its own DNS says", async () => {
    assert.deepEqual(await ask("AAAA", "mesh.example.com"), []);
  });

  test("other names and other types of records are the pod's servers' to answer", async () => {
    assert.deepEqual(await ask("A", "example.com"), ["192.0.2.7"]);
    assert.deepEqual(await ask("TXT", "example.com"), [["hello"]]);
    assert.deepEqual(await askByTcp("TXT", "example.com"), [["hello"]]);
  });

  test("a host that the mesh knows without an address is its own DNS's to answer", async () => {
    assert.deepEqual(await ask("A", "passed.example.com"), ["192.0.2.9"]);
    assert.deepEqual(await ask("A", "passed.example.com", ports.refusing), ["192.0.2.9"]);
  });

  test("names that the mesh does not know can be refused, those of the cluster's domain never", async () => {
    assert.equal(await ask("A", "example.com", ports.refusing), "NXDOMAIN");
    assert.equal(await ask("TXT", "example.com", ports.refusing), "NXDOMAIN");
    assert.deepEqual(await ask("A", "mesh.example.com", ports.refusing), ["240.240.0.1"]);
    assert.deepEqual(await ask("A", "ns.svc.cluster.local", ports.refusing), ["10.96.0.1"]);
  });

  test("whatever comes in, parsing ends without an error", () => {
    const query = dnsPacket.encode({ type: "query", id: 1, questions: [{ type: "A", name: "a.b" }] });
    for (let length = 0; length < query.length; length++) {
      assert.equal(parseQuestion(query.subarray(0, length)), undefined);
    }
    assert.equal(parseQuestion(query)?.name, "a.b");
    const pointer = Buffer.from(query);
    pointer[12] = 0xc0;
    assert.equal(parseQuestion(pointer), undefined);
  });
});

function answerFrom(records: typeof table, message: Buffer): Buffer {
  const { id, questions } = dnsPacket.decode(message);
  const question = questions?.[0];
  const answers = records[`${question?.type} ${question?.name.toLowerCase()}`];
  const flags = answers === undefined ? 3 : 0;
  return dnsPacket.encode({
    type: "response",
    id: id ?? 0,
    flags,
    questions: questions ?? [],
    answers: answers ?? [],
  });
}

async function udpServer(records: typeof table, port = 0): Promise<[Socket, number]> {
  const socket = createSocket("udp4");
  socket.on("message", (message, peer) => socket.send(answerFrom(records, message), peer.port, peer.address));
  await new Promise<void>((resolve) => void socket.bind(port, "127.0.0.1", resolve));
  return [socket, socket.address().port];
}

function queryOf(type: dnsPacket.RecordType, name: string): Buffer {
  const flags = dnsPacket.RECURSION_DESIRED;
  return dnsPacket.encode({ type: "query", id: 77, flags, questions: [{ type, name }] });
}

function dataOf(answer: Buffer): unknown {
  const { id, answers, rcode } = dnsPacket.decode(answer) as dnsPacket.DecodedPacket & { rcode: string };
  assert.equal(id, 77);
  if (rcode !== "NOERROR") return rcode;
  const data = (answers ?? []).map((record) => ("data" in record ? record.data : undefined));
  return data.map((one) => (Array.isArray(one) ? one.map(String) : one));
}

async function ask(type: dnsPacket.RecordType, name: string, port = ports.forwarding): Promise<unknown> {
  const socket = createSocket("udp4");
  try {
    return await new Promise((resolve, reject) => {
      socket.on("error", reject);
      socket.on("message", (answer) => resolve(dataOf(answer)));
      socket.send(queryOf(type, name), port, "127.0.0.1");
    });
  } finally {
    socket.close();
  }
}

async function askByTcp(type: dnsPacket.RecordType, name: string): Promise<unknown> {
  const query = queryOf(type, name);
  const socket = connect(ports.forwarding, "127.0.0.1");
  try {
    return await new Promise((resolve, reject) => {
      socket.on("error", reject);
      socket.on("data", (chunk: Buffer) => resolve(dataOf(chunk.subarray(2))));
      socket.write(Buffer.concat([Buffer.from([0, query.length]), query]));
    });
  } finally {
    socket.destroy();
  }
}
