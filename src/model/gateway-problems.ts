// What is wrong with the Gateways of a router: servers that had to give way, credentials that cannot be used.

import type { Problem } from "#base";
import { defineKeyedQuery, defineQuery, sameData, type Query, type Read } from "#engine";
import { makeProblem, refOf, type Gateway } from "#objects";
import { namespaceOf } from "./core-kinds.ts";
import {
  keyPairOf,
  namedSecret,
  trustedCaOf,
  uselessness,
  type Credential,
  type KeyPair,
  type TrustedCa,
} from "./credentials.ts";
import { isGenerated } from "./gateway-api/names.ts";
import { gatewayScopeText, mergedGatewayOf, type GatewayScope, type MergedServer } from "./gateway.ts";
import { anyClient } from "./scope.ts";
import { selects } from "./selectors.ts";
import { everything, tables } from "./tables.ts";
import { workloadText, type WorkloadKey } from "./workload.ts";

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

/** The workloads that are gateways: replicas are one. */
const routerWorkloads = defineQuery<readonly WorkloadKey[]>(
  "routerWorkloads",
  (read) => {
    const workloads = read(tables.Pod.by.router, everything).map((pod): WorkloadKey => {
      const { "pod-template-hash": _hash, ...labels } = pod.metadata.labels ?? {};
      return { namespace: namespaceOf(pod), labels };
    });
    return [...new Map(workloads.map((one) => [workloadText(one), one])).values()];
  },
  sameData,
);

/** What is wrong with one Gateway at the routers that it chooses. */
export function routerProblems(read: Read, gateway: Gateway): readonly Problem[] {
  const object = refOf(gateway);
  const selector = gateway.spec?.selector;
  const chosen = read(routerWorkloads, "").filter(({ labels }) => selects(selector, labels));
  if (chosen.length === 0) {
    const text = "No gateway's pod has the labels of the selector.";
    return [makeProblem("MZ0608", text, { object, path: "spec.selector" })];
  }
  const found = chosen.flatMap(({ namespace, labels }) => {
    const outbound = { ...anyClient, namespace, unintercepted: true };
    return read(gatewayProblemsOf, { namespace, labels, addresses: [], outbound });
  });
  const own = found.filter(
    ({ at }) => at.object?.name === object.name && at.object.namespace === object.namespace,
  );
  return [...new Map(own.map((problem) => [`${problem.at.path} ${problem.text}`, problem])).values()];
}

function credentialProblems(read: Read, server: MergedServer, namespace: string): Problem[] {
  const { tls, object, at } = server;
  // Listeners of Gateway API say what is wrong with their certificates in their status.
  if (tls === undefined || isGenerated(server.gateway)) return [];
  const several = tls.credentialNames ?? [];
  const names = several.length > 0 ? several : [tls.credentialName ?? ""];
  const ofNames = several.length > 0 ? "credentialNames" : "credentialName";
  const apart = tls.caCertCredentialName ?? "";
  const validates = tls.mode === "MUTUAL" || tls.mode === "OPTIONAL_MUTUAL";
  const complaints = (field: string, reasons: readonly string[]): Problem[] =>
    reasons.map((reason) =>
      makeProblem("MZ0402", `${reason}.`, { object, path: `spec.servers[${at}].tls.${field}` }),
    );
  const pairs = names.flatMap((name) => credentialReasons(read, name, namespace, keyPairOf));
  const authority =
    apart === ""
      ? complaints(ofNames, credentialReasons(read, names[0] ?? "", namespace, trustedCaOf))
      : complaints("caCertCredentialName", credentialReasons(read, apart, namespace, trustedCaOf));
  return [...complaints(ofNames, [...new Set(pairs)]), ...(validates ? authority : [])];
}

/** Why a credential is of no use to proxies of a namespace. Built-in and external ones are not Secrets of the cluster. */
function credentialReasons<Part extends KeyPair | TrustedCa>(
  read: Read,
  credential: string,
  namespace: string,
  query: Query<string, Credential<Part>>,
): string[] {
  const named = namedSecret(credential, namespace);
  if (named === undefined) return [];
  if (!named.isOwn)
    return [`Secret ${named.row} is not in the namespace of the gateway's pods, ${namespace}`];
  const reason = uselessness(read(query, named.row));
  return reason === undefined ? [] : [reason];
}
