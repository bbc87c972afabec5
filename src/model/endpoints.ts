// Endpoints of a service: EndpointSlices joined with Pods for a Kubernetes Service; inline endpoints, WorkloadEntries
// and selected Pods for a ServiceEntry.

import { packWorkload } from "#base";
import { defineQuery, sameData, type Read } from "#engine";
import {
  healthyCondition,
  localityOfLabels,
  machineAnnotations,
  type WorkloadEntry,
  type WorkloadEntrySpec,
} from "#objects";
import { namespaceOf, type EndpointSlice, type Pod } from "./core-kinds.ts";
import { localityLabels } from "./locality-labels.ts";
import { environmentOf } from "./mesh.ts";
import { networkOfAddress, networksMatter } from "./networks.ts";
import { selects } from "./selectors.ts";
import { serviceOf, type MeshPort, type MeshService } from "./services.ts";
import { tables } from "./tables.ts";

export interface Endpoint {
  /** An IP address; a host name where the service is resolved by DNS; or a path for `unix://` endpoints. */
  readonly address: string;
  /** The service's port that it serves. */
  readonly servicePort: number;
  /** The workload's own port. */
  readonly port: number;
  readonly labels: Readonly<Record<string, string>>;
  readonly namespace: string;
  readonly serviceAccount: string;
  /** A sidecar answers there and speaks the mesh's mutual TLS. */
  readonly mesh: boolean;
  readonly locality: string;
  /** The Kubernetes node that it runs on; "" when unknown. */
  readonly node: string;
  readonly network: string;
  readonly weight: number;
  readonly healthy: boolean;
  /** The workload's facts, packed for telemetry. */
  readonly facts: string;
}

/** What a workload is, whatever service it serves: of a Pod row or a WorkloadEntry. */
interface Workload {
  readonly labels: Readonly<Record<string, string>>;
  readonly namespace: string;
  readonly serviceAccount: string;
  readonly mesh: boolean;
  readonly locality: string;
  readonly node: string;
  readonly network: string;
  readonly facts: string;
  readonly addresses: readonly string[];
  readonly ports: Readonly<Record<string, number>>;
  readonly ready: boolean;
  readonly weight: number;
}

/** Set by injection: a proxy serves the mesh's mutual TLS in front of this workload. */
const tlsModeLabel = "security.istio.io/tlsMode";

const localityOfNode = defineQuery<string>("localityOfNode", (read, name) => {
  const labels = name === "" ? undefined : read(tables.Node, name)?.metadata.labels;
  return localityText(localityLabels.map((label) => labels?.[label]));
});

const podWorkload = defineQuery<Workload | undefined>(
  "podWorkload",
  (read, key) => {
    const pod = read(tables.Pod, key);
    if (pod === undefined) return undefined;
    const { clusterId, network } = read(environmentOf, "");
    const workload = ofPod(pod, read(localityOfNode, pod.spec?.nodeName ?? ""), clusterId, network);
    return inNetwork(read, workload);
  },
  sameData,
);

/** Every endpoint of a service, all ports, ordered by port and address. Empty for aliases and unknown services. */
export const endpointsOf = defineQuery<readonly Endpoint[]>(
  "endpoints",
  (read, key) => {
    const service = read(serviceOf, key);
    if (service === undefined || service.resolution === "alias") return [];
    const found =
      service.registry === "Kubernetes"
        ? read(kubeEndpoints, service.key)
        : service.objects.flatMap((ref) =>
            read(entryEndpoints, `${ref.namespace}/${ref.name}`).flatMap((endpoint) =>
              forPorts(endpoint, service.ports),
            ),
          );
    return found.toSorted(
      (a, b) =>
        a.servicePort - b.servicePort ||
        (a.address < b.address ? -1 : a.address > b.address ? 1 : 0) ||
        a.port - b.port,
    );
  },
  sameData,
);

/** The SPIFFE-relevant identities behind a service: `namespace/serviceAccount`, in order. */
export const serviceAccountsOf = defineQuery<readonly string[]>(
  "serviceAccounts",
  (read, key) => {
    const accounts = read(endpointsOf, key)
      .filter(({ serviceAccount }) => serviceAccount !== "")
      .map(({ namespace, serviceAccount }) => `${namespace}/${serviceAccount}`);
    return [...new Set(accounts)].toSorted();
  },
  sameData,
);

