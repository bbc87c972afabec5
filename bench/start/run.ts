// `bench start`: the phases of `npm start` as the command line reports them, and what each program of the running mesh
// holds in memory. It brings up a mesh of its own beside others, and takes it down. Needs root, as the mesh does.

import { spawn, type ChildProcess } from "node:child_process";
import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { residentMiBOf } from "../envoy/rig.ts";
import type { Table } from "../table.ts";

export interface StartOptions {
  /** The gateway's HTTP port; two more behind it are used. */
  readonly port: number;
  readonly log: (line: string) => void;
}

const root = join(import.meta.dirname, "../..");
const name = "bench-start";
const upLimitMs = 240_000;
/** The first configuration is taken and garbage collected. */
const settleMs = 5_000;

export async function benchStart({ port, log }: StartOptions): Promise<Table> {
  const state = mkdtempSync(join(tmpdir(), "mizzen-bench-start-"));
  const ports = ["--port", String(port), "--https-port", String(port + 1), "--api-port", String(port + 2)];
  const child = spawn(join(root, "bin/mizzen"), ["up", "--demo", "--name", name, ...ports], {
    stdio: ["ignore", "pipe", "inherit"],
    // The cluster's state is kept below the home directory: this one starts from nothing, and leaves nothing.
    env: { ...process.env, HOME: state },
  });
  try {
    const output = await untilUp(child, log);
    await sleep(settleMs);
    return {
      title: "start: `mizzen up --demo`",
      columns: ["part", "figure"],
      rows: [...phasesOf(output), ...memoryRows(child.pid ?? 0)],
    };
  } finally {
    await ended(child);
    rmSync(state, { recursive: true, force: true });
  }
}

async function untilUp(child: ChildProcess, log: (line: string) => void): Promise<string> {
  let output = "";
  child.stdout?.setEncoding("utf8").on("data", (text: string) => {
    output += text;
    log(text.trimEnd());
  });
  const untilMs = performance.now() + upLimitMs;
  while (!output.includes("The mesh runs")) {
    if (child.exitCode !== null) throw new Error(`mizzen up ended with ${child.exitCode}`);
    if (performance.now() > untilMs) throw new Error("the mesh does not come up");
    await sleep(50);
  }
  return output;
}

/** `ok     control plane     1.5 s` */
function phasesOf(output: string): (readonly string[])[] {
  const phases = [...output.matchAll(/\bok\s+(\S.*?)\s{2,}([\d.]+ s)/g)];
  const total = /after ([\d.]+ s)/.exec(output)?.[1] ?? "";
  return [...phases.map(([, phase = "", took = ""]) => [phase, took]), ["all", total]];
}

const programs: readonly (readonly [title: string, pattern: RegExp])[] = [
  ["control plane", /control\.mjs discovery/],
  ["agent", /agent\.mjs proxy/],
  ["Envoy", /envoy -c /],
  ["cluster (API server, controllers, node)", /cluster\.mjs/],
];

/** Resident memory of the processes below the one that we started. */
function memoryRows(from: number): (readonly string[])[] {
  const below = descendantsOf(from);
  return programs.map(([title, pattern]) => {
    const sizes = below.flatMap((pid) => (pattern.test(commandOf(pid)) ? [residentMiBOf(pid)] : []));
    const sum = sizes.reduce((total, size) => total + size, 0);
    const each = sizes.length === 0 ? "none found" : `${(sum / sizes.length).toFixed(0)} MiB`;
    return [`memory: ${title}`, `${each}${sizes.length > 1 ? `, mean of ${sizes.length}` : ""}`];
  });
}

function descendantsOf(from: number): number[] {
  const children = new Map<number, number[]>();
  for (const entry of readdirSync("/proc").filter((one) => /^\d+$/.test(one))) {
    const parent = Number(/^PPid:\s+(\d+)/m.exec(readOrEmpty(`/proc/${entry}/status`))?.[1] ?? 0);
    children.set(parent, [...(children.get(parent) ?? []), Number(entry)]);
  }
  const found: number[] = [];
  for (const waiting = [from]; waiting.length > 0;) {
    const pid = waiting.pop() ?? 0;
    found.push(pid);
    waiting.push(...(children.get(pid) ?? []));
  }
  return found;
}

function commandOf(pid: number): string {
  return readOrEmpty(`/proc/${pid}/cmdline`).replaceAll("\0", " ");
}

/** Processes end while they are looked at. */
function readOrEmpty(file: string): string {
  try {
    return readFileSync(file, "utf8");
  } catch {
    return "";
  }
}

async function ended(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null) return;
  const gone = new Promise((resolve) => child.once("exit", resolve));
  child.kill("SIGINT");
  await gone;
}
