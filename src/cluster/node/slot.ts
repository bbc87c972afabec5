// One container of a Pod over all its restarts: how it starts, what is known of it, when it may start again.

import { existsSync } from "node:fs";
import { chmod, mkdir, readFile, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { findImage, type ProgramImage } from "../images/image.ts";
import type { Container, ContainerState, Pod, Service } from "../types.ts";
import {
  ContainerStartError,
  forgetContainer,
  startContainer,
  type ContainerExit,
  type RunningContainer,
} from "./container.ts";
import { dataReader, factsOf, isoSeconds, type NodeContext } from "./context.ts";
import { expand, MissingReference, resolveEnv, serviceEnv } from "./env.ts";
import { LogCapture } from "./logs.ts";
import { podKey } from "./names.ts";
import { argsOf, renderOciConfig, securityFault, type OciMount } from "./oci.ts";
import { attempt, startProbe, type ProbeLoop } from "./probe.ts";
import { hostnameOf } from "./resolv.ts";
import { makeRootfs, sharedHostPaths } from "./rootfs.ts";
import { isFile, type Sandbox } from "./sandbox.ts";
import type { ContainerRole, SlotState } from "./status.ts";

const backoffFirstMs = 10_000; // after the second failure; the first restart is immediate
const backoffMaxMs = 300_000;
const backoffResetMs = 600_000; // a container that ran this long starts with a clean slate
const configRetryMs = 1_000;
const imageRetryMs = 10_000;
const terminationMessageMax = 4_096;

/** The next back-off after a container that ran for `ranMs` ended. */
export function nextBackoffMs(beforeMs: number, ranMs: number): number {
  if (ranMs >= backoffResetMs || beforeMs < 0) return 0;
  return beforeMs === 0 ? backoffFirstMs : Math.min(beforeMs * 2, backoffMaxMs);
}

export class ContainerSlot implements SlotState {
  readonly container: Container;
  readonly role: ContainerRole;
  state: ContainerState = { waiting: { reason: "PodInitializing" } };
  lastState: ContainerState = {};
  restartCount: number;
  ready = false;
  started = false;
  containerId: string | undefined;
  /** A start is under way. */
  starting = false;
  /** Not before this time (performance.now) may it start again. */
  retryAtMs = 0;
  readonly #context: NodeContext;
  readonly #changed: () => void;
  #pod: Pod;
  #running: RunningContainer | undefined;
  #probes: ProbeLoop[] = [];
  #backoffMs = -1;
  #attempts: number;
  #stopping = false;

  constructor(
    context: NodeContext,
    pod: Pod,
    container: Container,
    role: ContainerRole,
    changed: () => void,
  ) {
    this.#context = context;
    this.#pod = pod;
    this.container = container;
    this.role = role;
    this.#changed = changed;
    const stored = [...(pod.status?.containerStatuses ?? []), ...(pod.status?.initContainerStatuses ?? [])];
    const before = stored.find((status) => status.name === container.name);
    // Containers do not outlive the node's process: one that the store remembers was lost with it.
    this.restartCount =
      before === undefined ? 0 : before.restartCount + (before.containerID === undefined ? 0 : 1);
    this.#attempts = this.restartCount;
    if (before?.state.terminated !== undefined) this.lastState = before.state;
    if (role === "main" && (pod.spec.initContainers ?? []).length === 0)
      this.state = { waiting: { reason: "ContainerCreating" } };
  }

  get isRunning(): boolean {
    return this.#running !== undefined;
  }

  /** Undefined while the container does not run. */
  get running(): RunningContainer | undefined {
    return this.#running;
  }

  get logPath(): string {
    return logPathOf(this.#context, this.#pod, this.container.name, this.#attempts);
  }

  updatePod(pod: Pod): void {
    this.#pod = pod;
  }

  /** Starts the container; what prevents it becomes its waiting state and a time to try again. Never throws. */
  async start(sandbox: Sandbox): Promise<void> {
    if (this.starting || this.isRunning || this.#stopping) return;
    this.starting = true;
    const again = this.containerId !== undefined || this.#backoffMs >= 0;
    try {
      const image = this.#image();
      if (image !== undefined) await this.#launch(sandbox, image, again);
    } catch (error) {
      this.#explainFailure(error, again);
    } finally {
      this.starting = false;
      this.#changed();
    }
  }

  #image(): ProgramImage | undefined {
    const image = findImage(this.#context.images, this.container.image);
    if (image !== undefined) return image;
    const message = `Container image "${this.container.image}" stands for no local program (see the standalone cluster's image table)`;
    this.#wait("ErrImageNeverPull", message, imageRetryMs);
    this.#event("Warning", "Failed", message);
    return undefined;
  }

  async #launch(sandbox: Sandbox, image: ProgramImage, again: boolean): Promise<void> {
    const pod = this.#pod;
    const fault = securityFault(pod.spec, this.container, image);
    if (fault !== undefined) throw new MissingReference(fault);
    const env = this.#env(pod, image, sandbox.podIp);
    const attemptNumber = again ? this.#attempts + 1 : this.#attempts;
    const bundle = join(sandbox.directory, "containers", this.container.name, String(attemptNumber));
    await rm(bundle, { recursive: true, force: true });
    const mounts = await this.#mounts(sandbox, image, env, bundle);
    const points = await Promise.all(
      mounts
        .filter(needsMountPoint)
        .map(async (mount) => ({ path: mount.destination, isFile: await isFile(mount.source) })),
    );
    await makeRootfs(join(bundle, "rootfs"), points);
    const id = `${podKey(pod.metadata.uid ?? "")}.${this.container.name}.${attemptNumber}`;
    const hostname = hostnameOf(pod.spec, pod.metadata.name);
    const config = renderOciConfig({
      spec: pod.spec,
      container: this.container,
      image,
      args: argsOf(this.container, image).map((word) =>
        expandable(this.container, word) ? expand(word, env) : word,
      ),
      env: { HOSTNAME: hostname, HOME: "/", ...env },
      hostname,
      netnsPath: sandbox.netnsPath,
      cgroupsPath: `/${this.#context.layout.cgroup}/${podKey(pod.metadata.uid ?? "")}/${this.container.name}`,
      mounts,
    });
    if (!again)
      this.#event("Normal", "Pulled", `Container image "${this.container.image}" already present on machine`);
    await this.#run(sandbox, bundle, id, config, attemptNumber, again);
  }

  async #run(
    sandbox: Sandbox,
    bundle: string,
    id: string,
    config: object,
    attemptNumber: number,
    again: boolean,
  ): Promise<void> {
    this.#attempts = attemptNumber;
    if (again) this.restartCount++;
    await rm(logPathOf(this.#context, this.#pod, this.container.name, attemptNumber - 2), { force: true });
    const capture = new LogCapture(join(bundle, "output"), this.logPath, () => new Date().toISOString());
    let running: RunningContainer;
    try {
      await chmod(capture.rawPath, 0o666); // the umask of this process may have taken the permission away
      running = await startContainer(this.#context.layout.runcRoot, bundle, id, config, capture.rawFd);
    } catch (error) {
      capture.releaseRaw();
      capture.close();
      await forgetContainer(this.#context.layout.runcRoot, id);
      throw error;
    }
    capture.releaseRaw();
    this.#event("Normal", "Started", `Started container ${this.container.name}`);
    if (this.state.terminated !== undefined) this.lastState = this.state;
    this.#running = running;
    this.containerId = id;
    this.state = { running: { startedAt: isoSeconds(running.startedAtMs) } };
    void this.#watch(running, capture, bundle);
    if (this.#stopping) running.signal("SIGKILL");
    await this.#afterStart(sandbox, running);
  }

  async #afterStart(sandbox: Sandbox, running: RunningContainer): Promise<void> {
    const hook = this.container.lifecycle?.postStart;
    if (hook !== undefined) {
      const result = await attempt(hook, this.container, running, sandbox.podIp, 60_000);
      if (result.kind === "failure") {
        this.#event("Warning", "FailedPostStartHook", result.message);
        running.signal("SIGKILL");
        return;
      }
    }
    if (this.#running !== running || this.#stopping || this.role === "init") return;
    const startup = this.container.startupProbe;
    if (startup === undefined) {
      this.#becomeStarted(sandbox, running);
      return;
    }
    const probes: ProbeLoop[] = this.#probes;
    const loop = startProbe({
      probe: startup,
      eager: true,
      attempt: (timeoutMs) => attempt(startup, this.container, running, sandbox.podIp, timeoutMs),
      onFailure: (message) => this.#event("Warning", "Unhealthy", `Startup probe failed: ${message}`),
      onJudged: (good) => {
        if (good) {
          loop.stop();
          this.#becomeStarted(sandbox, running);
          this.#changed();
        } else this.#killUnhealthy(running, "startup");
      },
    });
    probes.push(loop);
  }

  #becomeStarted(sandbox: Sandbox, running: RunningContainer): void {
    if (this.#running !== running) return;
    this.started = true;
    const { readinessProbe, livenessProbe } = this.container;
    if (readinessProbe === undefined) this.ready = true;
    else {
      const loop = startProbe({
        probe: readinessProbe,
        eager: true,
        attempt: (timeoutMs) => attempt(readinessProbe, this.container, running, sandbox.podIp, timeoutMs),
        onFailure: (message) => this.#event("Warning", "Unhealthy", `Readiness probe failed: ${message}`),
        onJudged: (good) => {
          if (this.#running !== running || this.ready === good) return;
          this.ready = good;
          this.#changed();
        },
      });
      this.#probes.push(loop);
    }
    if (livenessProbe === undefined) return;
    const loop = startProbe({
      probe: livenessProbe,
      eager: false,
      attempt: (timeoutMs) => attempt(livenessProbe, this.container, running, sandbox.podIp, timeoutMs),
      onFailure: (message) => this.#event("Warning", "Unhealthy", `Liveness probe failed: ${message}`),
      onJudged: (good) => {
        if (!good) this.#killUnhealthy(running, "liveness");
      },
    });
    this.#probes.push(loop);
  }

  #killUnhealthy(running: RunningContainer, probe: "liveness" | "startup"): void {
    if (this.#running !== running) return;
    this.#stopProbes();
    const own = probe === "liveness" ? this.container.livenessProbe : this.container.startupProbe;
    const graceMs =
      (own?.terminationGracePeriodSeconds ?? this.#pod.spec.terminationGracePeriodSeconds ?? 30) * 1_000;
    this.#event(
      "Normal",
      "Killing",
      `Container ${this.container.name} failed ${probe} probe, will be restarted`,
    );
    running.signal("SIGTERM");
    const timer = setTimeout(() => running.signal("SIGKILL"), graceMs);
    void running.exited.then(() => clearTimeout(timer));
  }

  /** preStop, SIGTERM, and SIGKILL once `graceMs` have gone. Resolves when the container is gone; it does not start again. */
  async stop(graceMs: number, podIp: string, options: { withHook: boolean }): Promise<void> {
    this.#stopping = true;
    this.#stopProbes();
    const running = this.#running;
    if (running === undefined) return;
    const endMs = performance.now() + graceMs;
    const hook = this.container.lifecycle?.preStop;
    const timer = setTimeout(() => running.signal("SIGKILL"), graceMs);
    if (hook !== undefined && options.withHook && graceMs > 0) {
      const left = new Promise((resolve) =>
        setTimeout(resolve, Math.max(0, endMs - performance.now())).unref(),
      );
      const result = await Promise.race([
        attempt(hook, this.container, running, podIp, graceMs),
        left,
        running.exited,
      ]);
      if (isFailure(result)) this.#event("Warning", "FailedPreStopHook", result.message);
    }
    running.signal("SIGTERM");
    await running.exited;
    clearTimeout(timer);
  }

  /** Waits for the container's end. Never throws: what cannot be tidied now goes with the Pod's directory. */
  async #watch(running: RunningContainer, capture: LogCapture, bundle: string): Promise<void> {
    const exit = await running.exited;
    capture.close();
    const message = (await readFile(join(bundle, "termination-log"), "utf8").catch(() => "")).slice(
      0,
      terminationMessageMax,
    );
    this.#ended(running, exit, message);
    await rm(bundle, { recursive: true, force: true }).catch(() => {});
  }

  #ended(running: RunningContainer, exit: ContainerExit, message: string): void {
    this.#stopProbes();
    if (this.#running !== running) return;
    this.#running = undefined;
    this.ready = false;
    this.started = false;
    this.state = {
      terminated: {
        exitCode: exit.exitCode,
        reason: exit.exitCode === 0 ? "Completed" : "Error",
        ...(message === "" ? {} : { message }),
        startedAt: isoSeconds(running.startedAtMs),
        finishedAt: isoSeconds(exit.atMs),
        containerID: `runc://${running.id}`,
      },
    };
    this.#scheduleRestart(exit.atMs - running.startedAtMs);
    this.#changed();
  }

  #scheduleRestart(ranMs: number): void {
    this.#backoffMs = nextBackoffMs(this.#backoffMs, ranMs);
    this.retryAtMs = performance.now() + this.#backoffMs;
  }

  /** Shows that the restart has to wait; called by the Pod once it is clear that there will be one. */
  showBackoff(): void {
    if (this.#backoffMs <= 0 || this.state.terminated === undefined) return;
    const pod = `${this.#pod.metadata.name}_${this.#pod.metadata.namespace}(${this.#pod.metadata.uid})`;
    const message = `back-off ${this.#backoffMs / 1_000}s restarting failed container=${this.container.name} pod=${pod}`;
    this.lastState = this.state;
    this.state = { waiting: { reason: "CrashLoopBackOff", message } };
    this.#event(
      "Warning",
      "BackOff",
      `Back-off restarting failed container ${this.container.name} in pod ${pod}`,
    );
  }

  #explainFailure(error: unknown, again: boolean): void {
    const message = error instanceof Error ? error.message : String(error);
    if (error instanceof ContainerStartError) {
      this.#event("Warning", "Failed", `Error: ${message}`);
      if (!again) this.containerId = undefined;
      const finishedAt = isoSeconds(Date.now());
      this.state = { terminated: { exitCode: 128, reason: error.reason, message, finishedAt } };
      this.#scheduleRestart(0);
      return;
    }
    const reason = error instanceof MissingReference ? error.reason : "CreateContainerError";
    this.#event("Warning", "Failed", `Error: ${message}`);
    this.#wait(reason, message, configRetryMs);
  }

  #wait(reason: string, message: string, retryMs: number): void {
    this.state = { waiting: { reason, message } };
    this.retryAtMs = performance.now() + retryMs;
  }

  #env(pod: Pod, image: ProgramImage, podIp: string): Record<string, string> {
    const store = this.#context.store;
    const links =
      pod.spec.enableServiceLinks === false
        ? []
        : (store.list("services", { namespace: pod.metadata.namespace }).items as Service[]);
    const base = { ...image.env, ...serviceEnv(links, { host: this.#context.plan.apiServiceIp, port: 443 }) };
    return resolveEnv(pod, this.container, base, factsOf(this.#context, podIp), dataReader(store));
  }

  async #mounts(
    sandbox: Sandbox,
    image: ProgramImage,
    env: Readonly<Record<string, string>>,
    bundle: string,
  ): Promise<OciMount[]> {
    await mkdir(bundle, { recursive: true, mode: 0o700 });
    const messageFile = join(bundle, "termination-log");
    await writeFile(messageFile, "");
    await chmod(messageFile, 0o666);
    const host = sharedHostPaths.filter((path) => existsSync(path));
    const mounts: OciMount[] = [
      ...host.map((path) => ({ destination: path, source: path, readOnly: true })),
      ...image.mounts.map((mount) => ({ destination: mount.path, source: mount.hostPath, readOnly: true })),
      {
        destination: this.container.terminationMessagePath ?? "/dev/termination-log",
        source: messageFile,
        readOnly: false,
      },
      ...(await sandbox.mountsOf(this.#pod, this.container, env)),
    ];
    // A path below another one is mounted after it.
    return mounts.toSorted(
      (left, right) => left.destination.split("/").length - right.destination.split("/").length,
    );
  }

  #stopProbes(): void {
    for (const loop of this.#probes) loop.stop();
    this.#probes = [];
  }

  #event(type: "Normal" | "Warning", reason: string, message: string): void {
    const list = this.role === "main" ? "containers" : "initContainers";
    this.#context.events.record(this.#pod, type, reason, message, `spec.${list}{${this.container.name}}`);
  }
}

/** Where the log of one attempt of a container is; the one before it stays for `kubectl logs --previous`. */
export function logPathOf(context: NodeContext, pod: Pod, container: string, attemptNumber: number): string {
  return join(context.layout.logsDir, pod.metadata.uid ?? "", container, `${attemptNumber}.log`);
}

/** Words of the Pod are expanded, those of an image are not. */
function expandable(container: Container, word: string): boolean {
  return (container.command ?? []).includes(word) || (container.args ?? []).includes(word);
}

/** The rest is made by the runtime inside file systems that it mounts itself. */
function needsMountPoint(mount: OciMount): boolean {
  return !["/dev/", "/proc/", "/sys/", "/usr/"].some((prefix) => mount.destination.startsWith(prefix));
}

function isFailure(result: unknown): result is { kind: "failure"; message: string } {
  return typeof result === "object" && result !== null && "kind" in result && result.kind === "failure";
}
