// What the machine needs before a cluster can start. Each lack is one sentence with its remedy; nothing is made while one is left.

import { accessSync, constants } from "node:fs";
import { createServer } from "node:net";
import { join } from "node:path";
import type { Problem } from "#base";

export interface Needs {
  /** Ports of 127.0.0.1; 0 needs nothing. */
  readonly ports: readonly { readonly port: number; readonly purpose: string; readonly flag: string }[];
  /** The file that must be Envoy; without, none is needed. */
  readonly envoy?: string;
}

const programs: readonly { readonly name: string; readonly debianPackage: string }[] = [
  { name: "runc", debianPackage: "runc" },
  { name: "iptables-restore", debianPackage: "iptables" },
  { name: "ip", debianPackage: "iproute2" },
  { name: "nsenter", debianPackage: "util-linux" },
];

/** Everything that is missing, in the order in which one would mend it. */
export async function checkPrerequisites(needs: Needs = { ports: [] }): Promise<Problem[]> {
  const problems: Problem[] = [];
  const add = (code: string, text: string, fix: string) =>
    problems.push({ code, severity: "error", at: {}, text, fix });
  if (process.platform !== "linux") {
    add(
      "MZ0901",
      "The standalone cluster needs Linux.",
      "Run it on a Linux machine or in a Linux virtual machine.",
    );
    return problems;
  }
  if (process.getuid?.() !== 0) {
    add(
      "MZ0902",
      "The standalone cluster makes network namespaces and containers, which needs root.",
      "Run the same command with sudo.",
    );
  }
  const missing = programs.filter(({ name }) => findProgram(name) === undefined);
  if (missing.length > 0) {
    const names = missing.map(({ name }) => name).join(", ");
    const packages = [...new Set(missing.map(({ debianPackage }) => debianPackage))].join(" ");
    add(
      "MZ0903",
      `These programs are not installed: ${names}.`,
      `Install them: apt-get install -y ${packages}`,
    );
  }
  if (needs.envoy !== undefined && !isExecutable(needs.envoy)) {
    add(
      "MZ0905",
      `There is no Envoy at ${needs.envoy}.`,
      process.env["MIZZEN_ENVOY"] === undefined
        ? "Bring it: sh scripts/run.sh setup"
        : "Let MIZZEN_ENVOY name Envoy's binary, or unset it to use the one that the set-up brings.",
    );
  }
  for (const { port, purpose, flag } of needs.ports) {
    if (port === 0 || (await isFree(port))) continue;
    add(
      "MZ0904",
      `Port ${port} of 127.0.0.1, wanted for ${purpose}, is taken.`,
      `End the program that listens there, or choose another port with ${flag}.`,
    );
  }
  return problems;
}

/** A program's path by PATH and the directories where root's programs are. */
export function findProgram(name: string): string | undefined {
  const directories = [
    ...(process.env["PATH"] ?? "").split(":"),
    "/usr/local/sbin",
    "/usr/sbin",
    "/sbin",
    "/usr/bin",
    "/bin",
  ];
  return directories.map((directory) => join(directory, name)).find(isExecutable);
}

function isExecutable(path: string): boolean {
  try {
    accessSync(path, constants.X_OK);
    return true;
  } catch {
    return false;
  }
}

function isFree(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const server = createServer();
    server.once("error", () => resolve(false));
    server.listen({ host: "127.0.0.1", port }, () => server.close(() => resolve(true)));
  });
}
