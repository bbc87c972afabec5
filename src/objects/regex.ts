// What Envoy takes for a regex: RE2's syntax, over bytes, in a program of a bounded size. One that it refuses takes the whole route
// table with it, so that nothing that changes there arrives any more: every regex of a user is looked at before it gets there.

import { RE2JS } from "re2js";
import { show, type Fault } from "./values.ts";

// A regex is matched against paths and headers: what is longer is a list that belongs elsewhere.
const lengthMax = 1024;
/** What the bootstrap of our proxies allows a compiled regex, as Istio's does (`re2.max_program_size.error_level`). */
const instructionsMax = 32_768;

export function regexFault(text: string): Fault {
  if (text.length > lengthMax)
    return `the regex has ${text.length} characters: at most ${lengthMax} are allowed`;
  try {
    RE2JS.compile(text);
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    return `${show(text)} is not a regex of RE2's syntax, which has no look-around and no back-references: ${reason}`;
  }
  const beyond = codeBeyondBytes(text);
  if (beyond !== undefined)
    return `${show(text)}: Envoy matches bytes, and \\x{${beyond}} is none. Write the character itself`;
  const size = instructionsOf(text);
  return size <= instructionsMax
    ? undefined
    : `${show(text)} is too complex: it may come to ${size} instructions, and Envoy takes ${instructionsMax}`;
}

/** `\x{1F600}`: Envoy compiles regexes as Latin-1. The first such code, without what is escaped before it. */
function codeBeyondBytes(text: string): string | undefined {
  for (const [, code] of text.matchAll(/\\(?:x\{([0-9A-Fa-f]+)\}|.)/gsu))
    if (code !== undefined && parseInt(code, 16) > 0xff) return code;
  return undefined;
}

/** A class of characters in brackets, or one by its name; and whatever else is escaped, so that it is not taken for one. */
const classes = /\\(?:([pP])(?:\{[^}]*\}|.)|([dDwWsS])|.)|\[\^?\]?(?:\[:\^?\w+:\]|\\.|[^\]\\])*\]/gsu;
/** Ranges of bytes that a class with a name may come to, in Latin-1. */
const namedRanges = 8;
/** More ranges than that has no class of bytes. */
const rangesMax = 128;

/**
 * At most so many instructions has RE2's program. A class is one for each of its ranges in Envoy and one altogether in the
 * library at hand, so that classes are counted as if they were as many letters.
 */
function instructionsOf(text: string): number {
  const spelled = text.replace(classes, (found, property?: string, perl?: string) => {
    const isClass = property !== undefined || perl !== undefined || found.startsWith("[");
    if (!isClass) return found;
    const ranges = found.startsWith("[") ? Math.min(found.length - 1, rangesMax) : namedRanges;
    return `(?:${"a".repeat(ranges)})`;
  });
  try {
    return RE2JS.compile(spelled).programSize();
  } catch {
    // What was spelled out does not parse where the regex is an unusual one, as with \Q: then its own size has to do.
    return RE2JS.compile(text).programSize();
  }
}
