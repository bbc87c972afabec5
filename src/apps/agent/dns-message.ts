// As much of DNS's wire format (RFC 1035) as a relay needs: the one question of a query, and the head of an answer.

export interface Question {
  /** In lower case, without the dot at its end. */
  readonly name: string;
  readonly type: number;
  /** The question as it stands in the message. */
  readonly bytes: Buffer;
}

export const recordTypes = { a: 1, aaaa: 28 } as const;
export const responseCodes = { noError: 0, serverFailure: 2, noSuchName: 3 } as const;

const headerBytes = 12;
const nameBytesMax = 255;
const isResponse = 0x8000;
const recursionDesired = 0x0100;
const recursionAvailable = 0x0080;
const questionMark = 0x3f;

/** The question of a query; undefined for anything that is not a query with exactly one. */
export function parseQuestion(message: Buffer): Question | undefined {
  if (message.length < headerBytes + 5) return undefined;
  if ((message.readUInt16BE(2) & isResponse) !== 0 || message.readUInt16BE(4) !== 1) return undefined;
  const labels: string[] = [];
  let at = headerBytes;
  for (;;) {
    const length = message[at] ?? questionMark + 1;
    // The first name of a message has nothing before it that it could point to.
    if (length > questionMark || at - headerBytes > nameBytesMax) return undefined;
    at += 1 + length;
    if (length === 0) break;
    labels.push(message.subarray(at - length, at).toString("latin1"));
  }
  if (at + 4 > message.length) return undefined;
  return {
    name: labels.join(".").toLowerCase(),
    type: message.readUInt16BE(at),
    bytes: message.subarray(headerBytes, at + 4),
  };
}

/** A query with nothing but this question; of another type, if one is given. */
export function renderQuery(id: number, { bytes }: Question, type?: number): Buffer {
  const header = Buffer.alloc(headerBytes);
  header.writeUInt16BE(id, 0);
  header.writeUInt16BE(recursionDesired, 2);
  header.writeUInt16BE(1, 4);
  const message = Buffer.concat([header, bytes]);
  if (type !== undefined) message.writeUInt16BE(type, message.length - 4);
  return message;
}

/** An answer to a query that has no records. */
export function renderEmptyAnswer(query: Buffer, { bytes }: Question, code: number): Buffer {
  const header = Buffer.alloc(headerBytes);
  query.copy(header, 0, 0, 2);
  const asked = query.readUInt16BE(2) & recursionDesired;
  header.writeUInt16BE(isResponse | asked | recursionAvailable | code, 2);
  header.writeUInt16BE(1, 4);
  return Buffer.concat([header, bytes]);
}

/** The same answer for the asker of `query`, who wants to see that names are resolved here. */
export function readdress(answer: Buffer, query: Buffer): Buffer {
  const readdressed = Buffer.from(answer);
  query.copy(readdressed, 0, 0, 2);
  const asked = query.readUInt16BE(2) & recursionDesired;
  readdressed.writeUInt16BE(answer.readUInt16BE(2) | asked | recursionAvailable, 2);
  return readdressed;
}

export function idOf(message: Buffer): number {
  return message.readUInt16BE(0);
}

/** How many records an answer has; 0 for one that says that something went wrong. */
export function recordCount(answer: Buffer): number {
  if (answer.length < headerBytes || (answer.readUInt16BE(2) & 0x000f) !== responseCodes.noError) return 0;
  return answer.readUInt16BE(6);
}
