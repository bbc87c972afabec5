// One Pod on the node, from its first sight to its removal. Whatever happens (a new version of the object, an exit, a probe's
// verdict, a timer) leads to the same step: look at everything, start what is due, write the status.

import { rm } from "node:fs/promises";
import { join } from "node:path";
import type { ApiObject } from "../api/index.ts";
import type { Container, Pod, PodStatus } from "../types.ts";
import { isoSeconds, type NodeContext } from "./context.ts";
import { MissingReference } from "./env.ts";
import { Sandbox } from "./sandbox.ts";
import { ContainerSlot } from "./slot.ts";
import { computeStatus, isInitDone } from "./status.ts";

const sandboxRetryMs = 1_000;
const volumeRetryMs = 300; // a ConfigMap that the control plane is about to write is worth asking for often
const confirmRetryMs = 500;
const writeRetryMs = 20; // a status usually loses to another writer of the same Pod
const sidecarGraceMinMs = 2_000; // what is left to a sidecar when the containers before it used up the grace period

export class PodWorker {
  readonly uid: string;
  readonly #context: NodeContext;
  readonly #slots: readonly ContainerSlot[];
  readonly #onRemoved: () => void;
  readonly #startTime: string;
  #pod: Pod;
  #sandbox: Sandbox | undefined;
  #volumesWritten = false;
  #finalPhase: "Succeeded" | "Failed" | undefined;
  #stepping = false;
  #stepAgain = false;
  #halted = false;
  #ending: Promise<void> | undefined;
  #timer: NodeJS.Timeout | undefined;
  #timerAtMs = Number.POSITIVE_INFINITY;
  #refreshTimer: NodeJS.Timeout | undefined;
  #written = "";
  #writing = false;
  #writeAgain = false;

