// What Istio's webhook checks of a Sidecar beyond its schema.

import { isHttp, isTls, parseProtocol } from "../protocol.ts";
import { eachOf, pathOf, type Report } from "../report.ts";
import type {
  IstioEgressListener,
  IstioIngressListener,
  OutboundTrafficPolicy,
  SidecarPort,
  SidecarSpec,
} from "../sidecar.ts";
import {
  fqdnFault,
  ipFault,
  portFault,
  portNameFault,
  protocolFault,
  show,
  splitHostPort,
  unixPathFault,
} from "../values.ts";
import { checkNamespacedHost } from "./gateway.ts";
import { checkDestination } from "./route-parts.ts";
import { checkSelectorLabels } from "./selectors.ts";
import { checkServerTls } from "./server-tls.ts";
import { checkConnectionPool } from "./traffic-policy.ts";

const unixPrefix = "unix://";

export function checkSidecar(spec: SidecarSpec, namespace: string, report: Report): void {
  checkSelectorLabels(
    spec.workloadSelector?.labels,
    spec.workloadSelector !== undefined,
    "spec.workloadSelector",
    report,
  );
  const empty =
    !spec.egress?.length &&
    !spec.ingress?.length &&
    spec.outboundTrafficPolicy === undefined &&
    spec.inboundConnectionPool === undefined;
  if (empty)
    report.add(
      "MZ0202",
      "spec",
      "the Sidecar is empty: set egress, ingress, outboundTrafficPolicy or inboundConnectionPool",
    );
  const ports = new Set<number>();
  eachOf(spec.ingress, "spec.ingress", (listener, path) => checkIngress(listener, ports, path, report));
  checkConnectionPool(spec.inboundConnectionPool, "spec.inboundConnectionPool", report);
  checkEgress(spec, namespace, report);
  if (spec.outboundTrafficPolicy !== undefined)
    checkOutbound(spec.outboundTrafficPolicy, "spec.outboundTrafficPolicy", report);
}

function checkIngress(
  listener: IstioIngressListener,
  ports: Set<number>,
  path: string,
  report: Report,
): void {
  const { port, bind = "" } = listener;
  if (port === undefined) {
    report.add("MZ0202", pathOf(path, "port"), "the port is missing");
    return;
  }
  checkPort(port, pathOf(path, "port"), report);
  report.value(pathOf(path, "port", "number"), portFault(port.number));
  if (bind !== "") report.value(pathOf(path, "bind"), ipFault(bind));
  if (ports.has(port.number ?? 0))
    report.add("MZ0204", pathOf(path, "port", "number"), `the port ${port.number} stands twice`);
  ports.add(port.number ?? 0);
  if (listener.defaultEndpoint)
    checkEndpoint(listener.defaultEndpoint, pathOf(path, "defaultEndpoint"), report);
  checkIngressTls(listener, path, report);
  checkConnectionPool(listener.connectionPool, pathOf(path, "connectionPool"), report);
  if (listener.connectionPool?.http !== undefined && !isHttp(parseProtocol(port.protocol ?? "")))
    report.add(
      "MZ0250",
      pathOf(path, "connectionPool", "http"),
      `the port's protocol is not HTTP but ${show(port.protocol ?? "")}`,
    );
}

function checkPort(port: SidecarPort, path: string, report: Report): void {
  if (port.targetPort)
    report.add("MZ0205", pathOf(path, "targetPort"), "a listener of a Sidecar has no target port");
  if (port.name) report.value(pathOf(path, "name"), portNameFault(port.name));
  report.value(pathOf(path, "protocol"), protocolFault(port.protocol));
}

const endpointHosts = new Set(["", "127.0.0.1", "0.0.0.0", "::1", "::"]);

/** Where the application listens: an address of the workload itself, or a Unix socket. */
function checkEndpoint(endpoint: string, path: string, report: Report): void {
  if (endpoint.startsWith(unixPrefix)) {
    report.value(path, unixPathFault(endpoint.slice(unixPrefix.length)));
    return;
  }
  const split = splitHostPort(endpoint);
  const good =
    split !== undefined &&
    endpointHosts.has(split.host) &&
    /^\d+$/.test(split.port) &&
    portFault(Number(split.port)) === undefined;
  if (!good)
    report.add(
      "MZ0201",
      path,
      `${show(endpoint)} is not an endpoint of the workload: expected 127.0.0.1:PORT, 0.0.0.0:PORT, [::1]:PORT, [::]:PORT or unix://PATH`,
    );
}

