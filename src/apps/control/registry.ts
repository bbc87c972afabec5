// A client of a container registry, for one repository and one fetch (OCI distribution specification, and Docker's token
// authentication): manifests and blobs by their digests, over TLS unless the operator has named the registry as insecure.

import { createHash } from "node:crypto";
import type { ImageReference } from "#objects";
import { fetchGuarded, type AllowLocal, type GuardedAnswer, type GuardedOptions } from "./guarded-fetch.ts";

export interface RegistryOptions {
  readonly image: ImageReference;
  readonly credentials: RegistryCredentials | undefined;
  /** A registry of any certificate, or of none. */
  readonly insecure: boolean;
  readonly allowLocal: AllowLocal;
  /** The end of the whole fetch. */
  readonly signal: AbortSignal;
}

export interface RegistryCredentials {
  readonly user: string;
  readonly password: string;
}

export interface Digested {
  /** 64 hexadecimal digits. */
  readonly sha256: string;
  readonly mediaType: string;
  readonly bytes: Buffer;
}

const paper = { time: "moduleTime", bytes: "manifestBytes", redirects: "moduleRedirects" } as const;
const content = { time: "moduleTime", bytes: "moduleBytes", redirects: "moduleRedirects" } as const;

export const mediaTypes = {
  ociIndex: "application/vnd.oci.image.index.v1+json",
  dockerIndex: "application/vnd.docker.distribution.manifest.list.v2+json",
  ociManifest: "application/vnd.oci.image.manifest.v1+json",
  dockerManifest: "application/vnd.docker.distribution.manifest.v2+json",
} as const;

export class Registry {
  readonly #options: RegistryOptions;
  #scheme: "https" | "http" = "https";
  #authorization: string | undefined;

  constructor(options: RegistryOptions) {
    this.#options = options;
  }

  /** Rejects if it is not there or is not of its digest. @param reference a tag, or `sha256:` and a digest */
  async manifest(reference: string): Promise<Digested> {
    const accept = Object.values(mediaTypes).join(", ");
    const { headers, body } = await this.#get(`manifests/${reference}`, {
      limits: paper,
      headers: { accept },
    });
    const mediaType = (headers["content-type"] ?? "").split(";")[0]!.trim();
    return { ...digested(body, reference), mediaType };
  }

  /** @param digest `sha256:` and 64 hexadecimal digits */
  async blob(digest: string): Promise<Buffer> {
    const { body } = await this.#get(`blobs/${digest}`, { limits: content });
    return digested(body, digest).bytes;
  }

  async #get(path: string, request: Pick<GuardedOptions, "limits" | "headers">): Promise<GuardedAnswer> {
    let answer = await this.#ask(path, request);
    if (answer.status === 401 && this.#authorization === undefined) {
      this.#authorization = await this.#authorizationFor(answer.headers["www-authenticate"] ?? "");
      if (this.#authorization !== undefined) answer = await this.#ask(path, request);
    }
    const { image, credentials } = this.#options;
    switch (answer.status) {
      case 200:
        return answer;
      case 401:
      case 403:
        throw new Error(
          credentials === undefined
            ? `${image.registry} gives it to no one without credentials`
            : `${image.registry} refuses the credentials`,
        );
      case 404:
        throw new Error(`${image.registry} does not have it`);
      default:
        throw new Error(`${image.registry} answers with status ${answer.status}`);
    }
  }

  async #ask(path: string, request: Pick<GuardedOptions, "limits" | "headers">): Promise<GuardedAnswer> {
    const { image, insecure, allowLocal, signal } = this.#options;
    const options = { ...request, insecure, allowLocal, signal, authorization: this.#authorization };
    const rest = `://${apiHost(image.registry)}/v2/${image.repository}/${path}`;
    try {
      return await fetchGuarded(this.#scheme + rest, options);
    } catch (error) {
      if (this.#scheme === "http" || !speaksNoTls(error)) throw error;
      if (!insecure)
        throw new Error(`${image.registry} speaks no TLS, and is not among WASM_INSECURE_REGISTRIES`, {
          cause: error,
        });
      this.#scheme = "http";
      return fetchGuarded(this.#scheme + rest, options);
    }
  }

  /** The header that a challenge asks for; undefined if there is nothing to answer with. */
  async #authorizationFor(challenge: string): Promise<string | undefined> {
    const { image, credentials, insecure, allowLocal, signal } = this.#options;
    const basic =
      credentials === undefined
        ? undefined
        : `Basic ${Buffer.from(`${credentials.user}:${credentials.password}`).toString("base64")}`;
    if (/^basic\b/i.test(challenge)) return basic;
    if (!/^bearer\b/i.test(challenge)) return undefined;
    const parameters = parametersOf(challenge);
    const realm = parameters.get("realm") ?? "";
    if (!URL.canParse(realm)) throw new Error(`${image.registry} names no place of tokens`);
    const url = new URL(realm);
    // A registry is trusted with the credentials for it, and so with naming who checks them; the way there is kept safe as well.
    if (url.protocol !== "https:" && !insecure)
      throw new Error(`${image.registry} wants its tokens fetched without TLS`);
    const service = parameters.get("service");
    if (service !== undefined) url.searchParams.set("service", service);
    url.searchParams.set("scope", `repository:${image.repository}:pull`);
    const { status, body } = await fetchGuarded(url.href, {
      limits: paper,
      insecure,
      allowLocal,
      signal,
      authorization: basic,
      headers: { accept: "application/json" },
    });
    if (status === 401 || status === 403) return undefined;
    if (status !== 200) throw new Error(`the place of tokens answers with status ${status}`);
    const { token, access_token: accessToken } = parsedObject(body) as {
      readonly token?: unknown;
      readonly access_token?: unknown;
    };
    const given = token ?? accessToken;
    if (typeof given !== "string" || !/^[\x21-\x7e]+$/.test(given))
      throw new Error("the place of tokens gives none");
    return `Bearer ${given}`;
  }
}

/** Docker's registry has an API host of its own. */
function apiHost(registry: string): string {
  return registry === "docker.io" ? "registry-1.docker.io" : registry;
}

const tlsRefusals: ReadonlySet<string> = new Set([
  "ERR_SSL_WRONG_VERSION_NUMBER",
  "ERR_SSL_PACKET_LENGTH_TOO_LONG",
  "EPROTO",
]);

/** What OpenSSL says of a server that answers TLS with HTTP. */
function speaksNoTls(error: unknown): boolean {
  return tlsRefusals.has((error as NodeJS.ErrnoException).code ?? "");
}

/** `Bearer realm="...",service="..."`, the names in lower case. */
function parametersOf(challenge: string): ReadonlyMap<string, string> {
  const found = challenge.matchAll(/([a-zA-Z]+)="([^"]*)"/g);
  return new Map([...found].map(([, name = "", value = ""]) => [name.toLowerCase(), value]));
}

/** Rejects bytes that are not those of a digest; a tag promises nothing. */
function digested(bytes: Buffer, reference: string): Omit<Digested, "mediaType"> {
  const sha256 = createHash("sha256").update(bytes).digest("hex");
  if (reference.includes(":") && reference !== `sha256:${sha256}`)
    throw new Error("the registry sends other bytes than those of the digest");
  return { sha256, bytes };
}

/** Throws if it is no JSON object. */
export function parsedObject(bytes: Buffer): object {
  let parsed: unknown;
  try {
    parsed = JSON.parse(bytes.toString());
  } catch {
    parsed = undefined;
  }
  if (typeof parsed !== "object" || parsed === null) throw new Error("the registry sends no JSON object");
  return parsed;
}
