// What a conformance runner answers: `run(dir)` of test/conformance/<folder>.ts.

export interface Failure {
  readonly id: string;
  readonly reason: string;
}

export interface Score {
  readonly name: string;
  readonly passed: number;
  readonly failed: number;
  /** Cases that differ on purpose; their reasons stand in known-differences.yaml. */
  readonly knownDifferences: number;
  readonly failures: readonly Failure[];
}