function checkIngressTls({ tls, port }: IstioIngressListener, parent: string, report: Report): void {
  if (tls === undefined) return;
  const path = pathOf(parent, "tls");
  for (const field of [
    "subjectAltNames",
    "credentialNames",
    "tlsCertificates",
    "credentialName",
    "httpsRedirect",
  ] as const) {
    const value = tls[field];
    if (Array.isArray(value) ? value.length > 0 : Boolean(value))
      report.add("MZ0205", pathOf(path, field), `${field} is not for a Sidecar`);
  }
  if (tls.mode === "ISTIO_MUTUAL" || tls.mode === "AUTO_PASSTHROUGH")
    report.add("MZ0205", pathOf(path, "mode"), `mode ${tls.mode} is not for a Sidecar`);
  if (!isTls(parseProtocol(port?.protocol ?? "")))
    report.add("MZ0203", path, "tls needs a port of protocol HTTPS or TLS");
  checkServerTls(tls, path, report);
}

function checkEgress(spec: SidecarSpec, namespace: string, report: Report): void {
  const ports = new Set<number>();
  const sockets = new Set<string>();
  const last = (spec.egress?.length ?? 0) - 1;
  eachOf(spec.egress, "spec.egress", (listener, path, index) => {
    if (listener.port === undefined) {
      if (index !== last)
        report.add("MZ0203", path, "a listener without port takes all ports: it must be the last");
    } else {
      checkEgressPort(listener, listener.port, path, report);
      const { number = 0 } = listener.port;
      const taken = number === 0 ? sockets.has(listener.bind ?? "") : ports.has(number);
      if (taken) report.add("MZ0204", pathOf(path, "port"), "another listener has the same address");
      if (number === 0) sockets.add(listener.bind ?? "");
      else ports.add(number);
    }
    checkEgressHosts(listener, namespace, path, report);
  });
}

function checkEgressPort(
  listener: IstioEgressListener,
  port: SidecarPort,
  path: string,
  report: Report,
): void {
  const bind = listener.bind ?? "";
  checkPort(port, pathOf(path, "port"), report);
  if (port.number) {
    report.value(pathOf(path, "port", "number"), portFault(port.number));
    if (bind !== "") report.value(pathOf(path, "bind"), ipFault(bind));
    return;
  }
  report.value(
    pathOf(path, "bind"),
    bind.startsWith(unixPrefix)
      ? unixPathFault(bind.slice(unixPrefix.length))
      : "a port 0 needs a Unix socket: expected unix://PATH",
  );
  if (listener.captureMode !== undefined && !["DEFAULT", "NONE"].includes(listener.captureMode))
    report.add(
      "MZ0203",
      pathOf(path, "captureMode"),
      "nothing is captured at a Unix socket: expected DEFAULT or NONE",
    );
}

function checkEgressHosts(
  listener: IstioEgressListener,
  namespace: string,
  parent: string,
  report: Report,
): void {
  const path = pathOf(parent, "hosts");
  if (!listener.hosts?.length) report.add("MZ0202", path, "a listener needs at least one host");
  const byNamespace = new Map<string, Set<string>>();
  eachOf(listener.hosts, path, (text, at) => {
    checkNamespacedHost(text, at, "sidecar", report);
    const slash = text.indexOf("/");
    if (slash < 0 || text.startsWith("~")) return;
    const owner = text.startsWith("./") ? namespace : text.slice(0, slash);
    const host = text.slice(slash + 1);
    const known = byNamespace.get(owner) ?? new Set();
    byNamespace.set(owner, known);
    const idle = host === "*" ? known.size > 0 : known.has(host) || known.has("*");
    if (idle) report.add("MZ0250", at, `${show(text)} overlaps an earlier entry`);
    known.add(host);
  });
  if (byNamespace.get("*")?.has("*") === true && byNamespace.size > 1)
    report.add("MZ0250", path, "*/* takes everything: the other hosts add nothing");
}

function checkOutbound(policy: OutboundTrafficPolicy, path: string, report: Report): void {
  // Only MeshConfig knows this mode.
  if ((policy.mode as string | undefined) === "ALLOW_ANY_DYNAMIC_DNS")
    report.add("MZ0205", pathOf(path, "mode"), "ALLOW_ANY_DYNAMIC_DNS is for MeshConfig only");
  const proxy = policy.egressProxy;
  if (proxy === undefined) return;
  const at = pathOf(path, "egressProxy");
  if (policy.mode !== "ALLOW_ANY") report.add("MZ0203", at, "egressProxy needs mode ALLOW_ANY");
  report.value(pathOf(at, "host"), fqdnFault(proxy.host ?? ""));
  if (proxy.port === undefined) report.add("MZ0202", pathOf(at, "port"), "the port is missing");
  checkDestination(proxy, at, report);
}
