// References between objects of Gateway API: what an absent group, kind or namespace means, and the texts under which
// tables group objects by what they name.

import type { BackendObjectReference, ParentReference } from "#objects";

export const gatewayApiGroup = "gateway.networking.k8s.io";
export const experimentalGroup = "gateway.networking.x-k8s.io";
const istioGroup = "networking.istio.io";

/** What a route may be attached to. */
export type ParentKind = "Gateway" | "ListenerSet" | "Service" | "ServiceEntry";

export interface Parent {
  readonly kind: ParentKind;
  /** `namespace/name`. */
  readonly key: string;
}

/** The kinds of routes, in the order in which they are looked at. */
export const routeKinds = ["HTTPRoute", "GRPCRoute", "TLSRoute", "TCPRoute", "UDPRoute"] as const;
export type RouteKind = (typeof routeKinds)[number];

/** A route by kind and row key. */
export interface RouteKey {
  readonly kind: RouteKind;
  readonly key: string;
}

export function routeText({ kind, key }: RouteKey): string {
  return `${kind} ${key}`;
}

export function parentText({ kind, key }: Parent): string {
  return `${kind} ${key}`;
}

/** The parent that a reference names; undefined for a kind that is another controller's. */
export function parentOf(
  reference: Pick<ParentReference, "group" | "kind" | "namespace" | "name">,
  namespace: string,
): Parent | undefined {
  const group = reference.group ?? gatewayApiGroup;
  const kind = reference.kind ?? "Gateway";
  const key = `${reference.namespace ?? namespace}/${reference.name}`;
  if (group === gatewayApiGroup && (kind === "Gateway" || kind === "ListenerSet")) return { kind, key };
  if (group === "" && kind === "Service") return { kind, key };
  return group === istioGroup && kind === "ServiceEntry" ? { kind, key } : undefined;
}

export function isMeshParent({ kind }: Parent): boolean {
  return kind === "Service" || kind === "ServiceEntry";
}

type References = readonly (Parameters<typeof parentOf>[0] | undefined)[] | undefined;

/** The groups of an object by its parents. */
export function parentGroups(references: References, namespace: string): readonly string[] {
  const groups = (references ?? []).flatMap((reference) => {
    const parent = reference === undefined ? undefined : parentOf(reference, namespace);
    return parent === undefined ? [] : [parentText(parent)];
  });
  return [...new Set(groups)];
}

/** The one group of routes that have a parent in the mesh. */
export const meshRoutes = "mesh";

export function meshGroup(references: References): readonly string[] {
  const inMesh = (references ?? []).some((reference) => {
    const parent = reference === undefined ? undefined : parentOf(reference, "");
    return parent !== undefined && isMeshParent(parent);
  });
  return inMesh ? [meshRoutes] : [];
}

/** What a backend reference names: its group and kind made explicit. */
export interface Backend {
  readonly group: string;
  readonly kind: string;
  readonly namespace: string;
  readonly name: string;
}

export function backendOf(reference: BackendObjectReference, namespace: string): Backend {
  return {
    group: reference.group ?? "",
    kind: reference.kind ?? "Service",
    namespace: reference.namespace ?? namespace,
    name: reference.name,
  };
}

export function backendText({ kind, namespace, name }: Omit<Backend, "group">): string {
  return `${kind} ${namespace}/${name}`;
}

/** The groups of a route by the backends that its rules send to. */
export function backendGroups(
  rules: readonly { readonly backendRefs?: readonly BackendObjectReference[] }[] | undefined,
  namespace: string,
): readonly string[] {
  const groups = (rules ?? []).flatMap(({ backendRefs }) =>
    (backendRefs ?? []).map((reference) => backendText(backendOf(reference, namespace))),
  );
  return [...new Set(groups)];
}

/** The groups of a policy by its targets, which are of its own namespace. */
export function policyGroups(
  targets: readonly { readonly kind: string; readonly name: string }[] | undefined,
  namespace: string,
): readonly string[] {
  return [...new Set((targets ?? []).map(({ kind, name }) => backendText({ kind, namespace, name })))];
}

/** A stable text for a parent reference, by which entries of a status are told apart. */
export function referenceText(reference: ParentReference, namespace: string): string {
  return [
    reference.group ?? gatewayApiGroup,
    reference.kind ?? "Gateway",
    reference.name,
    reference.sectionName ?? "",
    `${reference.port ?? 0}.${reference.namespace ?? namespace}`,
  ].join("/");
}
