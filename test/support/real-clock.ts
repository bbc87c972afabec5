// Real time for programs that a test runs in its own process: timers that do not keep the process, and a wall clock that a test
// may set.

import type { Clock } from "#base";

export class RealClock implements Clock {
  /** What the wall clock is off by. */
  offsetMs = 0;
  readonly nowMs = (): number => Date.now() + this.offsetMs;
  readonly monotonicMs = (): number => performance.now();
  readonly after = (delayMs: number, callback: () => void): (() => void) => {
    const timer = setTimeout(callback, delayMs).unref();
    return () => clearTimeout(timer);
  };
}

export function pause(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

/** Asks again and again until it holds; throws with the claim. */
export async function until(
  claim: string,
  holds: () => boolean | Promise<boolean>,
  limitMs = 30_000,
): Promise<void> {
  const untilMs = performance.now() + limitMs;
  while (!(await holds())) {
    if (performance.now() > untilMs) throw new Error(`not within ${limitMs} ms: ${claim}`);
    await pause(20);
  }
}
