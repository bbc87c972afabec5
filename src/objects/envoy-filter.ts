// EnvoyFilter: the shape of its spec, as its YAML says it.

import type { KubeObject } from "./object.ts";
import type { PolicyTargetReference } from "./selector.ts";
import type { SidecarWorkloadSelector } from "./sidecar.ts";

export type EnvoyFilter = KubeObject<EnvoyFilterSpec>;

export interface EnvoyFilterSpec {
  readonly workloadSelector?: SidecarWorkloadSelector;
  readonly targetRefs?: readonly PolicyTargetReference[];
  readonly configPatches?: readonly EnvoyFilterEnvoyConfigObjectPatch[];
  readonly priority?: number;
}

export type EnvoyFilterApplyTo =
  | "INVALID"
  | "LISTENER"
  | "FILTER_CHAIN"
  | "NETWORK_FILTER"
  | "HTTP_FILTER"
  | "ROUTE_CONFIGURATION"
  | "VIRTUAL_HOST"
  | "HTTP_ROUTE"
  | "CLUSTER"
  | "EXTENSION_CONFIG"
  | "BOOTSTRAP"
  | "LISTENER_FILTER";

export type EnvoyFilterPatchContext = "ANY" | "SIDECAR_INBOUND" | "SIDECAR_OUTBOUND" | "GATEWAY" | "WAYPOINT";

export interface EnvoyFilterProxyMatch {
  readonly proxyVersion?: string;
  readonly metadata?: Readonly<Record<string, string>>;
}

export interface EnvoyFilterClusterMatch {
  readonly portNumber?: number;
  readonly service?: string;
  readonly subset?: string;
  readonly name?: string;
}

export interface EnvoyFilterRouteConfigurationMatch {
  readonly portNumber?: number;
  readonly portName?: string;
  readonly gateway?: string;
  readonly vhost?: EnvoyFilterRouteConfigurationMatchVirtualHostMatch;
  readonly name?: string;
}

export interface EnvoyFilterRouteConfigurationMatchRouteMatch {
  readonly name?: string;
  readonly action?: EnvoyFilterRouteConfigurationMatchRouteMatchAction;
}

export type EnvoyFilterRouteConfigurationMatchRouteMatchAction =
  | "ANY"
  | "ROUTE"
  | "REDIRECT"
  | "DIRECT_RESPONSE";

export interface EnvoyFilterRouteConfigurationMatchVirtualHostMatch {
  readonly name?: string;
  readonly domainName?: string;
  readonly route?: EnvoyFilterRouteConfigurationMatchRouteMatch;
}

export interface EnvoyFilterListenerMatch {
  readonly portNumber?: number;
  readonly portName?: string;
  readonly filterChain?: EnvoyFilterListenerMatchFilterChainMatch;
  readonly listenerFilter?: string;
  readonly name?: string;
}

export interface EnvoyFilterListenerMatchFilterChainMatch {
  readonly name?: string;
  readonly sni?: string;
  readonly transportProtocol?: string;
  readonly transportSocket?: string;
  readonly applicationProtocols?: string;
  readonly filter?: EnvoyFilterListenerMatchFilterMatch;
  readonly destinationPort?: number;
}

export interface EnvoyFilterListenerMatchFilterMatch {
  readonly name?: string;
  readonly subFilter?: EnvoyFilterListenerMatchSubFilterMatch;
}

export interface EnvoyFilterListenerMatchSubFilterMatch {
  readonly name?: string;
}

export interface EnvoyFilterWaypointMatch {
  readonly portNumber?: number;
  readonly route?: EnvoyFilterWaypointMatchRouteMatch;
  readonly filter?: EnvoyFilterWaypointMatchFilterMatch;
}

export interface EnvoyFilterWaypointMatchRouteMatch {
  readonly name?: string;
}

export interface EnvoyFilterWaypointMatchFilterMatch {
  readonly name?: string;
  readonly subFilter?: EnvoyFilterWaypointMatchFilterMatchSubFilterMatch;
}

export interface EnvoyFilterWaypointMatchFilterMatchSubFilterMatch {
  readonly name?: string;
}

export interface EnvoyFilterPatch {
  readonly operation?: EnvoyFilterPatchOperation;
  readonly value?: Readonly<Record<string, unknown>>;
  readonly filterClass?: EnvoyFilterPatchFilterClass;
}

export type EnvoyFilterPatchOperation =
  | "INVALID"
  | "MERGE"
  | "ADD"
  | "REMOVE"
  | "INSERT_BEFORE"
  | "INSERT_AFTER"
  | "INSERT_FIRST"
  | "REPLACE"
  | "MERGE_AND_REPLACE_LIST";

export type EnvoyFilterPatchFilterClass = "UNSPECIFIED" | "AUTHN" | "AUTHZ" | "STATS";

export interface EnvoyFilterEnvoyConfigObjectMatch {
  readonly context?: EnvoyFilterPatchContext;
  readonly proxy?: EnvoyFilterProxyMatch;
  readonly listener?: EnvoyFilterListenerMatch;
  readonly routeConfiguration?: EnvoyFilterRouteConfigurationMatch;
  readonly cluster?: EnvoyFilterClusterMatch;
  readonly waypoint?: EnvoyFilterWaypointMatch;
}

export interface EnvoyFilterEnvoyConfigObjectPatch {
  readonly applyTo?: EnvoyFilterApplyTo;
  readonly match?: EnvoyFilterEnvoyConfigObjectMatch;
  readonly patch?: EnvoyFilterPatch;
}
