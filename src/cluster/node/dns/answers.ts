// What the cluster's DNS answers, by Kubernetes' DNS specification 1.1. Pure.

import type { EndpointSlice, Service } from "../../types.ts";
import { isReady } from "../service-rules.ts";

export interface DnsView {
  service(namespace: string, name: string): Service | undefined;
  slices(namespace: string, service: string): readonly EndpointSlice[];
  hasNamespace(name: string): boolean;
}

export type DnsRecord =
  | { readonly type: "A"; readonly name: string; readonly data: string }
  | { readonly type: "CNAME"; readonly name: string; readonly data: string }
  | {
      readonly type: "SRV";
      readonly name: string;
      readonly data: {
        readonly target: string;
        readonly port: number;
        readonly priority: number;
        readonly weight: number;
      };
    };

/** `refused`: outside the cluster's zone; nothing is forwarded, for nothing leaves this network. */
export type DnsAnswer =
  | { readonly kind: "found"; readonly records: readonly DnsRecord[] }
  | { readonly kind: "noSuchName" }
  | { readonly kind: "refused" };

const noSuchName: DnsAnswer = { kind: "noSuchName" };
const chainMax = 5; // aliases that are followed; a longer chain is answered as far as it was followed

/** Answers one question. A name that exists without a record of the type asked for is `found` with no records. */
export function answerDns(
  type: string,
  question: string,
  view: DnsView,
  domain: string,
  depth = 0,
): DnsAnswer {
  const name = question.toLowerCase().replace(/\.$/, "");
  if (name !== domain && !name.endsWith(`.${domain}`)) return { kind: "refused" };
  const labels = name
    .slice(0, -domain.length - 1)
    .split(".")
    .filter(Boolean);
  const zone = labels.at(-1);
  if (labels.length === 0 || (labels.length === 1 && (zone === "svc" || zone === "pod")))
    return { kind: "found", records: [] };
  if (zone === "pod" && labels.length === 3)
    return answerPod(type, name, labels[0] ?? "", labels[1] ?? "", view);
  if (zone !== "svc") return noSuchName;
  const [namespace = "", serviceName, ...before] = labels.slice(0, -1).toReversed();
  if (serviceName === undefined)
    return view.hasNamespace(namespace) ? { kind: "found", records: [] } : noSuchName;
  const service = view.service(namespace, serviceName);
  if (service === undefined) return noSuchName;
  const asked: AskedService = {
    type,
    name,
    service,
    slices: view.slices(namespace, serviceName),
    suffix: `${serviceName}.${namespace}.svc.${domain}`,
  };
  if (service.spec.type === "ExternalName")
    return before.length > 0 ? noSuchName : answerAlias(asked, view, domain, depth);
  if (before.length === 0) return answerService(asked);
  const [second = "", first] = before;
  if (first !== undefined && before.length === 2) return answerPort(asked, first, second);
  return before.length === 1 && !second.startsWith("_") ? answerHost(asked, second) : noSuchName;
}

interface AskedService {
  readonly type: string;
  readonly name: string;
  readonly service: Service;
  readonly slices: readonly EndpointSlice[];
  readonly suffix: string;
}

interface Host {
  readonly hostname: string;
  readonly address: string;
}

/** `10-244-0-7.<namespace>.pod.<domain>`. */
function answerPod(type: string, name: string, dashed: string, namespace: string, view: DnsView): DnsAnswer {
  const address = dashed.replaceAll("-", ".");
  if (!/^\d{1,3}(\.\d{1,3}){3}$/.test(address) || !view.hasNamespace(namespace)) return noSuchName;
  return { kind: "found", records: type === "A" ? [{ type: "A", name, data: address }] : [] };
}

function answerAlias(asked: AskedService, view: DnsView, domain: string, depth: number): DnsAnswer {
  const target = asked.service.spec.externalName ?? "";
  const alias: DnsRecord = { type: "CNAME", name: asked.name, data: target };
  if (asked.type === "CNAME" || depth >= chainMax) return { kind: "found", records: [alias] };
  const rest = answerDns(asked.type, target, view, domain, depth + 1);
  return { kind: "found", records: [alias, ...(rest.kind === "found" ? rest.records : [])] };
}

function answerService({ type, name, service, slices }: AskedService): DnsAnswer {
  const clusterIp = service.spec.clusterIP;
  if (clusterIp !== undefined && clusterIp !== "" && clusterIp !== "None") {
    return { kind: "found", records: type === "A" ? [{ type: "A", name, data: clusterIp }] : [] };
  }
  const hosts = hostsOf(slices, service.spec.publishNotReadyAddresses === true);
  if (hosts.length === 0) return noSuchName;
  const addresses = [...new Set(hosts.map((host) => host.address))];
  return {
    kind: "found",
    records: type === "A" ? addresses.map((data) => ({ type: "A" as const, name, data })) : [],
  };
}

/** `<hostname>.<service>...`: one Pod of a headless Service. */
function answerHost({ type, name, service, slices }: AskedService, hostname: string): DnsAnswer {
  const hosts = hostsOf(slices, service.spec.publishNotReadyAddresses === true).filter(
    (host) => host.hostname === hostname,
  );
  if (hosts.length === 0) return noSuchName;
  return {
    kind: "found",
    records: type === "A" ? hosts.map(({ address }) => ({ type: "A" as const, name, data: address })) : [],
  };
}

/** `_port._protocol.<service>...`. */
function answerPort(asked: AskedService, portLabel: string, protocolLabel: string): DnsAnswer {
  const { type, name, service, slices, suffix } = asked;
  if (!portLabel.startsWith("_") || !protocolLabel.startsWith("_")) return noSuchName;
  const portName = portLabel.slice(1);
  const protocol = protocolLabel.slice(1).toUpperCase();
  const port = service.spec.ports?.find(
    (one) => one.name === portName && (one.protocol ?? "TCP") === protocol,
  );
  if (port === undefined) return noSuchName;
  if (type !== "SRV") return { kind: "found", records: [] };
  const srv = (target: string, number: number): DnsRecord => ({
    type: "SRV",
    name,
    data: { target, port: number, priority: 0, weight: 100 },
  });
  if (service.spec.clusterIP !== "None") return { kind: "found", records: [srv(suffix, port.port)] };
  const records = slices.flatMap((slice) => {
    const number = (slice.ports ?? []).find((one) => one.name === portName)?.port;
    if (number === undefined) return [];
    return hostsOf([slice], service.spec.publishNotReadyAddresses === true).flatMap(
      ({ hostname, address }) => [
        srv(`${hostname}.${suffix}`, number),
        { type: "A" as const, name: `${hostname}.${suffix}`, data: address },
      ],
    );
  });
  return records.length === 0 ? noSuchName : { kind: "found", records };
}

/** Sorted by address; a Pod without a hostname is called by its address with dashes. */
function hostsOf(slices: readonly EndpointSlice[], withNotReady: boolean): Host[] {
  return slices
    .filter((slice) => slice.addressType === "IPv4")
    .flatMap((slice) => slice.endpoints ?? [])
    .filter((endpoint) => withNotReady || isReady(endpoint))
    .flatMap((endpoint) =>
      endpoint.addresses.map((address) => ({
        hostname: endpoint.hostname ?? address.replaceAll(".", "-"),
        address,
      })),
    )
    .toSorted((left, right) => (left.address < right.address ? -1 : 1));
}
