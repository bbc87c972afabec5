// As whom the proxies run that are deployed for a Gateway, and what Service is in front of them.

import { defineQuery, sameData } from "#engine";
import type { ObjectMeta } from "#objects";
import { tables } from "../tables.ts";
import { deployedName, isDeployed } from "./addresses.ts";
import type { GatewayClassFacts } from "./classes.ts";
import type { Mistake } from "./findings.ts";
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

const serviceTypeAnnotation = "networking.istio.io/service-type";
/** The default first. One of another type has no address of its own. */
const serviceTypes = ["LoadBalancer", "ClusterIP", "NodePort"] as const;

/** The type of the Service. @returns the default one, with what is wrong, where the Gateway asks for one that there is not */
export function deployedServiceType({ annotations }: Pick<ObjectMeta, "annotations">): {
  readonly type: string;
  readonly mistake?: Mistake;
} {
  const asked = annotations?.[serviceTypeAnnotation];
  const type = serviceTypes.find((one) => one === asked);
  if (asked === undefined || type !== undefined) return { type: type ?? serviceTypes[0] };
  const message = `annotation ${serviceTypeAnnotation}: a Gateway's Service may be of type ${serviceTypes.join(", ")}, and not ${asked}`;
  return { type: serviceTypes[0], mistake: { reason: "InvalidParameters", message } };
}