/** Addresses of a headless service's endpoints on a port (`namespace/host port`): they get listeners of their own. */
export const addressesOf = defineQuery<readonly string[]>(
  "addresses",
  (read, text) => {
    const [key = "", port] = text.split(" ");
    const addresses = read(endpointsOf, key)
      .filter(({ servicePort }) => servicePort === Number(port))
      .map(({ address }) => address);
    return [...new Set(addresses)];
  },
  sameData,
);

const kubeEndpoints = defineQuery<readonly Endpoint[]>(
  "kubeEndpoints",
  (read, key) => {
    const service = read(serviceOf, key);
    return service === undefined ? [] : sliceEndpoints(read, service, withoutDatagrams(service));
  },
  sameData,
);

/** Endpoints of a service's ports of UDP, which are apart: a port of TCP may have the same number. */
export const datagramEndpointsOf = defineQuery<readonly Endpoint[]>(
  "datagramEndpoints",
  (read, key) => {
    const service = read(serviceOf, key);
    if (service === undefined) return [];
    const ports = service.ports.filter(({ protocol }) => protocol === "udp");
    const numbers = new Set(ports.map(({ port }) => port));
    return service.registry === "Kubernetes"
      ? sliceEndpoints(read, service, ports)
      : read(endpointsOf, key).filter(({ servicePort }) => numbers.has(servicePort));
  },
  sameData,
);

function withoutDatagrams({ ports }: MeshService): readonly MeshPort[] {
  return ports.every(({ protocol }) => protocol !== "udp")
    ? ports
    : ports.filter(({ protocol }) => protocol !== "udp");
}

function sliceEndpoints(read: Read, service: MeshService, ports: readonly MeshPort[]): readonly Endpoint[] {
  const { network, clusterId } = read(environmentOf, "");
  const slices = read(tables.EndpointSlice.by.service, `${service.namespace}/${service.name}`);
  const byPlace = new Map<string, Endpoint>();
  for (const slice of slices) {
    for (const endpoint of slice.endpoints ?? []) {
      const target = endpoint.targetRef;
      const podRows =
        target?.kind === "Pod" && target.name !== undefined
          ? [`${target.namespace ?? service.namespace}/${target.name}`]
          : endpoint.addresses.flatMap((address) => read(tables.Pod.by.address.members, address));
      const workload =
        podRows.map((row) => read(podWorkload, row)).find((pod) => pod !== undefined) ??
        bareWorkload(service.namespace, endpoint, network, clusterId);
      const healthy = endpoint.conditions?.ready !== false;
      for (const found of ofSlice(slice, endpoint.addresses, workload, healthy, ports)) {
        // A pod that moves between slices stands in both for a moment.
        byPlace.set(`${found.servicePort} ${found.address} ${found.port}`, found);
      }
    }
  }
  for (const workload of read(machinesOf, `${service.namespace}/${service.name}`)) {
    for (const found of forPorts(workload, ports)) {
      byPlace.set(`${found.servicePort} ${found.address} ${found.port}`, found);
    }
  }
  return [...byPlace.values()];
}

/** The WorkloadEntries that a Kubernetes Service selects beside its Pods, by the Service's row. */
const machinesOf = defineQuery<readonly Workload[]>(
  "machinesOf",
  (read, key) => {
    const selector = read(tables.Service, key)?.spec?.selector ?? {};
    if (Object.keys(selector).length === 0) return [];
    const namespace = key.slice(0, key.indexOf("/"));
    const { clusterId, network } = read(environmentOf, "");
    return read(tables.WorkloadEntry.by.namespace, namespace).flatMap((row) => {
      const labels = { ...row.metadata.labels, ...row.spec?.labels };
      return row.spec === undefined || !selects(selector, labels)
        ? []
        : [
            inNetwork(read, {
              ...ofWorkloadEntry(row.spec, labels, namespace, clusterId, network),
              ready: isHealthy(row),
            }),
          ];
    });
  },
  sameData,
);

