// The rules of one HTTP route of a VirtualService.

import {
  corsHeaderNameFault,
  headersMax,
  headerValueFault,
  isAuthorityHeader,
  matchHeaderNameFault,
  otherHeaderNameFault,
  requestHeaderNameFault,
} from "../header-values.ts";
import { isDnsLabel, labelProblems } from "../label-match.ts";
import { eachEntry, eachOf, pathOf, type Report } from "../report.ts";
import { regexFault } from "../regex.ts";
import { durationFault, httpStatusFault, lineFault, percentFault, portFault, show } from "../values.ts";
import type {
  CorsPolicy,
  Headers,
  HTTPFaultInjection,
  HTTPMatchRequest,
  HTTPRedirect,
  HTTPRetry,
  HTTPRewrite,
  StringMatch,
  VirtualServiceHttpRoute,
} from "../virtual-service.ts";
import { checkDestination, checkGatewayNames, checkWeights } from "./route-parts.ts";

export function checkHttpRoute(
  route: VirtualServiceHttpRoute,
  ofDelegate: boolean,
  path: string,
  report: Report,
): void {
  checkActions(route, ofDelegate, path, report);
  eachOf(route.match, pathOf(path, "match"), (match, at) => checkMatch(match, at, report));
  checkHeaders(route.headers, pathOf(path, "headers"), report);
  if (route.corsPolicy !== undefined) checkCors(route.corsPolicy, pathOf(path, "corsPolicy"), report);
  if (route.fault !== undefined) checkFault(route.fault, pathOf(path, "fault"), report);
  checkMirrors(route, path, report);
  if (route.redirect !== undefined)
    checkRedirect(route.redirect, route.match, pathOf(path, "redirect"), report);
  checkDirectResponse(route, path, report);
  checkRetries(route.retries, pathOf(path, "retries"), report);
  if (route.rewrite !== undefined) checkRewrite(route.rewrite, pathOf(path, "rewrite"), report);
  checkAuthority(route, path, report);
  checkRoutes(route, path, report);
  if (route.timeout !== undefined) report.value(pathOf(path, "timeout"), durationFault(route.timeout));
}

/** A route does one thing: it routes, redirects, answers, or hands over to a delegate. */
function checkActions(
  route: VirtualServiceHttpRoute,
  ofDelegate: boolean,
  path: string,
  report: Report,
): void {
  if (route.delegate !== undefined && !ofDelegate) {
    if (route.redirect !== undefined || route.route !== undefined)
      report.add("MZ0203", path, "a route with a delegate does nothing itself: remove route and redirect");
    return;
  }
  if (route.delegate !== undefined)
    report.add("MZ0205", pathOf(path, "delegate"), "a delegate cannot hand over to another one");
  const routes = Boolean(route.route?.length);
  const answers =
    route.redirect !== undefined
      ? "redirect"
      : route.directResponse !== undefined
        ? "directResponse"
        : undefined;
  if (answers === undefined && !routes)
    report.add("MZ0202", path, "the route does nothing: set route, redirect or directResponse");
  if (answers !== undefined) {
    const beside = [
      ...(routes ? ["route"] : []),
      ...(["fault", "rewrite"] as const).filter((field) => route[field] !== undefined),
      ...(answers === "redirect" && route.directResponse !== undefined ? ["directResponse"] : []),
    ];
    if (beside.length > 0)
      report.add(
        "MZ0203",
        path,
        `${answers} answers the request itself: ${beside.join(" and ")} beside it contradict it`,
      );
  }
  if (route.mirror !== undefined && route.mirrors?.length)
    report.add("MZ0203", path, "mirror and mirrors are both set: keep mirrors");
}

function checkMatch(match: HTTPMatchRequest, path: string, report: Report): void {
  for (const field of ["headers", "withoutHeaders"] as const)
    eachEntry(match[field], pathOf(path, field), (name, value, at) => {
      report.value(at, matchHeaderNameFault(name));
      // `*` is no regex here, it asks for presence.
      if (field === "headers" || value?.regex !== "*") checkStringMatch(value, at, report);
    });
  // An empty prefix matches every path; of other things it is a mistake.
  if (match.uri?.regex !== undefined)
    checkStringMatch({ regex: match.uri.regex }, pathOf(path, "uri"), report);
  for (const field of ["scheme", "method", "authority"] as const)
    checkStringMatch(match[field], pathOf(path, field), report);
  eachEntry(match.queryParams, pathOf(path, "queryParams"), (name, value, at) => {
    report.value(at, parameterNameFault(name));
    checkStringMatch(value, at, report);
  });
  if (match.port) report.value(pathOf(path, "port"), portFault(match.port));
  for (const text of labelProblems(match.sourceLabels))
    report.add("MZ0201", pathOf(path, "sourceLabels"), text);
  checkGatewayNames(match.gateways, pathOf(path, "gateways"), report);
  if (match.sourceNamespace && !isDnsLabel(match.sourceNamespace))
    report.add("MZ0201", pathOf(path, "sourceNamespace"), `${show(match.sourceNamespace)} is no namespace`);
}

