// Who may have which configuration. A proxy says in its node id who it is; it gets that only if the identity that it has
// proven is the one of the Pod it names. What it is entitled to comes from the Pod, not from what the proxy says.

import { accessLogServiceField, isBootstrapTracer, tracerField } from "#base";
import type { Message } from "#envoy";
import {
  labels as labelNames,
  annotations as annotationNames,
  machineAccount,
  machineLabels,
  parseProxyConfig,
  localityOfLabels,
} from "#objects";
import {
  dnsCaptureField,
  environmentRow,
  environmentTable,
  defaultEnvironment,
  instanceAddressesField,
  tables,
  tuningIn,
  type Pod,
  type ProxyClass,
} from "#model";
import type { Engine } from "#engine";
import { GrpcError, grpcStatus, type Admitted, type AdsProtocol, type GrpcPeer } from "#xds";
import { Unauthenticated, type Authenticate, type Caller } from "./ca-service.ts";
import type { Machine } from "./machines.ts";

export interface NodeId {
  readonly kind: "sidecar" | "router";
  readonly address: string;
  readonly pod: string;
  readonly namespace: string;
}

/** Parses `sidecar~10.244.0.7~reviews-v1-abc.default~default.svc.cluster.local`; undefined if it is no such id. */
export function parseNodeId(id: string): NodeId | undefined {
  const [kind, address = "", name = ""] = id.split("~");
  if (id.split("~").length !== 4 || (kind !== "sidecar" && kind !== "router")) return undefined;
  const dot = name.lastIndexOf(".");
  if (dot <= 0 || dot === name.length - 1) return undefined;
  return { kind, address, pod: name.slice(0, dot), namespace: name.slice(dot + 1) };
}

export interface AdmissionOptions {
  readonly engine: Engine;
  readonly authenticate: Authenticate;
  /** Resolves once the Pod is known, or undefined if it does not become so soon. */
  readonly awaitPod: (key: string) => Promise<Pod | undefined>;
  readonly unauthenticated: (reason: string) => void;
  /** A machine outside of the cluster is let in. */
  readonly machine: (id: string, machine: Machine) => void;
  /** A gateway of a service account, `namespace/name`, is let in: resolves when it is known what it may have. */
  readonly router: (account: string) => Promise<void>;
}

/** Admission on the port with TLS: proof is needed. */
export function admitProven(options: AdmissionOptions) {
  return async (node: Message, peer: GrpcPeer, protocol: AdsProtocol): Promise<Admitted<ProxyClass>> => {
    const caller = await callerOf(options, peer);
    const id = String(node["id"] ?? "");
    const nodeId = knownNode(id);
    if (caller.identity.namespace !== nodeId.namespace) {
      const said = `${nodeId.namespace}/${nodeId.pod}`;
      throw denied(`the identity of namespace ${caller.identity.namespace} is not that of pod ${said}`);
    }
    if (nodeId.kind === "router")
      await options.router(`${caller.identity.namespace}/${caller.identity.serviceAccount}`);
    const groupName = fieldsOf(node)[groupField]?.stringValue ?? "";
    if (groupName !== "") return admitMachine(options, { id, nodeId, node, caller, groupName, protocol });
    const pod = await podOf(options, nodeId);
    const account = serviceAccountOf(pod);
    if (caller.identity.serviceAccount !== account)
      throw denied(
        `the identity of service account ${caller.identity.serviceAccount} is not the pod's, ${account}`,
      );
    if (caller.podName !== undefined && caller.podName !== nodeId.pod)
      throw denied(`the token is bound to pod ${caller.podName} and not to ${nodeId.pod}`);
    if (caller.podUid !== undefined && pod.metadata.uid !== undefined && caller.podUid !== pod.metadata.uid)
      throw denied(`the token is bound to an earlier pod ${nodeId.pod}`);
    return { id, proxyClass: classOf(options.engine, nodeId, pod, saidBy(node, protocol)) };
  };
}

