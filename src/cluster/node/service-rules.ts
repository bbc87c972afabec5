// ClusterIPs as iptables rules. Pure: objects to rules, and two sets of rules to what `iptables-restore --noflush` has to be told.

import { createHash } from "node:crypto";
import type { Endpoint, EndpointSlice, Service, ServicePort } from "../types.ts";

export interface RuleSet {
  /** Rules of one chain for each port of a Service, in order. */
  readonly chains: ReadonlyMap<string, readonly string[]>;
  /** What sends a ClusterIP's packets to its chain: a set, in no particular order. */
  readonly dispatch: ReadonlySet<string>;
  /** Addresses of Pods that may reach themselves through a ClusterIP; those packets need another source. */
  readonly hairpins: ReadonlySet<string>;
}

export const emptyRules: RuleSet = { chains: new Map(), dispatch: new Set(), hairpins: new Set() };

/** One rule set for all Services of type ClusterIP, NodePort and LoadBalancer. A port without a usable endpoint gets no rule: it is refused. */
export function renderServiceRules(
  services: readonly Service[],
  slices: readonly EndpointSlice[],
  nodeIp: string,
): RuleSet {
  const chains = new Map<string, string[]>();
  const dispatch = new Set<string>();
  const hairpins = new Set<string>();
  const byService = Map.groupBy(
    slices,
    (slice) => `${slice.metadata.namespace}/${slice.metadata.labels?.["kubernetes.io/service-name"] ?? ""}`,
  );
  for (const service of services) {
    const address = service.spec.clusterIP;
    if (address === undefined || address === "" || address === "None" || service.spec.type === "ExternalName")
      continue;
    const key = `${service.metadata.namespace}/${service.metadata.name}`;
    for (const port of service.spec.ports ?? []) {
      const targets = targetsOf(port, byService.get(key) ?? []);
      if (targets.length === 0) continue;
      const protocol = (port.protocol ?? "TCP").toLowerCase();
      const chain = chainName(key, port);
      chains.set(chain, renderChain(targets, protocol));
      dispatch.add(`-d ${address}/32 -p ${protocol} -m ${protocol} --dport ${port.port} -j ${chain}`);
      if (port.nodePort !== undefined && port.nodePort > 0) {
        dispatch.add(`-d ${nodeIp}/32 -p ${protocol} -m ${protocol} --dport ${port.nodePort} -j ${chain}`);
      }
      for (const target of targets) hairpins.add(target.slice(0, target.lastIndexOf(":")));
    }
  }
  return { chains, dispatch, hairpins };
}

/** Ready endpoints; where there are none, those that still serve while they end. Sorted `address:port`. */
export function targetsOf(port: ServicePort, slices: readonly EndpointSlice[]): string[] {
  const ready = new Set<string>();
  const serving = new Set<string>();
  for (const slice of slices) {
    const endpointPort = (slice.ports ?? []).find(
      (one) => (one.name ?? "") === (port.name ?? "") && (one.protocol ?? "TCP") === (port.protocol ?? "TCP"),
    );
    if (endpointPort?.port === undefined || slice.addressType !== "IPv4") continue;
    for (const endpoint of slice.endpoints ?? []) {
      for (const address of endpoint.addresses) {
        if (isReady(endpoint)) ready.add(`${address}:${endpointPort.port}`);
        else if (endpoint.conditions?.serving === true) serving.add(`${address}:${endpointPort.port}`);
      }
    }
  }
  return [...(ready.size > 0 ? ready : serving)].toSorted();
}

/** The API's rule: an unknown readiness counts as ready. */
export function isReady(endpoint: Endpoint): boolean {
  return endpoint.conditions?.ready !== false;
}

/** Each endpoint with the same chance: the first with 1/n, the next with 1/(n-1) of the rest, the last with all that is left. */
function renderChain(targets: readonly string[], protocol: string): string[] {
  return targets.map((target, index) => {
    const left = targets.length - index;
    const chance = left === 1 ? "" : ` -m statistic --mode random --probability ${(1 / left).toFixed(10)}`;
    return `-p ${protocol}${chance} -j DNAT --to-destination ${target}`;
  });
}

function chainName(serviceKey: string, port: ServicePort): string {
  const text = `${serviceKey}:${port.name ?? ""}:${port.protocol ?? "TCP"}:${port.port}`;
  return `MZ-SVC-${createHash("sha256").update(text).digest("hex").slice(0, 16)}`;
}

/** The input of `iptables-restore --noflush` that leads from one set to the other; empty when they are the same. */
export function renderRuleChange(before: RuleSet, after: RuleSet): string {
  const declare: string[] = [];
  const lines: string[] = [];
  const remove: string[] = [];
  for (const rule of before.dispatch) if (!after.dispatch.has(rule)) lines.push(`-D MZ-SERVICES ${rule}`);
  for (const [chain, rules] of after.chains) {
    if (sameList(before.chains.get(chain), rules)) continue;
    declare.push(`:${chain} - [0:0]`); // also empties a chain that is there
    for (const rule of rules) lines.push(`-A ${chain} ${rule}`);
  }
  for (const rule of after.dispatch) if (!before.dispatch.has(rule)) lines.push(`-A MZ-SERVICES ${rule}`);
  for (const chain of before.chains.keys())
    if (!after.chains.has(chain)) remove.push(`-F ${chain}`, `-X ${chain}`);
  for (const address of before.hairpins)
    if (!after.hairpins.has(address)) lines.push(`-D MZ-HAIRPIN ${hairpin(address)}`);
  for (const address of after.hairpins)
    if (!before.hairpins.has(address)) lines.push(`-A MZ-HAIRPIN ${hairpin(address)}`);
  if (declare.length + lines.length + remove.length === 0) return "";
  return ["*nat", ...declare, ...lines, ...remove, "COMMIT", ""].join("\n");
}

function hairpin(address: string): string {
  return `-s ${address}/32 -d ${address}/32 -j MASQUERADE`;
}

function sameList(left: readonly string[] | undefined, right: readonly string[]): boolean {
  return (
    left !== undefined && left.length === right.length && left.every((item, index) => item === right[index])
  );
}
