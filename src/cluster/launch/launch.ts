// The host side of a standalone cluster: checks the machine, makes the node's network namespace, starts the one process that is the
// cluster inside it, and lends it ports of 127.0.0.1. It holds no state of its own: whatever ends it, the next start cleans up.

import { spawn, type ChildProcess } from "node:child_process";
import { closeSync, openSync } from "node:fs";
import { mkdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { renderProblem } from "#base";
import { endProcesses, isAlive, readRecords, removeLeftovers, writeRecord } from "../node/cleanup.ts";
import { layoutOf, netnsDir, publishSocket, type ClusterLayout } from "../node/names.ts";
import { createNodeNetwork, planNetwork } from "../node/network.ts";
import { apiUrlMark, isFromCluster } from "./messages.ts";
import { clusterProgram, envoyPath } from "./package.ts";
import { checkPrerequisites, type Needs } from "./prerequisites.ts";
import { defaultPublications, listenOnHost, type Publication } from "./publish.ts";

export interface LaunchOptions {
  readonly name: string;
  /** The directory of all clusters' states, by default `~/.mizzen`. */
  readonly home?: string;
  /** On 127.0.0.1; 0 takes any free one. */
  readonly apiPort?: number;
  readonly publish?: readonly Publication[];
  readonly podCidr?: string;
  readonly serviceCidr?: string;
  /** A YAML file with more images; see the image table. */
  readonly imagesFile?: string;
  /** Host paths that Pods may name in hostPath volumes, read-only. None by default. */
  readonly hostPathsAllowed?: readonly string[];
  readonly logLevel?: string;
  /** Refuse to start without Envoy: a mesh is to run here. */
  readonly needsEnvoy?: boolean;
  /** Told at the beginning of each phase, for a progress display. */
  readonly onPhase?: (phase: string) => void;
}

export interface PublishedPort extends Publication {
  /** `http://127.0.0.1:8080` without path. */
  readonly address: string;
}

export interface RunningCluster {
  readonly layout: ClusterLayout;
  readonly kubeconfigPath: string;
  readonly apiUrl: string;
  readonly clusterPid: number;
  readonly published: readonly PublishedPort[];
  /** Resolves when the cluster's process has ended: asked for, or by a fault (`expected` false; see its log). Everything is removed by then. */
  readonly exited: Promise<{ readonly expected: boolean }>;
  /** Ends the cluster and removes everything but its stored state. */
  stop(): Promise<void>;
}

export const defaultApiPort = 16_443;
const readyMaxMs = 30_000; // beyond it the start has failed
const stopMaxMs = 12_000; // beyond it the cluster's process is killed

/** Starts a cluster and resolves when its API answers. Throws with one sentence and a remedy, and then leaves nothing behind. */
export async function launchCluster(options: LaunchOptions): Promise<RunningCluster> {
  const layout = layoutOf(options.name, { home: options.home });
  const publications = options.publish ?? defaultPublications;
  options.onPhase?.("checking the machine");
  const envoy = options.needsEnvoy === true ? { envoy: envoyPath() } : {};
  await requirePrerequisites({ ports: [], ...envoy });
  await refuseSecond(layout);
  await endProcesses(layout);
  await removeLeftovers(layout);
  // After the clean-up, since what is left of an earlier cluster may hold them.
  await requirePrerequisites({ ports: neededPorts(options, publications) });
  await mkdir(layout.stateDir, { recursive: true, mode: 0o700 });
  await mkdir(layout.podsDir, { recursive: true, mode: 0o700 });
  const closers: (() => Promise<void>)[] = [];
  let child: ChildProcess | undefined;
  try {
    await writeRecord(layout, "launcher", process.pid);
    options.onPhase?.("making the network");
    const api = await listenOnHost(options.apiPort ?? defaultApiPort, layout.apiSocket);
    closers.push(api.close);
    const published: PublishedPort[] = [];
    for (const publication of publications) {
      // The socket bears the port that was asked for, or the Service's own where any will do.
      const host = await listenOnHost(publication.hostPort, publicationSocket(layout, publication));
      closers.push(host.close);
      const scheme = publication.port === 443 ? "https" : "http";
      published.push({ ...publication, hostPort: host.port, address: `${scheme}://127.0.0.1:${host.port}` });
    }
    await createNodeNetwork(layout, planNetwork(options.podCidr, options.serviceCidr));
    options.onPhase?.("starting the cluster");
    child = spawnCluster(layout, options, publications);
    await writeRecord(layout, "cluster", child.pid ?? 0);
    const apiUrl = `https://127.0.0.1:${api.port}`;
    const template = await readyMessage(child, layout);
    await writeFile(layout.kubeconfig, template.replaceAll(apiUrlMark, apiUrl), { mode: 0o600 });
    const info: ClusterInfo = { apiUrl, published };
    await writeFile(join(layout.runDir, "cluster.json"), JSON.stringify(info), { mode: 0o600 });
    return runningCluster(layout, child, closers, info);
  } catch (error) {
    await killed(child);
    await Promise.all(closers.map((close) => close()));
    await removeLeftovers(layout);
    throw error;
  }
}

async function killed(child: ChildProcess | undefined): Promise<void> {
  if (child?.pid === undefined || child.exitCode !== null || child.signalCode !== null) return;
  const ended = new Promise((resolve) => child.once("exit", resolve));
  child.kill("SIGKILL");
  await ended;
}

/** The unix socket of a published port; with any free port it is named by the Service's. */
export function publicationSocket(layout: ClusterLayout, publication: Publication): string {
  return publishSocket(
    layout,
    publication.hostPort === 0 ? publication.port + 100_000 : publication.hostPort,
  );
}

interface ClusterInfo {
  readonly apiUrl: string;
  readonly published: readonly PublishedPort[];
}

async function refuseSecond(layout: ClusterLayout): Promise<void> {
  const records = await readRecords(layout);
  const alive = await Promise.all(records.map(isAlive));
  // A cluster whose host side was killed is about to end by itself; the clean-up waits for it.
  if (!records.some((record, index) => record.role === "launcher" && alive[index] === true)) return;
  for (const [index, record] of records.entries()) {
    if (record.role === "cluster" && alive[index] === true) {
      throw new Error(
        `The cluster "${layout.name}" is already running (process ${record.pid}): end it with "mizzen down --name ${layout.name}" first.`,
      );
    }
  }
}

async function requirePrerequisites(needs: Needs): Promise<void> {
  const problems = await checkPrerequisites(needs);
  if (problems.length > 0) throw new Error(problems.map(renderProblem).join("\n"));
}

function neededPorts(options: LaunchOptions, publications: readonly Publication[]): Needs["ports"] {
  return [
    { port: options.apiPort ?? defaultApiPort, purpose: "the Kubernetes API", flag: "--api-port" },
    ...publications.map(({ hostPort, service, flag = "--publish" }) => ({
      port: hostPort,
      purpose: service,
      flag,
    })),
  ];
}

function spawnCluster(
  layout: ClusterLayout,
  options: LaunchOptions,
  publications: readonly Publication[],
): ChildProcess {
  const args = [
    "--name",
    layout.name,
    "--state-dir",
    layout.stateDir,
    "--run-dir",
    layout.runDir,
    ...publications.flatMap(({ service, port, hostPort }) => ["--publish", `${service}:${port}=${hostPort}`]),
    ...(options.podCidr === undefined ? [] : ["--pod-cidr", options.podCidr]),
    ...(options.serviceCidr === undefined ? [] : ["--service-cidr", options.serviceCidr]),
    ...(options.imagesFile === undefined ? [] : ["--images", options.imagesFile]),
    ...(options.hostPathsAllowed ?? []).flatMap((path) => ["--allow-host-path", path]),
    ...(options.logLevel === undefined ? [] : ["--log-level", options.logLevel]),
  ];
  const log = openSync(layout.clusterLog, "w", 0o600);
  const program = [
    "nsenter",
    `--net=${join(netnsDir, layout.nodeNetns)}`,
    process.execPath,
    clusterProgram(),
    ...args,
  ];
  // A session of its own: Ctrl-C in a terminal reaches the host side alone, which then ends the cluster in order.
  const child = spawn(program[0] ?? "", program.slice(1), {
    detached: true,
    stdio: ["ignore", log, log, "ipc"],
  });
  closeSync(log);
  return child;
}

/** Resolves with the kubeconfig's template once the API answers; throws with the cluster's own words, or the end of its log. */
function readyMessage(child: ChildProcess, layout: ClusterLayout): Promise<string> {
  return new Promise((resolve, reject) => {
    const fail = (text: string) => {
      clearTimeout(timer);
      void logEnd(layout).then((end) => reject(new Error(`The cluster did not start: ${text}${end}`)));
    };
    const timer = setTimeout(() => fail(`no word from it within ${readyMaxMs / 1_000} s`), readyMaxMs);
    child.once("error", (error) => fail(error.message));
    child.once("exit", (code) => fail(`its process ended (${code ?? "killed"})`));
    child.on("message", (message: unknown) => {
      if (!isFromCluster(message)) return;
      if (message.kind === "failed") {
        fail(message.text);
        return;
      }
      clearTimeout(timer);
      child.removeAllListeners("exit");
      resolve(message.kubeconfigTemplate);
    });
  });
}

const logEndChars = 1_500;

async function logEnd(layout: ClusterLayout): Promise<string> {
  const text = await readFile(layout.clusterLog, "utf8").catch(() => "");
  return text === "" ? "" : `\nThe end of ${layout.clusterLog}:\n${text.slice(-logEndChars).trim()}`;
}

function runningCluster(
  layout: ClusterLayout,
  child: ChildProcess,
  closers: readonly (() => Promise<void>)[],
  info: ClusterInfo,
): RunningCluster {
  let expected = false;
  const ended = new Promise<void>((resolve) => {
    if (child.exitCode !== null || child.signalCode !== null) resolve();
    else child.once("exit", () => resolve());
  });
  const exited = ended.then(async () => {
    await Promise.all(closers.map((close) => close()));
    await removeLeftovers(layout);
    return { expected };
  });
  return {
    layout,
    kubeconfigPath: layout.kubeconfig,
    apiUrl: info.apiUrl,
    clusterPid: child.pid ?? 0,
    published: info.published,
    exited,
    async stop() {
      expected = true;
      if (child.connected) child.send({ kind: "stop" });
      const timer = setTimeout(() => child.kill("SIGKILL"), stopMaxMs);
      await exited;
      clearTimeout(timer);
    },
  };
}

/** Ends a cluster that another process started, running or left over, and removes all of it but its state. True when there was something. */
export async function teardownCluster(name: string, options: { home?: string } = {}): Promise<boolean> {
  const layout = layoutOf(name, options);
  await requirePrerequisites({ ports: [] });
  const status = await clusterStatus(name, options);
  await endProcesses(layout);
  await removeLeftovers(layout);
  return status.kind !== "absent";
}

export type ClusterStatus =
  | { readonly kind: "absent"; readonly layout: ClusterLayout }
  /** Something of an earlier run is left; the next start or `teardownCluster` removes it. */
  | { readonly kind: "leftover"; readonly layout: ClusterLayout }
  | {
      readonly kind: "running";
      readonly layout: ClusterLayout;
      readonly clusterPid: number;
      readonly apiUrl: string;
      readonly published: readonly PublishedPort[];
    };

export async function clusterStatus(name: string, options: { home?: string } = {}): Promise<ClusterStatus> {
  const layout = layoutOf(name, options);
  const records = await readRecords(layout);
  const text = await readFile(join(layout.runDir, "cluster.json"), "utf8").catch(() => undefined);
  const cluster = records.find((record) => record.role === "cluster");
  if (cluster !== undefined && text !== undefined && (await isAlive(cluster))) {
    const info = JSON.parse(text) as ClusterInfo;
    return { kind: "running", layout, clusterPid: cluster.pid, ...info };
  }
  return { kind: records.length > 0 ? "leftover" : "absent", layout };
}
