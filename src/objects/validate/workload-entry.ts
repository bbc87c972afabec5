// What Istio's webhook checks of WorkloadEntries, alone and within ServiceEntries, and of WorkloadGroups.

import { isIP } from "node:net";

import { probeHeaderNameFault } from "../header-values.ts";
import { labelProblems } from "../label-match.ts";
import { eachEntry, eachOf, pathOf, type Report } from "../report.ts";
import { fqdnFault, portFault, portNameFault, show, unixPathFault } from "../values.ts";
import type { WorkloadEntrySpec } from "../workload-entry.ts";
import type { ReadinessProbe, WorkloadGroupSpec } from "../workload-group.ts";

const unixPrefix = "unix://";

interface EntryRules {
  /** The port names of the ServiceEntry that holds it; absent when it stands alone. */
  readonly servicePorts?: ReadonlySet<string>;
  readonly mayBeName: boolean;
}

export function checkWorkloadEntry(
  entry: WorkloadEntrySpec,
  path: string,
  rules: EntryRules,
  report: Report,
): void {
  const address = entry.address ?? "";
  const at = pathOf(path, "address");
  if (address === "") {
    if (!entry.network) {
      report.add("MZ0202", at, "the address is missing");
      return;
    }
    report.add(
      "MZ0254",
      at,
      `the address is missing: the workload is only reached through a gateway of the network ${show(entry.network)}`,
    );
  } else if (address.startsWith(unixPrefix)) {
    report.value(at, unixPathFault(address.slice(unixPrefix.length)));
    if (Object.keys(entry.ports ?? {}).length > 0)
      report.add("MZ0203", pathOf(path, "ports"), "a Unix socket has no ports");
    if (rules.servicePorts !== undefined && rules.servicePorts.size !== 1)
      report.add("MZ0203", at, "a Unix socket serves a ServiceEntry of exactly one port");
  } else if (isIP(address) === 0 && (!rules.mayBeName || fqdnFault(address) !== undefined))
    report.add(
      "MZ0201",
      at,
      `${show(address)} is not an IP address${rules.mayBeName ? " or a host name" : ": resolution STATIC looks up no names"}`,
    );
  checkEntryPorts(entry, path, rules.servicePorts, report);
}

export function checkEntryPorts(
  entry: WorkloadEntrySpec,
  path: string,
  servicePorts: ReadonlySet<string> | undefined,
  report: Report,
): void {
  eachEntry(entry.ports, pathOf(path, "ports"), (name, port, at) => {
    if (servicePorts !== undefined && !servicePorts.has(name))
      report.add("MZ0205", at, `${show(name)} is no port of the ServiceEntry`);
    report.value(at, portNameFault(name) ?? portFault(port));
  });
  for (const text of labelProblems(entry.labels)) report.add("MZ0201", pathOf(path, "labels"), text);
}

/** The address of the template is filled in when a workload registers. */
export function checkWorkloadGroup(spec: WorkloadGroupSpec, report: Report): void {
  if (spec.template === undefined) report.add("MZ0202", "spec.template", "the template is missing");
  for (const text of labelProblems(spec.metadata?.labels)) report.add("MZ0201", "spec.metadata.labels", text);
  if (spec.probe !== undefined) checkProbe(spec.probe, "spec.probe", report);
}

function checkProbe(probe: ReadinessProbe, path: string, report: Report): void {
  for (const field of [
    "periodSeconds",
    "initialDelaySeconds",
    "timeoutSeconds",
    "successThreshold",
    "failureThreshold",
  ] as const)
    if ((probe[field] ?? 0) < 0) report.add("MZ0201", pathOf(path, field), `${probe[field]} is negative`);
  const { httpGet, tcpSocket, exec, grpc } = probe;
  if (httpGet !== undefined) {
    const at = pathOf(path, "httpGet");
    report.value(pathOf(at, "port"), portFault(httpGet.port));
    if (httpGet.scheme && !["HTTP", "HTTPS"].includes(httpGet.scheme))
      report.add(
        "MZ0201",
        pathOf(at, "scheme"),
        `${show(httpGet.scheme)} is no scheme of a probe: expected HTTP or HTTPS`,
      );
    eachOf(httpGet.httpHeaders, pathOf(at, "httpHeaders"), (header, where) =>
      report.value(pathOf(where, "name"), probeHeaderNameFault(header.name ?? "")),
    );
  } else if (tcpSocket !== undefined)
    report.value(pathOf(path, "tcpSocket", "port"), portFault(tcpSocket.port));
  else if (exec !== undefined) {
    if (!exec.command?.length)
      report.add("MZ0202", pathOf(path, "exec", "command"), "the command is missing");
  } else if (grpc === undefined)
    report.add("MZ0202", path, "the probe does nothing: set one of httpGet, tcpSocket, exec, grpc");
}
