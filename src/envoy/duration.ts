// Durations as Go writes them, which is how Kubernetes and Istio objects say them.

const msPerUnit: Readonly<Record<string, number>> = {
  ns: 1e-6,
  us: 1e-3,
  µs: 1e-3,
  ms: 1,
  s: 1_000,
  m: 60_000,
  h: 3_600_000,
};

/** Milliseconds of "1h30m", "1.5s", "250ms"; 0 for what is not a duration, which admission has refused before. */
export function durationMsOf(text: string): number {
  let ms = 0;
  for (const [, number = "0", unit = ""] of text.matchAll(/(\d+(?:\.\d+)?)(ns|us|µs|ms|s|m|h)/g)) {
    ms += Number(number) * (msPerUnit[unit] ?? 0);
  }
  return ms;
}
