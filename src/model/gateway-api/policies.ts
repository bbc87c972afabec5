// BackendTLSPolicies and XBackends: their status, and the TLS that they ask for towards a service.

import { defineQuery, sameData, type Read } from "#engine";
import type {
  BackendTLSPolicy,
  BackendTLSPolicySpec,
  ClientTLSSettings,
  DestinationRule,
  ParentReference,
} from "#objects";
import { configuredCaOf } from "../credentials.ts";
import { namespaceOf } from "../core-kinds.ts";
import { environmentOf } from "../mesh.ts";
import { kubeRowOf } from "../services.ts";
import { tables } from "../tables.ts";
import { gatewayController, meshController } from "./classes.ts";
import { bad, good, type Finding, type Mistake } from "./findings.ts";
import { backendText, experimentalGroup, gatewayApiGroup, parentOf, routeKinds } from "./references.ts";
import { routeHeadOf } from "./parents.ts";
import type { ParentStatus } from "./routes.ts";

type Target = BackendTLSPolicySpec["targetRefs"][number];

/** A `credentialName` that is the CA of a ConfigMap. */
export const configuredCaScheme = "configmap://";

/** Its value "true" keeps the mesh from using a policy. */
const ignoreAnnotation = "istio.io/ignore-policy-attachment";

export interface PolicyTls {
  readonly policy: string;
  readonly target: Target;
  readonly tls: ClientTLSSettings;
}

interface PolicyFacts {
  readonly ancestors: readonly ParentStatus[];
  readonly tls: readonly PolicyTls[];
}

/** What a BackendTLSPolicy comes to, by row key. */
export const backendTlsPolicyOf = defineQuery<PolicyFacts | undefined>(
  "backendTlsPolicy",
  (read, key) => {
    const row = read(tables.BackendTLSPolicy, key);
    if (row?.spec === undefined) return undefined;
    if (isIgnored(row)) return { ancestors: row.spec.targetRefs.map(ignored), tls: [] };
    const namespace = namespaceOf(row);
    const ca = caOf(read, namespace, row.spec.validation);
    const ancestors: ParentStatus[] = [];
    const tls: PolicyTls[] = [];
    const gateways = new Set<string>();
    // A target that is wrong tells on those after it, as Istio has it.
    let accepted = ca.accepted;
    for (const target of row.spec.targetRefs) {
      const mistake = targetMistake(read, row, target);
      if (mistake.kind === "missing" || mistake.kind === "conflict") accepted = bad(mistake.mistake);
      if (mistake.kind !== "missing")
        for (const gateway of gatewaysOf(read, target, namespace)) gateways.add(gateway);
      if (mistake.kind === "none")
        tls.push({ policy: key, target, tls: clientTls(row.spec.validation, namespace, ca.usable) });
      const conditions = { Accepted: accepted, ResolvedRefs: ca.resolved };
      ancestors.push({ reference: referenceTo(target), controller: meshController, conditions });
    }
    for (const gateway of [...gateways].toSorted()) {
      const reference = {
        group: gatewayApiGroup,
        kind: "Gateway",
        name: gateway.slice(gateway.indexOf("/") + 1),
      };
      const conditions = { Accepted: accepted, ResolvedRefs: ca.resolved };
      ancestors.push({ reference, controller: gatewayController, conditions });
    }
    return { ancestors, tls };
  },
  sameData,
);

/** The entries of an XBackend's status, by row key. */
export const backendStatusOf = defineQuery<readonly ParentStatus[]>(
  "experimentalBackendStatus",
  (read, key) => {
    const row = read(tables.XBackend, key);
    if (row?.spec === undefined) return [];
    const { type, externalHostname, tls } = row.spec;
    const namespace = namespaceOf(row);
    const mode = tls?.mode ?? "None";
    const ca =
      mode === "ServerOnly"
        ? caOf(read, namespace, tls?.validation ?? {})
        : { accepted: fine, resolved: resolvedFine };
    const wrong =
      type !== "ExternalHostname" || externalHostname === undefined
        ? `a backend of type ${type} cannot be reached`
        : mode === "ServerOnly" || mode === "None"
          ? undefined
          : `TLS of mode ${mode} cannot be spoken to a backend`;
    const conditions = {
      Accepted: wrong === undefined ? ca.accepted : bad({ reason: "Invalid", message: wrong }),
      ResolvedRefs: ca.resolved,
    };
    const { name } = row.metadata;
    const own: ParentReference = { group: experimentalGroup, kind: "XBackend", name };
    const gateways = gatewaysOf(read, { kind: "XBackend", name }, namespace).toSorted();
    return [
      { reference: own, controller: meshController, conditions },
      ...gateways.map((gateway) => {
        const [gatewayNamespace = "", gatewayName = ""] = gateway.split("/");
        return {
          reference: {
            group: gatewayApiGroup,
            kind: "Gateway",
            namespace: gatewayNamespace,
            name: gatewayName,
          },
          controller: gatewayController,
          conditions,
        };
      }),
    ];
  },
  sameData,
);

