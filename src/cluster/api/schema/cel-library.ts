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
  // The library's own `matches` is not RE2 and cannot be replaced: expressions are rewritten to this name.
  ["string.matchesRe2(string): bool", (text: string, pattern: string) => patternMatches(pattern, text)],
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

// URLs, quantities and named formats are values of their own.

class CelUrl {
  readonly url: URL;
  constructor(text: string) {
    this.url = new URL(text);
  }
}

class CelQuantity {
  readonly amount: number;
  constructor(text: string) {
    this.amount = quantityOf(text);
  }
}

class CelFormats {
  /** cel-js knows a value by its class, and a class needs something in it. */
  readonly kind = "formats";
}

class CelFormat {
  readonly pattern: RegExp;
  constructor(pattern: RegExp) {
    this.pattern = pattern;
  }
}

const suffixes = ["", "k", "M", "G", "T", "P", "E"];

/** `1.5Gi`, `100m`, `2e3`: a Kubernetes quantity as a number. Throws for what is none. */
function quantityOf(text: string): number {
  const match = /^([+-]?\d+(?:\.\d*)?|[+-]?\.\d+)(?:([kMGTPE]i?|Ki)|([num])|[eE]([+-]?\d+))?$/.exec(text);
  if (!match) throw new Error(`${JSON.stringify(text)} is no quantity`);
  const [, digits, large = "", small, exponent] = match;
  const power = suffixes.indexOf(large.replace("K", "k").replace("i", ""));
  const factor = large.endsWith("i") ? 1024 ** power : 1000 ** power;
  const fraction = small === undefined ? 1 : { n: 1e-9, u: 1e-6, m: 1e-3 }[small as "n" | "u" | "m"];
  return Number(digits) * factor * fraction * 10 ** Number(exponent ?? 0);
}

function isQuantity(text: string): boolean {
  try {
    quantityOf(text);
    return true;
  } catch {
    return false;
  }
}

const label = /^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$/;
const subdomain = /^(?=.{1,253}$)[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$/;
const label1035 = /^[a-z]([-a-z0-9]{0,61}[a-z0-9])?$/;

const valueFunctions: ReadonlyArray<readonly [string, Handler]> = [
  ["url(string): KubernetesUrl", (text: string) => new CelUrl(text)],
  ["KubernetesUrl.getScheme(): string", (one: CelUrl) => one.url.protocol.replace(/:$/, "")],
  ["KubernetesUrl.getHost(): string", (one: CelUrl) => one.url.host],
  ["KubernetesUrl.getHostname(): string", (one: CelUrl) => one.url.hostname],
  ["KubernetesUrl.getPort(): string", (one: CelUrl) => one.url.port],
  ["KubernetesUrl.getEscapedPath(): string", (one: CelUrl) => one.url.pathname],
  ["quantity(string): KubernetesQuantity", (text: string) => new CelQuantity(text)],
  ["isQuantity(string): bool", isQuantity],
  [
    "KubernetesQuantity.isGreaterThan(KubernetesQuantity): bool",
    (a: CelQuantity, b: CelQuantity) => a.amount > b.amount,
  ],
  [
    "KubernetesQuantity.isLessThan(KubernetesQuantity): bool",
    (a: CelQuantity, b: CelQuantity) => a.amount < b.amount,
  ],
  [
    "KubernetesQuantity.compareTo(KubernetesQuantity): int",
    (a: CelQuantity, b: CelQuantity) => BigInt(Math.sign(a.amount - b.amount)),
  ],
  ["KubernetesFormats.dns1123Label(): KubernetesFormat", () => new CelFormat(label)],
  ["KubernetesFormats.dns1123Subdomain(): KubernetesFormat", () => new CelFormat(subdomain)],
  ["KubernetesFormats.dns1035Label(): KubernetesFormat", () => new CelFormat(label1035)],
  // Null for a text that has the format, otherwise what is wrong: rules compare it with null.
  [
    "KubernetesFormat.validate(string): dyn",
    (one: CelFormat, text: string) => (one.pattern.test(text) ? null : [`${text} does not have the format`]),
  ],
];

function compare(a: unknown, b: unknown): number {
  if (a === b) return 0;
  return (a as string) < (b as string) ? -1 : 1;
}

const types = {
  KubernetesUrl: CelUrl,
  KubernetesQuantity: CelQuantity,
  KubernetesFormats: CelFormats,
  KubernetesFormat: CelFormat,
};
for (const [name, type] of Object.entries(types)) celEnvironment.registerType(name, type);
celEnvironment.registerConstant("format", "KubernetesFormats", new CelFormats());
for (const [signature, handler] of [...functions, ...valueFunctions]) register(signature, handler);

function register(signature: string, handler: Handler): void {
  try {
    celEnvironment.registerFunction(signature, handler as (...args: unknown[]) => unknown);
  } catch (error) {
    // cel-js brings some of these itself in newer versions; its own then stands.
    if (!(error instanceof Error) || !/already|overlap/i.test(error.message)) throw error;
  }
}