function checkStringMatch(match: StringMatch | undefined, path: string, report: Report): void {
  if (match?.prefix === "")
    report.add("MZ0201", pathOf(path, "prefix"), "an empty prefix matches everything: remove the match");
  if (match?.regex !== undefined)
    report.value(pathOf(path, "regex"), match.regex === "" ? "the regex is empty" : regexFault(match.regex));
}

/** Envoy matches parameters with names of so many bytes. */
const parameterBytesMax = 1_024;

function parameterNameFault(name: string): string | undefined {
  if (name === "") return "the name of the query parameter is empty";
  const bytes = Buffer.byteLength(name);
  return bytes <= parameterBytesMax
    ? undefined
    : `the name has ${bytes} bytes: at most ${parameterBytesMax} are allowed`;
}

function checkHeaders(headers: Headers | undefined, path: string, report: Report): void {
  for (const side of ["request", "response"] as const) {
    const changes = headers?.[side];
    const count = Object.keys(changes?.set ?? {}).length + Object.keys(changes?.add ?? {}).length;
    if (count > headersMax)
      report.add(
        "MZ0201",
        pathOf(path, side),
        `${count} headers are added: at most ${headersMax} are allowed`,
      );
    const nameFault = side === "request" ? requestHeaderNameFault : otherHeaderNameFault;
    for (const kind of ["set", "add"] as const)
      eachEntry(changes?.[kind], pathOf(pathOf(path, side), kind), (name, value, at) => {
        report.value(at, nameFault(name));
        report.value(at, headerValueFault(value));
      });
    eachOf(changes?.remove, pathOf(pathOf(path, side), "remove"), (name, at) =>
      report.value(at, otherHeaderNameFault(name)),
    );
  }
}

const corsMethods = new Set([
  "GET",
  "HEAD",
  "POST",
  "PUT",
  "PATCH",
  "DELETE",
  "CONNECT",
  "OPTIONS",
  "TRACE",
  "*",
]);

function checkCors(policy: CorsPolicy, path: string, report: Report): void {
  eachOf(policy.allowOrigins, pathOf(path, "allowOrigins"), (origin, at) => {
    if (!origin.exact && !origin.prefix && !origin.regex)
      report.add("MZ0202", at, "the origin matches nothing: set exact, prefix or regex");
    else if (origin.regex) report.value(pathOf(at, "regex"), regexFault(origin.regex));
  });
  eachOf(policy.allowMethods, pathOf(path, "allowMethods"), (method, at) => {
    if (!corsMethods.has(method)) report.add("MZ0201", at, `${show(method)} is no HTTP method`);
  });
  for (const field of ["allowHeaders", "exposeHeaders"] as const)
    eachOf(policy[field], pathOf(path, field), (name, at) => report.value(at, corsHeaderNameFault(name)));
  if (policy.maxAge === undefined) return;
  report.value(pathOf(path, "maxAge"), durationFault(policy.maxAge));
  if (/\.\d*[1-9]|(?:^|[^a-z])\d+(?:ms|us|ns)/.test(policy.maxAge))
    report.add(
      "MZ0201",
      pathOf(path, "maxAge"),
      `${show(policy.maxAge)} is too fine: browsers know whole seconds`,
    );
}

// https://github.com/grpc/grpc/blob/master/doc/statuscodes.md
const grpcStatuses = new Set(
  (
    "OK CANCELLED UNKNOWN INVALID_ARGUMENT DEADLINE_EXCEEDED NOT_FOUND ALREADY_EXISTS PERMISSION_DENIED RESOURCE_EXHAUSTED " +
    "FAILED_PRECONDITION ABORTED OUT_OF_RANGE UNIMPLEMENTED INTERNAL UNAVAILABLE DATA_LOSS UNAUTHENTICATED"
  ).split(" "),
);

