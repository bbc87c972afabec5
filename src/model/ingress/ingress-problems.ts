// What is wrong with an Ingress. Its status has no place for that: the control plane says it in an Event.

import type { Problem } from "#base";
import { defineQuery, sameData, type Read } from "#engine";
import { makeProblem, refOf, type Ingress, type IngressBackend } from "#objects";
import { namespaceOf } from "../core-kinds.ts";
import { keyPairOf, uselessness } from "../credentials.ts";
import { refusedAccounts, refusedText } from "../router-credentials.ts";
import { routers } from "../routers.ts";
import { oldestFirst, selects } from "../selectors.ts";
import { everything, tables } from "../tables.ts";
import { ingressGateways, isOurs, servicePlace } from "./ingress.ts";

/** By row key; none for an Ingress of another class. */
export const ingressProblemsOf = defineQuery<readonly Problem[]>(
  "ingressProblems",
  (read, key) => {
    const row = read(tables.Ingress, key);
    if (row?.spec === undefined || !read(isOurs, key)) return [];
    return [...backendProblems(read, row), ...tlsProblems(read, row, key)];
  },
  sameData,
);

function backendProblems(read: Read, row: Ingress): Problem[] {
  const { defaultBackend, rules = [] } = row.spec ?? {};
  const ofRules = rules.flatMap(({ http }, at) =>
    (http?.paths ?? []).map(({ backend }, index) => ({
      backend,
      path: `spec.rules[${at}].http.paths[${index}].backend`,
    })),
  );
  const first =
    defaultBackend === undefined ? [] : [{ backend: defaultBackend, path: "spec.defaultBackend" }];
  return [...first, ...ofRules].flatMap(({ backend, path }) => {
    const text = backendMistake(read, namespaceOf(row), backend);
    const fix = "Name a port of a Service in the Ingress's namespace; until then it answers 500.";
    return text === undefined ? [] : [makeProblem("MZ0601", text, { object: refOf(row), path }, fix)];
  });
}

function backendMistake(read: Read, namespace: string, { service }: IngressBackend): string | undefined {
  if (service === undefined) return "Only a Service can be a backend.";
  const { name, port } = service;
  const found = read(tables.Service, `${namespace}/${name}`);
  if (found === undefined) return `There is no Service ${namespace}/${name}.`;
  const known = found.spec?.ports ?? [];
  const has = known.some((one) =>
    port?.number === undefined ? one.name === port?.name : one.port === port.number,
  );
  return has ? undefined : `Service ${namespace}/${name} has no port ${port?.number ?? port?.name ?? ""}.`;
}

/** Credentials are looked for beside the ingress gateway's proxies; of two Ingresses the older one secures a host. */
function tlsProblems(read: Read, row: Ingress, key: string): Problem[] {
  const object = refOf(row);
  const place = servicePlace(read);
  return (row.spec?.tls ?? []).flatMap(({ hosts = [], secretName = "" }, index) => {
    if (secretName === "") return [];
    const path = `spec.tls[${index}]`;
    const useless = uselessness(read(keyPairOf, `${place}/${secretName}`));
    const at = { object, path: `${path}.secretName` };
    const credential =
      useless === undefined
        ? read(unreadable, "").map((text) => makeProblem("MZ0404", text, at))
        : [makeProblem("MZ0402", `${useless}.`, at)];
    const named = hosts.length === 0 ? ["*"] : hosts.map((host) => host.toLowerCase());
    const taken = named.flatMap((host, position) => {
      const owner = read(securing, host);
      if (owner === undefined || owner === key) return [];
      const text = `Ingress ${owner} secures ${host} already: its certificate is served.`;
      return [makeProblem("MZ0606", text, { object, path: `${path}.hosts[${position}]` })];
    });
    return [...credential, ...taken];
  });
}

/** That the API server keeps keys from the ingress gateway, if it does. */
const unreadable = defineQuery<readonly string[]>(
  "unreadableForIngress",
  (read) => {
    const [gateway] = read(ingressGateways, "");
    const chosen = read(routers, "").filter(({ labels }) => selects(gateway?.spec?.selector, labels));
    const refused = refusedAccounts(read, chosen);
    return refused.length === 0 ? [] : [refusedText(refused)];
  },
  sameData,
);

/** The oldest Ingress of ours that has a certificate for a host, by the host. */
const securing = defineQuery<string | undefined>(
  "securingIngress",
  (read, host) => read(securedHosts, "")[host],
);

const securedHosts = defineQuery<Readonly<Record<string, string>>>(
  "securedHosts",
  (read) => {
    const owners: Record<string, string> = {};
    for (const row of read(tables.Ingress.by.all, everything).toSorted(oldestFirst)) {
      const key = `${namespaceOf(row)}/${row.metadata.name}`;
      const named = (row.spec?.tls ?? []).filter(({ secretName = "" }) => secretName !== "");
      if (named.length === 0 || !read(isOurs, key)) continue;
      for (const { hosts = [] } of named)
        for (const host of hosts.length === 0 ? ["*"] : hosts) owners[host.toLowerCase()] ??= key;
    }
    return owners;
  },
  sameData,
);
