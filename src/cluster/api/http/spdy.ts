// SPDY/3.1 as far as Kubernetes' clients speak it for exec: a server that takes the streams that its client opens, and writes to them.
// https://www.chromium.org/spdy/spdy-protocol/spdy-protocol-draft3-1/; the clients neither do flow control nor ask for it.

import type { Duplex } from "node:stream";
import { constants, createDeflate, createInflate, type Deflate, type Inflate } from "node:zlib";

/** A stream that the client opened. */
export interface SpdyStream {
  readonly id: number;
  readonly headers: Readonly<Record<string, string>>;
  /** What comes from the client. */
  onData: (chunk: Buffer) => void;
  /** The client writes no more. */
  onEnd: () => void;
}

export interface SpdyListener {
  /** A stream is open: it has been answered. */
  readonly onStream: (stream: SpdyStream) => void;
  /** The connection is over, in order or not. Called once. */
  readonly onClose: () => void;
}

const frame = { synStream: 1, synReply: 2, rstStream: 3, ping: 6, goAway: 7 } as const;
const version = 3;
const finFlag = 1;
const frameBytesMax = 1_048_576; // beyond it the connection ends
const headersMax = 64;
const streamsMax = 8; // exec has four; beyond it a stream is refused
const refusedStream = 3;
const chunkBytesMax = 32_768;

export class SpdyConnection {
  readonly #socket: Duplex;
  readonly #listener: SpdyListener;
  readonly #inflate: Inflate;
  readonly #deflate: Deflate;
  readonly #streams = new Map<number, SpdyStream>();
  #buffer: Buffer;
  #reading = false;
  #closed = false;

