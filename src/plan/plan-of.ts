// One view's plan.

import { defineKeyedQuery, type Read } from "#engine";
import { planGateway } from "./gateway.ts";
import { planInbound } from "./inbound.ts";
import { planOutbound } from "./outbound.ts";
import { withPatches } from "./patches.ts";
import type { Plan } from "./plan.ts";
import { planProxyless } from "./proxyless.ts";
import { withTuning } from "./tuning.ts";
import { viewText, type View } from "./views.ts";

/** Chunks come from memoized queries and plans are compared chunk by chunk: an equal plan is no change. */
export const planOf = defineKeyedQuery<View, Plan>(
  "planOf",
  viewText,
  (read, view) =>
    // EnvoyFilters are for Envoys.
    view.kind === "proxyless"
      ? unpatched(read, view)
      : withPatches(read, view, withTuning(read, view, unpatched(read, view))),
  samePlan,
);

function unpatched(read: Read, view: View): Plan {
  switch (view.kind) {
    case "outbound":
      return planOutbound(read, view);
    case "inbound":
      return planInbound(read, view);
    case "gateway":
      return planGateway(read, view);
    case "proxyless":
      return planProxyless(read, view);
  }
}

function samePlan(before: Plan, after: Plan): boolean {
  return (Object.keys(before) as (keyof Plan)[]).every(
    (type) =>
      before[type].length === after[type].length &&
      before[type].every((chunk, at) => chunk === after[type][at]),
  );
}
