// The capture rules, as data and as input for iptables-restore. Chains and meaning are istio-iptables', because people
// debug by them: outbound goes to ISTIO_REDIRECT (15001), inbound to ISTIO_IN_REDIRECT (15006), the proxy's own user is let
// go, and 127.0.0.6 is the source that the proxy uses when it passes inbound traffic on to the application.

import { isIPv6 } from "node:net";
import type { CaptureSettings } from "./settings.ts";

export type Family = "ipv4" | "ipv6";
export type Table = "raw" | "mangle" | "nat";

/** The rules of each table, chain by chain, in the order in which the kernel asks them. */
export type RuleSet = ReadonlyMap<Table, ReadonlyMap<string, readonly string[]>>;

interface FamilyFacts {
  readonly loopback: string;
  /** Where the proxy connects from when it passes inbound traffic on. */
  readonly passthroughSource: string;
  readonly matches: (range: string) => boolean;
}

class RuleBuilder {
  readonly tables = new Map<Table, Map<string, string[]>>();

  chain(table: Table, name: string): string[] {
    const chains = this.tables.get(table) ?? new Map<string, string[]>();
    this.tables.set(table, chains);
    const rules = chains.get(name) ?? [];
    chains.set(name, rules);
    return rules;
  }
  append(table: Table, chain: string, rule: string): void {
    this.chain(table, chain).push(rule);
  }
  prepend(table: Table, chain: string, ...rules: readonly string[]): void {
    this.chain(table, chain).unshift(...rules);
  }
}

export function rulesFor(settings: CaptureSettings, family: Family): RuleSet {
  const facts = factsOf(settings, family);
  const rules = new RuleBuilder();
  for (const chain of ["ISTIO_INBOUND", "ISTIO_REDIRECT", "ISTIO_IN_REDIRECT", "ISTIO_OUTPUT"]) {
    rules.chain("nat", chain);
  }
  if (settings.dropInvalid) {
    rules.append("mangle", "PREROUTING", "-m conntrack --ctstate INVALID -j DROP");
  }
  skipInterfaces(rules, settings);
  rules.append("nat", "ISTIO_INBOUND", `-p tcp --dport ${settings.tunnelPort} -j RETURN`);
  rules.append("nat", "ISTIO_REDIRECT", `-p tcp -j REDIRECT --to-ports ${settings.outboundPort}`);
  rules.append("nat", "ISTIO_IN_REDIRECT", `-p tcp -j REDIRECT --to-ports ${settings.inboundPort}`);
  captureInbound(rules, settings, facts);
  captureOutbound(rules, settings, facts);
  return rules.tables;
}

function factsOf(settings: CaptureSettings, family: Family): FamilyFacts {
  if (family === "ipv6") {
    return {
      loopback: "::1/128",
      passthroughSource: "::6/128",
      matches: (range) => isIPv6(addressOf(range)),
    };
  }
  return {
    loopback: settings.loopbackRange,
    passthroughSource: "127.0.0.6/32",
    matches: (range) => !isIPv6(addressOf(range)),
  };
}

function addressOf(range: string): string {
  return range.split("/")[0] ?? "";
}

function skipInterfaces(rules: RuleBuilder, settings: CaptureSettings): void {
  const tables: readonly Table[] = settings.mode === "TPROXY" ? ["nat", "mangle"] : ["nat"];
  for (const table of tables) {
    for (const name of settings.interfacesExcluded) {
      rules.append(table, "PREROUTING", `-i ${name} -j RETURN`);
      rules.append(table, "OUTPUT", `-o ${name} -j RETURN`);
    }
  }
  // Each goes before the former, as istio-iptables inserts them.
  for (const name of settings.virtualInterfaces) rules.prepend("nat", "PREROUTING", `-i ${name} -j RETURN`);
}

