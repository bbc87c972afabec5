// A Pod's /etc/resolv.conf and /etc/hosts. Pure.

import type { PodSpec } from "../types.ts";

/** As Kubernetes with `dnsPolicy: ClusterFirst`; `None` takes dnsConfig alone; `Default` has no server to give: the node resolves nothing. */
export function renderResolvConf(spec: PodSpec, namespace: string, dnsIp: string, domain: string): string {
  const clusterFirst = spec.dnsPolicy !== "None" && spec.dnsPolicy !== "Default";
  const servers = [...(clusterFirst ? [dnsIp] : []), ...(spec.dnsConfig?.nameservers ?? [])];
  const searches = [
    ...(clusterFirst ? [`${namespace}.svc.${domain}`, `svc.${domain}`, domain] : []),
    ...(spec.dnsConfig?.searches ?? []),
  ];
  const options = new Map<string, string | undefined>(clusterFirst ? [["ndots", "5"]] : []);
  for (const option of spec.dnsConfig?.options ?? []) options.set(option.name, option.value);
  return [
    ...servers.map((server) => `nameserver ${server}`),
    ...(searches.length > 0 ? [`search ${[...new Set(searches)].join(" ")}`] : []),
    ...(options.size > 0
      ? [
          `options ${[...options].map(([name, value]) => (value === undefined ? name : `${name}:${value}`)).join(" ")}`,
        ]
      : []),
    "",
  ].join("\n");
}

export function hostnameOf(spec: PodSpec, podName: string): string {
  return (spec.hostname ?? podName).slice(0, 63).replace(/[-.]+$/, "");
}

export function renderHosts(
  spec: PodSpec,
  podName: string,
  namespace: string,
  podIp: string,
  domain: string,
): string {
  const hostname = hostnameOf(spec, podName);
  const names =
    spec.subdomain === undefined
      ? hostname
      : `${hostname}.${spec.subdomain}.${namespace}.svc.${domain}\t${hostname}`;
  return [
    "127.0.0.1\tlocalhost",
    "::1\tlocalhost ip6-localhost ip6-loopback",
    `${podIp}\t${names}`,
    ...(spec.hostAliases ?? []).map((alias) => `${alias.ip}\t${(alias.hostnames ?? []).join("\t")}`),
    "",
  ].join("\n");
}
