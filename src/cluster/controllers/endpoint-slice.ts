// EndpointSlices of Services with a selector: which Pods stand behind a Service, and whether they may be sent anything.

import { createHash } from "node:crypto";
import type { Logger } from "#base";
import type { ApiObject, ClusterStore, NewObject } from "../api/index.ts";
import type { Endpoint, EndpointPort, EndpointSlice, Pod, Service, ServicePort } from "../types.ts";
import {
  controllerOf,
  keyOf,
  ownerReferenceTo,
  reasonOf,
  splitKey,
  stableText,
  startController,
} from "./loop.ts";
import { isOver, isPodReady } from "./pods.ts";

const resource = "endpointslices.discovery.k8s.io";
const managedBy = "endpointslice-controller.k8s.io";
const endpointsMax = 1_000; // of one slice, the API's own limit; what is above goes into further slices

export function startEndpointSliceController(store: ClusterStore, zone: string, log: Logger): () => void {
  return startController(store, log, {
    name: "endpointslice",
    watches: [
      { resource: "services", keysOf: (object) => [keyOf(object)] },
      { resource: "pods", keysOf: (object) => servicesOf(store, object) },
      {
        resource,
        keysOf: (object) =>
          controllerOf(object)?.kind === "Service"
            ? [`${object.metadata.namespace}/${controllerOf(object)?.name}`]
            : [],
      },
    ],
    reconcile: async (key) => {
      await reconcile(store, zone, key);
      return undefined;
    },
  });
}

function servicesOf(store: ClusterStore, pod: ApiObject): string[] {
  const services = store.list("services", { namespace: pod.metadata.namespace }).items as Service[];
  // A Pod whose labels changed leaves a Service that no longer selects it, so those that list it are looked at too.
  return services
    .filter((service) => selects(service, pod) || listed(store, service, pod.metadata.name))
    .map(keyOf);
}

function listed(store: ClusterStore, service: Service, pod: string): boolean {
  return slicesOf(store, service).some((slice) =>
    (slice.endpoints ?? []).some((endpoint) => endpoint.targetRef?.name === pod),
  );
}

function selects(service: Service, pod: ApiObject): boolean {
  const terms = Object.entries(service.spec.selector ?? {});
  return terms.length > 0 && terms.every(([key, value]) => pod.metadata.labels?.[key] === value);
}

function slicesOf(store: ClusterStore, service: Service): EndpointSlice[] {
  const { namespace, name } = service.metadata;
  const found = store.list(resource, { namespace, labelSelector: `kubernetes.io/service-name=${name}` })
    .items as EndpointSlice[];
  return found.filter(
    (slice) => slice.metadata.labels?.["endpointslice.kubernetes.io/managed-by"] === managedBy,
  );
}

async function reconcile(store: ClusterStore, zone: string, key: string): Promise<void> {
  const [namespace, name] = splitKey(key);
  const service = store.get("services", namespace, name) as Service | undefined;
  if (service === undefined || service.metadata.deletionTimestamp !== undefined) return; // collected with their owner
  if (Object.keys(service.spec.selector ?? {}).length === 0 || service.spec.type === "ExternalName") return;
  const pods = (store.list("pods", { namespace }).items as Pod[]).filter((pod) => selects(service, pod));
  const wanted = renderSlices(service, pods, zone);
  for (const slice of slicesOf(store, service)) {
    const next = wanted.get(slice.metadata.name);
    wanted.delete(slice.metadata.name);
    if (next === undefined) {
      await store.delete(resource, namespace, slice.metadata.name).catch(ignoreMissing);
    } else if (!same(slice, next)) {
      const metadata = { ...slice.metadata, labels: next.metadata.labels };
      await store.update(resource, { ...slice, ...next, metadata });
    }
  }
  for (const slice of wanted.values()) await store.create(resource, slice);
}

function ignoreMissing(error: unknown): void {
  if (reasonOf(error) !== "NotFound") throw error;
}

function same(slice: EndpointSlice, next: NewObject): boolean {
  const content = (object: Readonly<Record<string, unknown>>, labels: unknown) =>
    stableText([object["endpoints"] ?? [], object["ports"] ?? [], labels]);
  return content(slice, slice.metadata.labels) === content(next, next.metadata.labels);
}

