// What the routes of Gateway API come to: their rules translated, and the status of each.

import { defineKeyedQuery, sameData, type Read } from "#engine";
import type {
  ParentReference,
  VirtualServiceHttpRoute,
  VirtualServiceTcpRoute,
  VirtualServiceTlsRoute,
} from "#objects";
import { tables } from "../tables.ts";
import type { BackendUser } from "./backends.ts";
import { gatewayController } from "./classes.ts";
import { bad, good, judged, type Findings, type Mistake } from "./findings.ts";
import { convertHttpRules, grpcRules, httpRules } from "./http-rules.ts";
import { parentsOf, type RouteParent } from "./parents.ts";
import { referenceText, routeText, type RouteKey } from "./references.ts";
import { convertTcpRules, convertTlsRules } from "./stream-rules.ts";

export interface RouteRules {
  readonly http: readonly VirtualServiceHttpRoute[];
  readonly tls: readonly VirtualServiceTlsRoute[];
  readonly tcp: readonly VirtualServiceTcpRoute[];
  readonly mistake?: Mistake;
  /** What is wrong with rules that are left out. */
  readonly dropped?: string;
}

export interface RulesKey {
  readonly route: RouteKey;
  /** Whether it is for a parent in the mesh: what needs a ReferenceGrant depends on it. */
  readonly mesh: boolean;
}

const nothing = { http: [], tls: [], tcp: [] };

/** The rules of a route in the terms of a VirtualService. */
export const routeRulesOf = defineKeyedQuery<RulesKey, RouteRules>(
  "routeRules",
  ({ route, mesh }) => `${routeText(route)} ${mesh ? "mesh" : ""}`,
  (read, { route, mesh }) => {
    const { kind, key } = route;
    const user: BackendUser = { kind, namespace: key.slice(0, key.indexOf("/")), mesh };
    const name = key.replace("/", ".");
    switch (kind) {
      case "HTTPRoute": {
        const rules = read(tables.HTTPRoute, key)?.spec?.rules ?? [];
        const { routes, ...rest } = convertHttpRules(read, user, httpRules(rules, name));
        return { ...nothing, ...rest, http: routes };
      }
      case "GRPCRoute": {
        const rules = read(tables.GRPCRoute, key)?.spec?.rules ?? [];
        const { routes, ...rest } = convertHttpRules(read, user, grpcRules(rules, name));
        return { ...nothing, ...rest, http: routes };
      }
      case "TLSRoute": {
        const spec = read(tables.TLSRoute, key)?.spec;
        const { routes, ...rest } = convertTlsRules(read, user, spec?.rules ?? [], spec?.hostnames ?? []);
        return { ...nothing, ...rest, tls: routes };
      }
      case "TCPRoute": {
        const rules = read(tables.TCPRoute, key)?.spec?.rules ?? [];
        const { routes, ...rest } = convertTcpRules(read, user, rules);
        return { ...nothing, ...rest, tcp: routes };
      }
      case "UDPRoute": {
        // Its one rule sends datagrams where that of a TCPRoute would send connections.
        const rules = read(tables.UDPRoute, key)?.spec?.rules ?? [];
        const { routes, ...rest } = convertTcpRules(read, user, rules);
        return { ...nothing, ...rest, tcp: routes };
      }
    }
  },
  sameData,
);

export interface ParentStatus {
  readonly reference: ParentReference;
  readonly controller: string;
  readonly conditions: Findings;
}

/** The entries of a route's status that are ours: one a reference, whatever the number of listeners behind it. */
export const routeStatusOf = defineKeyedQuery<RouteKey, readonly ParentStatus[]>(
  "routeStatus",
  routeText,
  (read, route) => {
    const namespace = route.key.slice(0, route.key.indexOf("/"));
    const groups = Map.groupBy(read(parentsOf, route), ({ reference }) =>
      referenceText(reference, namespace),
    );
    return [...groups.values()].map((parents) => parentStatus(read, route, parents));
  },
  sameData,
);

/** The less serious a refusal, the nearer the route came to being taken: that one is told. */
const refusalRanks: readonly string[] = [
  "NotAllowedByListeners",
  "NoMatchingListenerHostname",
  "ParentRefConflict",
  "UnsupportedValue",
  "NoMatchingParent",
];

function parentStatus(read: Read, route: RouteKey, parents: readonly RouteParent[]): ParentStatus {
  const rank = ({ denied }: RouteParent): number =>
    denied === undefined ? -1 : refusalRanks.indexOf(denied.reason);
  const nearest = parents.toSorted((a, b) => rank(a) - rank(b))[0]!;
  const taken = parents.filter(({ denied }) => denied === undefined).length;
  const { mistake, dropped, ...rules } = read(routeRulesOf, { route, mesh: nearest.gateway === "mesh" });
  // In Gateway API's words: without any rule that holds the route is not accepted, with some it is partially invalid.
  const reason = "UnsupportedValue";
  const isEmpty = [...rules.http, ...rules.tls, ...rules.tcp].length === 0;
  const refused =
    nearest.denied ?? (dropped !== undefined && isEmpty ? { reason, message: dropped } : undefined);
  return {
    reference: nearest.reference,
    controller: gatewayController,
    conditions: {
      Accepted:
        refused === undefined
          ? judged(undefined, "Accepted", taken > 1 ? `${taken} listeners take it` : "it is taken")
          : bad(refused),
      ResolvedRefs: judged(mistake, "ResolvedRefs", "every reference leads to something"),
      ...(dropped === undefined || isEmpty ? {} : { PartiallyInvalid: good(reason, dropped) }),
    },
  };
}

/** The objects' names, for origins. */
export function routeRef({ kind, key }: RouteKey) {
  const [namespace = "", name = ""] = key.split("/");
  return { kind, namespace, name };
}
