// Which AuthorizationPolicies hold for a workload.

import { defineKeyedQuery } from "#engine";
import type { AuthorizationPolicy } from "#objects";
import { environmentOf } from "./mesh.ts";
import { oldestFirst, targets } from "./selectors.ts";
import { tables } from "./tables.ts";
import { workloadText, type WorkloadKey } from "./workload.ts";

/** The policies of the root namespace and the workload's own that choose it: oldest first in each. */
export const authorizationPoliciesOf = defineKeyedQuery<WorkloadKey, readonly AuthorizationPolicy[]>(
  "authorizationPoliciesOf",
  workloadText,
  (read, workload) => {
    const { rootNamespace } = read(environmentOf, "");
    const namespaces = [...new Set([rootNamespace, workload.namespace])];
    return policiesFor(
      namespaces.flatMap((namespace) =>
        read(tables.AuthorizationPolicy.by.namespace, namespace).toSorted(oldestFirst),
      ),
      workload,
    );
  },
  sameRows,
);

/** Those of some policies that are for a workload. */
export function policiesFor(
  policies: readonly AuthorizationPolicy[],
  workload: WorkloadKey,
): readonly AuthorizationPolicy[] {
  return policies.filter((policy) => targets(policy, workload));
}

function sameRows(before: readonly unknown[], after: readonly unknown[]): boolean {
  return before.length === after.length && before.every((row, at) => row === after[at]);
}
