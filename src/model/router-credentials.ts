// Which gateways may have the keys that they are told to use. Whoever may write a Gateway need not be one who may read Secrets, and
// what says that it is a gateway need not be one: so, as in Istio, its service account must be one that may list the Secrets of its
// namespace. Gateway API has rules of its own for what its listeners name, and the account of the proxies that we deploy for such
// a Gateway has it unasked.

import { defineQuery, sameData, type Read } from "#engine";
import type { Gateway, ServerTLSSettings } from "#objects";
import { namedSecret } from "./credentials.ts";
import { credentialsIn, policiesOf, rulesFor } from "./destination-rule.ts";
import { backendCertificateOf } from "./gateway-api/certificates.ts";
import { deployedAccountOf } from "./gateway-api/deployed.ts";
import { allListenersOf } from "./gateway-api/parents.ts";
import { gatewayServices } from "./gateway-routes.ts";
import { ingressGateways } from "./ingress/index.ts";
import { mayChoose, routers, type Router } from "./routers.ts";
import { anyClient } from "./scope.ts";
import { accountsText, isRefused } from "./secret-readers.ts";
import { selects, type Labels } from "./selectors.ts";
import { serviceOf } from "./services.ts";
import { everything, tables } from "./tables.ts";

/** What a server's settings name for the certificate that it shows. */
export function keyNamesOf(tls: ServerTLSSettings): readonly string[] {
  const several = tls.credentialNames ?? [];
  if (several.length > 0) return several;
  return (tls.credentialName ?? "") === "" ? [] : [tls.credentialName ?? ""];
}

/** Whom a Gateway brings keys to. */
interface KeyChoice {
  readonly selector: Labels;
  readonly names: readonly string[];
  /** The Gateway's; absent for those that Ingresses come to, which are of no namespace. */
  readonly namespace?: string;
}

/** The service accounts, `namespace/name`, of the gateways that are told to use keys, in order: the API server is asked about them. */
export const routersInQuestion = defineQuery<readonly string[]>(
  "routersInQuestion",
  (read) => {
    const known = read(routers, "");
    if (known.length === 0) return [];
    const choices = [
      ...read(tables.Gateway.by.credential.members, everything).flatMap((row) => read(choiceOf, row) ?? []),
      ...read(ingressGateways, "").flatMap((gateway) => choiceIn(gateway) ?? []),
    ];
    const asking = known.filter((router) => choices.some((choice) => isTold(read, choice, router)));
    const originating = read(originatesEverywhere, "") ? known : [];
    const ofGatewayApi = read(tables.KubeGateway.by.all.members, everything).flatMap((row) =>
      read(foreignAccountsOf, row),
    );
    const accounts = [...asking, ...originating].map(({ account }) => account);
    return [...new Set([...accounts, ...ofGatewayApi])].toSorted();
  },
  sameData,
);

const choiceOf = defineQuery<KeyChoice | undefined>(
  "keyChoiceOf",
  (read, row) => {
    const gateway = read(tables.Gateway, row);
    const choice = gateway === undefined ? undefined : choiceIn(gateway);
    return choice === undefined ? undefined : { ...choice, namespace: row.slice(0, row.indexOf("/")) };
  },
  sameData,
);

function choiceIn({ spec }: Gateway): KeyChoice | undefined {
  const names = (spec?.servers ?? []).flatMap(({ tls }) => (tls === undefined ? [] : keyNamesOf(tls)));
  return names.length === 0 ? undefined : { selector: spec?.selector ?? {}, names };
}

function isTold(read: Read, choice: KeyChoice, { namespace, labels }: Router): boolean {
  if (choice.namespace !== undefined && !mayChoose(read, choice.namespace, namespace)) return false;
  return (
    selects(choice.selector, labels) &&
    choice.names.some((name) => namedSecret(name, namespace)?.isOwn === true)
  );
}

/** Whether some rule names a key for everybody who goes by it, gateways among them. */
const originatesEverywhere = defineQuery<boolean>("originatesEverywhere", (read) =>
  read(tables.DestinationRule.by.everyonesCredential.members, everything).some((row) =>
    read(originatesMutually, row),
  ),
);

const originatesMutually = defineQuery<boolean>("originatesMutually", (read, row) => {
  const rule = read(tables.DestinationRule, row);
  return rule !== undefined && credentialsIn(policiesOf(rule)).some(({ mode }) => mode === "MUTUAL");
});

/**
 * Accounts of a Gateway of Gateway API that names keys, by its row key, which are not the one of proxies that we deploy for it: all
 * gateways of its namespace where somebody else runs them, and those that pass for ours by their label.
 */
export const foreignAccountsOf = defineQuery<readonly string[]>(
  "foreignAccounts",
  (read, key) => {
    if (!namesKeys(read, key)) return [];
    const [namespace = "", name = ""] = key.split("/");
    const own = read(deployedAccountOf, key);
    const accounts = read(routers, "")
      .filter((router) => router.namespace === namespace && router.account !== own)
      .filter(({ labels }) => own === undefined || labels[gatewayNameLabel] === name)
      .map(({ account }) => account);
    return [...new Set(accounts)].toSorted();
  },
  sameData,
);

const gatewayNameLabel = "gateway.networking.k8s.io/gateway-name";

function namesKeys(read: Read, key: string): boolean {
  const ofListeners = read(allListenersOf, key).some(
    ({ server }) => server?.tls !== undefined && keyNamesOf(server.tls).length > 0,
  );
  return ofListeners || read(backendCertificateOf, key) !== undefined;
}

/** Of gateways that somebody else runs for a Gateway of Gateway API, by its row key: the accounts that may not have its keys. */
export const unlistedReaders = defineQuery<readonly string[]>(
  "unlistedReaders",
  (read, key) =>
    read(deployedAccountOf, key) === undefined
      ? read(foreignAccountsOf, key).filter((account) => read(isRefused, account))
      : [],
  sameData,
);

/** What is said of a Gateway whose gateways may not have its keys. */
export function refusedText(accounts: readonly string[]): string {
  return `Its gateways get no key: their service accounts may not list the Secrets of their namespace (${accountsText(accounts)}).`;
}

/** The accounts of gateways that may not have keys, in order. */
export function refusedAccounts(read: Read, chosen: readonly Router[]): readonly string[] {
  const refused = chosen.filter(({ account }) => read(isRefused, account));
  return [...new Set(refused.map(({ account }) => account))].toSorted();
}

/** The gateways behind which a rule is gone by, by its row key, as far as they may not have keys: their accounts. */
export const refusedByRule = defineQuery<readonly string[]>(
  "refusedByRule",
  (read, rule) =>
    refusedAccounts(
      read,
      read(routers, "").filter((router) => read(isRefused, router.account) && goesBy(read, router, rule)),
    ),
  sameData,
);

function goesBy(read: Read, { namespace, labels }: Router, rule: string): boolean {
  const outbound = { ...anyClient, namespace, unintercepted: true };
  return read(gatewayServices, { namespace, labels, addresses: [], outbound }).some((key) => {
    const service = read(serviceOf, key);
    if (service === undefined) return false;
    const question = { client: namespace, labels, host: service.host, serviceNamespace: service.namespace };
    return read(rulesFor, question).includes(rule);
  });
}
