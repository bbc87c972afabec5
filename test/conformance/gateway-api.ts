// gateway-api: objects of Gateway API go in, their status comes out. What is compared: the status and the reason of each
// condition, attached routes, supported kinds, addresses, and whose entry it is. Words of messages are our own.

import { readFileSync } from "node:fs";
import { join } from "node:path";
import { isDeepStrictEqual } from "node:util";
import { parseAllDocuments } from "yaml";
import { Engine } from "#engine";
import {
  renderStatus,
  statusKinds,
  wantedStatusOf,
  worldChanges,
  type StandingStatus,
  type StatusKind,
} from "#model";
import {
  kindInfo,
  groupOf,
  objectKey,
  type Condition,
  type KubeObject,
  type ParentReference,
} from "#objects";
import { readKnownDifferences } from "./known-differences.ts";
import type { Failure, Score } from "./score.ts";

const domain = "domain.suffix";

interface RegistryService {
  readonly hostname: string;
  readonly namespace: string;
  readonly ports: readonly { readonly name: string; readonly port: number; readonly protocol: string }[];
  readonly externalAddresses?: readonly string[];
}

type Rendered = Readonly<Record<string, unknown>>;

export function run(dir: string): Promise<Score> {
  const cases = JSON.parse(readFileSync(join(dir, "index.json"), "utf8")) as readonly { case: string }[];
  const fixtures = documentsOf(join(dir, "fixtures.yaml"));
  const registry = JSON.parse(
    readFileSync(join(dir, "registry-services.json"), "utf8"),
  ) as readonly RegistryService[];
  const failures: Failure[] = [];
  const known = readKnownDifferences()["gateway-api"] ?? {};
  let knownDifferences = 0;
  for (const { case: id } of cases) {
    const wrong = judge(join(dir, id), [...fixtures, ...registry.flatMap(registered)]);
    // Of a case with many objects one alone may be known to differ: its key is the case and the object.
    const reasons = wrong.filter(({ name }) => !Object.hasOwn(known, `${id} ${name}`));
    knownDifferences += wrong.length - reasons.length;
    const text = reasons.map(({ name, text: reason }) => `${name}: ${reason}`).join("\n        ");
    if (reasons.length > 0) failures.push({ id, reason: text });
  }
  return Promise.resolve({
    name: "gateway-api",
    passed: cases.length - failures.length,
    failed: failures.length,
    knownDifferences,
    failures,
  });
}

function documentsOf(file: string): KubeObject[] {
  return parseAllDocuments(readFileSync(file, "utf8"))
    .map((document) => document.toJS() as KubeObject | null)
    .filter((object) => object !== null);
}

/** A service of the registry: a Service with endpoints for the cluster's own names, else a ServiceEntry. */
function registered({ hostname, namespace, ports, externalAddresses = [] }: RegistryService): KubeObject[] {
  const [name = ""] = hostname.split(".");
  if (!hostname.endsWith(`.svc.${domain}`)) {
    const spec = {
      hosts: [hostname],
      resolution: "STATIC",
      ports: ports.map((port) => ({ name: port.name, number: port.port, protocol: port.protocol })),
      endpoints: [{ address: "192.0.2.1" }],
    };
    const metadata = { name: hostname, namespace };
    return [{ apiVersion: "networking.istio.io/v1", kind: "ServiceEntry", metadata, spec }];
  }
  const service = {
    apiVersion: "v1",
    kind: "Service",
    metadata: { name, namespace },
    spec: { ports: ports.map((port) => ({ name: port.name, port: port.port })), clusterIP: "192.0.2.2" },
    status: { loadBalancer: { ingress: externalAddresses.map((ip) => ({ ip })) } },
  };
  const slice = {
    apiVersion: "discovery.k8s.io/v1",
    kind: "EndpointSlice",
    metadata: { name, namespace, labels: { "kubernetes.io/service-name": name } },
    endpoints: [{ addresses: ["192.0.2.3"] }],
    ports: ports.map((port) => ({ name: port.name, port: port.port, protocol: "TCP" })),
  };
  return [service, slice];
}

interface Wrong {
  /** Of the object. */
  readonly name: string;
  readonly text: string;
}

/** Why a case fails; empty when it passes. */
function judge(folder: string, around: readonly KubeObject[]): Wrong[] {
  const given = documentsOf(join(folder, "in.yaml")).map(withNamespace);
  const engine = new Engine();
  const objects = surroundings(around, given);
  const namespaces = new Set([...objects, ...given].flatMap(({ metadata }) => metadata.namespace ?? []));
  engine.apply(
    worldChanges([...[...namespaces].map(namespaceObject), ...objects, ...given], {
      rootNamespace: "istio-system",
      clusterDomain: domain,
    }),
  );
  const expected = JSON.parse(readFileSync(join(folder, "status.expected.json"), "utf8")) as Rendered[];
  const got = new Map(given.flatMap((object) => statusOf(engine, object)).map((one) => [nameOf(one), one]));
  const wrong = expected.flatMap((want) => {
    const name = nameOf(want);
    const have = got.get(name);
    got.delete(name);
    return have !== undefined && isDeepStrictEqual(ordered(have), ordered(want))
      ? []
      : [{ name, text: `${JSON.stringify(ordered(have ?? {}))}, expected ${JSON.stringify(ordered(want))}` }];
  });
  return [...wrong, ...[...got.keys()].map((name) => ({ name, text: "has a status, expected none" }))];
}

