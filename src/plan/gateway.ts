// What a gateway wants.

import { emptyPlan, type Plan } from "./plan.ts";
import type { GatewayView } from "./views.ts";
import type { Read } from "#engine";

export function planGateway(_read: Read, _view: GatewayView): Plan {
  return emptyPlan;
}
