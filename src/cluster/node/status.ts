// A Pod's status from the states of its containers. Pure, as Kubernetes documents the pod life cycle.

import type { Condition, Container, ContainerState, ContainerStatus, Pod, PodStatus } from "../types.ts";

export type ContainerRole = "init" | "sidecar" | "main";

export interface SlotState {
  readonly container: Container;
  readonly role: ContainerRole;
  readonly state: ContainerState;
  readonly lastState: ContainerState;
  readonly restartCount: number;
  readonly ready: boolean;
  readonly started: boolean;
  readonly containerId?: string;
}

export interface PodView {
  readonly slots: readonly SlotState[];
  readonly podIp?: string;
  readonly hostIp: string;
  readonly startTime: string;
  /** Set once the Pod is over for good. */
  readonly finalPhase?: "Succeeded" | "Failed";
  readonly nowIso: string;
}

/** An init container is through when it ended well, a sidecar when it has started. */
export function isInitDone(slot: SlotState): boolean {
  return slot.role === "sidecar" ? slot.started : slot.state.terminated?.exitCode === 0;
}

export function computeStatus(pod: Pod, view: PodView): PodStatus {
  const inits = view.slots.filter((slot) => slot.role !== "main");
  const mains = view.slots.filter((slot) => slot.role === "main");
  const initialized = inits.every(isInitDone) || view.finalPhase === "Succeeded";
  const phase = view.finalPhase ?? phaseOf(initialized, mains);
  const watched = view.slots.filter((slot) => slot.role !== "init");
  const notReady = watched.filter((slot) => !slot.ready).map((slot) => slot.container.name);
  const over = view.finalPhase !== undefined;
  const containersReady = !over && initialized && notReady.length === 0;
  const unreadyReason = over ? (phase === "Succeeded" ? "PodCompleted" : "PodFailed") : "ContainersNotReady";
  const unreadyText = `containers with unready status: [${notReady.join(" ")}]`;
  const gates = (pod.spec.readinessGates ?? []).map((gate) => gate.conditionType);
  const closedGates = gates.filter(
    (type) => pod.status?.conditions?.find((one) => one.type === type)?.status !== "True",
  );
  const pendingInits = inits.filter((slot) => !isInitDone(slot)).map((slot) => slot.container.name);
  const own: Condition[] = [
    { type: "PodReadyToStartContainers", status: view.podIp === undefined || over ? "False" : "True" },
    initialized
      ? { type: "Initialized", status: "True", ...(phase === "Succeeded" ? { reason: "PodCompleted" } : {}) }
      : {
          type: "Initialized",
          status: "False",
          reason: "ContainersNotInitialized",
          message: `containers with incomplete status: [${pendingInits.join(" ")}]`,
        },
    readiness(
      "Ready",
      containersReady && closedGates.length === 0,
      containersReady ? "ReadinessGatesNotReady" : unreadyReason,
      {
        text: containersReady
          ? `corresponding condition of pod readiness gate "${closedGates[0]}" is not True`
          : unreadyText,
      },
    ),
    readiness("ContainersReady", containersReady, unreadyReason, { text: unreadyText }),
    { type: "PodScheduled", status: "True" },
  ];
  return {
    phase,
    conditions: mergeConditions(pod.status?.conditions ?? [], own, view.nowIso),
    hostIP: view.hostIp,
    hostIPs: [{ ip: view.hostIp }],
    ...(view.podIp === undefined ? {} : { podIP: view.podIp, podIPs: [{ ip: view.podIp }] }),
    startTime: view.startTime,
    qosClass: pod.status?.qosClass ?? qosOf(pod),
    ...(inits.length === 0 ? {} : { initContainerStatuses: inits.map(renderSlot) }),
    containerStatuses: mains.map(renderSlot),
  };
}

function readiness(type: string, ready: boolean, reason: string, why: { text: string }): Condition {
  return ready ? { type, status: "True" } : { type, status: "False", reason, message: why.text };
}

/** Running as soon as one container runs or will be run again; Pending before. */
function phaseOf(initialized: boolean, mains: readonly SlotState[]): string {
  if (!initialized) return "Pending";
  return mains.some(
    (slot) =>
      slot.state.running !== undefined || slot.state.terminated !== undefined || slot.restartCount > 0,
  )
    ? "Running"
    : "Pending";
}

function renderSlot(slot: SlotState): ContainerStatus {
  return {
    name: slot.container.name,
    image: slot.container.image,
    imageID: slot.containerId === undefined ? "" : slot.container.image,
    ready: slot.role === "init" ? slot.state.terminated?.exitCode === 0 : slot.ready,
    started: slot.started,
    restartCount: slot.restartCount,
    state: slot.state,
    lastState: slot.lastState,
    ...(slot.containerId === undefined ? {} : { containerID: `runc://${slot.containerId}` }),
  };
}

/** Our conditions over the stored ones; those of others stay; the transition time changes with the status alone. */
export function mergeConditions(
  stored: readonly Condition[],
  own: readonly Condition[],
  nowIso: string,
): Condition[] {
  const rest = stored.filter((condition) => !own.some((one) => one.type === condition.type));
  const merged = own.map((condition) => {
    const before = stored.find((one) => one.type === condition.type);
    const lastTransitionTime =
      before?.status === condition.status && before.lastTransitionTime !== undefined
        ? before.lastTransitionTime
        : nowIso;
    return { ...condition, lastTransitionTime };
  });
  return [...merged, ...rest];
}

function qosOf(pod: Pod): string {
  const all = [...pod.spec.containers, ...(pod.spec.initContainers ?? [])];
  const stated = all.map((container) => container.resources ?? {});
  if (stated.every(({ limits, requests }) => empty(limits) && empty(requests))) return "BestEffort";
  const guaranteed = stated.every(({ limits, requests }) =>
    ["cpu", "memory"].every(
      (name) => limits?.[name] !== undefined && (requests?.[name] ?? limits[name]) === limits[name],
    ),
  );
  return guaranteed ? "Guaranteed" : "Burstable";
}

function empty(map: Readonly<Record<string, unknown>> | undefined): boolean {
  return map === undefined || Object.keys(map).length === 0;
}
