// Every limit of what talks to the API server, and what happens there. Rendered into docs/reference/limits.md; each time that one
// is reached is counted under its name.

import type { Limit, ReachLimit } from "#base";

export const kubeLimits = {
  requestTime: {
    value: 15_000,
    unit: "ms",
    of: "an ordinary request to the API server",
    beyond: "it has failed; what wanted it tries again",
  },
  watchSilence: {
    value: 150_000,
    unit: "ms",
    of: "the silence of a watch (bookmarks come each minute)",
    beyond: "it is taken for dead, and asked for anew from where it was",
  },
  requestConnections: {
    value: 8,
    unit: "",
    of: "connections for ordinary requests to the API server; each watch has one of its own",
    beyond: "further requests wait",
  },
  answerBytes: {
    value: 256 * 1024 * 1024,
    unit: "bytes",
    of: "an answer of the API server; lists are paged",
    beyond: "it is refused, and what is known stays",
  },
  concurrentWrites: {
    value: 4,
    unit: "",
    of: "status conditions and events on their way to the API server",
    beyond: "further ones wait; of several for one object only the last is written",
    metric: "pilot_writes_waiting",
  },
  waitingWrites: {
    value: 10_000,
    unit: "",
    of: "writes that wait",
    beyond: "the oldest is dropped",
  },
  writeAttempts: {
    value: 5,
    unit: "",
    of: "attempts of one write",
    beyond: "it is given up; the next change brings a new one",
  },
} as const satisfies Readonly<Record<string, Limit>>;

export type KubeLimit = keyof typeof kubeLimits;
export type ReachKubeLimit = ReachLimit<KubeLimit>;
