// As whom the proxies run that are deployed for a Gateway.

import { defineQuery, sameData } from "#engine";
import type { ObjectMeta } from "#objects";
import { tables } from "../tables.ts";
import { deployedName, isDeployed } from "./addresses.ts";
import type { GatewayClassFacts } from "./classes.ts";
import { gatewayFactsOf } from "./listeners.ts";

const serviceAccountAnnotation = "gateway.istio.io/service-account";

/** The name of the ServiceAccount: the Gateway may choose one; an override of the other objects' name is none of it. */
export function deployedAccount(
  { name, annotations }: Pick<ObjectMeta, "name" | "annotations">,
  gatewayClass: GatewayClassFacts,
): string {
  return annotations?.[serviceAccountAnnotation] ?? deployedName({ name }, gatewayClass);
}

/**
 * `namespace/name` of the service account of a Gateway's proxies, by its row key; undefined where somebody else runs them. As in
 * Istio, who has another account is no proxy of the Gateway.
 */
export const deployedAccountOf = defineQuery<string | undefined>(
  "deployedAccount",
  (read, key) => {
    const row = read(tables.KubeGateway, key);
    const facts = read(gatewayFactsOf, key);
    if (row?.spec === undefined || facts?.gatewayClass.role !== "gateway" || !isDeployed(row.spec))
      return undefined;
    return `${key.slice(0, key.indexOf("/"))}/${deployedAccount(row.metadata, facts.gatewayClass)}`;
  },
  sameData,
);
