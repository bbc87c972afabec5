// Which AuthorizationPolicies hold for a workload.

import { defineKeyedQuery, sameData } from "#engine";
import { canAuthorize, type AuthorizationPolicy } from "#objects";
import { environmentOf, readMesh } from "./mesh.ts";
import { oldestFirst, targets } from "./selectors.ts";
import { providerService } from "./tracing.ts";
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

/** A service that CUSTOM policies of a workload ask. */
export interface ExtAuthzService {
  /** The provider's name in MeshConfig. */
  readonly provider: string;
  /** `namespace/host`. */
  readonly service: string;
  readonly host: string;
  readonly port: number;
}

/** The services behind the providers that a workload's CUSTOM policies name; one that is not known, or faulty, is left out. */
export const extAuthzServicesOf = defineKeyedQuery<WorkloadKey, readonly ExtAuthzService[]>(
  "extAuthzServicesOf",
  workloadText,
  (read, workload) => {
    const custom = read(authorizationPoliciesOf, workload).filter(({ spec }) => spec?.action === "CUSTOM");
    const names = new Set(custom.map(({ spec }) => spec?.provider?.name ?? ""));
    if (names.size === 0) return [];
    return (readMesh(read, "extensionProviders") ?? []).flatMap((provider) => {
      const { service = "", port = 0 } = provider.envoyExtAuthzHttp ?? provider.envoyExtAuthzGrpc ?? {};
      const { name = "" } = provider;
      const asked = names.has(name) && canAuthorize(provider);
      const found = asked ? providerService(read, { service, port }) : undefined;
      return found === undefined
        ? []
        : [{ provider: name, service: found.key, host: found.host, port: found.port }];
    });
  },
  sameData,
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