function captureInbound(rules: RuleBuilder, settings: CaptureSettings, facts: FamilyFacts): void {
  const transparent = settings.mode === "TPROXY";
  if (settings.inboundPorts.length === 0) {
    // Outbound calls to the pod's own address still come back by marks.
    if (transparent) keepSource(rules, settings, facts);
    return;
  }
  const table = transparent ? "mangle" : "nat";
  if (transparent) {
    rules.append("mangle", "ISTIO_DIVERT", `-j MARK --set-mark ${settings.tproxyMark}`);
    rules.append("mangle", "ISTIO_DIVERT", "-j ACCEPT");
    const mark = `--tproxy-mark ${settings.tproxyMark}/0xffffffff`;
    const tproxy = `! -d ${facts.loopback} -p tcp -j TPROXY ${mark} --on-port ${settings.inboundPort}`;
    rules.append("mangle", "ISTIO_TPROXY", tproxy);
  }
  rules.append(table, "PREROUTING", "-p tcp -j ISTIO_INBOUND");
  const take = (port: string): void => {
    if (!transparent) return rules.append("nat", "ISTIO_INBOUND", `-p tcp${port} -j ISTIO_IN_REDIRECT`);
    const established = "-m conntrack --ctstate RELATED,ESTABLISHED";
    rules.append("mangle", "ISTIO_INBOUND", `-p tcp${port} ${established} -j ISTIO_DIVERT`);
    rules.append("mangle", "ISTIO_INBOUND", `-p tcp${port} -j ISTIO_TPROXY`);
  };
  if (settings.inboundPorts.includes("*")) {
    for (const port of settings.inboundPortsExcluded) {
      rules.append(table, "ISTIO_INBOUND", `-p tcp --dport ${port} -j RETURN`);
    }
    take("");
  } else {
    for (const port of settings.inboundPorts) take(` --dport ${port}`);
  }
  if (transparent) keepSource(rules, settings, facts);
}

/** TPROXY keeps the caller's address, so answers find their way by marks instead of by address translation. */
function keepSource(rules: RuleBuilder, settings: CaptureSettings, facts: FamilyFacts): void {
  const { tproxyMark } = settings;
  const ownMark = tproxyMark + 1;
  const toSelf = `! -d ${facts.loopback} -p tcp -o lo`;
  rules.append("mangle", "PREROUTING", `-p tcp -m mark --mark ${tproxyMark} -j CONNMARK --save-mark`);
  rules.append("mangle", "OUTPUT", `-p tcp -o lo -m mark --mark ${tproxyMark} -j RETURN`);
  for (const uid of settings.proxyUids) {
    rules.append("mangle", "OUTPUT", `${toSelf} -m owner --uid-owner ${uid} -j MARK --set-mark ${ownMark}`);
  }
  for (const gid of settings.proxyGids) {
    rules.append("mangle", "OUTPUT", `${toSelf} -m owner --gid-owner ${gid} -j MARK --set-mark ${ownMark}`);
  }
  rules.append("mangle", "OUTPUT", `-p tcp -m connmark --mark ${tproxyMark} -j CONNMARK --restore-mark`);
  rules.prepend(
    "mangle",
    "ISTIO_INBOUND",
    `-p tcp -m mark --mark ${tproxyMark} -j RETURN`,
    `-p tcp -s ${facts.passthroughSource} -i lo -j RETURN`,
    `-p tcp -i lo -m mark ! --mark ${ownMark} -j RETURN`,
  );
}

