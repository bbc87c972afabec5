// What is wrong with the Gateways of a router: servers that had to give way, credentials that cannot be used.

import type { Problem } from "#base";
import { defineKeyedQuery, sameData, type Query, type Read } from "#engine";
import { makeProblem, refOf, type Gateway } from "#objects";
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
import { keyNamesOf, refusedAccounts, refusedText } from "./router-credentials.ts";
import { mayChoose, routers, type Router } from "./routers.ts";
import { anyClient } from "./scope.ts";
import { selects } from "./selectors.ts";

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

/** What is wrong with one Gateway at the routers that it chooses. */
export function routerProblems(read: Read, gateway: Gateway): readonly Problem[] {
  const object = refOf(gateway);
  const selector = gateway.spec?.selector;
  const chosen = read(routers, "")
    .filter(({ namespace }) => mayChoose(read, object.namespace ?? "default", namespace))
    .filter(({ labels }) => selects(selector, labels));
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
  const all = [...own, ...readerProblems(read, gateway, chosen)];
  return [...new Map(all.map((problem) => [`${problem.at.path} ${problem.text}`, problem])).values()];
}

/** Servers whose keys the API server keeps from gateways: these are told by the accounts that they run as. */
function readerProblems(read: Read, gateway: Gateway, chosen: readonly Router[]): Problem[] {
  const object = refOf(gateway);
  return (gateway.spec?.servers ?? []).flatMap(({ tls }, at) => {
    const names = tls === undefined ? [] : keyNamesOf(tls);
    const asking = chosen.filter(({ namespace }) =>
      names.some((name) => namedSecret(name, namespace)?.isOwn === true),
    );
    const refused = refusedAccounts(read, asking);
    if (refused.length === 0) return [];
    const field = (tls?.credentialNames ?? []).length > 0 ? "credentialNames" : "credentialName";
    return [
      makeProblem("MZ0404", refusedText(refused), { object, path: `spec.servers[${at}].tls.${field}` }),
    ];
  });
}

function credentialProblems(read: Read, server: MergedServer, namespace: string): Problem[] {
  const { tls, object, at } = server;
  // Listeners of Gateway API say what is wrong with their certificates in their status.
  if (tls === undefined || isGenerated(server.gateway)) return [];
  const names = keyNamesOf(tls);
  const ofNames = (tls.credentialNames ?? []).length > 0 ? "credentialNames" : "credentialName";
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