function checkFault({ abort, delay }: HTTPFaultInjection, path: string, report: Report): void {
  if (abort === undefined && delay === undefined)
    report.add("MZ0202", path, "the fault is empty: set abort or delay");
  if (abort !== undefined) {
    const at = pathOf(path, "abort");
    report.value(pathOf(at, "percentage"), fractionFault(abort.percentage?.value));
    if (abort.grpcStatus !== undefined) {
      if (!grpcStatuses.has(abort.grpcStatus))
        report.add(
          "MZ0201",
          pathOf(at, "grpcStatus"),
          `${show(abort.grpcStatus)} is no gRPC status: expected a name such as NOT_FOUND`,
        );
    } else if (abort.http2Error !== undefined)
      report.add("MZ0302", pathOf(at, "http2Error"), "aborts by an HTTP/2 error are not supported");
    else if (abort.httpStatus !== undefined)
      report.value(pathOf(at, "httpStatus"), httpStatusFault(abort.httpStatus));
    else report.add("MZ0250", at, "the abort has no status: set httpStatus or grpcStatus");
  }
  if (delay === undefined) return;
  const at = pathOf(path, "delay");
  report.value(pathOf(at, "percentage"), fractionFault(delay.percentage?.value));
  if (delay.fixedDelay !== undefined) report.value(pathOf(at, "fixedDelay"), durationFault(delay.fixedDelay));
  if (delay.exponentialDelay !== undefined)
    report.add("MZ0302", pathOf(at, "exponentialDelay"), "exponential delays are not supported");
}

/** Envoy's grain is a millionth. */
function fractionFault(value: number | undefined): string | undefined {
  if (value === undefined || value === 0 || (value >= 0.0001 && value <= 100)) return undefined;
  return `${value} is not a percentage: expected 0, or 0.0001 to 100`;
}

function checkMirrors(route: VirtualServiceHttpRoute, path: string, report: Report): void {
  if (route.mirrorPercent !== undefined) {
    report.value(pathOf(path, "mirrorPercent"), percentFault(route.mirrorPercent));
    report.add("MZ0251", pathOf(path, "mirrorPercent"), "mirrorPercent is deprecated: use mirrorPercentage");
  }
  const percentage = route.mirrorPercentage?.value;
  if (percentage !== undefined) report.value(pathOf(path, "mirrorPercentage"), percentFault(percentage));
  checkDestination(route.mirror, pathOf(path, "mirror"), report);
  eachOf(route.mirrors, pathOf(path, "mirrors"), (mirror, at) => {
    if (mirror.destination === undefined)
      report.add("MZ0202", pathOf(at, "destination"), "the destination is missing");
    checkDestination(mirror.destination, pathOf(at, "destination"), report);
    if (mirror.percentage?.value !== undefined)
      report.value(pathOf(at, "percentage"), percentFault(mirror.percentage.value));
  });
}

function checkRedirect(
  redirect: HTTPRedirect,
  matches: readonly HTTPMatchRequest[] | undefined,
  path: string,
  report: Report,
): void {
  if (redirect.uri && redirect.prefixRewrite)
    report.add("MZ0203", path, "uri and prefixRewrite are both set: keep one");
  if (redirect.prefixRewrite && matches?.some(({ uri }) => uri !== undefined && uri.prefix === undefined))
    report.add("MZ0203", pathOf(path, "prefixRewrite"), "prefixRewrite needs matches whose uri is a prefix");
  const does =
    redirect.uri ||
    redirect.prefixRewrite ||
    redirect.authority ||
    redirect.scheme ||
    redirect.port !== undefined ||
    redirect.derivePort !== undefined;
  if (!does)
    report.add(
      "MZ0202",
      path,
      "the redirect changes nothing: set uri, prefixRewrite, authority, scheme or port",
    );
  if (redirect.redirectCode && (redirect.redirectCode < 300 || redirect.redirectCode > 399))
    report.add(
      "MZ0201",
      pathOf(path, "redirectCode"),
      `${redirect.redirectCode} is no status of a redirect: expected 300 to 399`,
    );
  if (redirect.scheme && !["http", "https"].includes(redirect.scheme))
    report.add(
      "MZ0201",
      pathOf(path, "scheme"),
      `${show(redirect.scheme)} is no scheme: expected http or https`,
    );
  if (redirect.port) report.value(pathOf(path, "port"), portFault(redirect.port));
  for (const field of ["uri", "prefixRewrite", "authority"] as const)
    if (redirect[field]) report.value(pathOf(path, field), lineFault(redirect[field]));
}

// A body travels in the configuration of every proxy that has the route.
const bodyBytesMax = 1024 * 1024;
const bodyBytesWarn = 100 * 1024;

function checkDirectResponse(
  { directResponse }: VirtualServiceHttpRoute,
  parent: string,
  report: Report,
): void {
  if (directResponse === undefined) return;
  const path = pathOf(parent, "directResponse");
  const { body } = directResponse;
  const bytes =
    body?.bytes === undefined
      ? Buffer.byteLength(body?.string ?? "")
      : Buffer.byteLength(body.bytes, "base64");
  if (bytes > bodyBytesMax)
    report.add(
      "MZ0201",
      pathOf(path, "body"),
      `the body has ${bytes} bytes: at most ${bodyBytesMax} are allowed`,
    );
  else if (bytes > bodyBytesWarn)
    report.add(
      "MZ0254",
      pathOf(path, "body"),
      `the body has ${bytes} bytes, which every proxy of the route must hold`,
    );
  report.value(pathOf(path, "status"), httpStatusFault(directResponse.status ?? 0));
}

