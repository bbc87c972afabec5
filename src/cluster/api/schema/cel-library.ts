// The functions that Kubernetes adds to CEL, as far as cel-js does not bring them.

import { isIP } from "node:net";
import { Environment } from "@marcbachmann/cel-js";
import { patternMatches } from "./pattern.ts";

export const celEnvironment = new Environment({
  unlistedVariablesAreDyn: true,
  homogeneousAggregateLiterals: false,
  enableOptionalTypes: true,
});

type Handler = (...args: never[]) => unknown;

// Signature and meaning; `list` stands for a list of anything.
const functions: ReadonlyArray<readonly [string, Handler]> = [
  ["string.matches(string): bool", (text: string, pattern: string) => patternMatches(pattern, text)],
  [
    "list.isSorted(): bool",
    (items: unknown[]) => items.every((item, i) => i === 0 || compare(items[i - 1], item) <= 0),
  ],
  [
    "list.sum(): dyn",
    (items: bigint[]) =>
      items.reduce((a, b) => a + b, typeof items[0] === "number" ? (0 as unknown as bigint) : 0n),
  ],
  ["list.min(): dyn", (items: unknown[]) => items.reduce((a, b) => (compare(a, b) <= 0 ? a : b))],
  ["list.max(): dyn", (items: unknown[]) => items.reduce((a, b) => (compare(a, b) >= 0 ? a : b))],
  ["list.indexOf(dyn): int", (items: unknown[], wanted: unknown) => BigInt(items.indexOf(wanted))],
  ["list.lastIndexOf(dyn): int", (items: unknown[], wanted: unknown) => BigInt(items.lastIndexOf(wanted))],
  [
    "string.find(string): string",
    (text: string, pattern: string) => new RegExp(pattern, "u").exec(text)?.[0] ?? "",
  ],
  [
    "string.replace(string, string): string",
    (text: string, from: string, to: string) => text.replaceAll(from, to),
  ],
  ["isIP(string): bool", (text: string) => isIP(text) !== 0],
  ["isURL(string): bool", (text: string) => URL.canParse(text)],
  ["isCIDR(string): bool", (text: string) => isIP(text.split("/")[0] ?? "") !== 0 && /\/\d+$/.test(text)],
];

function compare(a: unknown, b: unknown): number {
  if (a === b) return 0;
  return (a as string) < (b as string) ? -1 : 1;
}

for (const [signature, handler] of functions) register(signature, handler);

function register(signature: string, handler: Handler): void {
  try {
    celEnvironment.registerFunction(signature, handler as (...args: unknown[]) => unknown);
  } catch (error) {
    // cel-js brings some of these itself in newer versions; its own then stands.
    if (!(error instanceof Error) || !/already|overlap/i.test(error.message)) throw error;
  }
}
