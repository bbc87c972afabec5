// What Istio's webhook checks of a Gateway beyond its schema.

import type { GatewayPort, GatewayServer, GatewaySpec } from "../gateway.ts";
import { isPassthroughServer } from "../gateway-server.ts";
import { isDnsLabel } from "../label-match.ts";
import { isHttp, isTls, parseProtocol } from "../protocol.ts";
import { eachOf, pathOf, type Report } from "../report.ts";
import {
  ipFault,
  partialWildcardFault,
  portFault,
  protocolFault,
  show,
  unixPathFault,
  wildcardHostFault,
} from "../values.ts";
import { checkServerTls } from "./server-tls.ts";

const unixPrefix = "unix://";

export function checkGateway(spec: GatewaySpec, name: string, report: Report): void {
  if (!isDnsLabel(name))
    report.add("MZ0201", "metadata.name", `${show(name)} is no name of a Gateway: dots are not allowed`);
  if (!spec.servers?.length) report.add("MZ0202", "spec.servers", "a Gateway needs at least one server");
  const names = new Set<string>();
  eachOf(spec.servers, "spec.servers", (server, path) => {
    checkServer(server, path, report);
    const portName = server.port?.name;
    if (portName === undefined) return;
    if (names.has(portName))
      report.add("MZ0204", pathOf(path, "port", "name"), `the port name ${show(portName)} stands twice`);
    names.add(portName);
    if (server.tls?.httpsRedirect === true && !isHttp(parseProtocol(server.port.protocol ?? "")))
      report.add("MZ0250", pathOf(path, "tls", "httpsRedirect"), "only an HTTP server can redirect to HTTPS");
  });
}

export function checkServer(server: GatewayServer, path: string, report: Report): void {
  if (!server.hosts?.length) report.add("MZ0202", pathOf(path, "hosts"), "a server needs at least one host");
  eachOf(server.hosts, pathOf(path, "hosts"), (host, at) => checkNamespacedHost(host, at, "gateway", report));
  const portIsGood = checkServerPort(server.port, server.bind ?? "", pathOf(path, "port"), report);
  checkBind(server.port, server.bind ?? "", pathOf(path, "bind"), report);
  checkServerTls(server.tls, pathOf(path, "tls"), report);
  if (!portIsGood) return;
  const protocol = parseProtocol(server.port.protocol);
  const at = pathOf(path, "tls");
  if (isTls(protocol) && server.tls === undefined)
    report.add("MZ0202", at, `a server of protocol ${protocol} needs tls`);
  if (isTls(protocol) || server.tls === undefined) return;
  // Of its TLS settings a plaintext HTTP server may have the redirect alone. An absent mode is PASSTHROUGH.
  const redirectOnly =
    isHttp(protocol) &&
    (server.tls.mode === undefined || isPassthroughServer(server)) &&
    !(server.tls.caCertificates || server.tls.privateKey || server.tls.serverCertificate);
  if (!redirectOnly)
    report.add("MZ0203", at, `a server of protocol ${protocol} ends no TLS: expected protocol HTTPS or TLS`);
}

function checkServerPort(port: GatewayPort | undefined, bind: string, path: string, report: Report): boolean {
  if (port === undefined) {
    report.add("MZ0202", path, "the port is missing");
    return false;
  }
  const before = report.problems.length;
  report.value(
    pathOf(path, "protocol"),
    port.protocol ? protocolFault(port.protocol) : "the protocol is missing",
  );
  if ((port.number ?? 0) > 0 || !bind.startsWith(unixPrefix))
    report.value(pathOf(path, "number"), portFault(port.number));
  if ((port.targetPort ?? 0) > 0)
    report.add("MZ0205", pathOf(path, "targetPort"), "a Gateway has no target port");
  if (!port.name) report.add("MZ0202", pathOf(path, "name"), "the port has no name");
  return report.problems.length === before;
}

function checkBind(port: GatewayPort | undefined, bind: string, path: string, report: Report): void {
  if (bind.startsWith(unixPrefix)) {
    report.value(path, unixPathFault(bind.slice(unixPrefix.length)));
    if (port?.number) report.add("MZ0203", path, "a Unix socket has no port number: expected 0");
  } else if (bind !== "") report.value(path, ipFault(bind));
}

/**
 * `namespace/host`. A Gateway may leave the namespace out and name IP addresses; a Sidecar must name the namespace, and a leading
 * `~` excludes it.
 */
export function checkNamespacedHost(
  text: string,
  path: string,
  of: "gateway" | "sidecar",
  report: Report,
): void {
  const slash = text.indexOf("/");
  if (slash < 0) {
    if (of === "gateway") checkHostPart(text, path, of, report);
    else report.add("MZ0201", path, `${show(text)} lacks its namespace: expected namespace/host`);
    return;
  }
  const namespace = text.slice(0, slash);
  const host = text.slice(slash + 1);
  if (namespace === "" || host === "")
    report.add("MZ0201", path, `${show(text)} lacks its namespace or host: expected namespace/host`);
  const name = of === "sidecar" ? namespace.replace(/^~/, "") : namespace;
  const good = name === "*" || name === "." || (name === "" && of === "sidecar") || isDnsLabel(name);
  if (!good) report.add("MZ0201", path, `${show(namespace)} is no namespace`);
  checkHostPart(host, path, of, report);
}

function checkHostPart(host: string, path: string, of: "gateway" | "sidecar", report: Report): void {
  if (host !== "*" && !host.includes(".") && !host.includes(":"))
    report.add("MZ0201", path, `${show(host)} is a short name: expected a full host name`);
  const fault = wildcardHostFault(host);
  if (fault !== undefined && (of === "sidecar" || ipFault(host) !== undefined)) report.value(path, fault);
  report.value(path, partialWildcardFault(host));
}
