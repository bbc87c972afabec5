// Where a rule of a route sends requests: the destination behind a backend reference, or what is wrong with it.

import type { Read } from "#engine";
import type { BackendObjectReference, BackendRef, Destination } from "#objects";
import { environmentOf } from "../mesh.ts";
import { serviceKey, serviceOf } from "../services.ts";
import { tables } from "../tables.ts";
import type { Mistake } from "./findings.ts";
import { isGranted } from "./grants.ts";
import { backendOf, experimentalGroup, type RouteKind } from "./references.ts";

/** Who refers to a backend. */
export interface BackendUser {
  readonly kind: RouteKind;
  readonly namespace: string;
  /** A route of the mesh may send anywhere; one of a Gateway needs a ReferenceGrant. */
  readonly mesh: boolean;
}

export type FoundBackend =
  /** Requests go there; with a mistake it is a place that answers 500. */
  | { readonly kind: "destination"; readonly destination: Destination; readonly mistake?: Mistake }
  /** Nothing can be made of it: the route as a whole is not translated. */
  | { readonly kind: "refused"; readonly mistake: Mistake };

/** A host that no service has: requests to it are answered with 500, connections are closed. */
export const nowhere = "backend.invalid";

const serviceImportGroup = "multicluster.x-k8s.io";

export function findBackend(read: Read, user: BackendUser, reference: BackendObjectReference): FoundBackend {
  const to = backendOf(reference, user.namespace);
  const from = { kind: user.kind, namespace: user.namespace };
  if (!user.mesh && reference.namespace !== undefined && !read(isGranted, { from, to })) {
    const message = `no ReferenceGrant in namespace ${to.namespace} lets a ${user.kind} of namespace ${user.namespace} send to ${to.name}`;
    return lost({ reason: "RefNotPermitted", message });
  }
  const { clusterDomain } = read(environmentOf, "");
  switch (`${to.group}/${to.kind}`) {
    case "/Service":
    case `${serviceImportGroup}/ServiceImport`: {
      if (to.name.includes("."))
        return refused(`${to.name} is a host, where the name of a Service is wanted`);
      const exists = read(tables.Service, `${to.namespace}/${to.name}`) !== undefined;
      return atPort(`${to.name}.${to.namespace}.svc.${clusterDomain}`, reference.port, exists);
    }
    case "networking.istio.io/Hostname": {
      if (reference.namespace !== undefined) return refused("a Hostname has no namespace");
      const exists = read(serviceOf, serviceKey(to.namespace, to.name)) !== undefined;
      return atPort(to.name, reference.port, exists);
    }
    case `${experimentalGroup}/XBackend`:
      return experimentalBackend(read, to.namespace, to.name, reference.port);
    default: {
      const message = `there is no way to send to ${to.kind} of group "${to.group}"`;
      return lost({ reason: "InvalidKind", message });
    }
  }
}

function experimentalBackend(
  read: Read,
  namespace: string,
  name: string,
  port: number | undefined,
): FoundBackend {
  const spec = read(tables.XBackend, `${namespace}/${name}`)?.spec;
  if (spec === undefined) return lost(notFound(`XBackend ${namespace}/${name}`));
  const hostname = spec.externalHostname?.hostname;
  if (spec.type !== "ExternalHostname" || hostname === undefined)
    return lost({
      reason: "InvalidKind",
      message: `XBackend ${name} of type ${spec.type} cannot be reached`,
    });
  if (port !== undefined && port !== spec.port.port)
    return lost({
      reason: "BackendNotFound",
      message: `XBackend ${name} has port ${spec.port.port}, not ${port}`,
    });
  const exists = read(serviceOf, serviceKey(namespace, hostname)) !== undefined;
  return atPort(hostname, spec.port.port, exists);
}

function atPort(host: string, port: number | undefined, exists: boolean): FoundBackend {
  if (port === undefined) return refused("a backendRef needs a port");
  const destination = { host, port: { number: port } };
  return exists
    ? { kind: "destination", destination }
    : { kind: "destination", destination, mistake: notFound(host) };
}

function notFound(what: string): Mistake {
  return { reason: "BackendNotFound", message: `backend ${what} does not exist` };
}

function lost(mistake: Mistake): FoundBackend {
  return { kind: "destination", destination: { host: nowhere, port: { number: 65_535 } }, mistake };
}

function refused(message: string): FoundBackend {
  return { kind: "refused", mistake: { reason: "InvalidDestination", message } };
}

/** Weights of backends: 1 by default. */
export function weightOf({ weight }: Pick<BackendRef, "weight">): number {
  return weight ?? 1;
}