/** Row keys of the rules that BackendTLSPolicies come to for a host: at most one, after those that users wrote. */
export const tlsRulesOfHost = defineQuery<readonly string[]>(
  "tlsRulesOfHost",
  (read, host) => {
    const { clusterDomain } = read(environmentOf, "");
    const row = kubeRowOf(host, clusterDomain);
    const targets = [
      ...(row === undefined ? [] : [`Service ${row}`]),
      ...read(tables.ServiceEntry.by.host.members, host).map((key) => `ServiceEntry ${key}`),
    ];
    return targets.flatMap((target) =>
      read(policiesOf, target).length === 0 ? [] : [`${target.replace(/^(\S+) ([^/]+)\/(.*)$/, "$2/$1~$3")}`],
    );
  },
  sameData,
);

/** Policies with TLS for a target, `Kind namespace/name`. */
const policiesOf = defineQuery<readonly PolicyTls[]>(
  "tlsPoliciesOfTarget",
  (read, target) => {
    const [kind = "", key = ""] = target.split(" ");
    const name = key.slice(key.indexOf("/") + 1);
    return read(tables.BackendTLSPolicy.by.target.members, target).flatMap((policy) =>
      (read(backendTlsPolicyOf, policy)?.tls ?? []).filter(
        (one) => one.target.kind === kind && one.target.name === name,
      ),
    );
  },
  sameData,
);

/** The rule behind such a row key: TLS for the whole service, or for the ports that sections name. */
export const tlsRuleOf = defineQuery<DestinationRule | undefined>(
  "tlsRule",
  (read, key) => {
    const [, namespace = "", kind = "", name = ""] = /^([^/]+)\/(\w+)~(.*)$/.exec(key) ?? [];
    const policies = read(policiesOf, `${kind} ${namespace}/${name}`);
    if (policies.length === 0) return undefined;
    const ports = portNumbers(read, kind, `${namespace}/${name}`);
    const whole = policies.find(({ target }) => (target.sectionName ?? "") === "");
    const portLevelSettings = policies.flatMap(({ target, tls }) => {
      const number = ports[target.sectionName ?? ""];
      return number === undefined ? [] : [{ port: { number }, tls }];
    });
    const trafficPolicy = {
      ...(whole === undefined ? {} : { tls: whole.tls }),
      ...(portLevelSettings.length === 0 ? {} : { portLevelSettings }),
    };
    return {
      apiVersion: "networking.istio.io/v1",
      kind: "DestinationRule",
      metadata: { namespace, name: `${kind}~${name}` },
      spec: { host: name, trafficPolicy },
    };
  },
  sameData,
);

function portNumbers(read: Read, kind: string, key: string): Readonly<Record<string, number>> {
  const ports =
    kind === "Service"
      ? (read(tables.Service, key)?.spec?.ports ?? []).map(({ name = "", port }) => [name, port] as const)
      : (read(tables.ServiceEntry, key)?.spec?.ports ?? []).map(
          ({ name, number }) => [name, number] as const,
        );
  return Object.fromEntries(ports.filter(([name]) => name !== ""));
}

const fine = good("Accepted", "nothing is wrong");
const resolvedFine = good("ResolvedRefs", "every reference leads to something");

function isIgnored({ metadata }: BackendTLSPolicy): boolean {
  return metadata.annotations?.[ignoreAnnotation]?.toLowerCase() === "true";
}

function ignored(target: Target): ParentStatus {
  const message = `its annotation ${ignoreAnnotation} keeps it from having an effect`;
  const conditions = { Accepted: bad({ reason: "IgnoredByIstio", message }) };
  return { reference: referenceTo(target), controller: meshController, conditions };
}

function referenceTo({ group, kind, name, sectionName }: Target): ParentReference {
  return { group, kind, name, ...(sectionName === undefined ? {} : { sectionName }) };
}

interface FoundCa {
  readonly accepted: Finding;
  readonly resolved: Finding;
  readonly usable: boolean;
}