/** Endpoints of one ServiceEntry object, before its ports are known. */
const entryEndpoints = defineQuery<readonly Workload[]>(
  "entryEndpoints",
  (read, key) => {
    const entry = read(tables.ServiceEntry, key);
    const spec = entry?.spec;
    if (entry === undefined || spec === undefined) return [];
    const { clusterId, network } = read(environmentOf, "");
    const namespace = namespaceOf(entry);
    if (spec.workloadSelector === undefined) {
      const inline = spec.endpoints ?? [];
      const byHost = spec.resolution === "DNS" || spec.resolution === "DNS_ROUND_ROBIN";
      // Without endpoints, DNS resolves the host itself.
      const given = inline.length === 0 && byHost ? [{ address: spec.hosts[0] ?? "" }] : inline;
      return given.map((endpoint) =>
        inNetwork(read, ofWorkloadEntry(endpoint, endpoint.labels ?? {}, namespace, clusterId, network)),
      );
    }
    const wanted = spec.workloadSelector.labels ?? {};
    const entries = read(tables.WorkloadEntry.by.namespace, namespace).flatMap((row) => {
      const labels = { ...row.metadata.labels, ...row.spec?.labels };
      return row.spec === undefined || !selects(wanted, labels)
        ? []
        : [
            inNetwork(read, {
              ...ofWorkloadEntry(row.spec, labels, namespace, clusterId, network),
              ready: isHealthy(row),
            }),
          ];
    });
    const pods = read(tables.Pod.by.namespace.members, namespace).flatMap((row) => {
      const pod = read(podWorkload, row);
      return pod !== undefined && pod.addresses.length > 0 && selects(wanted, pod.labels) ? [pod] : [];
    });
    return [...entries, ...pods];
  },
  sameData,
);

function forPorts(workload: Workload, ports: readonly MeshPort[]): Endpoint[] {
  return workload.addresses.slice(0, 1).flatMap((address) =>
    ports.map((port) => ({
      ...endpointOf(workload),
      address,
      servicePort: port.port,
      port: workload.ports[port.name] ?? numberOf(port, workload),
      healthy: workload.ready,
    })),
  );
}

function numberOf(port: MeshPort, workload: Workload): number {
  if (typeof port.targetPort === "number") return port.targetPort;
  return workload.ports[port.targetPort] ?? port.port;
}

function ofSlice(
  slice: EndpointSlice,
  addresses: readonly string[],
  workload: Workload,
  healthy: boolean,
  ports: readonly MeshPort[],
): Endpoint[] {
  const found: Endpoint[] = [];
  for (const port of ports) {
    const slicePort = (slice.ports ?? []).find(({ name }) => (name ?? "") === port.name);
    if (slicePort?.port === undefined) continue;
    for (const address of addresses) {
      found.push({
        ...endpointOf(workload),
        address,
        servicePort: port.port,
        port: slicePort.port,
        healthy,
      });
    }
  }
  return found;
}

function endpointOf(workload: Workload): Omit<Endpoint, "address" | "servicePort" | "port" | "healthy"> {
  const { labels, namespace, serviceAccount, mesh, locality, node, network, facts, weight } = workload;
  return { labels, namespace, serviceAccount, mesh, locality, node, network, facts, weight };
}

function ofPod(pod: Pod, nodeLocality: string, clusterId: string, network: string): Workload {
  const labels = pod.metadata.labels ?? {};
  const namespace = namespaceOf(pod);
  const addresses = (pod.status?.podIPs ?? [{ ip: pod.status?.podIP }]).flatMap(({ ip }) => ip ?? []);
  const containers = [...(pod.spec?.containers ?? []), ...(pod.spec?.initContainers ?? [])];
  const ports = containers.flatMap((container) =>
    (container.ports ?? []).flatMap(({ name, containerPort }) =>
      name === undefined ? [] : [[name, containerPort] as const],
    ),
  );
  return {
    labels,
    namespace,
    serviceAccount: pod.spec?.serviceAccountName ?? "default",
    mesh: labels[tlsModeLabel] === "istio",
    locality: localityOfLabels(labels) ?? nodeLocality,
    node: pod.spec?.nodeName ?? "",
    network: labels["topology.istio.io/network"] ?? network,
    facts: packFacts(labels, workloadName(pod), namespace, clusterId),
    addresses,
    ports: Object.fromEntries(ports),
    ready: (pod.status?.conditions ?? []).every(({ type, status }) => type !== "Ready" || status === "True"),
    weight: 1,
  };
}

