// What the RBAC filters of a workload are built from.

import type { Read } from "#engine";
import {
  authorizationPoliciesOf,
  extAuthzServicesOf,
  readMesh,
  readTrustDomains,
  type WorkloadKey,
} from "#model";
import { outboundClusterName } from "#plan";
import type { ExtAuthzProvider } from "./ext-authz.ts";
import type { RbacInput } from "./rbac.ts";

export function readRbac(read: Read, workload: WorkloadKey): RbacInput {
  const policies = read(authorizationPoliciesOf, workload);
  const trustDomains = readTrustDomains(read);
  const services = read(extAuthzServicesOf, workload);
  if (services.length === 0) return { policies, trustDomains };
  const providers = services.flatMap(({ provider, host, port }): [string, ExtAuthzProvider][] => {
    const settings = (readMesh(read, "extensionProviders") ?? []).find(({ name }) => name === provider);
    const where = { host, cluster: outboundClusterName(port, "", host) };
    if (settings?.envoyExtAuthzHttp !== undefined)
      return [[provider, { kind: "http", settings: settings.envoyExtAuthzHttp, ...where }]];
    if (settings?.envoyExtAuthzGrpc !== undefined)
      return [[provider, { kind: "grpc", settings: settings.envoyExtAuthzGrpc, ...where }]];
    return [];
  });
  return { policies, trustDomains, providers: Object.fromEntries(providers) };
}
