// What was read lately, by a digest of its bytes, for those who send the same again soon.

/** Bytes of all requests that are remembered in a generation: what a few dozen kinds of proxies hold in a large mesh. */
const knownBytesMax = 32 * 1024 * 1024;

export class Known<T> {
  #recent = new Map<string, T>();
  #before = new Map<string, T>();
  #recentBytes = 0;

  /** @param make reads it, if nobody has lately; from so many bytes */
  get(digest: string, bytes: number, make: () => T): T {
    const recent = this.#recent.get(digest);
    if (recent !== undefined) return recent;
    const value = this.#before.get(digest) ?? make();
    if (this.#recentBytes + bytes > knownBytesMax) this.forget();
    this.#recentBytes += bytes;
    this.#recent.set(digest, value);
    return value;
  }

  /** To be called now and then: what nobody sent since the last time but one is given up. */
  forget(): void {
    this.#before = this.#recent;
    this.#recent = new Map();
    this.#recentBytes = 0;
  }
}
