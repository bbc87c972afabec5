// The pieces that the sidecar's and the gateway's template share. Paths, names and variables are Istio's, as manifests, overrides
// and tools refer to them.

import { ports } from "#base";
import {
  annotation,
  applicationContainers,
  choose,
  type InjectionContext,
  interceptionMode,
  label,
  proxyMetadata,
  trustDomain,
} from "./context.ts";
import {
  type EnvVar,
  findContainer,
  type Handler,
  type Plain,
  proxyContainerName,
  type Volume,
} from "./pod.ts";
import { isPlain } from "./values.ts";

/** The user and group that the proxy runs as unless the pod's own `istio-proxy` says otherwise. */
const defaultUser = 1337;

/** The proxy's user, whose traffic is not captured. */
export function proxyUser(context: InjectionContext): number {
  return ownIdentity(context, "runAsUser");
}

export function proxyGroup(context: InjectionContext): number {
  return ownIdentity(context, "runAsGroup");
}

function ownIdentity(context: InjectionContext, field: "runAsUser" | "runAsGroup"): number {
  const given = findContainer(context.pod, proxyContainerName)?.securityContext?.[field];
  return typeof given === "number" ? given : defaultUser;
}

export function canonicalLabels(context: InjectionContext): Record<string, string> {
  const name =
    label(context, "service.istio.io/canonical-name") ||
    label(context, "app.kubernetes.io/name") ||
    label(context, "app") ||
    context.workload.name;
  const revision =
    label(context, "service.istio.io/canonical-revision") ||
    label(context, "app.kubernetes.io/version") ||
    label(context, "version") ||
    "latest";
  return {
    // A label's value has at most 63 characters and ends in a letter or digit.
    "service.istio.io/canonical-name": name.slice(0, 63).replaceAll(/^[-_.]+|[-_.]+$/g, ""),
    "service.istio.io/canonical-revision": revision,
  };
}

/** So that `kubectl logs` and `kubectl exec` keep going to the application. */
export function containerAnnotations(context: InjectionContext): Record<string, string> {
  const [first] = applicationContainers(context.pod);
  const annotations: Record<string, string> = { "istio.io/rev": context.revision || "default" };
  if (first === undefined) return annotations;
  for (const name of [
    "kubectl.kubernetes.io/default-logs-container",
    "kubectl.kubernetes.io/default-container",
  ]) {
    if (annotation(context, name) === undefined) annotations[name] = first;
  }
  return annotations;
}

export function logArguments(context: InjectionContext): string[] {
  const { proxy, logging, logAsJson } = context.values.global;
  return [
    `--proxyLogLevel=${choose(context, "sidecar.istio.io/logLevel", proxy.logLevel)}`,
    `--proxyComponentLogLevel=${choose(context, "sidecar.istio.io/componentLogLevel", proxy.componentLogLevel)}`,
    `--log_output_level=${choose(context, "sidecar.istio.io/agentLogLevel", logging.level)}`,
    ...(logAsJson ? ["--log_as_json"] : []),
  ];
}

