// The client's half of one gRPC call over HTTP/2, plaintext, as little of it as costs next to nothing: what the benchmark
// simulates hundreds of competes with the server for the same processors. Header blocks are not read; windows are as large
// as Envoy's (16 MiB a stream, 24 MiB a connection).

import { connect, type Socket } from "node:net";

export interface StubHandlers {
  /** The connection stands: messages may be sent. */
  opened(): void;
  /** The server has answered with its settings. */
  connected(): void;
  /** One whole message; the bytes are overwritten once this returns. */
  message(bytes: Buffer): void;
  /** Called once, whoever ended it. */
  lost(): void;
}

const frameType = {
  data: 0,
  headers: 1,
  reset: 3,
  settings: 4,
  ping: 6,
  goaway: 7,
  windowUpdate: 8,
} as const;
const flag = { ack: 1, endStream: 1, endHeaders: 4 } as const;
const initialWindowSetting = 4;
const streamWindow = 16 * 1024 * 1024;
const connectionWindow = 24 * 1024 * 1024;
/** As HTTP/2 has it until the other side says otherwise. */
const defaultWindow = 65_535;
const frameBytesMax = 16_384;
const frameHeadBytes = 9;
const messageHeadBytes = 5;
/** Given back to the server after this much. */
const windowGiveBackBytes = 4 * 1024 * 1024;

/** All sockets read into this: what is read is consumed before anything else is. */
const readBuffer = Buffer.allocUnsafeSlow(256 * 1024);

export class StubCall {
  readonly #socket: Socket;
  readonly #handlers: StubHandlers;
  #isLost = false;
  #isConnected = false;
  readonly #frameHead = Buffer.alloc(frameHeadBytes);
  #frameHeadFilled = 0;
  #frameType = -1;
  #frameFlags = 0;
  #payloadMissing = 0;
  #control: Buffer[] = [];
  readonly #messageHead = Buffer.alloc(messageHeadBytes);
  #messageHeadFilled = 0;
  #message: Buffer | undefined;
  #messageFilled = 0;
  #consumedBytes = 0;
  #sendWindow = defaultWindow;
  #sendStreamWindow = defaultWindow;
  #serverStreamWindow = defaultWindow;
  #unsent: Buffer[] = [];
  #outgoing: Buffer[] = [];

