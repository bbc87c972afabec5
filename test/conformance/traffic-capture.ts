// Scores the capture rules against istio-iptables' and istio-nftables' own cases: the same settings must lead to the same
// rules in the same chains in the same order, whatever the order of the options within a rule.

import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import type { Score } from "./score.ts";
import { renderRestore, rulesFor, type RuleSet } from "../../src/apps/agent/capture/rules.ts";
import { defaultSettings, splitList, type CaptureSettings } from "../../src/apps/agent/capture/settings.ts";

interface Case {
  readonly case: string;
  readonly config: Readonly<Record<string, unknown>>;
  readonly golden: string;
}

export async function run(dir: string): Promise<Score> {
  const failures: { id: string; reason: string }[] = [];
  let passed = 0;
  for (const tool of ["istio-iptables", "istio-nftables"]) {
    const indexPath = join(dir, tool, "index.json");
    if (!existsSync(indexPath)) continue;
    const index = JSON.parse(readFileSync(indexPath, "utf8")) as { base: Case["config"]; cases: Case[] };
    for (const one of index.cases) {
      const golden = readFileSync(join(dir, tool, one.golden), "utf8");
      const settings = settingsOf({ ...index.base, ...one.config });
      const reason =
        tool === "istio-iptables" ? compareIptables(golden, settings) : compareNftables(golden, settings);
      if (reason === undefined) passed += 1;
      else failures.push({ id: `${tool}/${one.case}`, reason });
    }
  }
  return { name: "traffic-capture", passed, failed: failures.length, knownDifferences: 0, failures };
}

/** Go's field names of the configuration to ours. */
function settingsOf(config: Readonly<Record<string, unknown>>): CaptureSettings {
  const text = (name: string, otherwise = ""): string => String(config[name] ?? otherwise);
  const list = (name: string, otherwise = ""): string[] => splitList(text(name, otherwise));
  const strings = (name: string): string[] => (Array.isArray(config[name]) ? config[name].map(String) : []);
  return {
    ...defaultSettings,
    outboundPort: Number(text("ProxyPort")),
    inboundPort: Number(text("InboundCapturePort")),
    tunnelPort: Number(text("InboundTunnelPort")),
    proxyUids: list("ProxyUID"),
    proxyGids: list("ProxyGID"),
    mode: text("InboundInterceptionMode") === "TPROXY" ? "TPROXY" : "REDIRECT",
    tproxyMark: Number(text("InboundTProxyMark")),
    inboundPorts: list("InboundPortsInclude"),
    inboundPortsExcluded: list("InboundPortsExclude"),
    outboundRanges: list("OutboundIPRangesInclude"),
    outboundRangesExcluded: list("OutboundIPRangesExclude"),
    outboundPorts: list("OutboundPortsInclude"),
    outboundPortsExcluded: list("OutboundPortsExclude"),
    ownerGroups: list("OwnerGroupsInclude"),
    ownerGroupsExcluded: list("OwnerGroupsExclude"),
    virtualInterfaces: list("RerouteVirtualInterfaces"),
    interfacesExcluded: list("ExcludeInterfaces"),
    redirectDns: config["RedirectDNS"] === true,
    captureAllDns: config["CaptureAllDNS"] === true,
    dnsServers: [...strings("DNSServersV4"), ...strings("DNSServersV6")],
    dropInvalid: config["DropInvalid"] === true,
    ipv6: config["EnableIPv6"] === true,
    loopbackRange: text("HostIPv4LoopbackCidr"),
  };
}

type Chains = Map<string, string[]>;

function compareIptables(golden: string, settings: CaptureSettings): string | undefined {
  // The golden repeats a table once for each family, IPv4 first.
  const expected = parseRestore(golden);
  const ours = parseRestore(renderRestore(rulesFor(settings, "ipv4")));
  const ours6 = settings.ipv6 ? parseRestore(renderRestore(rulesFor(settings, "ipv6"))) : [];
  return difference(expected, [...ours, ...ours6]);
}

function difference(
  expected: readonly [string, Chains][],
  ours: readonly [string, Chains][],
): string | undefined {
  const flat = (tables: readonly [string, Chains][]): string[] => {
    const seen = new Map<string, number>();
    return tables
      .flatMap(([table, chains]) => {
        const turn = (seen.get(table) ?? 0) + 1;
        seen.set(table, turn);
        return [...chains].flatMap(([chain, rules]) =>
          rules.map((rule, at) => `${table}#${turn} ${chain} ${at}: ${rule}`),
        );
      })
      .toSorted();
  };
  const want = flat(expected);
  const have = flat(ours);
  const missing = want.find((line) => !have.includes(line));
  if (missing !== undefined) return `missing: ${missing}`;
  const surplus = have.find((line) => !want.includes(line));
  return surplus === undefined ? undefined : `surplus: ${surplus}`;
}

