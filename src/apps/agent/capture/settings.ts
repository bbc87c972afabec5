// What is captured and what is not: the flags of istio-iptables, which the injector writes, as plain data.

import { ports } from "#base";
import { ConfigError } from "../config.ts";

export interface CaptureSettings {
  readonly outboundPort: number;
  readonly inboundPort: number;
  readonly tunnelPort: number;
  readonly dnsPort: number;
  /** Whoever runs as one of these is the proxy itself. */
  readonly proxyUids: readonly string[];
  readonly proxyGids: readonly string[];
  readonly mode: "REDIRECT" | "TPROXY";
  readonly tproxyMark: number;
  readonly tproxyTable: number;
  /** `*`, or ports; empty captures nothing that comes in. */
  readonly inboundPorts: readonly string[];
  /** Matter only beside `*`. */
  readonly inboundPortsExcluded: readonly string[];
  /** `*`, or address ranges of either family; empty captures nothing by address. */
  readonly outboundRanges: readonly string[];
  readonly outboundRangesExcluded: readonly string[];
  readonly outboundPorts: readonly string[];
  readonly outboundPortsExcluded: readonly string[];
  /** `*`, or the groups whose traffic alone is captured. */
  readonly ownerGroups: readonly string[];
  readonly ownerGroupsExcluded: readonly string[];
  /** Interfaces of machines behind this pod: what they send is taken for outbound. */
  readonly virtualInterfaces: readonly string[];
  readonly interfacesExcluded: readonly string[];
  readonly redirectDns: boolean;
  readonly captureAllDns: boolean;
  readonly dnsServers: readonly string[];
  readonly dropInvalid: boolean;
  readonly ipv6: boolean;
  /** What counts as the host itself, in IPv4. */
  readonly loopbackRange: string;
}

export interface CaptureCommand {
  readonly settings: CaptureSettings;
  /** Print the rules and change nothing. */
  readonly dryRun: boolean;
  /** Somebody else (a CNI plugin) sets the rules. */
  readonly skipApply: boolean;
  /** Take the rules away and set no new ones. */
  readonly cleanupOnly: boolean;
}

/** Istio's proxy user, and its mark: the mark plus one says "from the proxy itself". */
const proxyUidDefault = "1337";
const tproxyMarkDefault = 1_337;
const tproxyTableDefault = 133;
const tunnelPort = 15_008;

export const defaultSettings: CaptureSettings = {
  outboundPort: ports.outbound,
  inboundPort: ports.inbound,
  tunnelPort,
  dnsPort: ports.dns,
  proxyUids: [proxyUidDefault],
  proxyGids: [proxyUidDefault],
  mode: "REDIRECT",
  tproxyMark: tproxyMarkDefault,
  tproxyTable: tproxyTableDefault,
  inboundPorts: [],
  inboundPortsExcluded: [],
  outboundRanges: [],
  outboundRangesExcluded: [],
  outboundPorts: [],
  outboundPortsExcluded: [],
  ownerGroups: ["*"],
  ownerGroupsExcluded: [],
  virtualInterfaces: [],
  interfacesExcluded: [],
  redirectDns: false,
  captureAllDns: false,
  dnsServers: [],
  dropInvalid: false,
  ipv6: false,
  loopbackRange: "127.0.0.1/32",
};

/** Short flags, long flags as istio-iptables has them, and what they set. */
const listFlags: Readonly<Record<string, keyof CaptureSettings>> = {
  "-u": "proxyUids",
  "--proxy-uid": "proxyUids",
  "-g": "proxyGids",
  "--proxy-gid": "proxyGids",
  "-b": "inboundPorts",
  "--istio-inbound-ports": "inboundPorts",
  "-d": "inboundPortsExcluded",
  "--istio-local-exclude-ports": "inboundPortsExcluded",
  "-i": "outboundRanges",
  "--istio-service-cidr": "outboundRanges",
  "-x": "outboundRangesExcluded",
  "--istio-service-exclude-cidr": "outboundRangesExcluded",
  "-q": "outboundPorts",
  "--istio-outbound-ports": "outboundPorts",
  "-o": "outboundPortsExcluded",
  "--istio-local-outbound-ports-exclude": "outboundPortsExcluded",
  "-k": "virtualInterfaces",
  "--kube-virt-interfaces": "virtualInterfaces",
  "-c": "interfacesExcluded",
  "--istio-exclude-interfaces": "interfacesExcluded",
};
const numberFlags: Readonly<Record<string, keyof CaptureSettings>> = {
  "-p": "outboundPort",
  "--envoy-port": "outboundPort",
  "-z": "inboundPort",
  "--inbound-capture-port": "inboundPort",
  "-e": "tunnelPort",
  "--inbound-tunnel-port": "tunnelPort",
  "-t": "tproxyMark",
  "--istio-inbound-tproxy-mark": "tproxyMark",
  "-r": "tproxyTable",
  "--istio-inbound-tproxy-route-table": "tproxyTable",
};
const booleanFlags: Readonly<Record<string, keyof CaptureSettings>> = {
  "--redirect-dns": "redirectDns",
  "--capture-all-dns": "captureAllDns",
  "--drop-invalid": "dropInvalid",
};
/** Flags of istio-iptables that change nothing here, with or without a value. */
const ignoredFlags = new Set(["--run-validation", "--force-apply", "--reconcile", "--log_as_json"]);
const ignoredWithValue = new Set([
  "--log_output_level",
  "--network-namespace",
  "--probe-timeout",
  "--iptables-version",
]);

