// Cases in which the mesh differs from Istio on purpose. They stand in known-differences.yaml with their reasons.

import { readFileSync } from "node:fs";
import { join } from "node:path";

import { parse } from "yaml";

import type { Score } from "./score.ts";

/** By folder: case id to reason. */
export type KnownDifferences = Readonly<Record<string, Readonly<Record<string, string>>>>;

export function readKnownDifferences(): KnownDifferences {
  return (parse(readFileSync(join(import.meta.dirname, "known-differences.yaml"), "utf8")) ??
    {}) as KnownDifferences;
}

/** The score with known differences counted apart from failures. */
export function withKnownDifferences(score: Score, known: KnownDifferences = readKnownDifferences()): Score {
  const reasons = known[score.name] ?? {};
  const failures = score.failures.filter(({ id }) => !Object.hasOwn(reasons, id));
  const excused = score.failures.length - failures.length;
  return {
    ...score,
    failures,
    failed: score.failed - excused,
    knownDifferences: score.knownDifferences + excused,
  };
}
