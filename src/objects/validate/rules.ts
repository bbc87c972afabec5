// Which rules belong to which kind, in one table.

import type { EnvoyFilter } from "../envoy-filter.ts";
import { groupOf } from "../kinds.ts";
import type { KubeObject } from "../object.ts";
import type { Report } from "../report.ts";
import type { ValidationContext } from "../validate.ts";
import { checkAuthorizationPolicy } from "./authorization-policy.ts";
import { checkDestinationRule } from "./destination-rule.ts";
import { checkEnvoyFilter } from "./envoy-filter.ts";
import { checkTrafficExtension, checkWasmPlugin } from "./extensions.ts";
import { checkGateway } from "./gateway.ts";
import { checkPeerAuthentication, checkRequestAuthentication } from "./request-authentication.ts";
import { checkSelectorLabels } from "./selectors.ts";
import { checkServiceEntry } from "./service-entry.ts";
import { checkSidecar } from "./sidecar.ts";
import { checkTelemetry } from "./telemetry.ts";
import { checkVirtualService } from "./virtual-service.ts";
import { checkWorkloadEntry, checkWorkloadGroup } from "./workload-entry.ts";

interface Facts {
  readonly object: KubeObject;
  readonly namespace: string;
  readonly context: ValidationContext;
}

// The schema was checked before, so that each spec has its shape; only required fields may be missing.
type Rules = (spec: never, report: Report, facts: Facts) => void;

const rules: Readonly<Record<string, Rules>> = {
  "networking.istio.io/VirtualService": (spec, report, { namespace }) =>
    checkVirtualService(spec, namespace, report),
  "networking.istio.io/DestinationRule": (spec, report, { namespace }) =>
    checkDestinationRule(spec, namespace, report),
  "networking.istio.io/Gateway": (spec, report, { object }) =>
    checkGateway(spec, object.metadata.name, report),
  "networking.istio.io/ServiceEntry": (spec, report, { object }) => checkServiceEntry(spec, object, report),
  "networking.istio.io/WorkloadEntry": (spec, report) =>
    checkWorkloadEntry(spec, "spec", { mayBeName: true }, report),
  "networking.istio.io/WorkloadGroup": (spec, report) => checkWorkloadGroup(spec, report),
  "networking.istio.io/Sidecar": (spec, report, { namespace }) => checkSidecar(spec, namespace, report),
  "networking.istio.io/EnvoyFilter": (_spec, report, { object, context }) =>
    checkEnvoyFilter(object as EnvoyFilter, context, report),
  "networking.istio.io/ProxyConfig": (
    spec: { readonly selector?: { readonly matchLabels?: Record<string, string> } },
    report,
  ) => checkSelectorLabels(spec.selector?.matchLabels, spec.selector !== undefined, "spec.selector", report),
  "security.istio.io/PeerAuthentication": (spec, report) => checkPeerAuthentication(spec, report),
  "security.istio.io/RequestAuthentication": (spec, report) => checkRequestAuthentication(spec, report),
  "security.istio.io/AuthorizationPolicy": (spec, report) => checkAuthorizationPolicy(spec, report),
  "telemetry.istio.io/Telemetry": (spec, report) => checkTelemetry(spec, report),
  "extensions.istio.io/WasmPlugin": (spec, report) => checkWasmPlugin(spec, report),
  "extensions.istio.io/TrafficExtension": (spec, report) => checkTrafficExtension(spec, report),
};

/** Adds the problems that a kind's own rules find. An absent spec is an empty one. */
export function semanticRules(object: KubeObject, report: Report, context: ValidationContext): void {
  const check = rules[`${groupOf(object.apiVersion)}/${object.kind}`];
  check?.((object.spec ?? {}) as never, report, {
    object,
    namespace: object.metadata.namespace ?? "",
    context,
  });
}
