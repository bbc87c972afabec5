// The CA of the moment and the control plane's own serving certificate, both kept current: the certificate is made anew
// well before its end and whenever the CA changes, and whoever serves it is told.

import type { Clock, Logger } from "#base";
import type { CertificateAuthority } from "#identity";
import type { StoredAuthority } from "./authority-store.ts";

export interface ServingCertificate {
  readonly certPem: string;
  readonly keyPem: string;
  /** The roots that clients' certificates are checked against. */
  readonly rootPem: string;
  readonly notAfterMs: number;
}

export interface CertificatesOptions {
  /** Reads the CA; returns what it was handed if nothing changed. */
  readonly load: (before: StoredAuthority | undefined) => Promise<StoredAuthority>;
  /** The DNS names by which the control plane is reached. */
  readonly names: readonly string[];
  readonly clock: Clock;
  readonly log: Logger;
  readonly changed: (serving: ServingCertificate, authority: CertificateAuthority) => void;
}

/** How often the CA's Secret is looked at, and the certificate's age. */
const checkMs = 30_000;
/** A certificate is replaced when this share of its life is left. */
const renewShare = 0.5;

export class Certificates {
  readonly #options: CertificatesOptions;
  #stored: StoredAuthority;
  #serving: ServingCertificate;
  #issuedAtMs: number;
  #cancel: (() => void) | undefined;

  private constructor(options: CertificatesOptions, stored: StoredAuthority, serving: ServingCertificate) {
    this.#options = options;
    this.#stored = stored;
    this.#serving = serving;
    this.#issuedAtMs = options.clock.nowMs();
  }

  /** Loads the CA and issues the first certificate. Rejects with the reason if there is no usable CA. */
  static async create(options: CertificatesOptions): Promise<Certificates> {
    const stored = await options.load(undefined);
    const certificates = new Certificates(options, stored, await issue(options, stored));
    certificates.#schedule();
    return certificates;
  }

  get authority(): CertificateAuthority {
    return this.#stored.authority;
  }

  get serving(): ServingCertificate {
    return this.#serving;
  }

  stop(): void {
    this.#cancel?.();
  }

  #schedule(): void {
    this.#cancel = this.#options.clock.after(checkMs, () => {
      void this.#check().finally(() => this.#schedule());
    });
  }

  async #check(): Promise<void> {
    const { load, log, clock, changed } = this.#options;
    try {
      const stored = await load(this.#stored);
      const lifeMs = this.#serving.notAfterMs - this.#issuedAtMs;
      const isOld = this.#serving.notAfterMs - clock.nowMs() < lifeMs * renewShare;
      if (stored === this.#stored && !isOld) return;
      this.#serving = await issue(this.#options, stored);
      this.#issuedAtMs = clock.nowMs();
      this.#stored = stored;
      log.info({ ca: stored.version }, "serving certificate renewed");
      changed(this.#serving, stored.authority);
    } catch (error) {
      log.error({ error: String(error) }, "the CA cannot be read; the one in use stays");
    }
  }
}

async function issue(
  { names }: CertificatesOptions,
  { authority }: StoredAuthority,
): Promise<ServingCertificate> {
  const { key, chain, root, notAfterMs } = await authority.issueServing(names);
  return { certPem: chain, keyPem: key, rootPem: root, notAfterMs };
}
