// Phases and how long each took: a line that moves in a terminal, plain lines in a pipe.

import pc from "picocolors";

const frames = ["⠋", "⠙", "⠹", "⠸", "⠼", "⠴", "⠦", "⠧", "⠇", "⠏"];
const frameMs = 80;

export interface ProgressOut {
  readonly write: (text: string) => void;
  readonly isTerminal: boolean;
  readonly nowMs: () => number;
}

export class Progress {
  readonly #out: ProgressOut;
  readonly #startMs: number;
  #abandoned = 0;

  constructor(out: ProgressOut) {
    this.#out = out;
    this.#startMs = out.nowMs();
  }

  /** Shows `title` while `work` runs, then how long it took. `say` sets what is being waited for. */
  async phase<T>(title: string, work: (say: (detail: string) => void) => Promise<T>): Promise<T> {
    const { write, isTerminal, nowMs } = this.#out;
    const startMs = nowMs();
    const generation = this.#abandoned;
    const isShown = () => generation === this.#abandoned;
    let detail = "";
    let frame = 0;
    const draw = () => {
      if (!isShown()) return;
      const seconds = ((nowMs() - startMs) / 1_000).toFixed(1);
      write(
        `\r\x1b[2K  ${pc.cyan(frames[(frame += 1) % frames.length] ?? "")} ${title} ${pc.dim(`${seconds} s ${detail}`)}`,
      );
    };
    const timer = isTerminal ? setInterval(draw, frameMs) : undefined;
    try {
      const result = await work((text) => {
        detail = text;
      });
      if (isShown()) this.#end(pc.green("✓"), "ok", title, nowMs() - startMs);
      return result;
    } catch (cause) {
      if (isShown()) this.#end(pc.red("✗"), "failed", title, nowMs() - startMs);
      throw cause;
    } finally {
      clearInterval(timer);
    }
  }

  /** Says no more about the phases that run now: somebody interrupted them. */
  abandon(): void {
    this.#abandoned += 1;
    if (this.#out.isTerminal) this.#out.write("\r\x1b[2K");
  }

  /** Milliseconds since the first phase began. */
  elapsedMs(): number {
    return this.#out.nowMs() - this.#startMs;
  }

  #end(mark: string, word: string, title: string, tookMs: number): void {
    const { write, isTerminal } = this.#out;
    const seconds = `${(tookMs / 1_000).toFixed(1)} s`;
    if (isTerminal) write(`\r\x1b[2K  ${mark} ${title.padEnd(40)} ${pc.dim(seconds)}\n`);
    else write(`${word.padEnd(6)} ${title.padEnd(40)} ${seconds}\n`);
  }
}
