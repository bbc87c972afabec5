// What is wrong with a DestinationRule as the mesh stands.

import { defineKeyedQuery, type Read } from "#engine";
import type { DestinationRule } from "#objects";
import { namespaceOf } from "./core-kinds.ts";
import { keyPairOf, namedSecret, trustedCaOf, uselessness } from "./credentials.ts";
import { credentialsIn, policiesOf } from "./destination-rule.ts";
import { endpointsOf } from "./endpoints.ts";
import { fullHost, isWildcard } from "./hosts.ts";
import { environmentOf, readMesh } from "./mesh.ts";
import type { Found } from "./object-problems.ts";
import { refusedByRule } from "./router-credentials.ts";
import { hasSidecars } from "./routers.ts";
import { endpointSelector } from "./place-labels.ts";
import type { Labels } from "./selectors.ts";
import { accountsSelected, accountsText, isRefused } from "./secret-readers.ts";
import { serviceOf, servicesOfHost } from "./services.ts";
import { isKnown } from "./virtual-service-problems.ts";

export function destinationRuleProblems(read: Read, row: DestinationRule): readonly Found[] {
  return [...credentialProblems(read, row), ...hostProblems(read, row)];
}

/** Secrets are looked for where rules select workloads of their namespace: who else goes by a rule may be anywhere. */
function credentialProblems(read: Read, row: DestinationRule): readonly Found[] {
  if (row.spec?.workloadSelector === undefined) return everyonesProblems(read, row);
  const namespace = namespaceOf(row);
  const reasons = credentialsIn(policiesOf(row)).flatMap(({ mode, credentialName }) => {
    const named = namedSecret(credentialName, namespace);
    if (named === undefined) return [];
    if (!named.isOwn) return [`Secret ${named.row} is not in the namespace of the rule, ${namespace}`];
    const pair = mode === "MUTUAL" ? uselessness(read(keyPairOf, named.row)) : undefined;
    return pair ?? uselessness(read(trustedCaOf, named.row)) ?? [];
  });
  const unusable = [...new Set(reasons)].map((reason) => ({
    code: "MZ0402" as const,
    path: "spec.trafficPolicy",
    text: `${reason}.`,
  }));
  return [...unusable, ...readerProblems(read, row)];
}

/** A rule for everybody brings Secrets to gateways alone, as with Istio. */
function everyonesProblems(read: Read, row: DestinationRule): readonly Found[] {
  const named = credentialsIn(policiesOf(row)).filter(
    ({ credentialName }) => namedSecret(credentialName, namespaceOf(row)) !== undefined,
  );
  if (named.length === 0) return [];
  const path = "spec.trafficPolicy";
  const refused = named.some(({ mode }) => mode === "MUTUAL")
    ? read(refusedByRule, `${namespaceOf(row)}/${row.metadata.name}`)
    : [];
  const ofGateways = `Gateways that go by it get no key: their service accounts may not list the Secrets of their namespace (${accountsText(refused)}).`;
  const ofSidecars =
    "Without a workloadSelector it brings Secrets to gateways alone: sidecars that go by it have no certificates, and make no connection.";
  return [
    ...(refused.length === 0 ? [] : [{ code: "MZ0404" as const, path, text: ofGateways }]),
    ...(reachesSidecars(read, row) ? [{ code: "MZ0405" as const, path, text: ofSidecars }] : []),
  ];
}

/** Where a rule is for everybody, somebody is a sidecar. */
function reachesSidecars(read: Read, row: DestinationRule): boolean {
  const given = row.spec?.exportTo ?? [];
  const exportTo = given.length > 0 ? given : (readMesh(read, "defaultDestinationRuleExportTo") ?? ["*"]);
  return exportTo.some(
    (place) => place === "*" || read(hasSidecars, place === "." ? namespaceOf(row) : place),
  );
}

/** Of workloads whose service account the API server has said no about. */
function readerProblems(read: Read, row: DestinationRule): readonly Found[] {
  if (!credentialsIn(policiesOf(row)).some(({ mode }) => mode === "MUTUAL")) return [];
  const namespace = namespaceOf(row);
  const labels = row.spec?.workloadSelector?.matchLabels ?? {};
  const refused = read(accountsSelected, { namespace, labels }).filter((account) => read(isRefused, account));
  if (refused.length === 0) return [];
  const text = `Selected workloads get no key: their service accounts may not list the Secrets of ${namespace} (${accountsText(refused)}).`;
  return [{ code: "MZ0404", path: "spec.workloadSelector", text }];
}

function hostProblems(read: Read, row: DestinationRule): readonly Found[] {
  const { clusterDomain } = read(environmentOf, "");
  const host = fullHost(row.spec?.host ?? "", namespaceOf(row), clusterDomain);
  if (isWildcard(host)) return [];
  if (!isKnown(read, host))
    return [{ code: "MZ0607", path: "spec.host", text: `No service has the host ${host}.` }];
  const services = read(servicesOfHost, host).filter((key) => balances(read, key));
  if (services.length === 0) return [];
  return (row.spec?.subsets ?? []).flatMap(({ name, labels = {} }, at): Found[] =>
    services.some((service) => read(hasEndpointWith, { service, labels }))
      ? []
      : [
          {
            code: "MZ0603",
            path: `spec.subsets[${at}]`,
            text: `No endpoint of ${host} is in subset ${name}.`,
          },
        ],
  );
}

/** Where Envoy resolves names itself, or goes where the client said, labels say nothing. */
function balances(read: Read, key: string): boolean {
  return read(serviceOf, key)?.resolution === "endpoints";
}

/** Asked for each subset by itself: endpoints come and go, and the answer seldom changes with them. */
const hasEndpointWith = defineKeyedQuery<{ readonly service: string; readonly labels: Labels }, boolean>(
  "hasEndpointWith",
  ({ service, labels }) =>
    `${service} ${JSON.stringify(Object.entries(labels).toSorted(([a], [b]) => (a < b ? -1 : 1)))}`,
  (read, { service, labels }) => read(endpointsOf, service).some(endpointSelector(read, labels)),
);
