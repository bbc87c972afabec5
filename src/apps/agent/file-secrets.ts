// Keys and certificates that lie in the proxy's own file system, where a DestinationRule, a Gateway or a Sidecar names files instead
// of a Secret. Envoy asks for them by names that say the paths, as with Istio's agent; they are read when first asked for and looked
// at again now and then, so that a new certificate in a mounted Secret is used without a restart.

import type { Logger } from "#base";
import { certificatesComplaint, keyPairComplaint, revocationsComplaint } from "#identity";
import { secretNames, type SecretValue } from "./sds.ts";

/** Beyond it nothing more is read: no configuration needs so many. */
const filesMax = 100;
/** Of one file; a bundle of all the world's roots has 0.3 million. */
const charactersMax = 4_000_000;

type Files =
  | { readonly kind: "certificate"; readonly chain: string; readonly key: string }
  | {
      readonly kind: "trust";
      /** The path of a file, or the name of roots that the agent has. */
      readonly roots: { readonly path: string } | { readonly name: string };
      /** The path of a list of revoked certificates. */
      readonly revoked?: string;
    };

export interface FileSecretsOptions {
  /** Throws where there is no such file. */
  readonly read: (path: string) => string;
  /** The roots, in PEM, that the agent has under a name; undefined for a name of none, and as long as it has none yet. */
  readonly rootsOf: (name: string) => string | undefined;
  readonly set: (name: string, value: SecretValue) => void;
  readonly log: Logger;
}

export class FileSecrets {
  readonly #options: FileSecretsOptions;
  readonly #wanted = new Map<string, Files>();
  /** Why each was of no use when it was last looked at. */
  readonly #complaints = new Map<string, string>();

  constructor(options: FileSecretsOptions) {
    this.#options = options;
  }

  /** Envoy asks for a secret, maybe one of files. */
  want(name: string): void {
    const files = filesOf(name);
    if (files === undefined || this.#wanted.has(name)) return;
    if (this.#wanted.size >= filesMax) {
      this.#options.log.error({ secret: name, filesMax }, "too many secrets of files");
      return;
    }
    this.#wanted.set(name, files);
    this.#look(name, files);
  }

  /** Reads all again. What cannot be read or used leaves the last good one in use. */
  look(): void {
    for (const [name, files] of this.#wanted) this.#look(name, files);
  }

  #look(name: string, files: Files): void {
    const found = this.#valueOf(files);
    if (typeof found !== "string") {
      this.#complaints.delete(name);
      this.#options.set(name, found);
      return;
    }
    if (this.#complaints.get(name) === found) return;
    this.#complaints.set(name, found);
    this.#options.log.warn({ secret: name, reason: found }, "files of a certificate cannot be used");
  }

  /** The secret, or why there is none. */
  #valueOf(files: Files): SecretValue | string {
    try {
      if (files.kind === "trust") return this.#trustOf(files);
      const [chainPem, keyPem] = [this.#read(files.chain), this.#read(files.key)];
      return keyPairComplaint(chainPem, keyPem) ?? { kind: "certificate", chainPem, keyPem };
    } catch (error) {
      return error instanceof Error ? error.message : String(error);
    }
  }

  #trustOf({ roots, revoked }: Extract<Files, { readonly kind: "trust" }>): SecretValue | string {
    const rootsPem = "path" in roots ? this.#read(roots.path) : (this.#options.rootsOf(roots.name) ?? "");
    const wrong = certificatesComplaint(rootsPem);
    if (wrong !== undefined || revoked === undefined) return wrong ?? { kind: "trust", rootsPem };
    const revokedPem = this.#read(revoked);
    return revocationsComplaint(revokedPem) ?? { kind: "trust", rootsPem, revokedPem };
  }

  #read(path: string): string {
    const text = this.#options.read(path);
    if (text.length > charactersMax) throw new Error(`${path} has more than ${charactersMax} characters`);
    return text;
  }
}

/**
 * `file-cert:<chain>~<key>` and `file-root:<roots>` are Istio's names. `file-crl:<list>~<roots>` is ours: the secret of roots that its second
 * half names, with a list of revoked certificates.
 */
function filesOf(name: string): Files | undefined {
  const [, chain = "", key = ""] = /^file-cert:([^~]+)~([^~]+)$/.exec(name) ?? [];
  if (chain !== "") return { kind: "certificate", chain, key };
  const [, revoked = "", of = ""] = /^file-crl:([^~]+)~(.+)$/.exec(name) ?? [];
  const path = pathOfRoots(revoked === "" ? name : of);
  if (revoked !== "") return { kind: "trust", roots: path === undefined ? { name: of } : { path }, revoked };
  return path === undefined ? undefined : { kind: "trust", roots: { path } };
}

/** The path in `file-root:<path>`; undefined for secrets that are no file's. */
function pathOfRoots(name: string): string | undefined {
  if (name === secretNames.systemRoots) return undefined;
  return /^file-root:(.+)$/.exec(name)?.[1];
}
