// What Istio's webhook checks of a ServiceEntry beyond its schema.

import { isIP } from "node:net";

import { isWildcard } from "../host.ts";
import { labels } from "../labels.ts";
import type { KubeObject } from "../object.ts";
import { isHttp, isTcp, isTls, parseProtocol } from "../protocol.ts";
import { eachOf, pathOf, type Report } from "../report.ts";
import type { ServiceEntrySpec } from "../service-entry.ts";
import {
  cidrFault,
  fqdnFault,
  partialWildcardFault,
  portFault,
  portNameFault,
  protocolFault,
  show,
  wildcardHostFault,
} from "../values.ts";
import { checkExportTo, checkSelectorLabels } from "./selectors.ts";
import { checkEntryPorts, checkWorkloadEntry } from "./workload-entry.ts";

export function checkServiceEntry(spec: ServiceEntrySpec, object: KubeObject, report: Report): void {
  checkSelectorLabels(
    spec.workloadSelector?.labels,
    spec.workloadSelector !== undefined,
    "spec.workloadSelector",
    report,
  );
  if (spec.workloadSelector !== undefined && spec.endpoints !== undefined)
    report.add("MZ0203", "spec", "workloadSelector and endpoints are both set: keep one");
  checkHosts(spec, report);
  eachOf(spec.addresses, "spec.addresses", (address, path) => report.value(path, cidrFault(address)));
  const resolution = spec.resolution ?? "NONE";
  if (
    spec.addresses?.some((address) => address.includes("/")) &&
    resolution !== "NONE" &&
    resolution !== "STATIC"
  )
    report.add(
      "MZ0203",
      "spec.addresses",
      `CIDR blocks are for resolution NONE or STATIC, not ${resolution}`,
    );
  const portNames = checkPorts(spec, allocatesAddress(spec, object), report);
  checkResolution(spec, portNames, object, report);
  checkManyHosts(spec, report);
  checkExportTo(
    spec.exportTo,
    "spec.exportTo",
    { namespace: object.metadata.namespace ?? "", mayHide: true },
    report,
  );
}

/** Whether the mesh gives it a virtual address of its own, as Istio does unless told otherwise. */
function allocatesAddress(spec: ServiceEntrySpec, object: KubeObject): boolean {
  const said = object.metadata.labels?.[labels.enableAutoallocateIp];
  if (said !== undefined && said.toLowerCase() === "false") return false;
  if ((spec.resolution ?? "NONE") === "NONE" || spec.resolution === "DYNAMIC_DNS") return false;
  return !(spec.hosts ?? []).some(isWildcard);
}

function checkHosts(spec: ServiceEntrySpec, report: Report): void {
  if (!spec.hosts?.length) report.add("MZ0202", "spec.hosts", "a ServiceEntry needs at least one host");
  eachOf(spec.hosts, "spec.hosts", (host, path) => {
    if (host === "*") report.add("MZ0205", path, "a bare * would take every host");
    else report.value(path, wildcardHostFault(host));
    const partial = spec.resolution === "DYNAMIC_DNS" ? undefined : partialWildcardFault(host);
    if (partial !== undefined) report.add("MZ0254", path, partial);
  });
}

function checkPorts(spec: ServiceEntrySpec, allocates: boolean, report: Report): ReadonlySet<string> {
  const names = new Set<string>();
  const numbers = new Set<number>();
  eachOf(spec.ports, "spec.ports", (port, path) => {
    if (names.has(port.name))
      report.add("MZ0204", pathOf(path, "name"), `the port name ${show(port.name)} stands twice`);
    if (numbers.has(port.number))
      report.add("MZ0204", pathOf(path, "number"), `the port ${port.number} stands twice`);
    names.add(port.name);
    numbers.add(port.number);
    if (port.targetPort) report.value(pathOf(path, "targetPort"), portFault(port.targetPort));
    if (!spec.addresses?.length && !allocates && (!port.protocol || port.protocol === "TCP"))
      report.add(
        "MZ0254",
        path,
        "a TCP port without spec.addresses takes the traffic of all addresses on this port",
      );
    report.value(pathOf(path, "name"), portNameFault(port.name));
    report.value(pathOf(path, "protocol"), protocolFault(port.protocol));
    report.value(pathOf(path, "number"), portFault(port.number));
  });
  return names;
}