/** An entry whose health is checked serves only once it is known to be healthy; any other until it is known not to be. */
function isHealthy({ metadata, status }: WorkloadEntry): boolean {
  const condition = status?.conditions?.find(({ type }) => type === healthyCondition);
  if (condition !== undefined) return condition.status !== "False";
  return metadata.annotations?.[machineAnnotations.healthChecks] !== "true";
}

function ofWorkloadEntry(
  spec: WorkloadEntrySpec,
  labels: Readonly<Record<string, string>>,
  namespace: string,
  clusterId: string,
  network: string,
): Workload {
  const own = spec.network ?? "";
  return {
    labels,
    namespace,
    serviceAccount: spec.serviceAccount ?? "",
    // Istio takes a ServiceEntry's endpoint for a proxied one when it says so, or when it has an identity.
    mesh: labels[tlsModeLabel] === "istio" || (spec.serviceAccount ?? "") !== "",
    locality: spec.locality ?? localityOfLabels(labels) ?? "",
    node: "",
    network: own === "" ? (labels["topology.istio.io/network"] ?? network) : own,
    facts: packFacts(labels, labels["app"] ?? "", namespace, clusterId),
    addresses: spec.address === undefined || spec.address === "" ? [] : [spec.address],
    ports: spec.ports ?? {},
    ready: true,
    weight: spec.weight === undefined || spec.weight === 0 ? 1 : spec.weight,
  };
}

/** Where neither the workload nor the control plane names a network, MeshNetworks may. */
function inNetwork(read: Read, workload: Workload): Workload {
  if (workload.network !== "" || !read(networksMatter, "")) return workload;
  return { ...workload, network: read(networkOfAddress, workload.addresses[0] ?? "") };
}

/** An endpoint without a Pod that we know: an address somebody wrote into an EndpointSlice. */
function bareWorkload(
  namespace: string,
  { zone = "", nodeName = "" }: { readonly zone?: string; readonly nodeName?: string },
  network: string,
  clusterId: string,
): Workload {
  return {
    labels: {},
    namespace,
    serviceAccount: "",
    mesh: false,
    locality: zone === "" ? "" : `/${zone}`,
    node: nodeName,
    network,
    facts: packWorkload({ namespace, cluster: clusterId }),
    addresses: [],
    ports: {},
    ready: true,
    weight: 1,
  };
}

/** What telemetry says about a Pod's workload, packed as `packWorkload` does: the CA writes it into certificates. */
export function podFacts(pod: Pod, clusterId: string): string {
  return packFacts(pod.metadata.labels ?? {}, workloadName(pod), namespaceOf(pod), clusterId);
}

/** The workload behind a Pod, from its owner: a ReplicaSet's name loses the hash that its Deployment gave it. */
function workloadName(pod: Pod): string {
  const owner = pod.metadata.ownerReferences?.find(({ controller }) => controller === true);
  if (owner === undefined) return pod.metadata.name;
  if (owner.kind !== "ReplicaSet") return owner.name;
  const hash = pod.metadata.labels?.["pod-template-hash"];
  return hash !== undefined && owner.name.endsWith(`-${hash}`)
    ? owner.name.slice(0, -hash.length - 1)
    : owner.name.replace(/-[a-f0-9]{6,10}$/, "");
}

function packFacts(
  labels: Readonly<Record<string, string>>,
  workload: string,
  namespace: string,
  cluster: string,
): string {
  const app = labels["app"] ?? labels["app.kubernetes.io/name"] ?? "";
  const version = labels["version"] ?? labels["app.kubernetes.io/version"] ?? "";
  return packWorkload({
    workload,
    namespace,
    app: labels["app"] ?? "",
    version: labels["version"] ?? "",
    canonicalService: labels["service.istio.io/canonical-name"] ?? (app === "" ? workload : app),
    canonicalRevision: labels["service.istio.io/canonical-revision"] ?? (version === "" ? "latest" : version),
    cluster,
  });
}

function localityText(parts: readonly (string | undefined)[]): string {
  return parts
    .map((part) => part ?? "")
    .join("/")
    .replace(/\/+$/, "");
}
