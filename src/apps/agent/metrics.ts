// Istio's metrics out of Envoy's: the prefix goes, packed tags become labels, and what is constant for this proxy is
// added, see `#base` telemetry. Works line by line on the Prometheus text, since a busy proxy's is many megabytes.

import {
  removedLabelsTag,
  unknownWorkload,
  unpackWorkload,
  workloadOfSubject,
  type WorkloadFacts,
} from "#base";

/** The proxy's own side of every metric. */
export interface OwnSide {
  readonly facts: WorkloadFacts;
  /** `spiffe://...` */
  readonly principal: string;
}

const envoyPrefix = "envoy_";
const istioPrefix = "istio_";
const absent = new Set(["", "-", "--", "unknown"]);

/**
 * Makes the function for one scrape, which renders Envoy's Prometheus text as Istio's, some whole lines at a time.
 * Series of Envoy itself pass unchanged.
 */
export function createExpander(own: OwnSide): (lines: string) => string {
  const side = ownSide(own);
  // A histogram has twenty lines of the same labels: each set of labels is expanded once a scrape.
  const expanded = new Map<string, string>();
  return (text) => {
    const lines = text.split("\n");
    return lines.map((line) => expandLine(line, side, expanded)).join("\n");
  };
}

interface Side {
  readonly source: string;
  readonly destination: string;
  readonly principal: string;
}

function ownSide(own: OwnSide): Side {
  return {
    source: workloadLabels("source", own.facts),
    destination: workloadLabels("destination", own.facts),
    principal: own.principal,
  };
}

function expandLine(line: string, own: Side, expanded: Map<string, string>): string {
  if (line.startsWith(`# TYPE ${envoyPrefix}${istioPrefix}`)) return line.replace(envoyPrefix, "");
  if (!line.startsWith(envoyPrefix + istioPrefix)) return line;
  const open = line.indexOf("{");
  const close = line.lastIndexOf("}");
  if (open < 0 || close < 0) return line.slice(envoyPrefix.length);
  const name = line.slice(envoyPrefix.length, open);
  const raw = line.slice(open + 1, close);
  // `le` differs from line to line and stays out of the memo.
  const boundAt = raw.lastIndexOf(',le="');
  const shared = boundAt < 0 ? raw : raw.slice(0, boundAt);
  const isTcp = name.startsWith("istio_tcp_");
  const key = isTcp ? `tcp ${shared}` : shared;
  let labels = expanded.get(key);
  if (labels === undefined) {
    labels = expandLabels(shared, own, isTcp);
    expanded.set(key, labels);
  }
  const bound = boundAt < 0 ? "" : raw.slice(boundAt);
  return `${name}{${labels}${bound}}${line.slice(close + 1)}`;
}

function expandLabels(raw: string, own: Side, isTcp: boolean): string {
  const tags = parseLabels(raw);
  const take = (name: string): string => {
    const value = tags.get(name) ?? "";
    tags.delete(name);
    return absent.has(value) ? "" : value;
  };
  const atSource = take("reporter") !== "destination";
  const peerText = take("peer");
  const facts = unpackWorkload(atSource ? peerText : workloadOfSubject(peerText));
  const peerPrincipal = take("peer_principal");
  // Whoever saw no identity on the other side did not show its own: the connection was plaintext.
  const ownPrincipal = peerPrincipal === "" ? "unknown" : own.principal;
  const shownPeer = peerPrincipal === "" ? "unknown" : peerPrincipal;
  const policy = peerPrincipal === "" ? "none" : "mutual_tls";
  const protocol = isTcp ? "tcp" : take("request_protocol") || "http";
  const labels = [
    `reporter="${atSource ? "source" : "destination"}"`,
    atSource ? own.source : workloadLabels("source", facts),
    label("source_principal", atSource ? ownPrincipal : shownPeer),
    atSource ? workloadLabels("destination", facts) : own.destination,
    label("destination_principal", atSource ? shownPeer : ownPrincipal),
    serviceLabels(take("service"), atSource ? facts.namespace : ""),
    label("request_protocol", protocol),
    ...(isTcp ? [] : [label("response_code", take("response_code") || "0")]),
    ...(isTcp ? [] : [label("grpc_response_status", take("grpc_response_status"))]),
    label("response_flags", rawOr(tags, "response_flags", "-")),
    // Istio: only the destination can know; the source says so.
    label("connection_security_policy", atSource ? "unknown" : policy),
  ];
  tags.delete("response_flags");
  const removed = tags.get(removedLabelsTag);
  tags.delete(removedLabelsTag);
  const made = removed === undefined ? labels : without(labels.join(","), removed.split(","));
  for (const [name, value] of tags) made.push(label(name, absent.has(value) ? "unknown" : value));
  return made.join(",");
}