function checkResolution(
  spec: ServiceEntrySpec,
  portNames: ReadonlySet<string>,
  object: KubeObject,
  report: Report,
): void {
  const endpoints = spec.endpoints ?? [];
  switch (spec.resolution ?? "NONE") {
    case "NONE":
      if (endpoints.length > 0)
        report.add(
          "MZ0203",
          "spec.endpoints",
          "resolution NONE goes to the address that the caller chose: endpoints contradict it",
        );
      if (spec.workloadSelector !== undefined)
        report.add(
          "MZ0250",
          "spec.workloadSelector",
          "resolution NONE goes to the address that the caller chose",
        );
      break;
    case "STATIC":
      eachOf(endpoints, "spec.endpoints", (endpoint, path) =>
        checkWorkloadEntry(endpoint, path, { servicePorts: portNames, mayBeName: false }, report),
      );
      break;
    case "DNS":
    case "DNS_ROUND_ROBIN":
      checkDns(spec, portNames, report);
      break;
    case "DYNAMIC_DNS":
      checkDynamicDns(spec, object, report);
      break;
    default:
      report.add("MZ0201", "spec.resolution", `${show(spec.resolution)} is no way to resolve`);
  }
}

function checkDns(spec: ServiceEntrySpec, portNames: ReadonlySet<string>, report: Report): void {
  const endpoints = spec.endpoints ?? [];
  if (endpoints.length === 0) {
    const wrong = (spec.hosts ?? []).findIndex((host) => fqdnFault(host) !== undefined);
    if (wrong >= 0)
      report.add(
        "MZ0203",
        pathOf("spec.hosts", wrong),
        `resolution ${spec.resolution} looks up each host: wildcards need endpoints`,
      );
  }
  if (spec.resolution === "DNS_ROUND_ROBIN" && endpoints.length > 1)
    report.add("MZ0203", "spec.endpoints", "resolution DNS_ROUND_ROBIN takes at most one endpoint");
  eachOf(endpoints, "spec.endpoints", (endpoint, path) => {
    const address = endpoint.address ?? "";
    if (isIP(address) === 0 && fqdnFault(address) !== undefined)
      report.add(
        "MZ0201",
        pathOf(path, "address"),
        `${show(address)} is neither a host name nor an IP address`,
      );
    checkEntryPorts(endpoint, path, portNames, report);
  });
  const tcp = spec.ports?.some(({ protocol }) => isTcp(parseProtocol(protocol ?? "")));
  if (spec.addresses?.length && tcp && (spec.hosts?.length ?? 0) > 1)
    report.add(
      "MZ0254",
      "spec.hosts",
      "several hosts share one address: on a TCP port nobody can tell them apart",
    );
}

function checkDynamicDns(spec: ServiceEntrySpec, object: KubeObject, report: Report): void {
  eachOf(spec.hosts, "spec.hosts", (host, path) => {
    if (!isWildcard(host))
      report.add("MZ0203", path, `resolution DYNAMIC_DNS is for wildcards, not ${show(host)}`);
  });
  for (const field of ["addresses", "endpoints"] as const)
    if (spec[field]?.length)
      report.add(
        "MZ0203",
        `spec.${field}`,
        `resolution DYNAMIC_DNS looks up the host of each request: ${field} contradict it`,
      );
  eachOf(spec.ports, "spec.ports", ({ protocol }, path) => {
    if (!["HTTP", "HTTP2", "GRPC", "TLS"].includes(parseProtocol(protocol ?? "")))
      report.add(
        "MZ0203",
        pathOf(path, "protocol"),
        "resolution DYNAMIC_DNS needs a host in each request: expected HTTP, HTTP2, GRPC or TLS",
      );
  });
  const waypoint = object.metadata.labels?.[labels.useWaypoint];
  if (spec.location === "MESH_INTERNAL" && waypoint && waypoint.toLowerCase() !== "none")
    report.add("MZ0203", "spec.location", "MESH_INTERNAL with DYNAMIC_DNS cannot go through a waypoint");
}

/** HTTP tells hosts apart by the authority, TLS by the SNI, other protocols not at all. */
function checkManyHosts(spec: ServiceEntrySpec, report: Report): void {
  if ((spec.resolution ?? "NONE") === "NONE" || (spec.hosts?.length ?? 0) < 2) return;
  const wrong = (spec.ports ?? []).findIndex(({ protocol }) => {
    const parsed = parseProtocol(protocol ?? "");
    return !isHttp(parsed) && !isTls(parsed);
  });
  if (wrong >= 0)
    report.add(
      "MZ0203",
      pathOf("spec.ports", wrong),
      "several hosts need ports of HTTP or TLS, which tell them apart",
    );
}