function captureOutbound(rules: RuleBuilder, settings: CaptureSettings, facts: FamilyFacts): void {
  const dns = settings.redirectDns && (settings.captureAllDns || settings.dnsServers.length > 0);
  const add = (rule: string): void => rules.append("nat", "ISTIO_OUTPUT", rule);
  rules.append("nat", "OUTPUT", "-j ISTIO_OUTPUT");
  for (const port of settings.outboundPortsExcluded) add(`-p tcp --dport ${port} -j RETURN`);
  add(`-o lo -s ${facts.passthroughSource} -j RETURN`);
  for (const uid of settings.proxyUids) letProxyGo(add, settings, facts, `--uid-owner ${uid}`, dns, true);
  for (const gid of settings.proxyGids) letProxyGo(add, settings, facts, `--gid-owner ${gid}`, dns, false);
  letGroupsGo(add, settings);
  if (dns) captureDns(rules, settings, facts);
  add(`-d ${facts.loopback} -j RETURN`);
  for (const range of settings.outboundRangesExcluded) {
    if (facts.matches(range)) add(`-d ${range} -j RETURN`);
  }
  for (const port of settings.outboundPorts) add(`-p tcp --dport ${port} -j ISTIO_REDIRECT`);
  takeRanges(rules, settings, facts);
}

/**
 * What the proxy sends itself goes out as it is; except to the application by way of the pod's own address, which comes
 * back in through the inbound side (a call of a service to itself). What the application sends over loopback is left alone.
 */
function letProxyGo(
  add: (rule: string) => void,
  settings: CaptureSettings,
  facts: FamilyFacts,
  owner: string,
  dns: boolean,
  isUser: boolean,
): void {
  // With DNS capture the proxy's own queries over loopback must reach the real server.
  const ports =
    dns && isUser ? `-m multiport ! --dports 53,${settings.tunnelPort}` : `! --dport ${settings.tunnelPort}`;
  add(`-o lo ! -d ${facts.loopback} -p tcp ${ports} -m owner ${owner} -j ISTIO_IN_REDIRECT`);
  // A loopback range that is to be captured would be let go by this.
  const loopbackCaptured = settings.outboundRanges.some((range) => range !== "*" && isLoopback(range));
  if (!loopbackCaptured) add(`-o lo ${dns ? "-p tcp ! --dport 53 " : ""}-m owner ! ${owner} -j RETURN`);
  add(`-m owner ${owner} -j RETURN`);
}

function isLoopback(range: string): boolean {
  return range.startsWith("127.") || addressOf(range) === "::1";
}

function letGroupsGo(add: (rule: string) => void, settings: CaptureSettings): void {
  if (settings.ownerGroups.length > 0 && !settings.ownerGroups.includes("*")) {
    add(`${settings.ownerGroups.map((group) => `-m owner ! --gid-owner ${group}`).join(" ")} -j RETURN`);
  }
  for (const group of settings.ownerGroupsExcluded) add(`-m owner --gid-owner ${group} -j RETURN`);
}

/** DNS goes to the proxy; its own queries get conntrack zones of their own, else they would clash with the captured ones. */
function captureDns(rules: RuleBuilder, settings: CaptureSettings, facts: FamilyFacts): void {
  const servers = settings.captureAllDns
    ? [""]
    : settings.dnsServers
        .filter((server) => facts.matches(server))
        .map((server) => `${server}/${isIPv6(server) ? 128 : 32}`);
  if (servers.length > 0) rules.append("nat", "ISTIO_OUTPUT", "-j ISTIO_OUTPUT_DNS");
  rules.append("raw", "OUTPUT", "-j ISTIO_OUTPUT_DNS");
  const to = (server: string): string => (server === "" ? "" : ` -d ${server}`);
  const from = (server: string): string => (server === "" ? "" : ` -s ${server}`);
  for (const protocol of ["tcp", "udp"]) {
    for (const server of servers) {
      const match = `-p ${protocol} --dport 53${to(server)}`;
      rules.append("nat", "ISTIO_OUTPUT_DNS", `${match} -j REDIRECT --to-ports ${settings.dnsPort}`);
    }
  }
  const owners = [
    ...settings.proxyUids.map((uid) => `--uid-owner ${uid}`),
    ...settings.proxyGids.map((gid) => `--gid-owner ${gid}`),
  ];
  for (const owner of owners) {
    rules.append("raw", "ISTIO_OUTPUT_DNS", `-p udp --dport 53 -m owner ${owner} -j CT --zone 1`);
    rules.append(
      "raw",
      "ISTIO_OUTPUT_DNS",
      `-p udp --sport ${settings.dnsPort} -m owner ${owner} -j CT --zone 2`,
    );
  }
  if (servers.length > 0) rules.append("raw", "PREROUTING", "-j ISTIO_INBOUND");
  for (const server of servers) {
    rules.append("raw", "ISTIO_OUTPUT_DNS", `-p udp --dport 53${to(server)} -j CT --zone 2`);
    rules.append("raw", "ISTIO_INBOUND", `-p udp --sport 53${from(server)} -j CT --zone 1`);
  }
}

