// Keys of JWT issuers that are no services of the mesh: fetched here and put into the configuration, so that proxies need no way
// to the outside. Whoever may write a RequestAuthentication names the URL, so a fetch is bounded in time, size and redirects, and
// never goes to this machine itself or to the link-local addresses where clouds keep their secrets.

import http from "node:http";
import https from "node:https";
import { lookup as resolveName } from "node:dns";
import { BlockList, isIP, type LookupFunction } from "node:net";
import type { Clock, Logger } from "#base";
import type { Change, Changed, Engine, Table } from "#engine";
import { jwksTable, jwksUris, usableKeys, type FetchedKeys } from "#model";
import { controlPlaneLimits, type ControlLimit, type ReachControlLimit } from "./limits.ts";

export interface JwksFetcherOptions {
  readonly engine: Engine;
  readonly clock: Clock;
  readonly log: Logger;
  readonly publish: (changes: readonly Change[]) => void;
  /** For tests, and for issuers beside the control plane. */
  readonly allowLocal: boolean;
  readonly reached?: ReachControlLimit;
}

/** How long keys are used before they are asked for anew: Istio's value. */
const refreshMs = 20 * 60_000;
const retryMinMs = 1_000;
const retryMaxMs = 60_000;
const timeoutMs = controlPlaneLimits.keysTime.value;
const bytesMax = controlPlaneLimits.keysBytes.value;
const redirectsMax = controlPlaneLimits.keysRedirects.value;
const urisMax = controlPlaneLimits.keySources.value;

interface Followed {
  failures: number;
  cancel: () => void;
  gone: boolean;
}

export class JwksFetcher {
  readonly #options: JwksFetcherOptions;
  readonly #followed = new Map<string, Followed>();

  constructor(options: JwksFetcherOptions) {
    this.#options = options;
  }

  start(): void {
    this.#follow(this.#options.engine.watch(jwksUris, ""));
  }

  stop(): void {
    this.#follow([]);
  }

  /** To be told what each settling of the engine changed. */
  settled(changed: readonly Changed[]): void {
    for (const { query, value } of changed) {
      if (query.id === jwksUris.id) this.#follow(value as readonly string[]);
    }
  }

  #follow(uris: readonly string[]): void {
    const wanted = new Set(uris.slice(0, urisMax));
    if (uris.length > urisMax) {
      this.#options.reached?.("keySources");
      this.#options.log.warn({ uris: uris.length, followed: urisMax }, "too many places of JWT keys");
    }
    for (const [uri, followed] of this.#followed) {
      if (wanted.has(uri)) continue;
      followed.gone = true;
      followed.cancel();
      this.#followed.delete(uri);
      this.#put(uri, undefined);
    }
    for (const uri of wanted) {
      if (this.#followed.has(uri)) continue;
      const followed: Followed = { failures: 0, cancel: () => {}, gone: false };
      this.#followed.set(uri, followed);
      void this.#round(uri, followed);
    }
  }

  async #round(uri: string, followed: Followed): Promise<void> {
    const { clock, log, allowLocal, engine } = this.#options;
    const before = engine.rows(jwksTable).get(uri);
    let pauseMs = refreshMs;
    try {
      const jwks = checkedKeys(await fetchText(uri, allowLocal));
      if (followed.gone) return;
      followed.failures = 0;
      if (before?.jwks !== jwks || before.failure !== undefined) this.#put(uri, { jwks });
    } catch (error) {
      if (error instanceof LimitReached) this.#options.reached?.(error.limit);
      if (followed.gone) return;
      const failure = error instanceof Error ? error.message : String(error);
      if (followed.failures === 0) log.warn({ uri, failure }, "keys of a JWT issuer cannot be fetched");
      pauseMs = Math.min(retryMaxMs, retryMinMs * 2 ** followed.failures++);
      // Keys that were good once stay: an issuer that is down for an hour must not lock everybody out.
      if (before?.failure !== failure) this.#put(uri, { ...before, failure });
    }
    followed.cancel = clock.after(pauseMs, () => void this.#round(uri, followed));
  }

  #put(uri: string, value: FetchedKeys | undefined): void {
    this.#options.publish([{ table: jwksTable as Table<unknown>, key: uri, value }]);
  }
}

