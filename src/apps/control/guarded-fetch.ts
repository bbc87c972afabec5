// Fetches what users' objects name by URL: bounded in time, size and redirects, and never from this machine itself or from the
// link-local addresses where clouds keep their secrets, whatever a name means or a redirect says.

import http from "node:http";
import https from "node:https";
import { lookup as resolveName } from "node:dns";
import { BlockList, isIP, type LookupFunction } from "node:net";
import { controlPlaneLimits, type ControlLimit } from "./limits.ts";

/** Whether addresses of this machine and its link are fetched from, or which: for tests, and for servers beside the control plane. */
export type AllowLocal = boolean | readonly string[];

export interface GuardedOptions {
  readonly allowLocal: AllowLocal;
  readonly limits: {
    readonly time: ControlLimit;
    readonly bytes: ControlLimit;
    readonly redirects: ControlLimit;
  };
  /** The end of the time; without, it begins now. */
  readonly signal?: AbortSignal;
  readonly headers?: Readonly<Record<string, string>>;
  /** For the server of the URL alone: a redirect to another one goes without it. */
  readonly authorization?: string;
  /** Takes any certificate. */
  readonly insecure?: boolean;
}

export interface GuardedAnswer {
  readonly status: number;
  readonly headers: http.IncomingHttpHeaders;
  /** Empty unless the status is 200. */
  readonly body: Buffer;
}

export class LimitReached extends Error {
  readonly limit: ControlLimit;
  constructor(limit: ControlLimit, message: string) {
    super(message);
    this.limit = limit;
  }
}

/** Follows redirects. Rejects with a reason that tells nothing of what was answered, and LimitReached beyond a limit. */
export async function fetchGuarded(first: string, options: GuardedOptions): Promise<GuardedAnswer> {
  const { limits } = options;
  const signal = options.signal ?? AbortSignal.timeout(controlPlaneLimits[limits.time].value);
  const redirectsMax = controlPlaneLimits[limits.redirects].value;
  const { origin } = new URL(first);
  let uri = first;
  for (let redirects = 0; redirects <= redirectsMax; redirects++) {
    const authorization = new URL(uri).origin === origin ? options.authorization : undefined;
    const answer = await fetchOnce(uri, { ...options, signal, authorization });
    const { location } = answer.headers;
    if (answer.status < 300 || answer.status >= 400 || location === undefined) return answer;
    if (!URL.canParse(location, uri)) throw new Error("a redirect leads to no URL");
    uri = new URL(location, uri).href;
  }
  throw new LimitReached(limits.redirects, `more than ${redirectsMax} redirects`);
}

/** The body of a 200; any other status rejects. */
export async function fetchBody(uri: string, options: GuardedOptions): Promise<Buffer> {
  const { status, body } = await fetchGuarded(uri, options);
  if (status !== 200) throw new Error(`the answer has status ${status}`);
  return body;
}

function fetchOnce(
  uri: string,
  options: GuardedOptions & { readonly signal: AbortSignal },
): Promise<GuardedAnswer> {
  const { allowLocal, limits, signal, headers, authorization, insecure = false } = options;
  const url = new URL(uri);
  const { protocol, hostname } = url;
  if (protocol !== "http:" && protocol !== "https:")
    return Promise.reject(new Error(`${protocol} is not fetched from`));
  const literal = hostname.replace(/^\[|\]$/g, "");
  if (isIP(literal) !== 0 && isForbidden(literal, allowLocal))
    return Promise.reject(new Error(`${literal} is an address of the machine itself or of its link`));
  const bytesMax = controlPlaneLimits[limits.bytes].value;
  return new Promise((resolve, reject) => {
    const fail = (error: Error): void =>
      reject(
        signal.aborted
          ? new LimitReached(limits.time, `no answer within ${controlPlaneLimits[limits.time].value} ms`)
          : error,
      );
    const request = (protocol === "https:" ? https : http).get(
      url,
      {
        agent: false,
        lookup: guardedLookup(allowLocal),
        signal,
        headers: { ...headers, ...(authorization === undefined ? {} : { authorization }) },
        ...(insecure ? { rejectUnauthorized: false } : {}),
      },
      (response) => {
        const { statusCode: status = 0, headers: answered } = response;
        if (status !== 200) {
          response.destroy();
          resolve({ status, headers: answered, body: Buffer.alloc(0) });
          return;
        }
        const chunks: Buffer[] = [];
        let bytes = 0;
        response.on("data", (chunk: Buffer) => {
          chunks.push(chunk);
          bytes += chunk.length;
          if (bytes > bytesMax)
            request.destroy(new LimitReached(limits.bytes, `the answer has more than ${bytesMax} bytes`));
        });
        response.on("end", () => resolve({ status, headers: answered, body: Buffer.concat(chunks) }));
        response.on("error", fail);
      },
    );
    request.on("error", fail);
  });
}

/** Judges the very address that is connected to: a name may mean another one the next time. */
function guardedLookup(allowLocal: AllowLocal): LookupFunction {
  return (hostname, options, callback) => {
    resolveName(hostname, { ...options, all: true }, (error, addresses) => {
      if (error !== null) {
        callback(error, "");
        return;
      }
      const allowed = addresses.filter(({ address }) => !isForbidden(address, allowLocal));
      const [first] = allowed;
      if (first === undefined)
        callback(new Error(`${hostname} is an address of the machine itself or of its link`), "");
      else if (options.all === true) callback(null, allowed);
      else callback(null, first.address, first.family);
    });
  };
}

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

function isForbidden(address: string, allowLocal: AllowLocal): boolean {
  if (allowLocal === true || (allowLocal !== false && allowLocal.includes(address))) return false;
  return forbidden.check(address, isIP(address) === 6 ? "ipv6" : "ipv4");
}
