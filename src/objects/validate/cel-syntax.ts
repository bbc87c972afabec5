// Expressions that users write in CEL, which Envoy evaluates.

import { parse } from "@marcbachmann/cel-js";

import { show, type Fault } from "../values.ts";

/** Only the syntax: Envoy alone knows its attributes. */
export function celFault(expression: string): Fault {
  try {
    parse(expression);
    return undefined;
  } catch (error) {
    const reason = error instanceof Error ? (error.message.split("\n")[0] ?? "") : String(error);
    return `${show(expression)} is not a CEL expression: ${reason}`;
  }
}