function checkedKeys(text: string): string {
  const keys = usableKeys(text);
  if (keys === undefined) throw new Error("the answer is no JSON Web Key Set with a key that can be used");
  return keys;
}

class LimitReached extends Error {
  readonly limit: ControlLimit;
  constructor(limit: ControlLimit, message: string) {
    super(message);
    this.limit = limit;
  }
}

/** The body of a 200. Rejects with a reason that tells nothing of what was answered. */
async function fetchText(first: string, allowLocal: boolean): Promise<string> {
  let uri = first;
  for (let redirects = 0; redirects <= redirectsMax; redirects++) {
    const answer = await fetchOnce(uri, allowLocal);
    if (answer.kind === "text") return answer.text;
    uri = new URL(answer.location, uri).href;
  }
  throw new LimitReached("keysRedirects", `more than ${redirectsMax} redirects`);
}

type Answer =
  | { readonly kind: "text"; readonly text: string }
  | { readonly kind: "redirect"; readonly location: string };

function fetchOnce(uri: string, allowLocal: boolean): Promise<Answer> {
  const url = new URL(uri);
  const { protocol, hostname } = url;
  if (protocol !== "http:" && protocol !== "https:")
    return Promise.reject(new Error(`${protocol} is not fetched from`));
  const literal = hostname.replace(/^\[|\]$/g, "");
  if (!allowLocal && isIP(literal) !== 0 && isForbidden(literal))
    return Promise.reject(new Error(`${literal} is an address of the machine itself or of its link`));
  return new Promise((resolve, reject) => {
    const request = (protocol === "https:" ? https : http).get(
      url,
      {
        agent: false,
        lookup: allowLocal ? undefined : guardedLookup,
        signal: AbortSignal.timeout(timeoutMs),
        headers: { accept: "application/json" },
      },
      (response) => {
        const { statusCode = 0, headers } = response;
        if (statusCode >= 300 && statusCode < 400 && headers.location !== undefined) {
          response.destroy();
          resolve({ kind: "redirect", location: headers.location });
          return;
        }
        if (statusCode !== 200) {
          response.destroy();
          reject(new Error(`the answer has status ${statusCode}`));
          return;
        }
        const chunks: Buffer[] = [];
        let bytes = 0;
        response.on("data", (chunk: Buffer) => {
          chunks.push(chunk);
          bytes += chunk.length;
          if (bytes > bytesMax)
            request.destroy(new LimitReached("keysBytes", `the answer has more than ${bytesMax} bytes`));
        });
        response.on("end", () => resolve({ kind: "text", text: Buffer.concat(chunks).toString() }));
        response.on("error", reject);
      },
    );
    request.on("error", (error: NodeJS.ErrnoException) =>
      reject(
        error.name === "TimeoutError" || error.name === "AbortError"
          ? new LimitReached("keysTime", `no answer within ${timeoutMs} ms`)
          : error,
      ),
    );
  });
}

/** Judges the very address that is connected to: a name may mean another one the next time. */
const guardedLookup: LookupFunction = (hostname, options, callback) => {
  resolveName(hostname, { ...options, all: true }, (error, addresses) => {
    if (error !== null) {
      callback(error, "");
      return;
    }
    const allowed = addresses.filter(({ address }) => !isForbidden(address));
    const [first] = allowed;
    if (first === undefined)
      callback(new Error(`${hostname} is an address of the machine itself or of its link`), "");
    else if (options.all === true) callback(null, allowed);
    else callback(null, first.address, first.family);
  });
};

const forbidden = new BlockList();
forbidden.addSubnet("0.0.0.0", 8, "ipv4");
forbidden.addSubnet("127.0.0.0", 8, "ipv4");
forbidden.addSubnet("169.254.0.0", 16, "ipv4");
forbidden.addSubnet("224.0.0.0", 3, "ipv4");
forbidden.addAddress("::", "ipv6");
forbidden.addAddress("::1", "ipv6");
forbidden.addSubnet("fe80::", 10, "ipv6");
forbidden.addSubnet("ff00::", 8, "ipv6");
// The metadata service of some clouds has an address that is not link-local.
forbidden.addAddress("fd00:ec2::254", "ipv6");

function isForbidden(address: string): boolean {
  return forbidden.check(address, isIP(address) === 6 ? "ipv6" : "ipv4");
}
