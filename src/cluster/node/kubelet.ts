// The node: runs the Pods that are bound to it, and answers for their logs.

import type { ClusterStore, ExecAsk, ExecProcess, WatchEvent } from "../api/index.ts";
import type { Pod, Volume } from "../types.ts";
import type { NodeContext } from "./context.ts";
import { readLog, type LogRequest } from "./logs.ts";
import { PodWorker } from "./pod.ts";
import { logPathOf, type ContainerSlot } from "./slot.ts";

export interface ContainerLogRequest extends LogRequest {
  readonly namespace: string;
  readonly pod: string;
  readonly container: string;
  readonly previous?: boolean;
}

export class NodeAgent {
  readonly #context: NodeContext;
  readonly #workers = new Map<string, PodWorker>();
  readonly #stops: (() => void)[] = [];
  #stopped = false;

  constructor(context: NodeContext) {
    this.#context = context;
  }

  start(): void {
    const store: ClusterStore = this.#context.store;
    const fieldSelector = `spec.nodeName=${this.#context.nodeName}`;
    this.#stops.push(
      store.watch("pods", { fieldSelector }, (event) => this.#onPod(event)),
      store.watch("configmaps", {}, (event) => this.#onData("configMap", event)),
      store.watch("secrets", {}, (event) => this.#onData("secret", event)),
    );
  }

  /** Stops every container, with `graceMs` to end by itself; the objects stay as they are. */
  async stop(graceMs: number): Promise<void> {
    this.#stopped = true;
    for (const stop of this.#stops) stop();
    await Promise.all([...this.#workers.values()].map((worker) => worker.halt(graceMs)));
  }

  #onPod(event: WatchEvent): void {
    if (this.#stopped) return;
    const pod = event.object as Pod;
    const uid = pod.metadata.uid ?? "";
    const worker = this.#workers.get(uid);
    if (event.type === "DELETED") {
      worker?.vanish().catch((error: unknown) => {
        this.#context.log.error(
          { pod: pod.metadata.name, error: String(error) },
          "a pod was not removed in order",
        );
      });
      return;
    }
    if (worker !== undefined) {
      worker.update(pod);
      return;
    }
    const fresh = new PodWorker(this.#context, pod, () => this.#workers.delete(uid));
    this.#workers.set(uid, fresh);
    fresh.step();
  }

  /** Volumes that show the changed object are written anew. */
  #onData(kind: "configMap" | "secret", event: WatchEvent): void {
    const { namespace, name } = event.object.metadata;
    for (const worker of this.#workers.values()) {
      if (worker.pod.metadata.namespace !== namespace) continue;
      if ((worker.pod.spec.volumes ?? []).some((volume) => shows(volume, kind, name)))
        worker.refreshVolumes();
    }
  }

  #slotOf(namespace: string, pod: string, container: string): { worker: PodWorker; slot: ContainerSlot } {
    const worker = [...this.#workers.values()].find(
      (one) => one.pod.metadata.namespace === namespace && one.pod.metadata.name === pod,
    );
    const slot = worker?.slot(container);
    if (worker === undefined || slot === undefined)
      throw new Error(`container "${container}" of pod "${pod}" is not on this node`);
    return { worker, slot };
  }

  /** Starts a command in a container. Throws with one sentence when the container does not run here. */
  exec({ namespace, pod, container, command }: ExecAsk): ExecProcess {
    const running = this.#slotOf(namespace, pod, container).slot.running;
    if (running === undefined) throw new Error(`container "${container}" of pod "${pod}" is not running`);
    const child = running.spawn(command);
    const exited = new Promise<number>((resolve) => {
      child.once("error", () => resolve(126));
      child.once("close", (code) => resolve(code ?? 137));
    });
    const { stdin, stdout, stderr } = child;
    return { stdin, stdout, stderr, exited, kill: () => void child.kill("SIGTERM") };
  }

  /**
   * A container's log as text chunks. Throws with one sentence when there is no such container here or it has no log yet.
   */
  logs(request: ContainerLogRequest, signal?: AbortSignal): AsyncGenerator<string> {
    const { worker, slot } = this.#slotOf(request.namespace, request.pod, request.container);
    if (request.previous === true) {
      if (slot.restartCount === 0) {
        throw new Error(
          `previous terminated container "${request.container}" in pod "${request.pod}" not found`,
        );
      }
      return readLog(
        logPathOf(this.#context, worker.pod, request.container, slot.restartCount - 1),
        request,
        () => true,
        signal,
      );
    }
    if (slot.containerId === undefined) {
      const reason = slot.state.waiting?.reason ?? "ContainerCreating";
      throw new Error(
        `container "${request.container}" in pod "${request.pod}" is waiting to start: ${reason}`,
      );
    }
    return readLog(slot.logPath, request, () => !slot.isRunning, signal);
  }
}

function shows(volume: Volume, kind: "configMap" | "secret", name: string): boolean {
  const sources = volume.projected?.sources ?? [];
  if (kind === "configMap") {
    return volume.configMap?.name === name || sources.some((source) => source.configMap?.name === name);
  }
  return volume.secret?.secretName === name || sources.some((source) => source.secret?.name === name);
}