  /** @param head bytes that came behind the request */
  constructor(socket: Duplex, head: Buffer, listener: SpdyListener) {
    this.#socket = socket;
    this.#listener = listener;
    this.#buffer = head;
    this.#inflate = createInflate({ dictionary });
    this.#deflate = createDeflate({ dictionary, flush: constants.Z_SYNC_FLUSH });
    for (const codec of [this.#inflate, this.#deflate]) codec.on("error", () => this.close());
    socket.on("data", (chunk: Buffer) => {
      this.#buffer = Buffer.concat([this.#buffer, chunk]);
      void this.#readFrames();
    });
    socket.on("error", () => this.close());
    socket.on("close", () => this.close());
    socket.on("end", () => this.close());
    void this.#readFrames();
  }

  /** False when the client is slower: then wait for `drained`. */
  write(stream: SpdyStream, data: Buffer): boolean {
    let fits = true;
    for (let at = 0; at < data.length; at += chunkBytesMax)
      fits = this.#send(stream.id, 0, data.subarray(at, at + chunkBytesMax));
    return fits;
  }

  end(stream: SpdyStream): void {
    this.#send(stream.id, finFlag, Buffer.alloc(0));
  }

  drained(): Promise<void> {
    return new Promise((resolve) => {
      if (this.#closed || !this.#socket.writableNeedDrain) resolve();
      this.#socket.once("drain", resolve);
      this.#socket.once("close", resolve);
    });
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#inflate.destroy();
    this.#deflate.destroy();
    this.#socket.destroy();
    this.#listener.onClose();
  }

  #send(id: number, flags: number, data: Buffer): boolean {
    if (this.#closed) return true;
    const head = Buffer.alloc(8);
    head.writeUInt32BE(id, 0);
    head.writeUInt32BE((flags << 24) | data.length, 4);
    return this.#socket.write(Buffer.concat([head, data]));
  }

  #control(type: number, data: Buffer): void {
    const head = Buffer.alloc(8);
    head.writeUInt16BE(0x8000 | version, 0);
    head.writeUInt16BE(type, 2);
    head.writeUInt32BE(data.length, 4);
    if (!this.#closed) this.#socket.write(Buffer.concat([head, data]));
  }

  /** Frames are read one after the other, since headers are unpacked in the background. */
  async #readFrames(): Promise<void> {
    if (this.#reading) return;
    this.#reading = true;
    while (!this.#closed && this.#buffer.length >= 8) {
      const length = this.#buffer.readUInt32BE(4) & 0xff_ff_ff;
      if (length > frameBytesMax) return this.close();
      if (this.#buffer.length < 8 + length) break;
      const head = this.#buffer.subarray(0, 8);
      const data = this.#buffer.subarray(8, 8 + length);
      this.#buffer = this.#buffer.subarray(8 + length);
      await this.#read(head, data);
    }
    this.#reading = false;
  }

  async #read(head: Buffer, data: Buffer): Promise<void> {
    const flags = head[4] ?? 0;
    if ((head[0]! & 0x80) === 0) {
      const stream = this.#streams.get(head.readUInt32BE(0));
      if (data.length > 0) stream?.onData(data);
      if ((flags & finFlag) !== 0) stream?.onEnd();
      return;
    }
    switch (head.readUInt16BE(2)) {
      case frame.synStream:
        return this.#open(data, flags);
      case frame.ping:
        // An odd number is the client's own: it comes back.
        if (data.length === 4) this.#control(frame.ping, data);
        return;
      case frame.rstStream:
        if (data.length >= 4) this.#streams.get(data.readUInt32BE(0))?.onEnd();
        return;
      case frame.goAway:
        return this.close();
      default: // settings and windows change nothing here
    }
  }

  async #open(data: Buffer, flags: number): Promise<void> {
    if (data.length < 10) return this.close();
    const id = data.readUInt32BE(0) & 0x7f_ff_ff_ff;
    const headers = headersOf(await throughCodec(this.#inflate, data.subarray(10)));
    const idField = Buffer.alloc(4);
    idField.writeUInt32BE(id, 0);
    if (headers === undefined || this.#streams.size >= streamsMax) {
      const status = Buffer.alloc(4);
      status.writeUInt32BE(refusedStream, 0);
      this.#control(frame.rstStream, Buffer.concat([idField, status]));
      return;
    }
    const stream: SpdyStream = { id, headers, onData: () => {}, onEnd: () => {} };
    this.#streams.set(id, stream);
    const none = Buffer.alloc(4);
    this.#control(frame.synReply, Buffer.concat([idField, await throughCodec(this.#deflate, none)]));
    this.#listener.onStream(stream);
    if ((flags & finFlag) !== 0) stream.onEnd();
  }
}

/** What a block comes to in a codec whose state lives as long as the connection. */
function throughCodec(codec: Inflate | Deflate, block: Buffer): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    codec.write(block, (error) => {
      if (error) reject(error);
      else resolve((codec.read() as Buffer | null) ?? Buffer.alloc(0));
    });
  }).catch(() => Buffer.alloc(0)) as Promise<Buffer>;
}

/** Names in lower case; undefined for what is not well-formed. */
function headersOf(block: Buffer): Record<string, string> | undefined {
  const headers: Record<string, string> = {};
  let at = 0;
  const next = (): number => {
    const value = at + 4 <= block.length ? block.readUInt32BE(at) : Number.MAX_SAFE_INTEGER;
    at += 4;
    return value;
  };
  const text = (): string | undefined => {
    const length = next();
    if (at + length > block.length) return undefined;
    at += length;
    return block.toString("utf8", at - length, at);
  };
  const count = next();
  if (count > headersMax) return undefined;
  for (let index = 0; index < count; index++) {
    const [name, value] = [text(), text()];
    if (name === undefined || value === undefined) return undefined;
    headers[name.toLowerCase()] = value;
  }
  return headers;
}

// The protocol's dictionary for headers: words, each behind its length, and a tail of likely values.
const dictionaryWords =
  "options,head,post,put,delete,trace,accept,accept-charset,accept-encoding,accept-language," +
  "accept-ranges,age,allow,authorization,cache-control,connection,content-base,content-encoding," +
  "content-language,content-length,content-location,content-md5,content-range,content-type,date,etag," +
  "expect,expires,from,host,if-match,if-modified-since,if-none-match,if-range,if-unmodified-since," +
  "last-modified,location,max-forwards,pragma,proxy-authenticate,proxy-authorization,range,referer," +
  "retry-after,server,te,trailer,transfer-encoding,upgrade,user-agent,vary,via,warning," +
  "www-authenticate,method,get,status,200 OK,version,HTTP/1.1,url,public,set-cookie,keep-alive,origin";
const dictionaryRest =
  "100101201202205206300302303304305306307402405406407408409410411412413414415416417502504505203 Non-Au" +
  "thoritative Information204 No Content301 Moved Permanently400 Bad Request401 Unauthorized403 Forbidd" +
  "en404 Not Found500 Internal Server Error501 Not Implemented503 Service UnavailableJan Feb Mar Apr Ma" +
  "y Jun Jul Aug Sept Oct Nov Dec 00:00:00 Mon, Tue, Wed, Thu, Fri, Sat, Sun, GMTchunked,text/html,imag" +
  "e/png,image/jpg,image/gif,application/xml,application/xhtml+xml,text/plain,text/javascript,publicpri" +
  "vatemax-age=gzip,deflate,sdchcharset=utf-8charset=iso-8859-1,utf-,*,enq=0.";

export const dictionary = Buffer.concat([
  ...dictionaryWords.split(",").flatMap((word) => {
    const length = Buffer.alloc(4);
    length.writeUInt32BE(word.length, 0);
    return [length, Buffer.from(word, "latin1")];
  }),
  Buffer.from(dictionaryRest, "latin1"),
]);