/** The field of a node's metadata by which a machine outside of the cluster names its WorkloadGroup. */
const groupField = "AUTO_REGISTER_GROUP";

interface ConnectingMachine {
  readonly id: string;
  readonly nodeId: NodeId;
  readonly node: Message;
  readonly caller: Caller;
  readonly groupName: string;
  readonly protocol: AdsProtocol;
}

/** No Pod says what a machine is entitled to: its group does, and the machine proves the group's service account. */
function admitMachine(options: AdmissionOptions, connecting: ConnectingMachine): Admitted<ProxyClass> {
  const { id, nodeId, node, caller, groupName, protocol } = connecting;
  const { engine } = options;
  const key = `${nodeId.namespace}/${groupName}`;
  if (caller.podName !== undefined)
    throw denied(`pod ${caller.podName} is in the cluster and cannot join by a WorkloadGroup`);
  const group = engine.rows(tables.WorkloadGroup).get(key);
  if (group === undefined)
    throw new GrpcError(grpcStatus.unavailable, `WorkloadGroup ${key} is not known (yet)`);
  if (caller.identity.serviceAccount !== machineAccount(group))
    throw denied(
      `machines of WorkloadGroup ${key} have service account ${machineAccount(group)}, not ${caller.identity.serviceAccount}`,
    );
  const environment = engine.rows(environmentTable).get(environmentRow) ?? defaultEnvironment;
  const said = saidBy(node, protocol);
  const template = group.spec?.template;
  const network = fieldsOf(node)["NETWORK"]?.stringValue ?? template?.network ?? "";
  options.machine(id, { group, namespace: nodeId.namespace, address: nodeId.address, network });
  return {
    id,
    proxyClass: {
      kind: nodeId.kind,
      namespace: nodeId.namespace,
      labels: machineLabels(group),
      serviceAccount: machineAccount(group),
      network: network === "" ? environment.network : network,
      locality: template?.locality ?? "",
      clusterId: environment.clusterId,
      dnsDomain: `${nodeId.namespace}.svc.${environment.clusterDomain}`,
      interception: said.interception,
      envoyVersion: said.envoyVersion,
      metadata: { ...said.metadata, [instanceAddressesField]: nodeId.address },
      ...(said.stateOfTheWorld === true ? { stateOfTheWorld: true } : {}),
    },
  };
}

/** Admission on the plaintext port, which the operator has opened: the Pod must exist, nothing is proven. */
export function admitUnproven(options: AdmissionOptions) {
  return async (node: Message, _peer: GrpcPeer, protocol: AdsProtocol): Promise<Admitted<ProxyClass>> => {
    const id = String(node["id"] ?? "");
    const nodeId = knownNode(id);
    return {
      id,
      proxyClass: classOf(options.engine, nodeId, await podOf(options, nodeId), saidBy(node, protocol)),
    };
  };
}

/** The class of a proxy that is let in already, after its Pod changed; undefined if the Pod is gone. */
export function classAgain(engine: Engine, id: string, before: ProxyClass): ProxyClass | undefined {
  const nodeId = parseNodeId(id);
  const pod = nodeId === undefined ? undefined : engine.rows(tables.Pod).get(podKey(nodeId));
  if (nodeId === undefined || pod === undefined) return undefined;
  return classOf(engine, nodeId, pod, before);
}

/** Rejects with GrpcError whoever has proven nothing. */
export async function callerOf(
  { authenticate, unauthenticated }: Pick<AdmissionOptions, "authenticate" | "unauthenticated">,
  peer: GrpcPeer,
): Promise<Caller> {
  try {
    return await authenticate({ authorization: peer.authorization, peerCertificate: peer.certificate });
  } catch (error) {
    if (!(error instanceof Unauthenticated)) throw error;
    unauthenticated(error.reason);
    throw new GrpcError(grpcStatus.unauthenticated, error.message);
  }
}

