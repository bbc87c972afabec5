// The control plane's metrics, under the names that Istio's dashboards and alerts know. Labels are bounded: types,
// reasons and kinds; names only of objects at fault, as long as they are.

import { collectDefaultMetrics, Counter, Gauge, Histogram, Registry } from "prom-client";
import type { ResourceType } from "#plan";
import { controlPlaneLimits, limitsMetric } from "./limits.ts";

/** Envoy's short names of the discovery services. */
export const serviceOf: Readonly<Record<ResourceType, string>> = {
  cluster: "cds",
  endpoint: "eds",
  listener: "lds",
  route: "rds",
  virtualHost: "vhds",
  secret: "sds",
};

const convergenceSeconds = [0.01, 0.03, 0.1, 0.3, 0.5, 1, 3, 5, 10, 20, 30];

export type Metrics = ReturnType<typeof createMetrics>;

export function createMetrics(version: string) {
  const registry = new Registry();
  collectDefaultMetrics({ register: registry });
  const registers = [registry];
  const counter = <Label extends string>(name: string, help: string, labelNames: readonly Label[] = []) =>
    new Counter({ name, help, labelNames, registers });
  const gauge = <Label extends string>(name: string, help: string, labelNames: readonly Label[] = []) =>
    new Gauge({ name, help, labelNames, registers });
  const info = gauge("pilot_info", "Version of the control plane", ["version"]);
  info.set({ version }, 1);
  return {
    registry,
    connected: gauge("pilot_xds", "Proxies connected by xDS", ["version"]),
    pushes: counter("pilot_xds_pushes", "Responses sent, by type", ["type"]),
    pushErrors: counter(
      "pilot_total_xds_internal_errors",
      "Queries that failed and kept their last good value",
    ),
    rejectsTotal: counter("pilot_total_xds_rejects", "Responses that a proxy rejected", ["type"]),
    rejects: Object.fromEntries(
      Object.values(serviceOf).map((service) => [
        service,
        gauge(
          `pilot_xds_${service}_reject`,
          `Resources of ${service} that are rejected and served in their last good version`,
        ),
      ]),
    ),
    rejectedObjects: gauge("pilot_rejected_objects", "Objects that a rejected resource is made from", [
      "kind",
      "namespace",
      "name",
    ]),
    refused: counter("pilot_xds_refused", "Streams refused: not proven, not entitled, or over a limit"),
    debugRefused: counter("pilot_debug_refused", "Questions to debug pages by those who may not ask"),
    convergence: new Histogram({
      name: "pilot_proxy_convergence_time",
      help: "Seconds from a change to a proxy's acknowledgement",
      buckets: convergenceSeconds,
      registers,
    }),
    batchSeconds: new Histogram({
      name: "pilot_xds_push_time",
      help: "Seconds that one batch of changes took to translate and send",
      buckets: [0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3],
      registers,
    }),
    resourcesSent: counter("pilot_xds_resources_sent", "Resources sent, by type", ["type"]),
    bytesSent: counter("pilot_xds_bytes_sent", "Bytes of responses sent, by type", ["type"]),
    woken: counter("pilot_xds_proxies_woken", "Proxies woken by changes"),
    computed: counter("pilot_queries_computed", "Queries that ran"),
    pending: gauge("pilot_pending_changes", "Changes that wait for the next batch"),
    nodes: gauge("pilot_engine_nodes", "Memoized values held"),
    views: gauge("pilot_views", "Views that proxies share"),
    services: gauge("pilot_services", "Services known"),
    virtualServices: gauge("pilot_virt_services", "VirtualServices known"),
    writesWaiting: gauge("pilot_writes_waiting", "Writes to the API server that wait"),
    limits: limitsCounter(counter),
    events: counter("pilot_k8s_reg_events", "Objects changed, by kind and event", ["type", "event"]),
    configErrors: counter(
      "pilot_k8s_cfg_errors",
      "Configuration of the control plane that could not be read",
    ),
    csr: counter("citadel_server_csr_count", "Certificate requests"),
    issued: counter("citadel_server_success_cert_issuance_count", "Certificates issued"),
    unauthenticated: counter("citadel_server_authentication_failure_count", "Callers who proved nothing", [
      "reason",
    ]),
    signErrors: counter("citadel_server_csr_sign_err_count", "Certificate requests refused", ["reason"]),
    rootExpiry: gauge("citadel_server_root_cert_expiry_timestamp", "When the root expires, Unix seconds"),
    signerExpiry: gauge(
      "citadel_server_cert_chain_expiry_timestamp",
      "When the signer expires, Unix seconds",
    ),
    webhooks: webhookCounters(counter),
  };
}

type MakeCounter = <Label extends string>(
  name: string,
  help: string,
  labels?: readonly Label[],
) => Counter<Label>;

/** Each limit at 0 from the start, so that an alert can tell "never" from "not known". */
function limitsCounter(counter: MakeCounter): Counter<"limit"> {
  const limits = counter(limitsMetric, "Limits reached, by limit (docs/reference/limits.md)", ["limit"]);
  for (const [limit, { ...fields }] of Object.entries(controlPlaneLimits))
    if (!("metric" in fields)) limits.inc({ limit }, 0);
  return limits;
}

function webhookCounters(counter: MakeCounter): Readonly<Record<string, Counter<string>>> {
  return {
    sidecar_injection_requests_total: counter("sidecar_injection_requests_total", "Injection requests"),
    sidecar_injection_success_total: counter("sidecar_injection_success_total", "Pods injected"),
    sidecar_injection_failure_total: counter(
      "sidecar_injection_failure_total",
      "Pods not injected by a mistake",
    ),
    sidecar_injection_skip_total: counter("sidecar_injection_skip_total", "Pods that want no sidecar"),
    galley_validation_passed: counter("galley_validation_passed", "Objects found sound", [
      "group",
      "version",
      "resource",
    ]),
    galley_validation_failed: counter("galley_validation_failed", "Objects refused", [
      "group",
      "version",
      "resource",
      "reason",
    ]),
  };
}
