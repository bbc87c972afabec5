// The parts of a Pod that injection reads and writes. Everything else passes through untouched.

/** A plain JSON object whose fields this room does not look into. */
export type Plain = { [field: string]: unknown };

export interface EnvVar {
  name: string;
  value?: string;
  valueFrom?: Plain;
}

export interface ContainerPort {
  name?: string;
  containerPort: number;
  protocol?: string;
  hostPort?: number;
}

export interface HttpGetAction {
  path?: string;
  port?: number | string;
  host?: string;
  scheme?: string;
  httpHeaders?: { name: string; value: string }[];
}

/** A probe or a lifecycle handler. */
export interface Handler {
  httpGet?: HttpGetAction;
  tcpSocket?: { port?: number | string; host?: string };
  grpc?: { port?: number; service?: string };
  exec?: { command?: string[] };
  timeoutSeconds?: number;
  [field: string]: unknown;
}

export interface Container {
  name: string;
  image?: string;
  args?: string[];
  env?: EnvVar[];
  ports?: ContainerPort[];
  livenessProbe?: Handler;
  readinessProbe?: Handler;
  startupProbe?: Handler;
  lifecycle?: { postStart?: Handler; preStop?: Handler; [field: string]: unknown };
  restartPolicy?: string;
  securityContext?: Plain;
  resources?: Plain;
  [field: string]: unknown;
}

export interface Volume {
  name: string;
  [source: string]: unknown;
}

export interface PodSpec {
  containers?: Container[];
  initContainers?: Container[];
  volumes?: Volume[];
  imagePullSecrets?: { name: string }[];
  hostNetwork?: boolean;
  serviceAccountName?: string;
  securityContext?: Plain;
  [field: string]: unknown;
}

export interface PodMeta {
  name?: string;
  namespace?: string;
  generateName?: string;
  labels?: Record<string, string>;
  annotations?: Record<string, string>;
  ownerReferences?: readonly { apiVersion: string; kind: string; name: string; controller?: boolean }[];
  [field: string]: unknown;
}

export interface Pod {
  metadata?: PodMeta;
  spec?: PodSpec;
  [field: string]: unknown;
}

export const proxyContainerName = "istio-proxy";
export const initContainerName = "istio-init";
export const validationContainerName = "istio-validation";

/** Both lists, init containers first, as the node starts them. */
export function allContainers(pod: Pod): Container[] {
  return [...(pod.spec?.initContainers ?? []), ...(pod.spec?.containers ?? [])];
}

export function findContainer(pod: Pod, name: string): Container | undefined {
  return allContainers(pod).find((container) => container.name === name);
}
