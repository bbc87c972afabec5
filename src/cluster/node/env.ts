// A container's environment: values, references, the downward API, `$(NAME)` expansion. Pure; objects come in through `DataReader`.

import type { Container, DataObject, EnvVar, FieldSelector, Pod, Service } from "../types.ts";
import { parseQuantity } from "./quantity.ts";

/** What a Pod's fields are read from besides the Pod itself. */
export interface PodFacts {
  readonly podIp: string;
  readonly hostIp: string;
  readonly nodeName: string;
  readonly nodeCpus: number;
  readonly nodeMemoryBytes: number;
}

export interface DataReader {
  configMap(namespace: string, name: string): DataObject | undefined;
  secret(namespace: string, name: string): DataObject | undefined;
}

/** A reference that cannot be followed yet: the container waits with this reason, and is tried again. */
export class MissingReference extends Error {
  readonly reason = "CreateContainerConfigError";
}

/** Later entries win, as Kubernetes: image, service variables, envFrom, env. Throws MissingReference. */
export function resolveEnv(
  pod: Pod,
  container: Container,
  base: Readonly<Record<string, string>>,
  facts: PodFacts,
  data: DataReader,
): Record<string, string> {
  const namespace = pod.metadata.namespace ?? "";
  const result: Record<string, string> = { ...base };
  for (const source of container.envFrom ?? []) {
    const [kind, ref] = source.configMapRef
      ? (["configMap", source.configMapRef] as const)
      : (["secret", source.secretRef] as const);
    if (ref === undefined) continue;
    const values = decodeData(kind, namespace, ref.name, data);
    if (values === undefined && ref.optional !== true)
      throw new MissingReference(`${kind.toLowerCase()} "${ref.name}" not found`);
    for (const [key, value] of values ?? []) result[`${source.prefix ?? ""}${key}`] = value.toString("utf8");
  }
  for (const variable of container.env ?? []) {
    const value = resolveVariable(pod, container, variable, facts, data, result);
    if (value !== undefined) result[variable.name] = value;
  }
  return result;
}

function resolveVariable(
  pod: Pod,
  container: Container,
  variable: EnvVar,
  facts: PodFacts,
  data: DataReader,
  known: Readonly<Record<string, string>>,
): string | undefined {
  const from = variable.valueFrom;
  if (from === undefined) return expand(variable.value ?? "", known);
  if (from.fieldRef !== undefined || from.resourceFieldRef !== undefined)
    return readField(pod, from, facts, container);
  const [kind, ref] = from.configMapKeyRef
    ? (["configMap", from.configMapKeyRef] as const)
    : (["secret", from.secretKeyRef] as const);
  if (ref === undefined) return "";
  const values = decodeData(kind, pod.metadata.namespace ?? "", ref.name, data);
  const value = values?.get(ref.key);
  if (value !== undefined) return value.toString("utf8");
  if (ref.optional === true) return undefined;
  const what = `${kind.toLowerCase()} "${ref.name}"`;
  throw new MissingReference(
    values === undefined ? `${what} not found` : `couldn't find key ${ref.key} in ${what}`,
  );
}

/** A ConfigMap's or Secret's entries as bytes, sorted by key; undefined when there is no such object. */
export function decodeData(
  kind: "configMap" | "secret",
  namespace: string,
  name: string,
  data: DataReader,
): Map<string, Buffer> | undefined {
  const object = kind === "configMap" ? data.configMap(namespace, name) : data.secret(namespace, name);
  if (object === undefined) return undefined;
  const entries: [string, Buffer][] = Object.entries(object.data ?? {}).map(([key, value]) => [
    key,
    Buffer.from(value, kind === "secret" ? "base64" : "utf8"),
  ]);
  for (const [key, value] of Object.entries(object.binaryData ?? {}))
    entries.push([key, Buffer.from(value, "base64")]);
  return new Map(entries.toSorted(([left], [right]) => (left < right ? -1 : 1)));
}

