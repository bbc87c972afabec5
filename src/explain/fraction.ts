// Envoy's fractions: so many of a hundred, of ten thousand or of a million.

export interface Fraction {
  readonly numerator?: number;
  /** HUNDRED by default. */
  readonly denominator?: string;
}

const parts: Readonly<Record<string, number>> = { HUNDRED: 100, TEN_THOUSAND: 10_000, MILLION: 1_000_000 };

/** Of 1; 0 without any. */
export function fractionOf({ numerator = 0, denominator = "HUNDRED" }: Fraction = {}): number {
  return numerator / (parts[denominator] ?? Infinity);
}
