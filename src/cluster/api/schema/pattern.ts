// Patterns of schemas and of CEL's matches() are RE2: they run in linear time whatever a user writes.

import { RE2JS } from "re2js";

const compiled = new Map<string, RE2JS | undefined>();
// Beyond it the cache starts anew.
const compiledMax = 5_000;

/** Whether the pattern is found in the text. A pattern that RE2 cannot read matches everything, as an unknown rule forbids nothing. */
export function patternMatches(pattern: string, text: string): boolean {
  if (!compiled.has(pattern)) {
    if (compiled.size >= compiledMax) compiled.clear();
    compiled.set(pattern, compile(pattern));
  }
  return compiled.get(pattern)?.matcher(text).find() ?? true;
}

function compile(pattern: string): RE2JS | undefined {
  try {
    return RE2JS.compile(pattern);
  } catch {
    return undefined;
  }
}

/** The reason why a pattern cannot be used, undefined when it can. */
export function patternProblem(pattern: string): string | undefined {
  try {
    RE2JS.compile(pattern);
    return undefined;
  } catch (error) {
    return error instanceof Error ? error.message : "invalid";
  }
}
