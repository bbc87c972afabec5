// A machine's key and certificate on its disk. Its token is good for the first certificate; from then on, and after a restart,
// the machine proves who it is by the certificate that it has, as long as that is valid.

import { existsSync, readFileSync, renameSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { certificateOf, type WorkloadCertificate } from "./rotator.ts";

/** A certificate that ends sooner is not worth showing: the CA's clock may differ. */
const marginMs = 5_000;

export class IdentityFiles {
  readonly #keyPath: string;
  readonly #chainPath: string;
  readonly #used: boolean;

  /** @param folder "" where nothing is kept: a Pod gets a new token whenever it needs one */
  constructor(folder: string) {
    this.#used = folder !== "";
    this.#keyPath = join(folder, "key.pem");
    this.#chainPath = join(folder, "cert-chain.pem");
  }

  /** The certificate to show to the CA: the present one, or the one on disk; undefined where a token is to be shown. */
  load(current: WorkloadCertificate | undefined, nowMs: number): WorkloadCertificate | undefined {
    if (!this.#used) return undefined;
    const found = current ?? this.#read();
    return found !== undefined && found.notAfterMs - marginMs > nowMs ? found : undefined;
  }

  keep({ keyPem, chainPem }: WorkloadCertificate): void {
    if (!this.#used) return;
    for (const [path, text] of [
      [this.#keyPath, keyPem],
      [this.#chainPath, chainPem],
    ] as const) {
      writeFileSync(`${path}.new`, text, { mode: 0o600 });
      renameSync(`${path}.new`, path);
    }
  }

  #read(): WorkloadCertificate | undefined {
    if (!existsSync(this.#keyPath) || !existsSync(this.#chainPath)) return undefined;
    try {
      const chain = readFileSync(this.#chainPath, "utf8").match(
        /-----BEGIN[^-]+-----[^-]+-----END[^-]+-----/g,
      );
      return certificateOf(readFileSync(this.#keyPath, "utf8"), chain ?? []);
    } catch {
      // Half a file, or another's: the token decides, as if there were none.
      return undefined;
    }
  }
}