export function proxyEnvironment(context: InjectionContext): EnvVar[] {
  const { global } = context.values;
  const revisionSuffix =
    context.revision === "" || context.revision === "default" ? "" : `-${context.revision}`;
  const controlPlane = `istiod${revisionSuffix}.${global.istioNamespace}.svc:${ports.xds}`;
  const network = global.network === "" ? [] : [{ name: "ISTIO_META_NETWORK", value: global.network }];
  return [
    { name: "PILOT_CERT_PROVIDER", value: global.pilotCertProvider },
    { name: "CA_ADDR", value: global.caAddress || controlPlane },
    fromField("POD_NAME", "metadata.name"),
    fromField("POD_NAMESPACE", "metadata.namespace"),
    fromField("INSTANCE_IP", "status.podIP"),
    fromField("SERVICE_ACCOUNT", "spec.serviceAccountName"),
    fromField("HOST_IP", "status.hostIP"),
    // Envoy runs as many threads as the limit gives it cores.
    { name: "ISTIO_CPU_LIMIT", valueFrom: { resourceFieldRef: { resource: "limits.cpu", divisor: "1" } } },
    { name: "PROXY_CONFIG", value: `${JSON.stringify(context.proxyConfig)}\n` },
    { name: "ISTIO_META_POD_PORTS", value: JSON.stringify(podPorts(context)) },
    { name: "ISTIO_META_APP_CONTAINERS", value: applicationContainers(context.pod).join(",") },
    { name: "ISTIO_META_CLUSTER_ID", value: global.multiCluster.clusterName || "Kubernetes" },
    fromField("ISTIO_META_NODE_NAME", "spec.nodeName"),
    { name: "ISTIO_META_INTERCEPTION_MODE", value: interceptionMode(context) },
    ...network,
    ...workloadEnvironment(context),
    ...bootstrapOverride(context),
    { name: "ISTIO_META_MESH_ID", value: global.meshID || trustDomain(context) },
    { name: "TRUST_DOMAIN", value: trustDomain(context) },
    ...metadataEnvironment(context),
  ];
}

export function metadataEnvironment(context: InjectionContext): EnvVar[] {
  return Object.entries(proxyMetadata(context)).map(([name, value]) => ({ name, value }));
}

function workloadEnvironment(context: InjectionContext): EnvVar[] {
  const { apiVersion, kind, name, namespace } = context.workload;
  const shown = label(context, "service.istio.io/workload-name") || name;
  const owner = `kubernetes://apis/${apiVersion}/namespaces/${namespace || "default"}/${kind.toLowerCase()}s/${name}`;
  return [
    ...(shown === "" ? [] : [{ name: "ISTIO_META_WORKLOAD_NAME", value: shown }]),
    ...(name === "" || apiVersion === "" ? [] : [{ name: "ISTIO_META_OWNER", value: owner }]),
  ];
}

function bootstrapOverride(context: InjectionContext): EnvVar[] {
  if (annotation(context, "sidecar.istio.io/bootstrapOverride") === undefined) return [];
  return [{ name: "ISTIO_BOOTSTRAP_OVERRIDE", value: "/etc/istio/custom-bootstrap/custom_bootstrap.json" }];
}

function podPorts(context: InjectionContext): Plain[] {
  return (context.pod.spec?.containers ?? []).flatMap((container) =>
    (container.ports ?? []).map(({ name, hostPort, containerPort, protocol }) => ({
      name,
      hostPort,
      containerPort,
      protocol,
    })),
  );
}

function fromField(name: string, fieldPath: string): EnvVar {
  return { name, valueFrom: { fieldRef: { fieldPath } } };
}

export function readinessProbe(context: InjectionContext): Handler {
  const { proxy } = context.values.global;
  const read = (name: string, otherwise: number) =>
    Number(choose(context, `readiness.status.sidecar.istio.io/${name}`, otherwise));
  const initialDelaySeconds = read("initialDelaySeconds", proxy.readinessInitialDelaySeconds);
  return {
    httpGet: { path: "/healthz/ready", port: ports.ready },
    ...(initialDelaySeconds === 0 ? {} : { initialDelaySeconds }),
    periodSeconds: read("periodSeconds", proxy.readinessPeriodSeconds),
    timeoutSeconds: 3,
    failureThreshold: read("failureThreshold", proxy.readinessFailureThreshold),
  };
}

/** The pod's own annotations, or the operator's values where the pod says nothing at all about resources. */
export function proxyResources(context: InjectionContext): Plain {
  const read = (name: string) => annotation(context, `sidecar.istio.io/${name}`);
  const requests = present({ cpu: read("proxyCPU"), memory: read("proxyMemory") });
  const limits = present({ cpu: read("proxyCPULimit"), memory: read("proxyMemoryLimit") });
  if (requests === undefined && limits === undefined)
    return structuredClone(context.values.global.proxy.resources);
  return { ...(requests && { requests }), ...(limits && { limits }) };
}