export interface HostFacts {
  readonly dnsServers: readonly string[];
  readonly ipv6: boolean;
  readonly env: Readonly<Record<string, string | undefined>>;
}

/** Parses the flags. Throws ConfigError naming the flag at fault. */
export function parseCapture(args: readonly string[], host: HostFacts): CaptureCommand {
  const changes: Record<string, unknown> = {
    ownerGroups: splitList(host.env["ISTIO_OUTBOUND_OWNER_GROUPS"] ?? "*"),
    ownerGroupsExcluded: splitList(host.env["ISTIO_OUTBOUND_OWNER_GROUPS_EXCLUDE"] ?? ""),
    redirectDns: host.env["ISTIO_META_DNS_CAPTURE"] === "true",
    dropInvalid: host.env["INVALID_DROP"] === "true",
    dnsServers: host.dnsServers,
    ipv6: host.ipv6,
  };
  let dryRun = false;
  let cleanupOnly = false;
  let skipApply = false;
  const rest = args.flatMap((arg) =>
    arg.startsWith("--") && arg.includes("=") ? arg.split(/=(.*)/s, 2) : [arg],
  );
  for (let at = 0; at < rest.length; at++) {
    const flag = rest[at] ?? "";
    if (flag === "-n" || flag === "--dry-run") dryRun = true;
    else if (flag === "--cleanup-only") cleanupOnly = true;
    else if (flag === "--skip-rule-apply") skipApply = takeBoolean();
    else if (booleanFlags[flag] !== undefined) changes[booleanFlags[flag]] = takeBoolean();
    else if (ignoredFlags.has(flag)) takeBoolean();
    else {
      const value = rest[++at];
      if (value === undefined) throw new ConfigError(`the flag ${flag} needs a value`);
      takeValue(flag, value);
    }
    function takeBoolean(): boolean {
      const value = rest[at + 1];
      if (value !== "true" && value !== "false") return true;
      at += 1;
      return value === "true";
    }
  }
  function takeValue(flag: string, value: string): void {
    if (listFlags[flag] !== undefined) changes[listFlags[flag]] = splitList(value);
    else if (numberFlags[flag] !== undefined) changes[numberFlags[flag]] = portOf(flag, value);
    else if (flag === "-m" || flag === "--istio-inbound-interception-mode") changes["mode"] = modeOf(value);
    else if (!ignoredWithValue.has(flag)) throw new ConfigError(`the flag ${flag} is not known`);
  }
  if (changes["proxyUids"] !== undefined && changes["proxyGids"] === undefined) {
    changes["proxyGids"] = changes["proxyUids"];
  }
  const settings = { ...defaultSettings, ...changes };
  assertPorts(settings);
  return { settings, dryRun, skipApply, cleanupOnly };
}

export function splitList(text: string): string[] {
  return text
    .split(",")
    .map((part) => part.trim())
    .filter((part) => part !== "");
}

function portOf(flag: string, value: string): number {
  const number = Number(value);
  if (!Number.isInteger(number) || number < 0 || number > 65_535) {
    throw new ConfigError(`${flag} ${value}: a number between 0 and 65535 is expected`);
  }
  return number;
}

function modeOf(value: string): CaptureSettings["mode"] {
  if (value === "REDIRECT" || value === "TPROXY") return value;
  throw new ConfigError(`the interception mode ${value} is neither REDIRECT nor TPROXY`);
}

/** Whatever reaches iptables comes from annotations that anybody with a Pod can write: only ports, ranges and names pass. */
function assertPorts(settings: CaptureSettings): void {
  const check = (what: string, values: readonly string[], shape: RegExp): void => {
    const bad = values.find((value) => !shape.test(value));
    if (bad !== undefined) throw new ConfigError(`"${bad}" is not ${what}`);
  };
  const port = /^(\*|[0-9]{1,5})$/;
  for (const list of [settings.inboundPorts, settings.inboundPortsExcluded]) check("a port", list, port);
  for (const list of [settings.outboundPorts, settings.outboundPortsExcluded]) check("a port", list, port);
  const range = /^(\*|[0-9a-fA-F.:]+(\/[0-9]{1,3})?)$/;
  for (const list of [settings.outboundRanges, settings.outboundRangesExcluded])
    check("an address range", list, range);
  const name = /^(\*|[A-Za-z0-9_.@+-]+)$/;
  for (const list of [settings.virtualInterfaces, settings.interfacesExcluded])
    check("an interface", list, name);
  for (const list of [settings.ownerGroups, settings.ownerGroupsExcluded]) check("a group", list, name);
  for (const list of [settings.proxyUids, settings.proxyGids]) check("a user or group", list, name);
}