function knownNode(id: string): NodeId {
  const nodeId = parseNodeId(id);
  if (nodeId === undefined) {
    const expected = "sidecar|router~<address>~<pod>.<namespace>~<domain>";
    throw new GrpcError(grpcStatus.invalidArgument, `the node id ${JSON.stringify(id)} is not ${expected}`);
  }
  return nodeId;
}

async function podOf({ awaitPod }: AdmissionOptions, nodeId: NodeId): Promise<Pod> {
  const key = podKey(nodeId);
  const pod = await awaitPod(key);
  if (pod === undefined) throw new GrpcError(grpcStatus.unavailable, `pod ${key} is not known (yet)`);
  const addresses = [pod.status?.podIP, ...(pod.status?.podIPs ?? []).map(({ ip }) => ip)].filter(
    (address) => address !== undefined,
  );
  // Before the kubelet has reported an address there is nothing to compare with.
  if (addresses.length > 0 && !addresses.includes(nodeId.address))
    throw denied(`${nodeId.address} is no address of pod ${key}`);
  return pod;
}

/** The few things that a proxy itself says and that entitle it to nothing. */
interface Said {
  readonly envoyVersion: string;
  readonly metadata: ProxyClass["metadata"];
  /** Decides about its own listeners alone. */
  readonly interception: ProxyClass["interception"];
  readonly kind: ProxyClass["kind"];
  readonly stateOfTheWorld?: true;
  readonly targets?: readonly string[];
}

/** The class of a client without a proxy, which says what it wants by the names that it asks for. */
export function classAsking(proxyClass: ProxyClass, names: readonly string[]): ProxyClass {
  if (proxyClass.kind !== "grpc") return proxyClass;
  const { targets = [] } = proxyClass;
  const isSame = targets.length === names.length && targets.every((name, at) => name === names[at]);
  return isSame ? proxyClass : { ...proxyClass, targets: names };
}

function fieldsOf(node: Message): Readonly<Record<string, { readonly stringValue?: string } | undefined>> {
  const { fields } = (node["metadata"] ?? {}) as {
    readonly fields?: Readonly<Record<string, { readonly stringValue?: string }>>;
  };
  return fields ?? {};
}

/** What a proxy says of itself that is its own, or that the control plane knows better. */
const leftOut: ReadonlySet<string> = new Set([
  ...[
    "NAME",
    "NAMESPACE",
    "INSTANCE_IPS",
    "NODE_NAME",
    "NODE_IP",
    "HOST_IP",
    "POD_PORTS",
    "APP_CONTAINERS",
    "GENERATOR",
  ],
  ...["CLUSTER_ID", "SERVICE_ACCOUNT", "NETWORK", "INTERCEPTION_MODE", "ISTIO_VERSION"],
  ...[dnsCaptureField, accessLogServiceField, tracerField],
]);
/** Of what EnvoyFilters may ask a proxy for: beyond it the rest, in order of name, is not known. */
const factsMax = 32;
const factLengthMax = 256;

/** The texts among a proxy's metadata that its replicas share, for EnvoyFilters that ask for them. */
function factsIn(fields: ReturnType<typeof fieldsOf>): Readonly<Record<string, string>> {
  const said = Object.entries(fields).flatMap(([name, value]) => {
    const text = value?.stringValue ?? "";
    return leftOut.has(name) || text === "" || text.length > factLengthMax ? [] : [[name, text] as const];
  });
  return Object.fromEntries(said.toSorted(([a], [b]) => (a < b ? -1 : 1)).slice(0, factsMax));
}

function saidBy(node: Message, protocol: AdsProtocol): Said {
  const fields = fieldsOf(node);
  const tracer = fields[tracerField]?.stringValue;
  const abilities = [dnsCaptureField, accessLogServiceField].filter(
    (name) => fields[name]?.stringValue === "true",
  );
  return {
    envoyVersion: envoyVersionOf(node),
    metadata: {
      ...factsIn(fields),
      ...Object.fromEntries(abilities.map((name) => [name, "true"])),
      ...(isBootstrapTracer(tracer) ? { [tracerField]: tracer } : {}),
    },
    interception: interceptionOf(fields["INTERCEPTION_MODE"]?.stringValue),
    // Istio's word for a program that speaks xDS itself.
    kind: fields["GENERATOR"]?.stringValue === "grpc" ? "grpc" : "sidecar",
    ...(protocol === "delta" ? {} : { stateOfTheWorld: true }),
  };
}

