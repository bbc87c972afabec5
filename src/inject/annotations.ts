// Checks the annotations that steer injection before they reach a proxy's command line, where a mistake would show as a pod that
// never gets ready.

import type { Problem } from "#base";
import type { Pod } from "./pod.ts";

interface Rule {
  readonly valid: (value: string) => boolean;
  /** Completes "... is expected". */
  readonly expected: string;
}

const portList: Rule = {
  valid: (text) => text === "" || list(text).every(isPort),
  expected: "a list of ports, as 80,8080",
};
const portListOrAll: Rule = {
  valid: (text) => text === "*" || portList.valid(text),
  expected: "* or a list of ports, as 80,8080",
};
const cidrList: Rule = {
  valid: (text) => text === "" || list(text).every(isCidr),
  expected: "a list of networks, as 10.0.0.0/8",
};
const cidrListOrAll: Rule = {
  valid: (text) => text === "*" || cidrList.valid(text),
  expected: "* or a list of networks, as 10.0.0.0/8",
};
const count: Rule = { valid: (text) => /^\d{1,9}$/.test(text), expected: "a whole number" };
const truth: Rule = { valid: (text) => /^(true|false|t|f|1|0)$/i.test(text), expected: "true or false" };
const quantity: Rule = {
  valid: (text) => /^\d+(\.\d+)?([eE]\d+|m|[kMGTPE]i?|Ki)?$/.test(text),
  expected: "a quantity, as 100m or 128Mi",
};
const json: Rule = { valid: isJson, expected: "JSON" };

const rules: Readonly<Record<string, Rule>> = {
  "traffic.sidecar.istio.io/includeOutboundIPRanges": cidrListOrAll,
  "traffic.sidecar.istio.io/excludeOutboundIPRanges": cidrList,
  "traffic.sidecar.istio.io/includeInboundPorts": portListOrAll,
  "traffic.sidecar.istio.io/excludeInboundPorts": portListOrAll,
  "traffic.sidecar.istio.io/includeOutboundPorts": portListOrAll,
  "traffic.sidecar.istio.io/excludeOutboundPorts": portList,
  "sidecar.istio.io/interceptionMode": {
    valid: (text) => ["REDIRECT", "TPROXY", "NONE"].includes(text),
    expected: "REDIRECT, TPROXY or NONE",
  },
  "mizzen.io/cluster-discovery": {
    valid: (text) => ["on-demand", "eager"].includes(text),
    expected: "on-demand or eager",
  },
  "sidecar.istio.io/discoveryAddress": {
    valid: (text) => /^\S+:\d{1,5}$/.test(text),
    expected: "a host and a port, as istiod.istio-system.svc:15012",
  },
  "sidecar.istio.io/proxyCPU": quantity,
  "sidecar.istio.io/proxyMemory": quantity,
  "sidecar.istio.io/proxyCPULimit": quantity,
  "sidecar.istio.io/proxyMemoryLimit": quantity,
  "sidecar.istio.io/rewriteAppHTTPProbers": truth,
  "sidecar.istio.io/userVolume": json,
  "sidecar.istio.io/userVolumeMount": json,
  "status.sidecar.istio.io/port": count,
  "readiness.status.sidecar.istio.io/initialDelaySeconds": count,
  "readiness.status.sidecar.istio.io/periodSeconds": count,
  "readiness.status.sidecar.istio.io/failureThreshold": count,
};

/** One problem for each annotation whose value cannot be used. */
export function checkAnnotations(pod: Pod): Problem[] {
  const problems: Problem[] = [];
  for (const [name, value] of Object.entries(pod.metadata?.annotations ?? {})) {
    const rule = rules[name];
    if (rule === undefined || rule.valid(value)) continue;
    problems.push({
      code: "MZ0801",
      severity: "error",
      at: { path: `metadata.annotations[${name}]` },
      text: `${name} is ${JSON.stringify(value)}; ${rule.expected} is expected`,
      fix: "correct or remove the annotation in the workload's pod template",
    });
  }
  return problems;
}

function list(text: string): string[] {
  return text.split(",").map((item) => item.trim());
}

function isPort(text: string): boolean {
  return /^\d{1,5}$/.test(text) && Number(text) <= 65_535;
}

function isCidr(text: string): boolean {
  const [address = "", length = ""] = text.split("/");
  if (!/^\d{1,3}$/.test(length)) return false;
  const octets = address.split(".");
  if (octets.length === 4 && octets.every((octet) => /^\d{1,3}$/.test(octet) && Number(octet) <= 255))
    return Number(length) <= 32;
  return address.includes(":") && /^[0-9a-fA-F:.]+$/.test(address) && Number(length) <= 128;
}

function isJson(text: string): boolean {
  try {
    return typeof JSON.parse(text) === "object";
  } catch {
    return false;
  }
}
