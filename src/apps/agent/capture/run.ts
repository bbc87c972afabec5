// `agent capture`: sets the rules in the pod's network namespace, once, before anything else runs there. It may be run
// again: what is there of the mesh's is taken away first, in one step with what is new.

import { execFileSync } from "node:child_process";
import { existsSync, readFileSync } from "node:fs";
import { networkInterfaces } from "node:os";
import { parseCapture, type CaptureSettings } from "./settings.ts";
import { renderCleanup, renderRestore, rulesFor, type Family } from "./rules.ts";

const tools = {
  ipv4: { save: "iptables-save", restore: "iptables-restore" },
  ipv6: { save: "ip6tables-save", restore: "ip6tables-restore" },
} as const;
const toolPath = "/usr/sbin:/usr/bin:/sbin:/bin";

/** Returns the exit code. Throws with what the tool said when a rule cannot be set: then the pod must not start. */
export function runCapture(args: readonly string[]): number {
  const { settings, dryRun, skipApply, cleanupOnly } = parseCapture(args, {
    dnsServers: nameservers(),
    ipv6: hasIpv6(),
    env: process.env,
  });
  if (skipApply) {
    process.stdout.write("capture rules are another's to set; nothing done\n");
    return 0;
  }
  const families: readonly Family[] = settings.ipv6 ? ["ipv4", "ipv6"] : ["ipv4"];
  for (const family of families) {
    const wanted = cleanupOnly ? "" : renderRestore(rulesFor(settings, family));
    if (dryRun) process.stdout.write(`# ${family}\n${wanted}`);
    else apply(family, wanted, settings);
  }
  if (settings.mode === "TPROXY" && !dryRun) routeMarked(settings, families, cleanupOnly);
  const what = `${settings.mode}, inbound ${listed(settings.inboundPorts)}, outbound ${listed(settings.outboundRanges)}`;
  process.stdout.write(cleanupOnly ? "capture rules taken away\n" : `capture rules set: ${what}\n`);
  return 0;
}

function apply(family: Family, wanted: string, settings: CaptureSettings): void {
  const tool = tools[family];
  const cleanup = renderCleanup(run(tool.save, []), settings);
  if (cleanup !== "") run(tool.restore, ["--noflush"], cleanup);
  if (wanted !== "") run(tool.restore, ["--noflush"], wanted);
}

/** What is marked is for this host, whatever its address says: a table with one local route. */
function routeMarked(settings: CaptureSettings, families: readonly Family[], cleanupOnly: boolean): void {
  const table = String(settings.tproxyTable);
  const rule = ["fwmark", String(settings.tproxyMark), "lookup", table];
  for (const family of families) {
    const flag = family === "ipv6" ? "-6" : "-4";
    const any = family === "ipv6" ? "::/0" : "0.0.0.0/0";
    // Absent is as good as deleted.
    tryRun("ip", [flag, "rule", "del", ...rule]);
    tryRun("ip", [flag, "route", "del", "local", any, "dev", "lo", "table", table]);
    if (cleanupOnly) continue;
    run("ip", [flag, "rule", "add", ...rule]);
    run("ip", [flag, "route", "add", "local", any, "dev", "lo", "table", table]);
  }
}

function run(command: string, args: readonly string[], input?: string): string {
  const env = { ...process.env, PATH: `${process.env["PATH"] ?? ""}:${toolPath}` };
  try {
    return execFileSync(command, args, { input, env, encoding: "utf8", stdio: ["pipe", "pipe", "pipe"] });
  } catch (cause) {
    const said = cause instanceof Error && "stderr" in cause ? String(cause.stderr).trim() : String(cause);
    throw new Error(`${command} ${args.join(" ")} failed: ${said === "" ? String(cause) : said}`, { cause });
  }
}

function tryRun(command: string, args: readonly string[]): void {
  try {
    run(command, args);
  } catch {
    return;
  }
}

function nameservers(): string[] {
  const path = "/etc/resolv.conf";
  if (!existsSync(path)) return [];
  return [...readFileSync(path, "utf8").matchAll(/^nameserver\s+(\S+)/gm)].map(([, server = ""]) => server);
}

/** Whether the pod has an IPv6 address beyond loopback and link-local ones. */
function hasIpv6(): boolean {
  const addresses = Object.values(networkInterfaces()).flatMap((list) => list ?? []);
  return addresses.some(
    ({ family, internal, address }) => family === "IPv6" && !internal && !address.startsWith("fe80"),
  );
}

function listed(values: readonly string[]): string {
  return values.length === 0 ? "nothing" : values.join(",");
}
