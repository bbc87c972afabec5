// Parts that HTTP, TLS and TCP routes share: where traffic goes, and which Gateways a match is for.

import { isDnsLabel } from "../label-match.ts";
import { eachOf, pathOf, type Report } from "../report.ts";
import { fqdnFault, portFault, show, wildcardHostFault } from "../values.ts";
import type { Destination } from "../virtual-service.ts";

/** Where traffic goes: a host of the registry, a subset of a DestinationRule, a port. */
export function checkDestination(destination: Destination | undefined, path: string, report: Report): void {
  if (destination === undefined) return;
  if (destination.host === "*") report.add("MZ0205", pathOf(path, "host"), "a destination must be one host");
  else report.value(pathOf(path, "host"), wildcardHostFault(destination.host ?? ""));
  if (destination.subset && !isDnsLabel(destination.subset))
    report.add("MZ0201", pathOf(path, "subset"), `${show(destination.subset)} is no name of a subset`);
  if (destination.port !== undefined)
    report.value(pathOf(path, "port", "number"), portFault(destination.port.number));
}

/** With several destinations an absent weight is 0. */
/** Envoy adds them up in 32 bits. */
const weightsMax = 4_294_967_295;

export function checkWeights(
  routes: readonly { readonly weight?: number }[] | undefined,
  path: string,
  report: Report,
): void {
  const total = (routes ?? []).reduce((sum, { weight }) => sum + (weight ?? 0), 0);
  if ((routes?.length ?? 0) > 1 && total === 0)
    report.add("MZ0202", path, "no destination has a weight: nothing would be sent anywhere");
  if (total > weightsMax)
    report.add("MZ0201", path, `the weights are ${total} together: at most ${weightsMax} are allowed`);
}

/** `mesh`, `namespace/name`, `name`, or the legacy `name.namespace.svc...`. */
export function checkGatewayNames(names: readonly string[] | undefined, path: string, report: Report): void {
  eachOf(names, path, (name, at) => {
    const slash = name.indexOf("/");
    if (slash < 0) {
      if (name.includes(".")) {
        const [gateway = "", namespace = ""] = name.split(".");
        report.add("MZ0251", at, `${show(name)} is the legacy form: write ${namespace}/${gateway}`);
      }
      report.value(at, fqdnFault(name));
      return;
    }
    const owner = name.slice(0, slash);
    const gateway = name.slice(slash + 1);
    if (owner !== "." && !isDnsLabel(owner)) report.add("MZ0201", at, `${show(owner)} is no namespace`);
    if (!isDnsLabel(gateway)) report.add("MZ0201", at, `${show(gateway)} is no name of a Gateway`);
  });
}
