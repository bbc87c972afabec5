// The program's logger: JSON lines on standard output.

import { pino } from "pino";
import type { Logger } from "#base";

export function createLog(level: string): Logger {
  return pino({ level, base: undefined, timestamp: pino.stdTimeFunctions.isoTime });
}
