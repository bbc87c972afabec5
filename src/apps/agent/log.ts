// The agent's log: one line of JSON an entry on stdout, beside Envoy's own lines. Small on purpose: the agent runs once a pod.

import type { Logger } from "#base";

const levels = { debug: 10, info: 20, warn: 30, error: 40 } as const;
export type Level = keyof typeof levels;

export function createLog(level: Level, write: (line: string) => void, fields: object = {}): Logger {
  const entry = (of: Level, extra: object, message: string): void => {
    if (levels[of] < levels[level]) return;
    write(`${JSON.stringify({ time: new Date().toISOString(), level: of, message, ...fields, ...extra })}\n`);
  };
  return {
    debug: (extra, message) => entry("debug", extra, message),
    info: (extra, message) => entry("info", extra, message),
    warn: (extra, message) => entry("warn", extra, message),
    error: (extra, message) => entry("error", extra, message),
    child: (more) => createLog(level, write, { ...fields, ...more }),
  };
}