  constructor(context: NodeContext, pod: Pod, onRemoved: () => void) {
    this.#context = context;
    this.#pod = pod;
    this.uid = pod.metadata.uid ?? "";
    this.#onRemoved = onRemoved;
    this.#startTime = pod.status?.startTime ?? isoSeconds(Date.now());
    const phase = pod.status?.phase;
    this.#finalPhase = phase === "Succeeded" || phase === "Failed" ? phase : undefined;
    const changed = () => this.step();
    const make = (container: Container, role: "init" | "sidecar" | "main") =>
      new ContainerSlot(context, pod, container, role, changed);
    this.#slots = [
      ...(pod.spec.initContainers ?? []).map((one) =>
        make(one, one.restartPolicy === "Always" ? "sidecar" : "init"),
      ),
      ...pod.spec.containers.map((one) => make(one, "main")),
    ];
  }

  get pod(): Pod {
    return this.#pod;
  }

  slot(container: string): ContainerSlot | undefined {
    return this.#slots.find((slot) => slot.container.name === container);
  }

  /** A new version of the object. */
  update(pod: Pod): void {
    this.#pod = pod;
    for (const slot of this.#slots) slot.updatePod(pod);
    this.step();
  }

  /** The object is gone from the store without waiting for the node: everything ends at once. */
  vanish(): Promise<void> {
    this.#ending ??= this.#end(0, { confirm: false });
    return this.#ending;
  }

  /** The node stops; the object stays as it is, and the Pod starts anew with the next node. */
  async halt(graceMs: number): Promise<void> {
    this.#halted = true;
    this.#clearTimers();
    await Promise.all(
      this.#slots.map((slot) => slot.stop(graceMs, this.#sandbox?.podIp ?? "", { withHook: false })),
    );
    await this.#settle();
  }

  /** An object that a volume may show has changed. */
  refreshVolumes(): void {
    const sandbox = this.#sandbox;
    if (sandbox === undefined || !this.#volumesWritten || this.#halted) return;
    void sandbox.writeVolumes(this.#pod).then(
      () => this.#planTokenRefresh(),
      (error: unknown) =>
        this.#context.log.debug(
          { pod: this.#pod.metadata.name, error: String(error) },
          "a volume was not renewed",
        ),
    );
  }

  step(): void {
    if (this.#stepping) {
      this.#stepAgain = true;
      return;
    }
    this.#stepping = true;
    void this.#look().then(
      () => this.#stepped(),
      (error: unknown) => {
        this.#context.log.error(
          { pod: this.#pod.metadata.name, error: String(error) },
          "a pod's step failed",
        );
        this.#later(sandboxRetryMs);
        this.#stepped();
      },
    );
  }

  #stepped(): void {
    this.#stepping = false;
    if (!this.#stepAgain) return;
    this.#stepAgain = false;
    this.step();
  }

  async #look(): Promise<void> {
    if (this.#halted || this.#ending !== undefined) {
      if (!this.#halted) this.#publish();
      return;
    }
    if (this.#pod.metadata.deletionTimestamp !== undefined) {
      this.#ending = this.#end(this.#graceMs(), { confirm: true });
      this.#ending.catch((error: unknown) => {
        this.#context.log.error(
          { pod: this.#pod.metadata.name, error: String(error) },
          "a pod was not removed in order",
        );
      });
      return;
    }
    if (this.#finalPhase === undefined && (await this.#prepare())) this.#advance();
    this.#publish();
  }

  /** Network and volumes; false while one of them has to be waited for. */
  async #prepare(): Promise<boolean> {
    if (this.#sandbox === undefined) {
      try {
        this.#sandbox = await Sandbox.create(this.#context, this.#pod);
      } catch (error) {
        this.#context.events.record(this.#pod, "Warning", "FailedCreatePodSandBox", String(error));
        this.#later(sandboxRetryMs);
        return false;
      }
      this.#publish(); // the address is known to everyone while the volumes are written
    }
    if (this.#volumesWritten) return true;
    try {
      await this.#sandbox.writeVolumes(this.#pod);
      this.#volumesWritten = true;
      this.#planTokenRefresh();
      return true;
    } catch (error) {
      const text = error instanceof Error ? error.message : String(error);
      this.#context.events.record(this.#pod, "Warning", "FailedMount", `MountVolume.SetUp failed: ${text}`);
      this.#later(error instanceof MissingReference ? volumeRetryMs : sandboxRetryMs);
      return false;
    }
  }

  /** Init containers one after the other, sidecars until they have started, then all others at once. */
  #advance(): void {
    for (const slot of this.#slots.filter((one) => one.role !== "main")) {
      if (slot.role === "init" && isInitDone(slot)) continue;
      if (
        slot.role === "init" &&
        slot.state.terminated !== undefined &&
        this.#pod.spec.restartPolicy === "Never"
      ) {
        this.#finishSoon("Failed");
        return;
      }
      this.#startWhenDue(slot);
      if (!isInitDone(slot) && !(slot.role === "sidecar" && this.#mainsBegan())) return;
    }
    const mains = this.#slots.filter((slot) => slot.role === "main");
    for (const slot of mains) if (this.#mayRun(slot)) this.#startWhenDue(slot);
    if (mains.every((slot) => slot.state.terminated !== undefined && !this.#mayRun(slot))) {
      this.#finishSoon(mains.every((slot) => slot.state.terminated?.exitCode === 0) ? "Succeeded" : "Failed");
    }
  }

  /** A sidecar that restarts later does not hold back containers that once ran. */
  #mainsBegan(): boolean {
    return this.#slots.some((slot) => slot.role === "main" && slot.containerId !== undefined);
  }

  #mayRun(slot: ContainerSlot): boolean {
    const ended = slot.state.terminated;
    if (ended === undefined) return true;
    const policy = this.#pod.spec.restartPolicy ?? "Always";
    return policy === "Always" || (policy === "OnFailure" && ended.exitCode !== 0);
  }

  #startWhenDue(slot: ContainerSlot): void {
    if (slot.isRunning || slot.starting || this.#sandbox === undefined) return;
    const waitMs = slot.retryAtMs - performance.now();
    if (waitMs <= 0) void slot.start(this.#sandbox);
    else {
      slot.showBackoff();
      this.#later(waitMs);
    }
  }

  #finishSoon(phase: "Succeeded" | "Failed"): void {
    this.#finish(phase).catch((error: unknown) => {
      this.#context.log.error(
        { pod: this.#pod.metadata.name, error: String(error) },
        "a pod did not finish in order",
      );
    });
  }

  /** All work is done or has failed for good: the sidecars end, the status stays. */
  async #finish(phase: "Succeeded" | "Failed"): Promise<void> {
    if (this.#finalPhase !== undefined) return;
    this.#finalPhase = phase;
    await this.#stopSlots(this.#graceMs());
    this.#clearTimers();
    await this.#sandbox?.remove();
    this.#publish();
  }

  async #end(graceMs: number, options: { confirm: boolean }): Promise<void> {
    this.#clearTimers();
    if (this.#slots.some((slot) => slot.isRunning)) {
      for (const slot of this.#slots.filter((one) => one.isRunning)) {
        this.#context.events.record(
          this.#pod,
          "Normal",
          "Killing",
          `Stopping container ${slot.container.name}`,
        );
      }
      await this.#stopSlots(graceMs);
    }
    await this.#settle();
    if (this.#finalPhase === undefined) await this.#sandbox?.remove();
    await rm(join(this.#context.layout.logsDir, this.uid), { recursive: true, force: true });
    if (options.confirm) await this.#confirmRemoval();
    this.#onRemoved();
  }

  /** Waits for starts under way, and ends what they started. */
  async #settle(): Promise<void> {
    const halted = () => this.#halted; // a halting step is over soon, and writes nothing
    while ((this.#stepping && !halted()) || this.#slots.some((slot) => slot.starting)) {
      await new Promise((resolve) => setTimeout(resolve, 10));
    }
    await Promise.all(this.#slots.map((slot) => slot.stop(0, "", { withHook: false })));
  }

  /** Containers first, all together; then the sidecars, the last one first. */
  async #stopSlots(graceMs: number): Promise<void> {
    const endMs = performance.now() + graceMs;
    const podIp = this.#sandbox?.podIp ?? "";
    const sidecars = this.#slots.filter((slot) => slot.role === "sidecar");
    const others = this.#slots.filter((slot) => slot.role !== "sidecar");
    await Promise.all(others.map((slot) => slot.stop(graceMs, podIp, { withHook: true })));
    for (const slot of sidecars.toReversed()) {
      const leftMs = graceMs === 0 ? 0 : Math.max(sidecarGraceMinMs, endMs - performance.now());
      await slot.stop(leftMs, podIp, { withHook: true });
    }
  }

  /** Tells the store that nothing of the Pod is left. */
  async #confirmRemoval(): Promise<void> {
    const { namespace = "", name } = this.#pod.metadata;
    for (let tries = 0; tries < 5; tries++) {
      try {
        await this.#context.store.delete("pods", namespace, name, {
          gracePeriodSeconds: 0,
          preconditions: { uid: this.uid },
        });
        return;
      } catch (error) {
        if (this.#context.store.get("pods", namespace, name)?.metadata.uid !== this.uid) return;
        this.#context.log.warn({ pod: name, error: String(error) }, "a pod's removal was not confirmed");
        await new Promise((resolve) => setTimeout(resolve, confirmRetryMs));
      }
    }
  }

  #graceMs(): number {
    const { deletionGracePeriodSeconds } = this.#pod.metadata;
    return (deletionGracePeriodSeconds ?? this.#pod.spec.terminationGracePeriodSeconds ?? 30) * 1_000;
  }

  #planTokenRefresh(): void {
    const atMs = this.#sandbox?.nextRefreshAtMs();
    clearTimeout(this.#refreshTimer);
    if (atMs === undefined || this.#halted) return;
    this.#refreshTimer = setTimeout(() => this.refreshVolumes(), Math.max(1_000, atMs - Date.now()));
  }

  /** Steps again after the delay, or earlier when something else asked for it. */
  #later(delayMs: number): void {
    const atMs = performance.now() + delayMs;
    if (this.#timerAtMs <= atMs) return;
    clearTimeout(this.#timer);
    this.#timerAtMs = atMs;
    this.#timer = setTimeout(() => {
      this.#timerAtMs = Number.POSITIVE_INFINITY;
      this.step();
    }, delayMs + 1);
  }

  #clearTimers(): void {
    clearTimeout(this.#timer);
    clearTimeout(this.#refreshTimer);
  }

  /** Writes the status when it differs from what was written last; one write at a time, the newest state wins. */
  #publish(): void {
    if (this.#writing) {
      this.#writeAgain = true;
      return;
    }
    const { namespace = "", name } = this.#pod.metadata;
    const stored = this.#context.store.get("pods", namespace, name) as Pod | undefined;
    if (stored === undefined || stored.metadata.uid !== this.uid) return;
    const status = this.#status(stored);
    const text = JSON.stringify(status);
    if (text === this.#written) return;
    this.#writing = true;
    void this.#write({ ...stored, status } as ApiObject, text);
  }

  async #write(object: ApiObject, text: string): Promise<void> {
    try {
      await this.#context.store.updateStatus("pods", object);
      this.#written = text;
    } catch (error) {
      this.#context.log.debug(
        { pod: object.metadata.name, error: String(error) },
        "a pod's status was not written",
      );
      this.#writeAgain = true;
      await new Promise((resolve) => setTimeout(resolve, writeRetryMs));
    }
    this.#writing = false;
    if (!this.#writeAgain || this.#halted) return;
    this.#writeAgain = false;
    this.#publish();
  }

  #status(stored: Pod): PodStatus {
    return computeStatus(stored, {
      slots: this.#slots,
      podIp: this.#sandbox?.podIp,
      hostIp: this.#context.plan.nodeIp,
      startTime: this.#startTime,
      ...(this.#finalPhase === undefined ? {} : { finalPhase: this.#finalPhase }),
      nowIso: isoSeconds(Date.now()),
    });
  }
}
