// Everything has a limit. Each room keeps its own in a table of these, from which its constants, the reference page and the
// metric's labels are taken.

export interface Limit {
  readonly value: number;
  readonly unit: "" | "bytes" | "ms";
  /** What is bounded. */
  readonly of: string;
  /** What happens beyond it. */
  readonly beyond: string;
  /** The metric that shows it, where that is not the counter of limits reached. */
  readonly metric?: string;
}

/** Told each time that a limit is reached. */
export type ReachLimit<Name extends string> = (limit: Name) => void;
