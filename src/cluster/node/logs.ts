// Container logs. A container writes to a plain file, never to a pipe of ours: if the cluster's process dies, it neither blocks nor
// gets a signal. This side follows that file, stamps each line with the time at which it was seen, and writes the log that
// `kubectl logs` reads, one line as `<RFC 3339 time> stdout F <text>` (the format that container runtimes share).

import {
  closeSync,
  createReadStream,
  fstatSync,
  ftruncateSync,
  openSync,
  readSync,
  watch,
  writeSync,
  type FSWatcher,
} from "node:fs";
import { mkdirSync, renameSync } from "node:fs";
import { stat } from "node:fs/promises";
import { dirname } from "node:path";
import { createInterface } from "node:readline";

const logBytesMax = 10 * 2 ** 20; // beyond it the log becomes `.1`, and the `.1` before it is dropped
const rawBytesMax = 4 * 2 ** 20; // beyond it the file that the container writes is emptied, once all of it was read
const lineBytesMax = 16 * 2 ** 10; // a longer line is cut into parts marked P, as container runtimes do
const chunkBytes = 64 * 2 ** 10;

/** Follows one container's raw output into its log. */
export class LogCapture {
  readonly rawPath: string;
  readonly logPath: string;
  readonly #nowIso: () => string;
  /** The container's standard output and error: append-only, so that emptying it is safe. */
  readonly rawFd: number;
  readonly #readFd: number;
  #logFd: number;
  #logBytes: number;
  #offset = 0;
  #partial = Buffer.alloc(0);
  #watcher: FSWatcher | undefined;
  #closed = false;

  constructor(rawPath: string, logPath: string, nowIso: () => string) {
    this.rawPath = rawPath;
    this.logPath = logPath;
    this.#nowIso = nowIso;
    mkdirSync(dirname(logPath), { recursive: true });
    mkdirSync(dirname(rawPath), { recursive: true });
    // Programs reopen /dev/stdout under their own user, so the file itself lets everyone write; its directory lets nobody in.
    this.rawFd = openSync(rawPath, "a", 0o666);
    this.#readFd = openSync(rawPath, "r+");
    this.#logFd = openSync(logPath, "a", 0o600);
    this.#logBytes = fstatSync(this.#logFd).size;
    this.#watcher = watch(rawPath, () => this.drain());
    this.#watcher.on("error", () => {}); // what is missed is read when the container ends
  }

  /** The container has its own copy of the descriptor by now. */
  releaseRaw(): void {
    closeSync(this.rawFd);
  }

  /** Takes over everything written so far. */
  drain(): void {
    if (this.#closed) return;
    const chunk = Buffer.allocUnsafe(chunkBytes);
    if (fstatSync(this.#readFd).size < this.#offset) this.#offset = 0; // the program itself emptied it
    for (;;) {
      const count = readSync(this.#readFd, chunk, 0, chunkBytes, this.#offset);
      if (count === 0) break;
      this.#offset += count;
      this.#append(chunk.subarray(0, count));
    }
    if (this.#offset > rawBytesMax) {
      // Between the last read and this call a line may be lost; a pipe would instead block or kill the program when we die.
      ftruncateSync(this.#readFd, 0);
      this.#offset = 0;
    }
  }

  close(): void {
    if (this.#closed) return;
    this.drain();
    if (this.#partial.length > 0) this.#write(this.#partial, "F");
    this.#closed = true;
    this.#watcher?.close();
    closeSync(this.#readFd);
    closeSync(this.#logFd);
  }

  #append(bytes: Buffer): void {
    let rest = this.#partial.length === 0 ? bytes : Buffer.concat([this.#partial, bytes]);
    for (;;) {
      const end = rest.indexOf(10);
      if (end >= 0 && end <= lineBytesMax) {
        this.#write(rest.subarray(0, end), "F");
        rest = rest.subarray(end + 1);
      } else if (rest.length > lineBytesMax) {
        this.#write(rest.subarray(0, lineBytesMax), "P");
        rest = rest.subarray(lineBytesMax);
      } else break;
    }
    this.#partial = Buffer.from(rest);
  }

  #write(text: Buffer, tag: "F" | "P"): void {
    const line = Buffer.concat([Buffer.from(`${this.#nowIso()} stdout ${tag} `), text, Buffer.from("\n")]);
    writeSync(this.#logFd, line);
    this.#logBytes += line.length;
    if (this.#logBytes < logBytesMax) return;
    closeSync(this.#logFd);
    renameSync(this.logPath, `${this.logPath}.1`);
    this.#logFd = openSync(this.logPath, "a", 0o600);
    this.#logBytes = 0;
  }
}

export interface LogRequest {
  readonly follow?: boolean;
  readonly tailLines?: number;
  readonly timestamps?: boolean;
  readonly limitBytes?: number;
  /** Milliseconds since the epoch; earlier lines are left out. */
  readonly sinceMs?: number;
}

const followPollMs = 100;

/** Yields a log's text, line by line. With `follow` it ends when `isOver` says that the container writes no more, or on abort. */
export async function* readLog(
  path: string,
  request: LogRequest,
  isOver: () => boolean,
  signal?: AbortSignal,
): AsyncGenerator<string> {
  let sent = 0;
  let offset = await sizeOf(path); // taken before reading: what is written meanwhile comes with the next round
  let lines = [
    ...(await linesOf(`${path}.1`, 0, await sizeOf(`${path}.1`))),
    ...(await linesOf(path, 0, offset)),
  ];
  if (request.sinceMs !== undefined)
    lines = lines.filter((line) => Date.parse(line.slice(0, line.indexOf(" "))) >= (request.sinceMs ?? 0));
  if (request.tailLines !== undefined) lines = request.tailLines === 0 ? [] : lines.slice(-request.tailLines);
  for (;;) {
    for (const line of lines) {
      const text = renderLine(line, request.timestamps === true);
      sent += Buffer.byteLength(text);
      if (request.limitBytes !== undefined && sent > request.limitBytes) return;
      yield text;
    }
    if (request.follow !== true || signal?.aborted === true) return;
    const over = isOver();
    const size = await sizeOf(path);
    if (size < offset) offset = 0; // rotated
    lines = await linesOf(path, offset, size);
    offset = size;
    if (lines.length > 0) continue;
    if (over) return;
    await new Promise((resolve) => setTimeout(resolve, followPollMs));
  }
}

function renderLine(line: string, timestamps: boolean): string {
  const [time = "", , tag] = line.split(" ", 3);
  const text = line.split(" ").slice(3).join(" ");
  return `${timestamps ? `${time} ` : ""}${text}${tag === "P" ? "" : "\n"}`;
}

async function sizeOf(path: string): Promise<number> {
  return stat(path).then(
    (found) => found.size,
    () => 0,
  );
}

/** The whole lines between two offsets; log lines are written whole, so a size never falls inside one. */
async function linesOf(path: string, start: number, end: number): Promise<string[]> {
  if (end <= start) return [];
  const lines: string[] = [];
  for await (const line of createInterface({
    input: createReadStream(path, { start, end: end - 1 }),
    crlfDelay: Infinity,
  })) {
    lines.push(line);
  }
  return lines;
}
