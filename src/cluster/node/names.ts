// Every name and path that a standalone cluster leaves on the machine, derived from the cluster's name alone: what is not derived
// here cannot be cleaned up after a crash.

import { createHash } from "node:crypto";
import { homedir } from "node:os";
import { join } from "node:path";

export interface ClusterLayout {
  readonly name: string;
  /** Survives `down`: the store, the cluster's CA, the kubeconfig, the cluster's log. */
  readonly stateDir: string;
  /** Gone after `down`: sockets, pods, logs. */
  readonly runDir: string;
  readonly podsDir: string;
  readonly logsDir: string;
  readonly runcRoot: string;
  readonly apiSocket: string;
  /** Pids (with start times) of the host side and of the cluster process. */
  readonly recordFile: string;
  readonly kubeconfig: string;
  readonly clusterLog: string;
  /** The network namespace that holds the pod network. */
  readonly nodeNetns: string;
  /** Network namespaces of pods begin with it; the dot cannot be part of a cluster's name, so no other cluster's match. */
  readonly podNetnsPrefix: string;
  /** The parent of every container's control group, below each controller's root. */
  readonly cgroup: string;
}

export const netnsDir = "/run/netns";

const clusterNamePattern = /^[a-z0-9]([a-z0-9-]{0,28}[a-z0-9])?$/;

/** One sentence when `name` cannot name a cluster, otherwise undefined. */
export function clusterNameFault(name: string): string | undefined {
  if (clusterNamePattern.test(name)) return undefined;
  return `A cluster's name has 1 to 30 lower-case letters, digits and dashes, and "${name}" does not fit.`;
}

/** `home` is what MIZZEN_HOME names; by default `~/.mizzen`. */
export function layoutOf(
  name: string,
  options: { home?: string; stateDir?: string; runDir?: string } = {},
): ClusterLayout {
  const fault = clusterNameFault(name);
  if (fault !== undefined) throw new Error(fault);
  const stateDir = options.stateDir ?? join(options.home ?? join(homedir(), ".mizzen"), name);
  const runDir = options.runDir ?? join("/run/mizzen", name);
  return {
    name,
    stateDir,
    runDir,
    podsDir: join(runDir, "pods"),
    logsDir: join(runDir, "logs"),
    runcRoot: join(runDir, "runc"),
    apiSocket: join(runDir, "api.sock"),
    recordFile: join(runDir, "processes.json"),
    kubeconfig: join(stateDir, "kubeconfig"),
    clusterLog: join(stateDir, "cluster.log"),
    nodeNetns: `mizzen-${name}`,
    podNetnsPrefix: `mizzen-${name}.`,
    cgroup: `mizzen-${name}`,
  };
}

/** Ten characters that stand for a Pod in names with little room (a link's name has at most 15 characters). */
export function podKey(uid: string): string {
  return createHash("sha256").update(uid).digest("hex").slice(0, 10);
}

export function podNetns(layout: ClusterLayout, uid: string): string {
  return `${layout.podNetnsPrefix}${podKey(uid)}`;
}

export function publishSocket(layout: ClusterLayout, hostPort: number): string {
  return join(layout.runDir, `publish-${hostPort}.sock`);
}
