// Extension providers of MeshConfig. Istio takes a wrong one as long as nobody uses it, so their faults are warnings.

import type {
  MeshConfigExtensionProvider,
  ProviderEnvoyExternalAuthorizationHttpProvider,
} from "../mesh-config-shape.ts";
import { eachOf, openReport, pathOf, type Report } from "../report.ts";
import { fqdnFault, ipFault, portFault, show, type Fault } from "../values.ts";
import { isLowerDnsLabel } from "../label-match.ts";
import { checkNamespacedHost } from "./gateway.ts";

/** A host name, an IP address, or `namespace/host`. */
export function providerServiceFault(service: string): Fault {
  if (service === "") return "the service is missing";
  if (!service.includes("/")) return ipFault(service) === undefined ? undefined : fqdnFault(service);
  const inner = openReport();
  checkNamespacedHost(service, "", "sidecar", inner);
  return inner.problems[0]?.text;
}

/** These call no service. */
const local = new Set(["prometheus", "stackdriver", "envoyFileAccessLog", "sds"]);

export function checkProviders(
  providers: readonly MeshConfigExtensionProvider[] | undefined,
  path: string,
  report: Report,
): void {
  const seen = new Set<string>();
  eachOf(providers, path, (provider, at) => {
    const { name, ...kinds } = provider;
    if (!name) report.add("MZ0254", pathOf(at, "name"), "the provider has no name");
    else if (seen.has(name))
      report.add("MZ0254", pathOf(at, "name"), `the provider ${show(name)} stands twice`);
    seen.add(name ?? "");
    if (Object.keys(kinds).length === 0)
      report.add("MZ0254", at, "the provider has no kind: set one of them, such as opentelemetry");
    for (const [kind, settings] of Object.entries(kinds))
      for (const { field, text } of providerFaults(kind, settings as ServiceSettings))
        report.add("MZ0254", pathOf(pathOf(at, kind), field), text);
    if (asks(provider) && name && !isLowerDnsLabel(name))
      report.add("MZ0254", pathOf(at, "name"), authorizerName(name));
  });
}

function asks({ envoyExtAuthzGrpc, envoyExtAuthzHttp }: MeshConfigExtensionProvider): boolean {
  return envoyExtAuthzGrpc !== undefined || envoyExtAuthzHttp !== undefined;
}

function authorizerName(name: string): string {
  return `policies of action CUSTOM cannot name ${show(name)}: expected a DNS label, as ext-authz`;
}

/** Whether a provider can be asked for authorization: what asks one that cannot is denied. */
export function canAuthorize(provider: MeshConfigExtensionProvider): boolean {
  const { name = "", envoyExtAuthzHttp, envoyExtAuthzGrpc } = provider;
  if (!asks(provider) || !isLowerDnsLabel(name)) return false;
  return (
    (envoyExtAuthzHttp === undefined ||
      providerFaults("envoyExtAuthzHttp", envoyExtAuthzHttp).length === 0) &&
    (envoyExtAuthzGrpc === undefined || providerFaults("envoyExtAuthzGrpc", envoyExtAuthzGrpc).length === 0)
  );
}

interface ServiceSettings {
  readonly service?: string;
  readonly port?: number;
  readonly accessToken?: string;
  readonly statusOnError?: string;
  readonly pathPrefix?: string;
  readonly http?: object;
  readonly grpc?: object;
}

/** The statuses that Envoy can answer with (`envoy.type.v3.StatusCode`): another would have it refuse the listener. */
const envoyStatuses: ReadonlySet<string> = new Set(
  (
    "100 200 201 202 203 204 205 206 207 208 226 300 301 302 303 304 305 307 308 400 401 402 403 404 405 406 407 408 409 410 411 412 413 " +
    "414 415 416 417 421 422 423 424 426 428 429 431 500 501 502 503 504 505 506 507 508 510 511"
  ).split(" "),
);

const headerLists = [
  "includeRequestHeadersInCheck",
  "includeHeadersInCheck",
  "headersToUpstreamOnAllow",
  "headersToDownstreamOnDeny",
  "headersToDownstreamOnAllow",
] as const satisfies readonly (keyof ProviderEnvoyExternalAuthorizationHttpProvider)[];

/** `*` alone, which is neither a prefix nor a suffix. */
function wildcardFaults(settings: object): (readonly [field: string, fault: Fault])[] {
  const lists = settings as ProviderEnvoyExternalAuthorizationHttpProvider;
  return headerLists
    .filter((field) => lists[field]?.includes("*") === true)
    .map((field) => [field, '"*" alone is not supported: name a prefix or a suffix, as x-*']);
}

/** What is wrong with the settings of one provider of a kind. */
export function providerFaults(
  kind: string,
  settings: ServiceSettings,
): { readonly field: string; readonly text: string }[] {
  if (local.has(kind)) return [];
  const checks: readonly (readonly [field: string, fault: Fault])[] = [
    ["service", providerServiceFault(settings.service ?? "")],
    ["port", portFault(settings.port)],
    [
      "accessToken",
      kind === "lightstep" && !settings.accessToken ? "the access token is missing" : undefined,
    ],
    [
      "statusOnError",
      settings.statusOnError && !envoyStatuses.has(settings.statusOnError)
        ? `${show(settings.statusOnError)} is no HTTP status that Envoy answers with`
        : undefined,
    ],
    [
      "pathPrefix",
      settings.pathPrefix && !settings.pathPrefix.startsWith("/")
        ? `${show(settings.pathPrefix)} does not begin with /`
        : undefined,
    ],
    [
      "grpc",
      kind === "opentelemetry" && settings.http !== undefined && settings.grpc !== undefined
        ? "http and grpc are both set: keep one"
        : undefined,
    ],
    ...wildcardFaults(settings),
  ];
  return checks.flatMap(([field, text]) => (text === undefined ? [] : [{ field, text }]));
}