/** What stands around a case, each object once and none that the case brings itself. */
function surroundings(around: readonly KubeObject[], given: readonly KubeObject[]): KubeObject[] {
  const own = new Set(given.map((object) => `${object.kind} ${objectKey(object)}`));
  const byName = new Map(around.map((object) => [`${object.kind} ${objectKey(object)}`, object]));
  return [...byName].filter(([name]) => !own.has(name)).map(([, object]) => object);
}

function withNamespace(object: KubeObject): KubeObject {
  const isNamespaced = kindInfo(groupOf(object.apiVersion), object.kind)?.namespaced !== false;
  return isNamespaced ? { ...object, metadata: { namespace: "default", ...object.metadata } } : object;
}

function namespaceObject(name: string): KubeObject {
  const labels = { "istio.io/test-name-part": name.split("-")[0] ?? "" };
  return { apiVersion: "v1", kind: "Namespace", metadata: { name, labels } };
}

/** The status of an object in the few words that are compared. */
function statusOf(engine: Engine, object: KubeObject): Rendered[] {
  const { kind, metadata } = object;
  const isKube = kind === "Gateway" && groupOf(object.apiVersion) === "gateway.networking.k8s.io";
  const name = (isKube ? "KubeGateway" : kind) as StatusKind;
  if (!statusKinds.includes(name)) return [];
  const wanted = engine.get(wantedStatusOf, { kind: name, key: objectKey(object) });
  if (wanted === undefined) return [];
  const status = renderStatus(wanted, (object.status ?? {}) as StandingStatus, "2026-01-01T00:00:00Z");
  const head = { kind, namespace: metadata.namespace ?? null, name: metadata.name };
  const parents = entries(status["parents"]);
  const ancestors = entries(status["ancestors"]);
  // A route that no parent of ours has is another controller's.
  if (parents?.length === 0) return [];
  if (parents !== undefined) return [{ ...head, parents }];
  if (ancestors !== undefined)
    return [{ ...head, [kind === "XBackend" ? "parents" : "ancestors"]: ancestors }];
  return [{ ...head, ...gateway(status) }];
}

interface Entry {
  readonly parentRef?: ParentReference;
  readonly ancestorRef?: ParentReference;
  readonly controllerName: string;
  readonly conditions?: readonly Condition[];
}

function entries(list: unknown): readonly Rendered[] | undefined {
  if (list === undefined) return undefined;
  return (list as readonly Entry[]).map(({ parentRef, ancestorRef, controllerName, conditions = [] }) => ({
    ref: parentRef ?? ancestorRef,
    controllerName,
    conditions: short(conditions),
  }));
}

function short(conditions: readonly Condition[]): Rendered {
  return Object.fromEntries(conditions.map(({ type, status, reason }) => [type, { status, reason }]));
}

function gateway(status: Rendered): Rendered {
  const listeners = (status["listeners"] ?? []) as readonly {
    name: string;
    attachedRoutes: number;
    supportedKinds: readonly { group: string; kind: string }[];
    conditions: readonly Condition[];
  }[];
  const addresses = status["addresses"] as readonly unknown[] | undefined;
  return {
    conditions: short(status["conditions"] as readonly Condition[]),
    ...(addresses === undefined || addresses.length === 0 ? {} : { addresses }),
    ...(listeners.length === 0
      ? {}
      : {
          listeners: Object.fromEntries(
            listeners.map(({ name, attachedRoutes, supportedKinds, conditions }) => [
              name,
              {
                attachedRoutes,
                supportedKinds: supportedKinds.map(({ group, kind }) => `${group}/${kind}`).toSorted(),
                conditions: short(conditions),
              },
            ]),
          ),
        }),
  };
}

function nameOf({ kind, namespace, name }: Rendered): string {
  return `${String(kind)} ${String(namespace ?? "")}/${String(name)}`;
}

/** Maps and the entries of parents in one order. */
function ordered(value: unknown): unknown {
  if (Array.isArray(value))
    return value.map(ordered).toSorted((a, b) => (JSON.stringify(a) < JSON.stringify(b) ? -1 : 1));
  if (typeof value !== "object" || value === null) return value;
  const pairs = Object.entries(value).toSorted(([a], [b]) => (a < b ? -1 : 1));
  return Object.fromEntries(pairs.map(([name, one]) => [name, ordered(one)]));
}
