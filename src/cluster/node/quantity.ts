// Kubernetes quantities: `100m` of CPU, `128Mi` of memory.

const suffixes: Readonly<Record<string, number>> = {
  "": 1,
  n: 1e-9,
  u: 1e-6,
  m: 1e-3,
  k: 1e3,
  M: 1e6,
  G: 1e9,
  T: 1e12,
  P: 1e15,
  E: 1e18,
  Ki: 2 ** 10,
  Mi: 2 ** 20,
  Gi: 2 ** 30,
  Ti: 2 ** 40,
  Pi: 2 ** 50,
  Ei: 2 ** 60,
};

/** The plain number that a quantity stands for, or undefined when it is none. */
export function parseQuantity(text: string | number | undefined): number | undefined {
  if (text === undefined) return undefined;
  if (typeof text === "number") return text;
  const exponent = /^([+-]?[0-9.]+)[eE]([+-]?[0-9]+)$/.exec(text);
  if (exponent !== null) return Number(text);
  const match = /^([+-]?[0-9.]+)([a-zA-Z]*)$/.exec(text);
  const factor = suffixes[match?.[2] ?? "?"];
  if (match === null || factor === undefined) return undefined;
  return Number(match[1]) * factor;
}