function interceptionOf(mode: string | undefined): ProxyClass["interception"] {
  return mode === "TPROXY" || mode === "NONE" ? mode : "REDIRECT";
}

function classOf(engine: Engine, nodeId: NodeId, pod: Pod, said: Said): ProxyClass {
  const environment = engine.rows(environmentTable).get(environmentRow) ?? defaultEnvironment;
  const labels = pod.metadata.labels ?? {};
  const mode = pod.metadata.annotations?.[annotationNames.interceptionMode];
  const clusterDiscovery = pod.metadata.annotations?.[annotationNames.clusterDiscovery];
  const kind = nodeId.kind === "router" ? "router" : said.kind === "grpc" ? "grpc" : "sidecar";
  return {
    kind,
    namespace: nodeId.namespace,
    labels,
    serviceAccount: serviceAccountOf(pod),
    network: labels[labelNames.network] ?? environment.network,
    locality: localityOf(engine, pod),
    ...(pod.spec?.nodeName === undefined ? {} : { node: pod.spec.nodeName }),
    clusterId: environment.clusterId,
    dnsDomain: `${nodeId.namespace}.svc.${environment.clusterDomain}`,
    // The annotation, where there is one; ProxyConfig may say it too, and only the proxy knows with which it was made.
    interception: kind === "grpc" ? "NONE" : mode === undefined ? said.interception : interceptionOf(mode),
    ...(clusterDiscovery === undefined ? {} : { clusterDiscovery }),
    envoyVersion: said.envoyVersion,
    ...saidByPod(pod, kind),
    metadata: said.metadata,
    ...(said.stateOfTheWorld === true ? { stateOfTheWorld: true } : {}),
    ...(said.targets === undefined ? {} : { targets: said.targets }),
  };
}

/** What the Pod says in `proxy.istio.io/config`; injection has told its owner if that cannot be read. */
function saidByPod(pod: Pod, kind: ProxyClass["kind"]): Pick<ProxyClass, "topology" | "tuning"> {
  const text = pod.metadata.annotations?.[annotationNames.proxyConfig] ?? "";
  if (text === "" || kind === "grpc") return {};
  const { config } = parseProxyConfig(text, {});
  const topology = kind === "router" ? config.gatewayTopology : undefined;
  const tuning = tuningIn(config);
  return {
    ...(topology === undefined ? {} : { topology }),
    ...(tuning === undefined ? {} : { tuning }),
  };
}

/** `region/zone/subzone` of the Pod's Node, or of the Pod's own label. */
function localityOf(engine: Engine, pod: Pod): string {
  const own = localityOfLabels(pod.metadata.labels ?? {});
  if (own !== undefined) return own;
  const node = engine.rows(tables.Node).get(pod.spec?.nodeName ?? "");
  const of = (name: string): string => node?.metadata.labels?.[name] ?? "";
  const parts = [of(labelNames.region), of(labelNames.zone), of(labelNames.subzone)];
  return parts.join("/").replace(/\/+$/, "");
}

function envoyVersionOf(node: Message): string {
  const build = node["userAgentBuildVersion"] as
    | { readonly version?: { majorNumber?: number; minorNumber?: number; patch?: number } }
    | undefined;
  const version = build?.version;
  if (version === undefined) return "";
  return `${version.majorNumber ?? 0}.${version.minorNumber ?? 0}.${version.patch ?? 0}`;
}

function serviceAccountOf(pod: Pod): string {
  return pod.spec?.serviceAccountName ?? "default";
}

function podKey({ namespace, pod }: NodeId): string {
  return `${namespace}/${pod}`;
}

function denied(message: string): GrpcError {
  return new GrpcError(grpcStatus.permissionDenied, message);
}
