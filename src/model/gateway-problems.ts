// What is wrong with the Gateways of a router: servers that had to give way, credentials that cannot be used.

import type { Problem } from "#base";
import { defineKeyedQuery, sameData, type Read } from "#engine";
import { makeProblem } from "#objects";
import { keyPairOf, trustedCaOf } from "./credentials.ts";
import { isGenerated } from "./gateway-api/names.ts";
import { gatewayScopeText, mergedGatewayOf, type GatewayScope, type MergedServer } from "./gateway.ts";

export const gatewayProblemsOf = defineKeyedQuery<GatewayScope, readonly Problem[]>(
  "gatewayProblemsOf",
  gatewayScopeText,
  (read, scope) => {
    const { listeners, conflicts } = read(mergedGatewayOf, scope);
    const unserved = conflicts.map(({ object, at, text }) =>
      makeProblem("MZ0401", `This server is not served: ${text}.`, { object, path: `spec.servers[${at}]` }),
    );
    const servers = listeners.flatMap((listener) => listener.servers);
    return [...unserved, ...servers.flatMap((server) => credentialProblems(read, server, scope.namespace))];
  },
  sameData,
);

function credentialProblems(read: Read, server: MergedServer, namespace: string): Problem[] {
  const { tls, object, at } = server;
  // Listeners of Gateway API say what is wrong with their certificates in their status.
  if (tls === undefined || isGenerated(server.gateway)) return [];
  const several = tls.credentialNames ?? [];
  const names = (several.length > 0 ? several : [tls.credentialName ?? ""]).filter(isSecretName);
  const validates = tls.mode === "MUTUAL" || tls.mode === "OPTIONAL_MUTUAL";
  const where = { object, path: `spec.servers[${at}].tls.credentialName` };
  return names.flatMap((name, position) => {
    const row = name.includes("/") ? name : `${namespace}/${name}`;
    const pair = read(keyPairOf, row);
    const reasons = pair.kind === "unusable" ? [pair.reason] : [];
    if (validates && position === 0) {
      const ca = read(trustedCaOf, row);
      if (ca.kind === "unusable") reasons.push(ca.reason);
    }
    return reasons.map((reason) => makeProblem("MZ0402", `${reason}.`, where));
  });
}

/** Built-in and external credentials are not Secrets of the cluster. */
function isSecretName(name: string): boolean {
  return name !== "" && !name.includes("://");
}