  /** @param address `host:port` */
  constructor(address: string, path: string, handlers: StubHandlers) {
    this.#handlers = handlers;
    const [host = "", port = ""] = address.split(":");
    this.#socket = connect({
      host,
      port: Number(port),
      noDelay: true,
      onread: {
        buffer: readBuffer,
        callback: (length) => {
          this.#read(readBuffer, length);
          return true;
        },
      },
    });
    this.#socket.once("connect", () => {
      this.#socket.write(opening(path, address));
      handlers.opened();
    });
    this.#socket.on("error", () => this.destroy());
    this.#socket.on("close", () => this.destroy());
  }

  /** Sends one message. */
  send(...pieces: readonly Uint8Array[]): void {
    const length = pieces.reduce((sum, piece) => sum + piece.length, 0);
    const head = Buffer.alloc(messageHeadBytes);
    head.writeUInt32BE(length, 1);
    this.#unsent.push(Buffer.concat([head, ...pieces]));
    this.#flush();
  }

  destroy(): void {
    if (this.#isLost) return;
    this.#isLost = true;
    this.#socket.destroy();
    this.#handlers.lost();
  }

  #flush(): void {
    while (this.#unsent.length > 0) {
      const next = this.#unsent[0]!;
      const length = Math.min(next.length, frameBytesMax, this.#sendWindow, this.#sendStreamWindow);
      if (length <= 0) break;
      this.#outgoing.push(frame(frameType.data, 0, 1, next.subarray(0, length)));
      this.#sendWindow -= length;
      this.#sendStreamWindow -= length;
      if (length === next.length) this.#unsent.shift();
      else this.#unsent[0] = next.subarray(length);
    }
    if (this.#outgoing.length === 0 || this.#isLost) return;
    this.#socket.write(this.#outgoing.length === 1 ? this.#outgoing[0]! : Buffer.concat(this.#outgoing));
    this.#outgoing = [];
  }

  #read(from: Buffer, length: number): void {
    let at = 0;
    while (at < length && !this.#isLost) {
      if (this.#frameHeadFilled < frameHeadBytes) {
        const taken = Math.min(frameHeadBytes - this.#frameHeadFilled, length - at);
        from.copy(this.#frameHead, this.#frameHeadFilled, at, at + taken);
        this.#frameHeadFilled += taken;
        at += taken;
        if (this.#frameHeadFilled < frameHeadBytes) return;
        this.#payloadMissing = this.#frameHead.readUIntBE(0, 3);
        this.#frameType = this.#frameHead[3]!;
        this.#frameFlags = this.#frameHead[4]!;
      }
      const taken = Math.min(this.#payloadMissing, length - at);
      if (this.#frameType === frameType.data) this.#data(from, at, at + taken);
      else if (taken > 0) this.#control.push(Buffer.from(from.subarray(at, at + taken)));
      at += taken;
      this.#payloadMissing -= taken;
      if (this.#payloadMissing > 0) return;
      this.#frameHeadFilled = 0;
      this.#frameEnded();
    }
  }

  #frameEnded(): void {
    if (this.#frameType !== frameType.data) {
      const payload = Buffer.concat(this.#control);
      this.#control = [];
      this.#controlFrame(payload);
    }
    const ends = this.#frameType === frameType.data || this.#frameType === frameType.headers;
    if (ends && (this.#frameFlags & flag.endStream) !== 0) this.destroy();
  }

  #controlFrame(payload: Buffer): void {
    const isAck = (this.#frameFlags & flag.ack) !== 0;
    switch (this.#frameType) {
      case frameType.settings:
        if (isAck) return;
        this.#settings(payload);
        this.#outgoing.push(frame(frameType.settings, flag.ack, 0, Buffer.alloc(0)));
        break;
      case frameType.ping:
        if (isAck) return;
        this.#outgoing.push(frame(frameType.ping, flag.ack, 0, payload));
        break;
      case frameType.windowUpdate: {
        const isOfStream = this.#frameHead.readUInt32BE(5) !== 0;
        if (isOfStream) this.#sendStreamWindow += payload.readUInt32BE(0);
        else this.#sendWindow += payload.readUInt32BE(0);
        break;
      }
      case frameType.reset:
      case frameType.goaway:
        this.destroy();
        return;
      default:
        return;
    }
    this.#flush();
  }

  #settings(payload: Buffer): void {
    for (let at = 0; at + 6 <= payload.length; at += 6) {
      if (payload.readUInt16BE(at) !== initialWindowSetting) continue;
      const window = payload.readUInt32BE(at + 2);
      this.#sendStreamWindow += window - this.#serverStreamWindow;
      this.#serverStreamWindow = window;
    }
    if (this.#isConnected) return;
    this.#isConnected = true;
    this.#handlers.connected();
  }

  #data(from: Buffer, start: number, end: number): void {
    this.#consumedBytes += end - start;
    let at = start;
    while (at < end) {
      if (this.#message === undefined) {
        const taken = Math.min(messageHeadBytes - this.#messageHeadFilled, end - at);
        from.copy(this.#messageHead, this.#messageHeadFilled, at, at + taken);
        this.#messageHeadFilled += taken;
        at += taken;
        if (this.#messageHeadFilled < messageHeadBytes) break;
        const length = this.#messageHead.readUInt32BE(1);
        this.#messageHeadFilled = 0;
        if (end - at >= length) {
          this.#handlers.message(from.subarray(at, at + length));
          at += length;
          continue;
        }
        this.#message = Buffer.allocUnsafeSlow(length);
        this.#messageFilled = 0;
      }
      const message = this.#message;
      const taken = Math.min(message.length - this.#messageFilled, end - at);
      from.copy(message, this.#messageFilled, at, at + taken);
      this.#messageFilled += taken;
      at += taken;
      if (this.#messageFilled < message.length) break;
      this.#message = undefined;
      this.#handlers.message(message);
    }
    if (this.#consumedBytes < windowGiveBackBytes) return;
    for (const stream of [0, 1])
      this.#outgoing.push(frame(frameType.windowUpdate, 0, stream, number32(this.#consumedBytes)));
    this.#consumedBytes = 0;
    this.#flush();
  }
}

/** The preface, our settings and windows, and the request's headers. */
function opening(path: string, authority: string): Buffer {
  const settings = Buffer.alloc(6);
  settings.writeUInt16BE(initialWindowSetting, 0);
  settings.writeUInt32BE(streamWindow, 2);
  return Buffer.concat([
    Buffer.from("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
    frame(frameType.settings, 0, 0, settings),
    frame(frameType.windowUpdate, 0, 0, number32(connectionWindow - defaultWindow)),
    frame(frameType.headers, flag.endHeaders, 1, headerBlock(path, authority)),
  ]);
}

/** HPACK (RFC 7541): two fields of the static table, and four that are written out, with names of that table where it has them. */
function headerBlock(path: string, authority: string): Buffer {
  const literal = (text: string): Buffer => Buffer.concat([Buffer.from([text.length]), Buffer.from(text)]);
  return Buffer.concat([
    // :method POST and :scheme http
    Buffer.from([0x83, 0x86]),
    Buffer.from([0x04]),
    literal(path),
    Buffer.from([0x01]),
    literal(authority),
    // content-type is the 31st name: 15 and 16 more
    Buffer.from([0x0f, 16]),
    literal("application/grpc"),
    Buffer.from([0x00]),
    literal("te"),
    literal("trailers"),
  ]);
}

function frame(type: number, flags: number, stream: number, payload: Uint8Array): Buffer {
  const made = Buffer.allocUnsafe(frameHeadBytes + payload.length);
  made.writeUIntBE(payload.length, 0, 3);
  made[3] = type;
  made[4] = flags;
  made.writeUInt32BE(stream, 5);
  made.set(payload, frameHeadBytes);
  return made;
}

function number32(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32BE(value);
  return bytes;
}
