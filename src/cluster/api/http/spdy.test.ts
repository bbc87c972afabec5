import assert from "node:assert/strict";
import { duplexPair, type Duplex } from "node:stream";
import { test } from "node:test";
import { constants, createDeflate, createInflate } from "node:zlib";
import { dictionary, SpdyConnection, type SpdyStream } from "./spdy.ts";

function control(type: number, flags: number, data: Buffer): Buffer {
  const head = Buffer.from([0x80, 3, 0, type, flags, 0, 0, 0]);
  head.writeUIntBE(data.length, 5, 3);
  return Buffer.concat([head, data]);
}

function number(value: number): Buffer {
  const field = Buffer.alloc(4);
  field.writeUInt32BE(value);
  return field;
}

/** The client's side: opens streams, and reads frames as they come. */
function client(socket: Duplex) {
  const deflate = createDeflate({ dictionary, flush: constants.Z_SYNC_FLUSH });
  const inflate = createInflate({ dictionary });
  const through = (codec: typeof deflate | typeof inflate, block: Buffer): Promise<Buffer> =>
    new Promise((resolve) => codec.write(block, () => resolve(codec.read() as Buffer)));
  let buffer = Buffer.alloc(0);
  const iterator = socket[Symbol.asyncIterator]();
  const bytes = async (count: number): Promise<Buffer> => {
    while (buffer.length < count) buffer = Buffer.concat([buffer, (await iterator.next()).value as Buffer]);
    const taken = buffer.subarray(0, count);
    buffer = buffer.subarray(count);
    return taken;
  };
  return {
    open: async (id: number, name: string, value: string) => {
      const texts = [name, value].flatMap((text) => [number(text.length), Buffer.from(text)]);
      const block = await through(deflate, Buffer.concat([number(1), ...texts]));
      socket.write(control(1, 0, Buffer.concat([number(id), number(0), Buffer.alloc(2), block])));
    },
    send: (bytesToSend: Buffer) => socket.write(bytesToSend),
    frame: async () => {
      const head = await bytes(8);
      const data = await bytes(head.readUIntBE(5, 3));
      return { head, data };
    },
    unpack: (block: Buffer) => through(inflate, block),
  };
}

test("the dictionary is the protocol's", () => {
  // What every client's first block of headers names.
  assert.equal(adler32(dictionary), 0xe3_c6_a7_c2);
});

function adler32(bytes: Buffer): number {
  let [a, b] = [1, 0];
  for (const byte of bytes) {
    a = (a + byte) % 65_521;
    b = (b + a) % 65_521;
  }
  return b * 65_536 + a;
}

test("streams are answered, and bytes go both ways with an end", async () => {
  const [ours, theirs] = duplexPair();
  const opened: SpdyStream[] = [];
  const received: string[] = [];
  let closed = 0;
  const connection = new SpdyConnection(ours, Buffer.alloc(0), {
    onStream: (stream) => {
      opened.push(stream);
      stream.onData = (chunk) => received.push(chunk.toString());
      stream.onEnd = () => received.push("end");
    },
    onClose: () => closed++,
  });
  const peer = client(theirs);
  await peer.open(1, "streamType", "error");
  await peer.open(3, "streamType", "stdout");
  for (const id of [1, 3]) {
    const { head, data } = await peer.frame();
    assert.deepEqual([head.readUInt16BE(2), data.readUInt32BE(0)], [2, id]);
    assert.deepEqual(await peer.unpack(data.subarray(4)), number(0), "a reply has no headers");
  }
  assert.deepEqual(
    opened.map(({ id, headers }) => [id, headers["streamtype"]]),
    [
      [1, "error"],
      [3, "stdout"],
    ],
  );
  peer.send(control(6, 0, number(7)));
  assert.deepEqual((await peer.frame()).data, number(7), "a ping comes back");
  connection.write(opened[1]!, Buffer.from("hello"));
  connection.end(opened[1]!);
  assert.equal((await peer.frame()).data.toString(), "hello");
  assert.equal((await peer.frame()).head[4], 1, "the end is a flag");
  // In pieces, as a network may have it.
  const data = Buffer.concat([number(3), Buffer.from([1, 0, 0, 2]), Buffer.from("hi")]);
  peer.send(data.subarray(0, 5));
  peer.send(data.subarray(5));
  peer.send(control(6, 0, number(9)));
  await peer.frame();
  assert.deepEqual(received, ["hi", "end"]);
  peer.send(control(7, 0, Buffer.alloc(8)));
  theirs.end();
  await new Promise((resolve) => setImmediate(resolve));
  assert.equal(closed, 1);
});