function parseRestore(text: string): [string, Chains][] {
  const tables: [string, Chains][] = [];
  let chains: Chains = new Map();
  for (const line of text.split("\n").map((raw) => raw.trim())) {
    if (line.startsWith("*")) {
      chains = new Map();
      tables.push([line.slice(1).trim(), chains]);
    }
    const [, verb, chain = "", position, rule = ""] = /^-(A|I) (\S+) (?:(\d+) )?(.*)$/.exec(line) ?? [];
    if (verb === undefined) continue;
    const rules = chains.get(chain) ?? [];
    chains.set(chain, rules);
    if (verb === "I") rules.splice(Number(position ?? 1) - 1, 0, normalise(rule));
    else rules.push(normalise(rule));
  }
  return tables;
}

/** One text for rules of the same meaning: the options of a rule in alphabetic order, the target last. */
function normalise(rule: string): string {
  const [match = "", target = ""] = rule.replace("--to-port ", "--to-ports ").split(/(?=-j )/);
  const options = match.trim().match(/(! )?-{1,2}[a-z][a-z-]*( (?!-)(! --mark )?[^ ]+)*/g) ?? [];
  return [...options.map((option) => option.trim()).toSorted(), target.trim()].join(" ").trim();
}

function compareNftables(golden: string, settings: CaptureSettings): string | undefined {
  const expected = goldenOfNft(golden);
  const ours = renderNft(settings);
  const missing = [...expected].find(
    ([chain, rules]) => rules.join("\n") !== (ours.get(chain) ?? []).join("\n"),
  );
  if (missing !== undefined) {
    const [chain, rules] = missing;
    const have = ours.get(chain) ?? [];
    const at = rules.findIndex((rule, index) => rule !== have[index]);
    return `${chain} ${at}: expected "${rules[at] ?? "nothing"}", have "${have[at] ?? "nothing"}"`;
  }
  const surplus = [...ours.keys()].find(
    (chain) => (ours.get(chain)?.length ?? 0) > 0 && !expected.has(chain),
  );
  return surplus === undefined ? undefined : `surplus chain ${surplus}`;
}

/** The golden's rules, chain by chain, in words that both notations share. */
function goldenOfNft(text: string): Chains {
  const chains: Chains = new Map();
  for (const line of text.split("\n")) {
    const [, verb, table = "", chain = "", rule = ""] =
      /^(add|insert) rule inet istio-proxy-(\S+) (\S+) (.*)$/.exec(line.trim()) ?? [];
    if (verb === undefined) continue;
    const key = `${table} ${chain}`;
    const rules = chains.get(key) ?? [];
    chains.set(key, rules);
    const index = /^index (\d+) (.*)$/.exec(rule);
    if (verb === "insert")
      rules.splice(index === null ? 0 : Number(index[1]), 0, wordsOfNft(index?.[2] ?? rule));
    else rules.push(wordsOfNft(rule));
  }
  return interleaved(chains);
}

function wordsOfNft(rule: string): string {
  return rule
    .replace(/ counter/, "")
    .replace(/^counter /, "")
    .replace(/meta (skuid|skgid|mark|l4proto)/g, "$1")
    .replace(/l4proto (tcp|udp) (?=.*\b\1 [sd]port)/, "")
    .split(
      /(?=(?<![-\w])(?:oifname|iifname|ip6? [sd]addr|tcp [sd]port|udp [sd]port|l4proto|skuid|skgid|jump|return|redirect|ct |mark |accept|tproxy|drop))/,
    )
    .map((word) => word.trim())
    .filter((word) => word !== "")
    .toSorted()
    .join(" ; ");
}

/** nftables' tables hold both families at once, so each chain is compared as two lists. */
function interleaved(chains: Chains): Chains {
  const split: Chains = new Map();
  for (const [chain, rules] of chains) {
    const isV6 = (rule: string): boolean => rule.includes("ip6 ");
    const isV4 = (rule: string): boolean => /\bip [sd]addr/.test(rule);
    split.set(
      `${chain} v4`,
      rules.filter((rule) => !isV6(rule)),
    );
    split.set(
      `${chain} v6`,
      rules.filter((rule) => !isV4(rule)),
    );
  }
  return withoutIdleJumps(split);
}