function takeRanges(rules: RuleBuilder, settings: CaptureSettings, facts: FamilyFacts): void {
  const all = settings.outboundRanges.includes("*");
  const ranges = all
    ? [""]
    : settings.outboundRanges.filter((range) => facts.matches(range)).map((range) => `-d ${range} `);
  for (const range of ranges) {
    for (const name of settings.virtualInterfaces) {
      rules.prepend("nat", "PREROUTING", `-i ${name} ${range}-j ISTIO_REDIRECT`);
    }
    rules.append("nat", "ISTIO_OUTPUT", `${range}-j ISTIO_REDIRECT`);
  }
}

const builtIn = new Set(["PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"]);

/** Renders input for `iptables-restore --noflush`; each table is put in place as a whole or not at all. */
export function renderRestore(rules: RuleSet): string {
  const lines: string[] = [];
  for (const [table, chains] of rules) {
    lines.push(`*${table}`);
    for (const chain of chains.keys()) {
      if (!builtIn.has(chain)) lines.push(`-N ${chain}`);
    }
    for (const [chain, list] of chains) {
      for (const rule of list) lines.push(`-A ${chain} ${rule}`);
    }
    lines.push("COMMIT");
  }
  return `${lines.join("\n")}\n`;
}

/**
 * From what `iptables-save` prints, renders the input that takes away everything of ours, whoever of the mesh's programs
 * set it; "" when there is nothing. In the built-in chains that is what names our chains, our marks or skipped interfaces.
 */
export function renderCleanup(saved: string, settings: CaptureSettings): string {
  const lines: string[] = [];
  let table: string[] = [];
  for (const line of saved.split("\n")) {
    if (line.startsWith("*")) table = [line];
    const chain = /^:(ISTIO_[A-Z_]+) /.exec(line)?.[1];
    if (chain !== undefined) table.push(`-F ${chain}`, `-X ${chain}`);
    if (line.startsWith("-A ") && isOurs(line, settings)) table.push(line.replace("-A ", "-D "));
    if (line === "COMMIT" && table.length > 1) lines.push(...inOrder(table), "COMMIT");
  }
  return lines.length === 0 ? "" : `${lines.join("\n")}\n`;
}

/** First the jumps into our chains go, then the rules in them, then the chains: none may be referred to when it goes. */
function inOrder(table: readonly string[]): string[] {
  const by = (prefix: string): string[] => table.filter((line) => line.startsWith(prefix));
  return [...by("*"), ...by("-D "), ...by("-F "), ...by("-X ")];
}

function isOurs(line: string, settings: CaptureSettings): boolean {
  const chain = line.split(" ")[1] ?? "";
  if (!builtIn.has(chain)) return false;
  if (line.includes(" -j ISTIO_") || line.includes("ctstate INVALID -j DROP")) return true;
  const marks = [settings.tproxyMark, settings.tproxyMark + 1].map((mark) => `0x${mark.toString(16)}`);
  const skipped = [...settings.interfacesExcluded, ...settings.virtualInterfaces];
  return (
    marks.some((mark) => line.includes(mark)) ||
    (line.includes("-j CONNMARK") && line.includes("save-mark")) ||
    skipped.some((name) => line.endsWith(`-i ${name} -j RETURN`) || line.endsWith(`-o ${name} -j RETURN`))
  );
}
