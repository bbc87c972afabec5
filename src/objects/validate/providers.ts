// Extension providers of MeshConfig. Istio takes a wrong one as long as nobody uses it, so their faults are warnings.

import type { MeshConfigExtensionProvider } from "../mesh-config-shape.ts";
import { eachOf, openReport, pathOf, type Report } from "../report.ts";
import { fqdnFault, ipFault, portFault, show, type Fault } from "../values.ts";
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
  });
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
      settings.statusOnError && !/^[1-5]\d\d$/.test(settings.statusOnError)
        ? `${show(settings.statusOnError)} is no HTTP status`
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
  ];
  return checks.flatMap(([field, text]) => (text === undefined ? [] : [{ field, text }]));
}
