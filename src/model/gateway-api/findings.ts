// What is found about an object of Gateway API, before it is written as conditions: a condition's type to its state.

export interface Finding {
  readonly status: "True" | "False";
  readonly reason: string;
  readonly message: string;
}

export type Findings = Readonly<Record<string, Finding>>;

/** A mistake in an object: the reason is one that Gateway API knows, or Istio's where it has none. */
export interface Mistake {
  readonly reason: string;
  readonly message: string;
}

export function good(reason: string, message: string): Finding {
  return { status: "True", reason, message };
}

export function bad({ reason, message }: Mistake): Finding {
  return { status: "False", reason, message };
}

/** The mistake as a finding, or what holds when there is none. */
export function judged(mistake: Mistake | undefined, reason: string, message: string): Finding {
  return mistake === undefined ? good(reason, message) : bad(mistake);
}