/** Neighbours that all return may stand in any order. */
function inAnyOrder(rules: readonly string[]): string[] {
  const returns = (rule: string): boolean => / ?\breturn\b/.test(rule);
  const ordered: string[] = [];
  for (let at = 0; at < rules.length;) {
    let end = at + 1;
    if (returns(rules[at] ?? "")) while (end < rules.length && returns(rules[end] ?? "")) end += 1;
    ordered.push(...rules.slice(at, end).toSorted());
    at = end;
  }
  return ordered;
}

/** A jump into a chain that has no rule for the family does nothing. */
function withoutIdleJumps(chains: Chains): Chains {
  const isIdle = (chain: string, rule: string): boolean => {
    const target = /jump (\S+)/.exec(rule)?.[1];
    if (target === undefined) return false;
    const [table = "", , family = ""] = chain.split(" ");
    return (chains.get(`${table} ${target} ${family}`) ?? []).length === 0;
  };
  return new Map(
    [...chains].map(([chain, rules]) => [chain, inAnyOrder(rules.filter((rule) => !isIdle(chain, rule)))]),
  );
}

/** Our rules in nftables' words; the rules of the two families side by side. */
function renderNft(settings: CaptureSettings): Chains {
  const chains: Chains = new Map();
  const take = (rules: RuleSet, family: "v4" | "v6"): void => {
    for (const [table, list] of rules) {
      for (const [chain, texts] of list) {
        const key = `${table} ${chain.toLowerCase().replaceAll("_", "-")} ${family}`;
        chains.set(
          key,
          texts.map((text) => wordsOfNft(nftOf(text, family))),
        );
      }
    }
  };
  const four = rulesFor(settings, "ipv4");
  take(four, "v4");
  // Without IPv6 the rules of both families are IPv4's where no address is named.
  take(settings.ipv6 ? rulesFor(settings, "ipv6") : withoutAddresses(four), "v6");
  return withoutIdleJumps(chains);
}

function withoutAddresses(rules: RuleSet): RuleSet {
  const kept = (list: readonly string[]): string[] => list.filter((rule) => !/ ?-[sd] [0-9]/.test(rule));
  return new Map(
    [...rules].map(([table, chains]) => [
      table,
      new Map([...chains].map(([chain, list]) => [chain, kept(list)])),
    ]),
  );
}

function nftOf(rule: string, family: "v4" | "v6"): string {
  const ip = family === "v4" ? "ip" : "ip6";
  const protocol = /-p (tcp|udp)/.exec(rule)?.[1] ?? "tcp";
  return rule
    .replace(/! -d (\S+)/, `${ip} daddr != $1`)
    .replace(/-d (\S+)/, `${ip} daddr $1`)
    .replace(/-s (\S+)/, `${ip} saddr $1`)
    .replace(/-m multiport ! --dports (\d+),(\d+)/, `${protocol} dport != { $1, $2 }`)
    .replace(/! --dport (\d+)/, `${protocol} dport != $1`)
    .replace(/--dport (\d+)/, `${protocol} dport $1`)
    .replace(/--sport (\d+)/, `${protocol} sport $1`)
    .replace(/-m owner ! --uid-owner (\S+)/g, "skuid != $1")
    .replace(/-m owner ! --gid-owner (\S+)/g, "skgid != $1")
    .replace(/-m owner --uid-owner (\S+)/g, "skuid $1")
    .replace(/-m owner --gid-owner (\S+)/g, "skgid $1")
    .replace(/-o (\S+)/, "oifname $1")
    .replace(/-i (\S+)/, "iifname $1")
    .replace(/-j REDIRECT --to-ports (\d+)/, "redirect to :$1")
    .replace(/-j CT --zone (\d)/, "ct zone set $1")
    .replace(/-j MARK --set-mark (\d+)/, "mark set $1")
    .replace(/-m mark --mark (\d+)/, "mark $1")
    .replace(/-m mark ! --mark (\d+)/, "mark != $1")
    .replace(/-m connmark --mark (\d+)/, "ct mark $1")
    .replace("-j CONNMARK --save-mark", "ct mark set mark")
    .replace("-j CONNMARK --restore-mark", "mark set ct mark")
    .replace("-m conntrack --ctstate RELATED,ESTABLISHED", "ct state related,established")
    .replace(/-j TPROXY --tproxy-mark (\d+)\S* --on-port (\d+)/, `tproxy ${ip} to :$2 mark set $1 accept`)
    .replace("-j ACCEPT", "accept")
    .replace(/-j RETURN/, "return")
    .replace(/-j (ISTIO_\S+)/, (_all, chain: string) => `jump ${chain.toLowerCase().replaceAll("_", "-")}`)
    .replace(/-p (tcp|udp)/, "l4proto $1");
}
