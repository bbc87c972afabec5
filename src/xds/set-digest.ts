// A digest of a set of byte strings, whatever their order: the sum of a keyed hash of each. Proxies that hold the same say
// so in different orders (Envoy's maps have none), and to read thousands of names only to find out that they are those of the
// proxy before would be most of the work after a restart. The hash is HalfSipHash-1-3 (Aumasson and Bernstein), 64 bits, under
// a key of this process, so that nobody outside can make two sets with one digest.

import { randomBytes } from "node:crypto";

const key = randomBytes(8);
const key0 = key.readInt32LE(0);
const key1 = key.readInt32LE(4);

export class SetDigest {
  #sum0 = 0;
  #sum1 = 0;
  #bytes = 0;
  /** How many were added. */
  count = 0;

  /** Written out, without a function for a round: it runs for each byte of each request of a proxy that comes back. */
  add(bytes: Uint8Array, from: number, to: number): void {
    const length = to - from;
    const lastWordAt = from + (length & ~3);
    let v0 = key0;
    let v1 = key1 ^ 0xee;
    let v2 = 0x6c796765 ^ key0;
    let v3 = 0x74656462 ^ key1;
    let at = from;
    let word = 0;
    const afterWords = 6;
    for (let after = 0; after < afterWords;) {
      const isWord = at <= lastWordAt;
      if (isWord) {
        word = at < lastWordAt ? wordAt(bytes, at) : lastWord(bytes, at, to, length);
        v3 ^= word;
        at += 4;
      } else if (after++ === 3) {
        this.#sum0 = (this.#sum0 + (v1 ^ v3)) | 0;
        v1 ^= 0xdd;
      }
      v0 = (v0 + v1) | 0;
      v1 = ((v1 << 5) | (v1 >>> 27)) ^ v0;
      v0 = (v0 << 16) | (v0 >>> 16);
      v2 = (v2 + v3) | 0;
      v3 = ((v3 << 8) | (v3 >>> 24)) ^ v2;
      v0 = (v0 + v3) | 0;
      v3 = ((v3 << 7) | (v3 >>> 25)) ^ v0;
      v2 = (v2 + v1) | 0;
      v1 = ((v1 << 13) | (v1 >>> 19)) ^ v2;
      v2 = (v2 << 16) | (v2 >>> 16);
      if (isWord) v0 ^= word;
      if (isWord && at > lastWordAt) v2 ^= 0xee;
    }
    this.#sum1 = (this.#sum1 + (v1 ^ v3)) | 0;
    this.#bytes += length;
    this.count++;
  }

  /** Equal for equal sets, and for others with a chance of one in 2^64. */
  get text(): string {
    return `${this.count} ${this.#bytes} ${this.#sum0} ${this.#sum1}`;
  }
}

function wordAt(bytes: Uint8Array, at: number): number {
  return bytes[at]! | (bytes[at + 1]! << 8) | (bytes[at + 2]! << 16) | (bytes[at + 3]! << 24);
}

/** The bytes that are left, and the length above them. */
function lastWord(bytes: Uint8Array, at: number, to: number, length: number): number {
  let word = length << 24;
  for (let shift = 0; at < to; at++, shift += 8) word |= bytes[at]! << shift;
  return word;
}