function caOf(
  read: Read,
  namespace: string,
  { wellKnownCACertificates, caCertificateRefs }: Partial<BackendTLSPolicySpec["validation"]>,
): FoundCa {
  const usable = { accepted: fine, resolved: resolvedFine, usable: true };
  if (wellKnownCACertificates !== undefined) {
    if (wellKnownCACertificates === "System") return usable;
    const message = `wellKnownCACertificates ${wellKnownCACertificates} are none that are known`;
    return { ...usable, accepted: bad({ reason: "Invalid", message }) };
  }
  const [reference] = caCertificateRefs ?? [];
  if (reference === undefined) return usable;
  const { group, kind, name } = reference;
  const isMap = group === "" && kind === "ConfigMap";
  const ca = isMap ? read(configuredCaOf, `${namespace}/${name}`) : undefined;
  if (ca?.kind === "found") return usable;
  const message = ca === undefined ? `caCertificateRef ${kind} ${name} is no ConfigMap` : ca.reason;
  return {
    usable: false,
    accepted: bad({ reason: "NoValidCACertificate", message }),
    resolved: bad({ reason: isMap ? "InvalidCACertificateRef" : "InvalidKind", message }),
  };
}

type TargetState =
  | { readonly kind: "none" }
  | { readonly kind: "missing"; readonly mistake: Mistake }
  | { readonly kind: "conflict"; readonly mistake: Mistake };

function targetMistake(read: Read, policy: BackendTLSPolicy, target: Target): TargetState {
  const namespace = namespaceOf(policy);
  const { kind, name, sectionName = "" } = target;
  const ports = targetPorts(read, target, namespace);
  if (ports === undefined || (sectionName !== "" && !ports.includes(sectionName))) {
    const message =
      ports === undefined
        ? `target ${kind} ${namespace}/${name} does not exist`
        : `${kind} ${namespace}/${name} has no port ${sectionName}`;
    return { kind: "missing", mistake: { reason: "TargetNotFound", message } };
  }
  const text = backendText({ kind, namespace, name });
  const winner = read(tables.BackendTLSPolicy.by.target, text).find(
    (other) =>
      other.metadata.name !== policy.metadata.name &&
      !isIgnored(other) &&
      other.spec?.targetRefs.some((one) => sameTarget(one, target)) === true &&
      goesBefore(other, policy),
  );
  if (winner === undefined) return { kind: "none" };
  const message = `BackendTLSPolicy ${winner.metadata.name} has the same target and is older`;
  return { kind: "conflict", mistake: { reason: "Conflicted", message } };
}

function sameTarget(one: Target, other: Target): boolean {
  return (
    one.group === other.group &&
    one.kind === other.kind &&
    one.name === other.name &&
    one.sectionName === other.sectionName
  );
}

function goesBefore(one: BackendTLSPolicy, other: BackendTLSPolicy): boolean {
  const [mine, theirs] = [one, other].map(
    ({ metadata }) => Date.parse(metadata.creationTimestamp ?? "") || 0,
  );
  return mine === theirs ? one.metadata.name < other.metadata.name : mine! < theirs!;
}

/** Names of the target's ports; undefined when there is no such target. */
function targetPorts(
  read: Read,
  { group, kind, name }: Target,
  namespace: string,
): readonly string[] | undefined {
  if (group === "" && kind === "Service") {
    const row = read(tables.Service, `${namespace}/${name}`);
    return row === undefined ? undefined : (row.spec?.ports ?? []).map((port) => port.name ?? "");
  }
  if (group !== "networking.istio.io" || kind !== "ServiceEntry") return undefined;
  return read(tables.ServiceEntry, `${namespace}/${name}`)?.spec?.ports?.map((port) => port.name);
}

/** Row keys of the Gateways whose routes send to a backend. */
function gatewaysOf(read: Read, { kind, name }: Pick<Target, "kind" | "name">, namespace: string): string[] {
  const text = backendText({ kind, namespace, name });
  const gateways = routeKinds.flatMap((routeKind) =>
    read(tables[routeKind].by.backend.members, text).flatMap((key) => {
      const head = read(routeHeadOf, { kind: routeKind, key });
      return (head?.references ?? []).flatMap((reference) => {
        const parent = parentOf(reference, head?.namespace ?? "");
        return parent?.kind === "Gateway" ? [parent.key] : [];
      });
    }),
  );
  return [...new Set(gateways)];
}

function clientTls(
  {
    hostname,
    subjectAltNames,
    caCertificateRefs,
    wellKnownCACertificates,
  }: BackendTLSPolicySpec["validation"],
  namespace: string,
  usable: boolean,
): ClientTLSSettings {
  const names = (subjectAltNames ?? []).flatMap(({ hostname: host, uri }) => uri ?? host ?? []);
  const [reference] = caCertificateRefs ?? [];
  const configured = reference !== undefined && wellKnownCACertificates === undefined;
  // What asks for a CA that is not there must not pass unverified: no certificate bears this name.
  if (!usable) return { mode: "SIMPLE", sni: hostname, subjectAltNames: ["unverifiable.invalid"] };
  return {
    mode: "SIMPLE",
    sni: hostname,
    subjectAltNames: names.length === 0 ? [hostname] : names,
    ...(configured ? { credentialName: `${configuredCaScheme}${namespace}/${reference.name}` } : {}),
  };
}
