// The checks of traffic-matrix, over the results of real calls.

import { echoIn, type Echo, type Result } from "../e2e/echoes.ts";

export interface Check {
  readonly check: string;
  readonly args?: readonly unknown[];
  /** Of custom checks: what they want, in words. */
  readonly describe?: string;
}

/** What a call was, as far as checks ask. */
export interface Called {
  readonly scheme: string;
  /** The host that was called. */
  readonly host: string;
  /** Addresses of the Services by name. */
  readonly addresses: (service: string) => readonly string[];
}

/** gRPC codes by the names that the cases use. */
const grpcCodes: Readonly<Record<string, number>> = {
  "codes.OK": 0,
  "codes.Canceled": 1,
  "codes.Unknown": 2,
  "codes.InvalidArgument": 3,
  "codes.DeadlineExceeded": 4,
  "codes.NotFound": 5,
  "codes.PermissionDenied": 7,
  "codes.Unimplemented": 12,
  "codes.Unavailable": 14,
  "codes.Unauthenticated": 16,
};

/** Why the results do not satisfy the check; undefined when they do. */
export function checkFailure(check: Check, results: readonly Result[], called: Called): string | undefined {
  const args = check.args ?? [];
  switch (check.check) {
    case "And":
    case "Each":
      return first(args.map((arg) => checkFailure(arg as Check, results, called)));
    case "OK":
      return each(
        results,
        (result) => isOk(result),
        (result) => `status ${result.status} ${result.error ?? result.body.slice(0, 300)}, expected OK`,
      );
    case "Error":
      return each(
        results,
        (result) => !isOk(result),
        () => "succeeded, expected an error",
      );
    case "Status":
      return each(
        results,
        (result) => result.status === Number(args[0]),
        (result) => `status ${result.status}, expected ${args[0]}`,
      );
    case "GRPCStatus":
      return each(
        results,
        (result) => result.grpcStatus === grpcCodes[String(args[0])],
        (result) => `gRPC status ${result.grpcStatus}, expected ${args[0]}`,
      );
    case "Host":
      return seen(results, "host", (echo) => echo.host, String(args[0]));
    case "URL":
      return seen(results, "url", (echo) => echo.url, String(args[0]));
    case "Protocol":
      return seen(results, "protocol", (echo) => echo.protocol, String(args[0]));
    case "Alpn":
      return seen(results, "alpn", (echo) => echo.alpn, String(args[0]));
    case "RequestHeader":
      return header(results, requestHeader, String(args[0]), String(args[1]));
    case "RequestHeaders":
      return headers(results, requestHeader, args[0]);
    case "ResponseHeader":
      return header(results, responseHeader, String(args[0]), String(args[1]));
    case "ResponseHeaders":
      return headers(results, responseHeader, args[0]);
    case "LocationHeader":
      return header(
        results,
        responseHeader,
        "location",
        String(args[0]).replaceAll("{{.Hostname}}", called.host),
      );
    case "MTLSForHTTP":
      // What is not readable HTTP bears no header to see it by.
      return called.scheme !== "http" && called.scheme !== "grpc"
        ? undefined
        : each(
            results,
            (result) => requestHeader(result, "x-forwarded-client-cert") !== "",
            () => "no mutual TLS",
          );
    case "ProxyProtocolVersion":
      return seen(results, "proxyProtocol", (echo) => echo.proxyProtocol, String(args[0]));
    case "AllResponsesFromOneHost":
      return hostsOf(results).size === 1 ? undefined : `answers of ${[...hostsOf(results)].join(", ")}`;
    case "DNSAnswersEqualSet":
      return answersFailure(results, args.map(String), called);
    // There is one cluster, and what was reached is in it.
    case "ReachedTargetClusters":
      return undefined;
    case "custom":
      return customFailure(check.describe ?? "", results, called);
    default:
      return `no judge for the check ${check.check}`;
  }
}

function answersFailure(
  results: readonly Result[],
  expected: readonly string[],
  called: Called,
): string | undefined {
  const service = /all addresses .* of service (\S+)/.exec(expected[0] ?? "")?.[1];
  const wanted = JSON.stringify((service === undefined ? expected : called.addresses(service)).toSorted());
  return each(
    results,
    (result) => result.body === wanted,
    (result) => `answers ${result.body} ${result.error ?? ""}, expected ${wanted}`,
  );
}

/** Checks that the cases give in words. */
function customFailure(words: string, results: readonly Result[], called: Called): string | undefined {
  if (words.includes("must NOT all come from one host"))
    return hostsOf(results).size > 1 ? undefined : "all answers came from one host";
  if (words.includes('must not contain "PROXY TCP4"'))
    return each(
      results,
      (result) => isOk(result) && !result.body.includes("PROXY TCP4"),
      (result) => `${result.error ?? ""} ${result.body}`,
    );
  if (words.includes("Host header seen by the server equals the host that was called"))
    return (
      checkFailure({ check: "OK" }, results, called) ??
      (called.scheme === "tcp" ? undefined : seen(results, "host", (echo) => echo.host, called.host))
    );
  return `no judge for: ${words}`;
}

function hostsOf(results: readonly Result[]): ReadonlySet<string> {
  return new Set(
    results.map((result) => echoIn(result)?.hostname ?? /hostname=(\S+)/.exec(result.body)?.[1] ?? ""),
  );
}

function isOk(result: Result): boolean {
  return result.error === undefined && (result.grpcStatus ?? 0) === 0 && result.status === 200;
}

function each(
  results: readonly Result[],
  holds: (result: Result) => boolean,
  why: (result: Result) => string,
): string | undefined {
  if (results.length === 0) return "no result";
  const wrong = results.find((result) => !holds(result));
  return wrong === undefined ? undefined : why(wrong);
}

function seen(
  results: readonly Result[],
  what: string,
  of: (echo: Echo) => string,
  expected: string,
): string | undefined {
  return each(
    results,
    (result) => of(echoIn(result) ?? ({} as Echo)) === expected,
    (result) => `${what} ${of(echoIn(result) ?? ({} as Echo))}, expected ${expected}`,
  );
}

function requestHeader(result: Result, name: string): string {
  return echoIn(result)?.headers[name.toLowerCase()] ?? "";
}

function responseHeader(result: Result, name: string): string {
  return result.headers[name.toLowerCase()] ?? "";
}

type HeaderOf = (result: Result, name: string) => string;

function header(
  results: readonly Result[],
  of: HeaderOf,
  name: string,
  expected: string,
): string | undefined {
  return each(
    results,
    (result) => of(result, name) === expected,
    (result) => `header ${name} '${of(result, name)}', expected '${expected}'`,
  );
}

function headers(results: readonly Result[], of: HeaderOf, expected: unknown): string | undefined {
  return first(
    Object.entries(expected as Record<string, string>).map(([name, value]) =>
      header(results, of, name, value),
    ),
  );
}

function first(reasons: readonly (string | undefined)[]): string | undefined {
  return reasons.find((reason) => reason !== undefined);
}