// https://www.envoyproxy.io/docs/envoy/latest/configuration/http/http_filters/router_filter#x-envoy-retry-on, and -grpc-on
const retryConditions = new Set(
  (
    "5xx gateway-error reset reset-before-request connect-failure retriable-4xx refused-stream retriable-status-codes retriable-headers " +
    "envoy-ratelimited http3-post-connect-failure cancelled deadline-exceeded internal resource-exhausted unavailable"
  ).split(" "),
);

const isHttpStatus = (text: string) => /^[1-5]\d\d$/.test(text) && knownStatuses.has(Number(text));
// The IANA registry of HTTP status codes.
const knownStatuses = new Set([
  100, 101, 102, 103, 200, 201, 202, 203, 204, 205, 206, 207, 208, 226, 300, 301, 302, 303, 304, 305, 307,
  308, 400, 401, 402, 403, 404, 405, 406, 407, 408, 409, 410, 411, 412, 413, 414, 415, 416, 417, 418, 421,
  422, 423, 424, 425, 426, 428, 429, 431, 451, 500, 501, 502, 503, 504, 505, 506, 507, 508, 510, 511,
]);

export function checkRetries(retries: HTTPRetry | undefined, path: string, report: Report): void {
  if (retries === undefined) return;
  const attempts = retries.attempts ?? 0;
  if (attempts < 0) report.add("MZ0201", pathOf(path, "attempts"), `${attempts} is negative`);
  const idle = (["perTryTimeout", "retryOn", "retryRemoteLocalities"] as const).filter(
    (field) => retries[field] !== undefined && retries[field] !== "",
  );
  if (attempts === 0 && idle.length > 0)
    report.add("MZ0203", path, `attempts 0 turns retries off: ${idle.join(", ")} contradict it`);
  for (const field of ["perTryTimeout", "backoff"] as const)
    if (retries[field] !== undefined) report.value(pathOf(path, field), durationFault(retries[field]));
  for (const condition of retries.retryOn ? retries.retryOn.split(",") : [])
    if (!retryConditions.has(condition) && !isHttpStatus(condition))
      report.add("MZ0201", pathOf(path, "retryOn"), `${show(condition)} is no condition of a retry`);
}

function checkRewrite(rewrite: HTTPRewrite, path: string, report: Report): void {
  const { uri, authority, uriRegexRewrite } = rewrite;
  if (uri && uriRegexRewrite !== undefined)
    report.add("MZ0203", path, "uri and uriRegexRewrite are both set: keep one");
  if (!uri && !authority && uriRegexRewrite === undefined)
    report.add("MZ0202", path, "the rewrite changes nothing: set uri, uriRegexRewrite or authority");
  if (uri) report.value(pathOf(path, "uri"), lineFault(uri));
  if (authority) report.value(pathOf(path, "authority"), lineFault(authority));
  if (uriRegexRewrite === undefined) return;
  const at = pathOf(path, "uriRegexRewrite");
  if (!uriRegexRewrite.match || !uriRegexRewrite.rewrite)
    report.add("MZ0202", at, "match and rewrite are both needed");
  else {
    report.value(pathOf(at, "match"), regexFault(uriRegexRewrite.match));
    report.value(pathOf(at, "rewrite"), lineFault(uriRegexRewrite.rewrite));
  }
}

/** The authority may be set in one place. */
function checkAuthority({ rewrite, headers }: VirtualServiceHttpRoute, path: string, report: Report): void {
  const changes = [
    ...Object.entries(headers?.request?.set ?? {}),
    ...Object.entries(headers?.request?.add ?? {}),
  ];
  const set =
    changes.filter(([name, value]) => isAuthorityHeader(name) && value !== "").length +
    (rewrite?.authority ? 1 : 0);
  if (set > 1) report.add("MZ0203", path, "the authority is set in several places: keep rewrite.authority");
}

function checkRoutes({ route }: VirtualServiceHttpRoute, parent: string, report: Report): void {
  const path = pathOf(parent, "route");
  eachOf(route, path, ({ destination, headers, weight }, at) => {
    if (destination === undefined)
      report.add("MZ0202", pathOf(at, "destination"), "the destination is missing");
    checkHeaders(headers, pathOf(at, "headers"), report);
    checkDestination(destination, pathOf(at, "destination"), report);
    if ((weight ?? 0) < 0) report.add("MZ0201", pathOf(at, "weight"), `the weight ${weight} is negative`);
  });
  checkWeights(route, path, report);
}
