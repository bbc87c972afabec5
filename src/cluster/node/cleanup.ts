// Removes everything that a cluster left on the machine, whether it ended well or was killed: found by the names in `names.ts`, and
// for processes by the pids on record. Every step is repeatable, and a failing step does not keep the others from running.

import { existsSync } from "node:fs";
import { readdir, readFile, rm, rmdir, stat, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { run } from "./command.ts";
import { netnsDir, type ClusterLayout } from "./names.ts";

export interface ProcessRecord {
  readonly role: "launcher" | "cluster";
  readonly pid: number;
  /** Clock ticks since boot, field 22 of /proc/<pid>/stat: with it a pid cannot be mistaken for a later process. */
  readonly startTicks: string;
}

/** The start time that identifies a process besides its pid; undefined when there is none (or it is a zombie). */
export async function startTicksOf(pid: number): Promise<string | undefined> {
  const text = await readFile(`/proc/${pid}/stat`, "utf8").catch(() => "");
  const fields = text.slice(text.lastIndexOf(")") + 2).split(" "); // the name before may hold spaces
  return fields[0] === "Z" || fields[0] === "X" ? undefined : fields[19];
}

export async function readRecords(layout: ClusterLayout): Promise<ProcessRecord[]> {
  const text = await readFile(layout.recordFile, "utf8").catch(() => "[]");
  try {
    return JSON.parse(text) as ProcessRecord[];
  } catch {
    return []; // cut short by a crash: what it named is found by its namespace instead
  }
}

export async function writeRecord(
  layout: ClusterLayout,
  role: ProcessRecord["role"],
  pid: number,
): Promise<void> {
  const startTicks = await startTicksOf(pid);
  if (startTicks === undefined) return;
  const others = (await readRecords(layout)).filter((record) => record.role !== role);
  await writeFile(layout.recordFile, JSON.stringify([...others, { role, pid, startTicks }]), { mode: 0o600 });
}

export async function isAlive(record: ProcessRecord): Promise<boolean> {
  return (await startTicksOf(record.pid)) === record.startTicks;
}

const politeMs = 8_000; // what a running cluster gets to end by itself

/** Ends the recorded processes: SIGTERM, then SIGKILL. Never the calling process. */
export async function endProcesses(layout: ClusterLayout): Promise<void> {
  const records = await readRecords(layout);
  const others = records.filter((record) => record.pid !== process.pid);
  const living: ProcessRecord[] = [];
  for (const record of others) if (await isAlive(record)) living.push(record);
  for (const record of living) signalQuietly(record.pid, "SIGTERM");
  const endMs = performance.now() + politeMs;
  for (const record of living) {
    while ((await isAlive(record)) && performance.now() < endMs)
      await new Promise((resolve) => setTimeout(resolve, 50));
    if (await isAlive(record)) signalQuietly(record.pid, "SIGKILL");
  }
}

function signalQuietly(pid: number, signal: "SIGTERM" | "SIGKILL"): void {
  try {
    process.kill(pid, signal);
  } catch {
    // It ended by itself.
  }
}

/** Removes containers, control groups, namespaces, links and the run directory. The cluster's own process has ended by now. */
export async function removeLeftovers(layout: ClusterLayout): Promise<void> {
  await killByNetns(layout);
  await killByCgroup(layout);
  await removeContainers(layout);
  await removeNamespaces(layout);
  await removeCgroups(layout);
  await rm(layout.runDir, { recursive: true, force: true, maxRetries: 5, retryDelay: 50 });
  await rmdir(dirname(layout.runDir)).catch(() => {}); // other clusters may be there
}

/** A cluster's process that never came to be on record is the one that lives in the node's network namespace. */
async function killByNetns(layout: ClusterLayout): Promise<void> {
  const wanted = await stat(join(netnsDir, layout.nodeNetns)).catch(() => undefined);
  if (wanted === undefined) return;
  for (const pid of (await readdir("/proc")).filter(
    (name) => /^\d+$/.test(name) && Number(name) !== process.pid,
  )) {
    const own = await stat(join("/proc", pid, "ns/net")).catch(() => undefined);
    if (own?.ino === wanted.ino && own.dev === wanted.dev) signalQuietly(Number(pid), "SIGKILL");
  }
}

/** Every process of a container is in the cluster's control group, whatever it did to its parents. */
async function killByCgroup(layout: ClusterLayout): Promise<void> {
  for (let round = 0; round < 20; round++) {
    const pids = new Set<string>();
    for (const directory of await cgroupDirectories(layout)) {
      const text = await readFile(join(directory, "cgroup.procs"), "utf8").catch(() => "");
      for (const pid of text.split("\n").filter(Boolean)) pids.add(pid);
    }
    if (pids.size === 0) return;
    for (const pid of pids) signalQuietly(Number(pid), "SIGKILL");
    await new Promise((resolve) => setTimeout(resolve, 20 * (round + 1)));
  }
}

async function removeContainers(layout: ClusterLayout): Promise<void> {
  const ids = await readdir(layout.runcRoot).catch(() => []);
  for (const id of ids) {
    await run("runc", ["--root", layout.runcRoot, "delete", "--force", id], { timeoutMs: 10_000 }).catch(
      () => {},
    );
  }
}

async function removeNamespaces(layout: ClusterLayout): Promise<void> {
  const names = (await readdir(netnsDir).catch(() => [])).filter(
    (name) => name === layout.nodeNetns || name.startsWith(layout.podNetnsPrefix),
  );
  const input = names.map((name) => `netns delete ${name}\n`).join("");
  if (input !== "") await run("ip", ["-force", "-batch", "-"], { input, timeoutMs: 20_000 }).catch(() => {});
  const left = await readdir(netnsDir).catch(() => ["?"]);
  // `ip netns` mounts its directory once; when nobody's namespace is left in it, the machine gets back what it had.
  if (left.length === 0) await run("umount", [netnsDir]).catch(() => {});
  if (left.length === 0) await rmdir(netnsDir).catch(() => {});
}

const cgroupRoot = "/sys/fs/cgroup";

/** The cluster's directories below every controller, the deepest first. */
async function cgroupDirectories(layout: ClusterLayout): Promise<string[]> {
  const controllers = await readdir(cgroupRoot).catch(() => []);
  const tops = [
    join(cgroupRoot, layout.cgroup),
    ...controllers.map((name) => join(cgroupRoot, name, layout.cgroup)),
  ];
  const found: string[] = [];
  for (const top of tops.filter((path) => existsSync(path))) {
    const below = await readdir(top, { recursive: true, withFileTypes: true }).catch(() => []);
    found.push(
      top,
      ...below.filter((entry) => entry.isDirectory()).map((entry) => join(entry.parentPath, entry.name)),
    );
  }
  return found.toSorted((left, right) => right.length - left.length);
}

async function removeCgroups(layout: ClusterLayout): Promise<void> {
  for (let round = 0; round < 10; round++) {
    const directories = await cgroupDirectories(layout);
    if (directories.length === 0) return;
    for (const directory of directories) await rmdir(directory).catch(() => {}); // busy until its last process is reaped
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}
