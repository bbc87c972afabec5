// Keeps the workload's certificate fresh. Each certificate has a new key; the next one is fetched when between half and
// three quarters of the life are over (a fleet that started together must not ask together), and failures are retried
// with growing pauses until one succeeds: the old certificate serves meanwhile.

import { X509Certificate } from "node:crypto";
import type { Clock, Logger } from "#base";

export interface WorkloadCertificate {
  readonly keyPem: string;
  /** Leaf first, without the root. */
  readonly chainPem: string;
  /** The root that the CA sent along. */
  readonly rootPem: string;
  readonly notBeforeMs: number;
  readonly notAfterMs: number;
}

export interface RotatorOptions {
  readonly clock: Clock;
  readonly log: Logger;
  /** Between 0 and 1. */
  readonly random: () => number;
  /** Asks the CA; see `fetchCertificate`. */
  readonly fetch: () => Promise<WorkloadCertificate>;
  readonly onCertificate: (certificate: WorkloadCertificate) => void;
}

const retryFirstMs = 200;
const retryMaxMs = 10_000;
const lifeEarliest = 0.5;
const lifeLatest = 0.75;
/** Timers of Node overflow at 2^31 ms (25 days); longer waits are cut and looked at anew. */
const sleepMaxMs = 86_400_000;

export class Rotator {
  current: WorkloadCertificate | undefined;
  failures = 0;
  rotations = 0;
  readonly #options: RotatorOptions;
  #cancel: () => void = () => {};
  #stopped = false;
  /** When the next renewal is due; undefined while one is under way or being retried. */
  #dueMs: number | undefined;

  constructor(options: RotatorOptions) {
    this.#options = options;
  }

  start(): void {
    void this.#renew(retryFirstMs);
  }

  /** Asks for a new certificate soon, for example since the root has changed. Spread over `withinMs`. */
  renewWithin(withinMs: number): void {
    const atMs = this.#options.clock.nowMs() + this.#options.random() * withinMs;
    // Never later than the certificate's own time, and not into a request that is under way.
    if (this.#dueMs !== undefined && atMs < this.#dueMs) this.#sleepUntil(atMs);
  }

  stop(): void {
    this.#stopped = true;
    this.#cancel();
  }

  async #renew(pauseMs: number): Promise<void> {
    const { clock, log, random } = this.#options;
    this.#dueMs = undefined;
    try {
      const certificate = await this.#options.fetch();
      if (this.#stopped) return;
      if (this.current !== undefined) this.rotations += 1;
      this.current = certificate;
      this.#options.onCertificate(certificate);
      // The life counts from now: notBefore lies in the past on purpose.
      const lifeMs = certificate.notAfterMs - clock.nowMs();
      const share = lifeEarliest + random() * (lifeLatest - lifeEarliest);
      log.info({ expires: new Date(certificate.notAfterMs).toISOString() }, "certificate obtained");
      this.#sleepUntil(clock.nowMs() + lifeMs * share);
    } catch (error) {
      if (this.#stopped) return;
      this.failures += 1;
      const waitMs = pauseMs * (0.5 + random());
      const reason = error instanceof Error ? error.message : String(error);
      log.warn({ reason, retryMs: Math.round(waitMs) }, "no certificate from the CA");
      this.#cancel = clock.after(waitMs, () => void this.#renew(Math.min(pauseMs * 2, retryMaxMs)));
    }
  }

  #sleepUntil(atMs: number): void {
    if (this.#stopped) return;
    this.#cancel();
    this.#dueMs = atMs;
    const leftMs = atMs - this.#options.clock.nowMs();
    if (leftMs <= 0) void this.#renew(retryFirstMs);
    else this.#cancel = this.#options.clock.after(Math.min(leftMs, sleepMaxMs), () => this.#sleepUntil(atMs));
  }
}

/** Sorts a chain as the CA sends it (leaf first, root last) into what Envoy wants. Throws if there is no leaf. */
export function certificateOf(keyPem: string, chain: readonly string[]): WorkloadCertificate {
  const [leaf, ...rest] = chain;
  if (leaf === undefined) throw new Error("the CA answered without a certificate");
  const parsed = new X509Certificate(leaf);
  const last = rest.at(-1);
  const isRoot = last !== undefined && isSelfSigned(new X509Certificate(last));
  const intermediates = isRoot ? rest.slice(0, -1) : rest;
  return {
    keyPem,
    chainPem: [leaf, ...intermediates].map(withNewline).join(""),
    rootPem: isRoot ? withNewline(last) : "",
    notBeforeMs: parsed.validFromDate.getTime(),
    notAfterMs: parsed.validToDate.getTime(),
  };
}

function isSelfSigned(certificate: X509Certificate): boolean {
  return certificate.checkIssued(certificate);
}

function withNewline(pem: string): string {
  return pem.endsWith("\n") ? pem : `${pem}\n`;
}
