// What is wrong with an Ingress. Its status has no place for that: the control plane says it in an Event.

import type { Problem } from "#base";
import { defineQuery, sameData, type Read } from "#engine";
import {
  makeProblem,
  refOf,
  type Ingress,
  type IngressBackend,
  type IngressClass,
  type IngressPath,
  type KubeObject,
} from "#objects";
import { namespaceOf } from "../core-kinds.ts";
import { keyPairOf, uselessness } from "../credentials.ts";
import { refusedAccounts, refusedText } from "../router-credentials.ts";
import { routers } from "../routers.ts";
import { oldestFirst, selects } from "../selectors.ts";
import { everything, tables } from "../tables.ts";
import {
  controller,
  hostOf,
  ingressesOfHost,
  ingressGateways,
  isOfOurClass,
  isOurs,
  matchOf,
  servicePlace,
} from "./ingress.ts";

/** By row key; none for an Ingress of another class. */
export const ingressProblemsOf = defineQuery<readonly Problem[]>(
  "ingressProblems",
  (read, key) => {
    const row = read(tables.Ingress, key);
    if (row?.spec === undefined || !read(isOurs, key)) return [];
    const namespace = namespaceOf(row);
    return [
      ...backendProblems(row, (backend) => backendMistake(read, namespace, backend)),
      ...tlsProblems(read, row, key),
    ];
  },
  sameData,
);

function backendProblems(
  row: Ingress,
  mistakeOf: (backend: IngressBackend) => string | undefined,
): Problem[] {
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
    const text = mistakeOf(backend);
    const fix = "Name a port of a Service in the Ingress's namespace; until then it answers 500.";
    return text === undefined ? [] : [makeProblem("MZ0601", text, { object: refOf(row), path }, fix)];
  });
}

const onlyServices = "Only a Service can be a backend.";

function backendMistake(read: Read, namespace: string, { service }: IngressBackend): string | undefined {
  if (service === undefined) return onlyServices;
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
  return (row.spec?.tls ?? []).flatMap(({ secretName = "" }, index) => {
    if (secretName === "") return [];
    const path = `spec.tls[${index}]`;
    const useless = uselessness(read(keyPairOf, `${place}/${secretName}`));
    const at = { object, path: `${path}.secretName` };
    const credential =
      useless === undefined
        ? read(unreadable, "").map((text) => makeProblem("MZ0404", text, at))
        : [makeProblem("MZ0402", `${useless}.`, at)];
    return [...credential, ...securedAlready(read, row, key, index)];
  });
}

/** Hosts of one entry of `spec.tls` that an older Ingress has a certificate for. */
function securedAlready(read: Read, row: Ingress, key: string, index: number): Problem[] {
  const { hosts = [], secretName = "" } = row.spec?.tls?.[index] ?? {};
  if (secretName === "") return [];
  const named = hosts.length === 0 ? ["*"] : hosts.map((host) => host.toLowerCase());
  return named.flatMap((host, position) => {
    const owner = read(securing, host);
    if (owner === undefined || owner === key) return [];
    const text = `Ingress ${owner} secures ${host} already: its certificate is served.`;
    return [
      makeProblem("MZ0606", text, { object: refOf(row), path: `spec.tls[${index}].hosts[${position}]` }),
    ];
  });
}

/**
 * What whoever applies an Ingress or an IngressClass is warned of: what holds whatever is applied with it. Services and Secrets may come
 * with it, so what is missing is told in Events.
 */
export function ingressAdmissionProblems(read: Read, object: KubeObject): readonly Problem[] {
  if (object.kind === "IngressClass") return classProblems(object as IngressClass);
  const row = object as Ingress;
  if (object.kind !== "Ingress" || !isOfOurClass(read, row)) return [];
  const key = `${namespaceOf(row)}/${row.metadata.name}`;
  return [
    ...backendProblems(row, ({ service }) => (service === undefined ? onlyServices : undefined)),
    ...(row.spec?.tls ?? []).flatMap((_tls, index) => securedAlready(read, row, key, index)),
    ...takenPaths(read, row, key),
  ].map((problem): Problem => ({ ...problem, severity: "warning" }));
}

function classProblems(row: IngressClass): Problem[] {
  if (row.spec?.controller !== controller || row.spec.parameters === undefined) return [];
  const text = "The mesh's ingress controller reads no parameters of a class.";
  return [makeProblem("MZ0301", text, { object: refOf(row), path: "spec.parameters" })];
}

/** Of two Ingresses with the same path of a host the older one's is served. */
function takenPaths(read: Read, row: Ingress, key: string): Problem[] {
  return (row.spec?.rules ?? []).flatMap(({ host, http }, at) => {
    const others = read(ingressesOfHost, hostOf(host)).filter((one) => one !== key);
    return (http?.paths ?? []).flatMap((path, index) => {
      const owner = others.find((one) => pathsAt(read, one, hostOf(host)).includes(matchText(path)));
      if (owner === undefined) return [];
      const text = `Ingress ${owner} has this path of host ${hostOf(host)} already: the older one's is served.`;
      return [
        makeProblem("MZ0606", text, { object: refOf(row), path: `spec.rules[${at}].http.paths[${index}]` }),
      ];
    });
  });
}

function pathsAt(read: Read, key: string, host: string): readonly string[] {
  const rules = (read(tables.Ingress, key)?.spec?.rules ?? []).filter((rule) => hostOf(rule.host) === host);
  return rules.flatMap(({ http }) => (http?.paths ?? []).map(matchText));
}

function matchText(path: IngressPath): string {
  return JSON.stringify(matchOf(path));
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
