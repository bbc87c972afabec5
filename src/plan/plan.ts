// A plan names the resources that a view wants; it does not hold them. So a change inside a resource re-runs that
// one resource, and no plan.
//
// A view is what proxies share: everything that makes one proxy's answer differ from another's is in its key. Each
// proxy has several views, and gets the union: the outbound view of its namespace and Sidecar, shared by many, and
// the inbound view of its workload, shared by the replicas of a Deployment. Gateways have one view a workload.

export const resourceTypes = ["cluster", "endpoint", "listener", "route", "virtualHost", "secret"] as const;
export type ResourceType = (typeof resourceTypes)[number];

/** One planned resource: the name Envoy knows it by, and the key of the query that builds it. */
export interface Planned<K = unknown> {
  readonly name: string;
  readonly key: K;
}

/**
 * A part of a plan with one cause (a namespace's services, a port's routes). Chunks come from memoized queries, so
 * an unchanged part is the identical chunk: two plans are compared chunk by chunk with `===`, and only what changed
 * is looked into. Names are unique over all chunks of one type and plan.
 */
export interface Chunk<K = unknown> {
  readonly id: string;
  /** What is in it goes only to proxies that ask for it by name; another chunk may plan some of it for everyone. */
  readonly onDemand?: true;
  readonly entries: readonly Planned<K>[];
}

export type Plan = Readonly<Record<ResourceType, readonly Chunk[]>>;

export const emptyPlan: Plan = {
  cluster: [],
  endpoint: [],
  listener: [],
  route: [],
  virtualHost: [],
  secret: [],
};