function without(labels: string, names: readonly string[]): string[] {
  return [...parseLabels(labels)].flatMap(([name, value]) =>
    names.includes(name) ? [] : [label(name, value)],
  );
}

function rawOr(tags: ReadonlyMap<string, string>, name: string, otherwise: string): string {
  const value = tags.get(name) ?? "";
  return value === "" ? otherwise : value;
}

function workloadLabels(side: "source" | "destination", facts: WorkloadFacts): string {
  const known = (value: string, otherwise: string): string => (value === "" ? otherwise : value);
  return [
    label(`${side}_workload`, known(facts.workload, unknownWorkload.workload)),
    label(`${side}_workload_namespace`, known(facts.namespace, unknownWorkload.namespace)),
    label(`${side}_app`, known(facts.app, unknownWorkload.app)),
    label(`${side}_version`, known(facts.version, unknownWorkload.version)),
    label(`${side}_canonical_service`, known(facts.canonicalService, unknownWorkload.canonicalService)),
    label(`${side}_canonical_revision`, known(facts.canonicalRevision, unknownWorkload.canonicalRevision)),
    label(`${side}_cluster`, known(facts.cluster, unknownWorkload.cluster)),
  ].join(",");
}

/** `host|name|namespace`; a passthrough cluster has no namespace, then the peer's stands in if it is known. */
function serviceLabels(packed: string, peerNamespace: string): string {
  // The format is cluster metadata followed by route metadata, and each may be written as "-" when it is absent.
  const [host = "", name = "", namespace = ""] = packed.replace(/^-|-$/g, "").split("|");
  const or = (value: string, otherwise: string): string => (value === "" ? otherwise : value);
  return [
    label("destination_service", or(host, "unknown")),
    label("destination_service_name", or(name, "unknown")),
    label("destination_service_namespace", or(namespace, or(peerNamespace, "unknown"))),
  ].join(",");
}

function label(name: string, value: string): string {
  return `${name}="${value.replace(/\\/g, "\\\\").replace(/"/g, '\\"').replace(/\n/g, "\\n")}"`;
}

/** Parses `a="b",c="d\"e"` in order. */
export function parseLabels(raw: string): Map<string, string> {
  const labels = new Map<string, string>();
  for (const [, name = "", value = ""] of raw.matchAll(/([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\]|\\.)*)"/g)) {
    labels.set(
      name,
      value.replace(/\\(.)/g, (_all, escaped: string) => (escaped === "n" ? "\n" : escaped)),
    );
  }
  return labels;
}

/** The agent's own metrics, under Istio's names where Istio's agent has them. */
export interface AgentCounts {
  readonly certificateExpirySeconds: number | undefined;
  readonly caFailures: number;
  readonly rotations: number;
  readonly envoyRestarts: number;
  /** Records of traffic that were not counted, since there were too many series. */
  readonly recordsDropped: number;
  readonly residentBytes: number;
  readonly version: string;
}

export function renderAgentMetrics(counts: AgentCounts): string {
  const lines = [
    "# TYPE istio_build gauge",
    `istio_build{component="agent",tag="${counts.version}"} 1`,
    `istio_build{component="proxy",tag="${counts.version}"} 1`,
    "# TYPE istio_agent_num_failed_outgoing_requests counter",
    `istio_agent_num_failed_outgoing_requests{request_type="csr"} ${counts.caFailures}`,
    "# TYPE istio_agent_certificate_rotations_total counter",
    `istio_agent_certificate_rotations_total ${counts.rotations}`,
    "# TYPE istio_agent_envoy_restarts_total counter",
    `istio_agent_envoy_restarts_total ${counts.envoyRestarts}`,
    "# TYPE istio_agent_telemetry_records_dropped_total counter",
    `istio_agent_telemetry_records_dropped_total ${counts.recordsDropped}`,
    "# TYPE istio_agent_process_resident_memory_bytes gauge",
    `istio_agent_process_resident_memory_bytes ${counts.residentBytes}`,
  ];
  if (counts.certificateExpirySeconds !== undefined) {
    lines.push("# TYPE istio_agent_cert_expiry_seconds gauge");
    lines.push(
      `istio_agent_cert_expiry_seconds{resource_name="default"} ${Math.round(counts.certificateExpirySeconds)}`,
    );
  }
  return `${lines.join("\n")}\n`;
}