/** Replaces `$(NAME)` by a known variable; `$$` is a plain dollar; an unknown name stays as it is written. */
export function expand(text: string, known: Readonly<Record<string, string>>): string {
  return text.replace(/\$\$|\$\(([A-Za-z0-9_.-]+)\)/g, (whole, name: string | undefined) => {
    if (name === undefined) return "$";
    return Object.hasOwn(known, name) ? (known[name] ?? whole) : whole;
  });
}

/** The downward API, for variables and for files. An unknown path is an empty string: admission refuses those. */
export function readField(pod: Pod, selector: FieldSelector, facts: PodFacts, container?: Container): string {
  if (selector.resourceFieldRef !== undefined)
    return readResource(pod, selector.resourceFieldRef, facts, container);
  const path = selector.fieldRef?.fieldPath ?? "";
  const subscript = /^metadata\.(labels|annotations)\['(.*)'\]$/.exec(path);
  if (subscript !== null) {
    const map = subscript[1] === "labels" ? pod.metadata.labels : pod.metadata.annotations;
    return map?.[subscript[2] ?? ""] ?? "";
  }
  switch (path) {
    case "metadata.name":
      return pod.metadata.name;
    case "metadata.namespace":
      return pod.metadata.namespace ?? "";
    case "metadata.uid":
      return pod.metadata.uid ?? "";
    case "metadata.labels":
      return renderMap(pod.metadata.labels);
    case "metadata.annotations":
      return renderMap(pod.metadata.annotations);
    case "spec.nodeName":
      return pod.spec.nodeName ?? facts.nodeName;
    case "spec.serviceAccountName":
      return pod.spec.serviceAccountName ?? "default";
    case "status.podIP":
    case "status.podIPs":
      return facts.podIp;
    case "status.hostIP":
    case "status.hostIPs":
      return facts.hostIp;
    default:
      return "";
  }
}

/** `key="value"` lines with the value escaped as Go's %q does, as Kubernetes writes labels into a file. */
function renderMap(map: Readonly<Record<string, string>> | undefined): string {
  return Object.entries(map ?? {})
    .toSorted(([left], [right]) => (left < right ? -1 : 1))
    .map(([key, value]) => `${key}=${JSON.stringify(value)}`)
    .join("\n");
}

function readResource(
  pod: Pod,
  ref: { readonly containerName?: string; readonly resource: string; readonly divisor?: string },
  facts: PodFacts,
  container?: Container,
): string {
  const all = [...pod.spec.containers, ...(pod.spec.initContainers ?? [])];
  const target =
    ref.containerName === undefined ? container : all.find((one) => one.name === ref.containerName);
  const [kind, resource] = ref.resource.split(".") as [string, string | undefined];
  const stated = kind === "limits" ? target?.resources?.limits : target?.resources?.requests;
  let value = parseQuantity(stated?.[resource ?? ""]);
  if (value === undefined && kind === "limits") {
    // Without a limit a container may use the whole node.
    value = resource === "cpu" ? facts.nodeCpus : resource === "memory" ? facts.nodeMemoryBytes : 0;
  }
  const divisor = parseQuantity(ref.divisor) || 1;
  return String(Math.ceil((value ?? 0) / divisor));
}

/** `<SERVICE>_SERVICE_HOST/_PORT` of the namespace's Services; those of the API server always. */
export function serviceEnv(
  services: readonly Service[],
  api: { host: string; port: number },
): Record<string, string> {
  const result: Record<string, string> = {
    KUBERNETES_SERVICE_HOST: api.host,
    KUBERNETES_SERVICE_PORT: String(api.port),
    KUBERNETES_SERVICE_PORT_HTTPS: String(api.port),
  };
  for (const service of services) {
    const host = service.spec.clusterIP;
    const first = service.spec.ports?.[0];
    if (host === undefined || host === "" || host === "None" || first === undefined) continue;
    const name = service.metadata.name.toUpperCase().replaceAll("-", "_");
    result[`${name}_SERVICE_HOST`] = host;
    result[`${name}_SERVICE_PORT`] = String(first.port);
    for (const port of service.spec.ports ?? []) {
      if (port.name)
        result[`${name}_SERVICE_PORT_${port.name.toUpperCase().replaceAll("-", "_")}`] = String(port.port);
    }
  }
  return result;
}