/** The slices that a Service should have, by name: one for each set of target ports (a named port may differ between Pods). Pure. */
export function renderSlices(service: Service, pods: readonly Pod[], zone: string): Map<string, NewObject> {
  const groups = new Map<string, { ports: EndpointPort[]; endpoints: Endpoint[] }>();
  const emptyGroup = portsFor(service, undefined);
  for (const pod of pods.toSorted((left, right) => (left.metadata.name < right.metadata.name ? -1 : 1))) {
    if (isOver(pod) || pod.status?.podIP === undefined) continue;
    const ports = portsFor(service, pod);
    const groupKey = stableText(ports);
    const group = groups.get(groupKey) ?? { ports, endpoints: [] };
    groups.set(groupKey, group);
    group.endpoints.push(endpointOf(service, pod, zone));
  }
  if (groups.size === 0) groups.set(stableText(emptyGroup), { ports: emptyGroup, endpoints: [] });
  const result = new Map<string, NewObject>();
  for (const [groupKey, group] of groups) {
    for (let part = 0; part * endpointsMax < Math.max(1, group.endpoints.length); part++) {
      const slice = sliceOf(
        service,
        groupKey,
        part,
        group.ports,
        group.endpoints.slice(part * endpointsMax, (part + 1) * endpointsMax),
      );
      result.set(slice.metadata.name ?? "", slice);
    }
  }
  return result;
}

function sliceOf(
  service: Service,
  groupKey: string,
  part: number,
  ports: EndpointPort[],
  endpoints: Endpoint[],
): NewObject {
  const { name, namespace, labels } = service.metadata;
  const hash = createHash("sha256")
    .update(`${service.metadata.uid}|${groupKey}|${part}`)
    .digest("hex")
    .slice(0, 5);
  return {
    apiVersion: "discovery.k8s.io/v1",
    kind: "EndpointSlice",
    metadata: {
      name: `${name}-${hash}`,
      namespace,
      labels: {
        ...labels,
        "kubernetes.io/service-name": name,
        "endpointslice.kubernetes.io/managed-by": managedBy,
        ...(service.spec.clusterIP === "None" ? { "service.kubernetes.io/headless": "" } : {}),
      },
      ownerReferences: [ownerReferenceTo({ ...service, apiVersion: "v1", kind: "Service" })],
    },
    addressType: "IPv4",
    endpoints,
    ports,
  };
}

/** The numbers behind a Service's ports on one Pod; a name that the Pod does not have leaves its port out. */
function portsFor(service: Service, pod: Pod | undefined): EndpointPort[] {
  return (service.spec.ports ?? []).flatMap((port) => {
    const number = targetPort(port, pod);
    if (number === undefined) return [];
    const protocol = port.protocol ?? "TCP";
    return [
      {
        name: port.name ?? "",
        protocol,
        port: number,
        ...(port.appProtocol === undefined ? {} : { appProtocol: port.appProtocol }),
      },
    ];
  });
}

function targetPort(port: ServicePort, pod: Pod | undefined): number | undefined {
  const target = port.targetPort ?? port.port;
  if (typeof target === "number") return target;
  const sidecars = (pod?.spec.initContainers ?? []).filter(
    (container) => container.restartPolicy === "Always",
  );
  const ports = [...(pod?.spec.containers ?? []), ...sidecars].flatMap((container) => container.ports ?? []);
  return ports.find((one) => one.name === target && (one.protocol ?? "TCP") === (port.protocol ?? "TCP"))
    ?.containerPort;
}

function endpointOf(service: Service, pod: Pod, zone: string): Endpoint {
  const serving = isPodReady(pod);
  const terminating = pod.metadata.deletionTimestamp !== undefined;
  const ready = service.spec.publishNotReadyAddresses === true || (serving && !terminating);
  const named = pod.spec.hostname !== undefined && pod.spec.subdomain === service.metadata.name;
  return {
    addresses: [pod.status?.podIP ?? ""],
    conditions: { ready, serving, terminating },
    ...(named ? { hostname: pod.spec.hostname } : {}),
    nodeName: pod.spec.nodeName,
    zone,
    targetRef: {
      kind: "Pod",
      namespace: pod.metadata.namespace ?? "",
      name: pod.metadata.name,
      uid: pod.metadata.uid,
    },
  };
}