function present(quantities: Readonly<Record<string, string | undefined>>): Plain | undefined {
  const set = Object.entries(quantities).filter(([, quantity]) => quantity !== undefined);
  return set.length === 0 ? undefined : Object.fromEntries(set);
}

export function proxyMounts(context: InjectionContext): Plain[] {
  const mounts: Plain[] = [
    { name: "workload-socket", mountPath: "/var/run/secrets/workload-spiffe-uds" },
    { name: "credential-socket", mountPath: "/var/run/secrets/credential-uds" },
    { name: "workload-certs", mountPath: "/var/run/secrets/workload-spiffe-credentials" },
  ];
  if (context.values.global.pilotCertProvider === "istiod")
    mounts.push({ name: "istiod-ca-cert", mountPath: "/var/run/secrets/istio" });
  mounts.push({ name: "istio-data", mountPath: "/var/lib/istio/data" });
  if (annotation(context, "sidecar.istio.io/bootstrapOverride") !== undefined) {
    mounts.push({ name: "custom-bootstrap-volume", mountPath: "/etc/istio/custom-bootstrap" });
  }
  mounts.push(
    { name: "istio-envoy", mountPath: "/etc/istio/proxy" },
    { name: "istio-token", mountPath: "/var/run/secrets/tokens" },
  );
  if (context.values.global.mountMtlsCerts)
    mounts.push({ name: "istio-certs", mountPath: "/etc/certs/", readOnly: true });
  mounts.push({ name: "istio-podinfo", mountPath: "/etc/istio/pod" });
  return mounts;
}

export function proxyVolumes(context: InjectionContext): Volume[] {
  const { global } = context.values;
  const custom = annotation(context, "sidecar.istio.io/bootstrapOverride");
  const metadata = ["labels", "annotations"].map((path) => ({
    path,
    fieldRef: { fieldPath: `metadata.${path}` },
  }));
  const token = { path: "istio-token", expirationSeconds: 43_200, audience: global.sds.token.aud };
  const account = context.pod.spec?.serviceAccountName || "default";
  return [
    { name: "workload-socket", emptyDir: {} },
    { name: "credential-socket", emptyDir: {} },
    { name: "workload-certs", emptyDir: {} },
    ...(custom === undefined ? [] : [{ name: "custom-bootstrap-volume", configMap: { name: custom } }]),
    { name: "istio-envoy", emptyDir: { medium: "Memory" } },
    { name: "istio-data", emptyDir: {} },
    { name: "istio-podinfo", downwardAPI: { items: metadata } },
    { name: "istio-token", projected: { sources: [{ serviceAccountToken: token }] } },
    ...(global.pilotCertProvider === "istiod"
      ? [{ name: "istiod-ca-cert", configMap: { name: "istio-ca-root-cert" } }]
      : []),
    ...(global.mountMtlsCerts
      ? [{ name: "istio-certs", secret: { optional: true, secretName: `istio.${account}` } }]
      : []),
  ];
}

export function pullSecrets(context: InjectionContext): { name: string }[] | undefined {
  const { imagePullSecrets } = context.values.global;
  return imagePullSecrets.length === 0 ? undefined : imagePullSecrets.map((name) => ({ name }));
}

export function pullPolicy(context: InjectionContext): { imagePullPolicy?: string } {
  const { imagePullPolicy } = context.values.global;
  return imagePullPolicy === "" ? {} : { imagePullPolicy };
}

/** Parses an annotation that holds a JSON object by name; {} when absent or not one (annotations.ts refuses that). */
export function jsonAnnotation(context: InjectionContext, name: string): Record<string, Plain> {
  try {
    const parsed: unknown = JSON.parse(annotation(context, name) ?? "{}");
    if (!isPlain(parsed)) return {};
    return Object.fromEntries(
      Object.entries(parsed).filter((entry): entry is [string, Plain] => isPlain(entry[1])),
    );
  } catch {
    return {};
  }
}
