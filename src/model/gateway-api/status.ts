// Statuses as they are written: what was found laid over what stands there, so that entries of other controllers stay
// and conditions that hold on keep their time.

import type { Condition, ParentReference } from "#objects";
import type { Findings } from "./findings.ts";
import type { GatewayStatus } from "./gateway-status.ts";
import { gatewayController, meshController } from "./classes.ts";
import { gatewayApiGroup, referenceText } from "./references.ts";
import type { ParentStatus } from "./routes.ts";

/** When and of what the status is. */
export interface StatusMoment {
  /** RFC 3339, whole seconds. */
  readonly now: string;
  readonly generation: number;
}

interface StandingParent {
  readonly parentRef?: ParentReference;
  readonly ancestorRef?: ParentReference;
  readonly controllerName: string;
  readonly conditions?: readonly Condition[];
}

interface StandingListener {
  readonly name: string;
  readonly conditions?: readonly Condition[];
}

/** The status that an object has, as far as it is carried over. */
export interface StandingStatus {
  readonly conditions?: readonly Condition[];
  readonly addresses?: readonly unknown[];
  readonly listeners?: readonly StandingListener[];
  readonly parents?: readonly StandingParent[];
  readonly ancestors?: readonly StandingParent[];
}

/** Gateway API lets a policy have no more ancestors. */
const ancestorsMax = 16;

export function renderConditions(
  standing: readonly Condition[] | undefined,
  findings: Findings,
  { now, generation }: StatusMoment,
): Condition[] {
  const left = new Map(Object.entries(findings));
  const render = (type: string, before: Condition | undefined): Condition => {
    const { status, reason, message } = findings[type]!;
    const since = before?.status === status ? (before.lastTransitionTime ?? now) : now;
    return { type, status, reason, message, observedGeneration: generation, lastTransitionTime: since };
  };
  const kept = (standing ?? []).map((condition) => {
    if (!left.delete(condition.type)) return condition;
    return render(condition.type, condition);
  });
  return [...kept, ...[...left.keys()].toSorted().map((type) => render(type, undefined))];
}

export function renderGatewayStatus(
  standing: StandingStatus,
  { conditions, addresses, listeners, attachedListenerSets }: GatewayStatus,
  moment: StatusMoment,
): Readonly<Record<string, unknown>> {
  const shown = addresses ?? standing.addresses;
  return {
    ...(shown === undefined ? {} : { addresses: shown }),
    conditions: renderConditions(withoutStale(standing.conditions, conditions), conditions, moment),
    listeners: renderListeners(standing, listeners, moment),
    ...(attachedListenerSets === 0 ? {} : { attachedListenerSets }),
  };
}

export function renderListenerSetStatus(
  standing: StandingStatus,
  { conditions, listeners }: Pick<GatewayStatus, "conditions" | "listeners">,
  moment: StatusMoment,
): Readonly<Record<string, unknown>> {
  return {
    conditions: renderConditions(standing.conditions, conditions, moment),
    listeners: renderListeners(standing, listeners, moment),
  };
}

/** Conditions that are there only while they hold. */
const passing: ReadonlySet<string> = new Set(["DefaultGateway", "InsecureFrontendValidationMode"]);

function withoutStale(standing: readonly Condition[] | undefined, findings: Findings): readonly Condition[] {
  return (standing ?? []).filter(({ type }) => !passing.has(type) || findings[type] !== undefined);
}

function renderListeners(
  standing: StandingStatus,
  listeners: GatewayStatus["listeners"],
  moment: StatusMoment,
): readonly unknown[] {
  return listeners.map(({ name, supportedKinds, attachedRoutes, conditions }) => ({
    name,
    attachedRoutes,
    supportedKinds: supportedKinds.map((kind) => ({ group: gatewayApiGroup, kind })),
    conditions: renderConditions(
      standing.listeners?.find((one) => one.name === name)?.conditions,
      conditions,
      moment,
    ),
  }));
}

/** @param namespace the route's: references without one mean it */
export function renderRouteStatus(
  standing: StandingStatus,
  parents: readonly ParentStatus[],
  namespace: string,
  moment: StatusMoment,
): { readonly parents: readonly StandingParent[] } {
  return { parents: renderEntries(standing.parents ?? [], parents, "parentRef", namespace, moment) };
}

export function renderPolicyStatus(
  standing: StandingStatus,
  ancestors: readonly ParentStatus[],
  namespace: string,
  moment: StatusMoment,
): { readonly ancestors: readonly StandingParent[] } {
  const entries = renderEntries(standing.ancestors ?? [], ancestors, "ancestorRef", namespace, moment);
  return { ancestors: entries.slice(0, ancestorsMax) };
}

const ours: ReadonlySet<string> = new Set([gatewayController, meshController]);

/** Entries of ours are renewed where they stand or taken away; those of others stay. */
function renderEntries(
  standing: readonly StandingParent[],
  wanted: readonly ParentStatus[],
  field: "parentRef" | "ancestorRef",
  namespace: string,
  moment: StatusMoment,
): StandingParent[] {
  const left = new Map(wanted.map((one) => [entryText(one.reference, one.controller, namespace), one]));
  const render = (one: ParentStatus, before: StandingParent | undefined): StandingParent => ({
    [field]: one.reference,
    controllerName: one.controller,
    conditions: renderConditions(before?.conditions, one.conditions, moment),
  });
  const kept = standing.flatMap((entry) => {
    if (!ours.has(entry.controllerName)) return [entry];
    const reference = entry[field];
    const text = reference === undefined ? "" : entryText(reference, entry.controllerName, namespace);
    const one = left.get(text);
    left.delete(text);
    return one === undefined ? [] : [render(one, entry)];
  });
  return [...kept, ...[...left.values()].map((one) => render(one, undefined))];
}

function entryText(reference: ParentReference, controller: string, namespace: string): string {
  return `${controller} ${referenceText(reference, namespace)}`;
}
