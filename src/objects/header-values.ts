// Names and values of headers. A value may hold Envoy's `%COMMAND%`; Envoy refuses one that is not well-formed.

import { parseRoutingClaim } from "./claims.ts";
import { show, type Fault } from "./values.ts";

/** Of a name or a value that Envoy adds. */
const headerBytesMax = 16_384;
/** Headers that Envoy adds on one side. */
export const headersMax = 1_000;

const tokenPattern = /^[!#$%&'*+\-.^_`|~A-Za-z0-9]+$/;
const pseudoHeaders = new Set([":method", ":scheme", ":authority", ":path", ":status"]);

export function isAuthorityHeader(name: string): boolean {
  return [":authority", "host"].includes(name.toLowerCase());
}

/** Headers that a JWT rule writes: letters, digits, - and _. */
export function strictHeaderNameFault(name: string): Fault {
  return /^[-_A-Za-z0-9]+$/.test(name)
    ? undefined
    : `${show(name)} is no header name: expected letters, digits, - and _`;
}

/** Headers of a probe, as Kubernetes bounds them. */
export function probeHeaderNameFault(name: string): Fault {
  return /^[-A-Za-z0-9]+$/.test(name)
    ? undefined
    : `${show(name)} is no header name: expected letters, digits and -`;
}

export function corsHeaderNameFault(name: string): Fault {
  return name === "*" || tokenPattern.test(name) ? undefined : `${show(name)} is no header name`;
}

/** Headers of a match: pseudo headers and `@request.auth.claims...` too. */
export function matchHeaderNameFault(name: string): Fault {
  if (parseRoutingClaim(name) !== undefined || pseudoHeaders.has(name) || tokenPattern.test(name))
    return undefined;
  return name === "" ? "the header name is empty" : `${show(name)} is no header name`;
}

/** Headers to set or add on a request: of the pseudo headers the authority alone. */
export function requestHeaderNameFault(name: string): Fault {
  if (name === "") return "the header name is empty";
  if (name.length > headerBytesMax) return nameTooLong(name);
  return name.startsWith(":") && !isAuthorityHeader(name)
    ? `${show(name)} is a pseudo header and cannot be changed`
    : undefined;
}

/** Headers to remove, or to change on a response. */
export function otherHeaderNameFault(name: string): Fault {
  if (name === "") return "the header name is empty";
  if (name.length > headerBytesMax) return nameTooLong(name);
  if (name.toLowerCase() === "host") return "the Host header cannot be changed here: use rewrite.authority";
  return name.startsWith(":") ? `${show(name)} is a pseudo header and cannot be changed` : undefined;
}

function nameTooLong({ length }: string): string {
  return `the header name has ${length} characters: at most ${headerBytesMax} are allowed`;
}

/** `%%` is a percent sign, `%NAME%` and `%NAME(arguments)%` are commands, the arguments a plain text or a JSON list of strings. */
export function headerValueFault(value: string): Fault {
  // oxlint-disable-next-line no-control-regex -- control characters are just what is refused
  if (/[\u0000-\u0008\u000A-\u001F\u007F]/.test(value)) return `${show(value)} holds a control character`;
  if (Buffer.byteLength(value) > headerBytesMax)
    return `the value has ${Buffer.byteLength(value)} bytes: at most ${headerBytesMax} are allowed`;
  return formatFault(value);
}

type State = "text" | "name" | "arguments" | "item" | "string" | "after item" | "close" | "end";

function formatFault(value: string): Fault {
  let state: State = "text";
  for (let at = 0; at < value.length; at++) {
    const char = value[at] ?? "";
    if (state === "text" && char === "%" && value[at + 1] === "%") at++;
    else if (state === "string" && char === "\\") {
      if (at + 1 >= value.length) return `${show(value)} ends in a backslash`;
      at++;
    } else {
      const next: State | undefined = step(state, char);
      if (next === undefined)
        return `${show(value)} is not Envoy's format: ${show(char)} at ${at + 1} is unexpected`;
      state = next;
    }
  }
  return state === "text"
    ? undefined
    : `${show(value)} has a % that is not closed: write %% for a percent sign`;
}

/** The next state, or undefined when the character cannot stand here. */
function step(state: State, char: string): State | undefined {
  const space = char === " ";
  switch (state) {
    case "text":
      return char === "%" ? "name" : "text";
    case "name":
      return char === "%" ? "text" : char === "(" ? "arguments" : "name";
    case "arguments":
      return char === "[" ? "item" : space ? "arguments" : "string";
    case "item":
      return char === '"' ? "string" : space ? "item" : undefined;
    case "string":
      return char === ")" ? "end" : char === '"' ? "after item" : "string";
    case "after item":
      return char === "," ? "item" : char === "]" ? "close" : space ? "after item" : undefined;
    case "close":
      return char === ")" ? "end" : space ? "close" : undefined;
    case "end":
      return char === "%" ? "text" : space ? "end" : undefined;
  }
}
