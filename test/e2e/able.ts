// Whether this machine can run the end-to-end tests. One place asks, so that all of them say the same.

import { spawnSync } from "node:child_process";
import { existsSync, readFileSync } from "node:fs";
import { delimiter, dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const root = dirname(dirname(dirname(fileURLToPath(import.meta.url))));

/** Undefined when all is there; else one clause that says what lacks and what to do. */
export function whyNoEndToEnd(): string | undefined {
  if (process.getuid?.() !== 0) return "it needs root for network namespaces and runc; run `sudo npm test`";
  for (const tool of ["runc", "iptables", "ip", "nsenter"]) {
    if (!onPath(tool)) return `${tool} is missing; run \`apt-get install runc iptables iproute2 util-linux\``;
  }
  const capabilities = BigInt(
    `0x${/^CapEff:\s*([0-9a-f]+)/m.exec(readFileSync("/proc/self/status", "utf8"))?.[1] ?? "0"}`,
  );
  const sysAdmin = 1n << 21n;
  const netAdmin = 1n << 12n;
  if ((capabilities & sysAdmin) === 0n || (capabilities & netAdmin) === 0n) {
    return "this container lacks CAP_SYS_ADMIN or CAP_NET_ADMIN; run it on a machine or in a privileged container";
  }
  if (spawnSync("unshare", ["--net", "true"]).status !== 0)
    return "the kernel refuses new network namespaces here";
  const envoy = process.env.MIZZEN_ENVOY ?? join(root, ".cache/bin/envoy");
  if (!existsSync(envoy)) return `there is no Envoy at ${envoy}; run \`sh scripts/run.sh setup\``;
  return undefined;
}

function onPath(tool: string): boolean {
  const directories = [...(process.env.PATH ?? "").split(delimiter), "/usr/sbin", "/sbin"];
  return directories.some((directory) => existsSync(join(directory, tool)));
}
