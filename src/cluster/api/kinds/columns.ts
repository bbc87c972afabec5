// The columns of `kubectl get` for the built-in kinds.

import { arrayOf, recordOf, recordsOf, stringOf, valueAt } from "../json.ts";
import type { ApiObject } from "../store.ts";
import type { Column } from "./kind.ts";

type Cell = (object: ApiObject, nowMs: number) => unknown;

function column(name: string, cell: Cell, type = "string", priority = 0): Column {
  return { name, type, priority, cell, format: name === "Name" ? "name" : "" };
}

function wide(name: string, cell: Cell): Column {
  return column(name, cell, "string", 1);
}

const nameColumn = column("Name", (object) => object.metadata.name);
const ageColumn = column("Age", (object, nowMs) => ageText(object.metadata.creationTimestamp, nowMs));

export const defaultColumns: readonly Column[] = [nameColumn, ageColumn];

/** `5s`, `3m20s`, `4h`, `12d`: a duration as kubectl shortens it. */
export function durationText(ms: number): string {
  const seconds = Math.max(0, Math.floor(ms / 1000));
  const [minutes, hours, days] = [
    Math.floor(seconds / 60),
    Math.floor(seconds / 3600),
    Math.floor(seconds / 86_400),
  ];
  if (seconds < 120) return `${seconds}s`;
  if (minutes < 10) return `${minutes}m${seconds % 60 === 0 ? "" : `${seconds % 60}s`}`;
  if (minutes < 180) return `${minutes}m`;
  if (hours < 8) return `${hours}h${minutes % 60 === 0 ? "" : `${minutes % 60}m`}`;
  if (hours < 48) return `${hours}h`;
  if (hours < 192) return `${days}d${hours % 24 === 0 ? "" : `${hours % 24}h`}`;
  if (days < 730) return `${days}d`;
  return `${Math.floor(days / 365)}y`;
}

export function ageText(timestamp: unknown, nowMs: number): string {
  const sinceMs = Date.parse(stringOf(timestamp));
  return Number.isNaN(sinceMs) ? "<unknown>" : durationText(nowMs - sinceMs);
}

function at(...path: string[]): Cell {
  return (object) => valueAt(object, ...path) ?? "<none>";
}

function count(...path: string[]): Cell {
  return (object) => Number(valueAt(object, ...path) ?? 0);
}

function size(...path: string[]): Cell {
  return (object) => Object.keys(recordOf(valueAt(object, ...path))).length;
}

function labelsText(value: unknown): string {
  const pairs = Object.entries(recordOf(value)).map(([key, text]) => `${key}=${stringOf(text)}`);
  return pairs.length === 0 ? "<none>" : pairs.join(",");
}

function selectorText(selector: unknown): string {
  return labelsText(valueAt(selector, "matchLabels"));
}

function containers(template: (object: ApiObject) => unknown): Column[] {
  const names =
    (field: string): Cell =>
    (object) =>
      recordsOf(valueAt(template(object), "spec", "containers"))
        .map((container) => container[field])
        .join(",");
  return [wide("Containers", names("name")), wide("Images", names("image"))];
}

const templateOf = (object: ApiObject): unknown => valueAt(object, "spec", "template");

// Pods: what STATUS says is gathered from phase, reason and the containers, as kubectl users know it.

function podReady(pod: ApiObject): string {
  const statuses = recordsOf(valueAt(pod, "status", "containerStatuses"));
  const sidecars = recordsOf(valueAt(pod, "spec", "initContainers")).filter(
    (c) => c["restartPolicy"] === "Always",
  );
  const sidecarNames = new Set(sidecars.map((sidecar) => sidecar["name"]));
  const sidecarStatuses = recordsOf(valueAt(pod, "status", "initContainerStatuses")).filter((status) =>
    sidecarNames.has(status["name"]),
  );
  const ready = [...statuses, ...sidecarStatuses].filter((status) => status["ready"] === true).length;
  return `${ready}/${recordsOf(valueAt(pod, "spec", "containers")).length + sidecars.length}`;
}

function podRestarts(pod: ApiObject, nowMs: number): string {
  const statuses = [
    ...recordsOf(valueAt(pod, "status", "containerStatuses")),
    ...recordsOf(valueAt(pod, "status", "initContainerStatuses")),
  ];
  const total = statuses.reduce((sum, status) => sum + Number(status["restartCount"] ?? 0), 0);
  const ends = statuses
    .map((status) => stringOf(valueAt(status, "lastState", "terminated", "finishedAt")))
    .sort();
  const last = ends.at(-1);
  return total === 0 || !last ? String(total) : `${total} (${ageText(last, nowMs)} ago)`;
}

function podStatus(pod: ApiObject): string {
  const phase =
    stringOf(valueAt(pod, "status", "reason")) || stringOf(valueAt(pod, "status", "phase")) || "Unknown";
  const reason = initReason(pod) ?? containerReason(pod) ?? phase;
  if (pod.metadata.deletionTimestamp !== undefined) {
    return valueAt(pod, "status", "reason") === "NodeLost" ? "Unknown" : "Terminating";
  }
  return reason;
}

function initReason(pod: ApiObject): string | undefined {
  const specs = recordsOf(valueAt(pod, "spec", "initContainers"));
  const statuses = recordsOf(valueAt(pod, "status", "initContainerStatuses"));
  for (const [i, status] of statuses.entries()) {
    const terminated = valueAt(status, "state", "terminated");
    if (terminated !== undefined && valueAt(terminated, "exitCode") === 0) continue;
    const isSidecar = specs.find((spec) => spec["name"] === status["name"])?.["restartPolicy"] === "Always";
    if (isSidecar && status["started"] === true) continue;
    if (terminated !== undefined) return `Init:${stringOf(valueAt(terminated, "reason")) || "Error"}`;
    const waiting = stringOf(valueAt(status, "state", "waiting", "reason"));
    if (waiting !== "" && waiting !== "PodInitializing") return `Init:${waiting}`;
    return `Init:${i}/${specs.length}`;
  }
  return undefined;
}

function containerReason(pod: ApiObject): string | undefined {
  const statuses = recordsOf(valueAt(pod, "status", "containerStatuses"));
  let running = false;
  let found: string | undefined;
  for (const status of statuses.toReversed()) {
    const waiting = stringOf(valueAt(status, "state", "waiting", "reason"));
    const terminated = valueAt(status, "state", "terminated");
    if (waiting !== "") found = waiting;
    else if (terminated !== undefined) {
      found =
        stringOf(valueAt(terminated, "reason")) || `ExitCode:${String(valueAt(terminated, "exitCode"))}`;
    } else if (status["ready"] === true) running = true;
  }
  if (found === "Completed" && running) return conditionIs(pod, "Ready", "True") ? "Running" : "NotReady";
  return found;
}

function conditionIs(object: ApiObject, type: string, status: string): boolean {
  return recordsOf(valueAt(object, "status", "conditions")).some(
    (condition) => condition["type"] === type && condition["status"] === status,
  );
}

function podReadinessGates(pod: ApiObject): string {
  const gates = recordsOf(valueAt(pod, "spec", "readinessGates"));
  if (gates.length === 0) return "<none>";
  return `${gates.filter((gate) => conditionIs(pod, stringOf(gate["conditionType"]), "True")).length}/${gates.length}`;
}

// Services

function servicePorts(service: ApiObject): string {
  const ports = recordsOf(valueAt(service, "spec", "ports")).map((port) => {
    const nodePort = port["nodePort"] ? `:${String(port["nodePort"])}` : "";
    return `${String(port["port"])}${nodePort}/${stringOf(port["protocol"]) || "TCP"}`;
  });
  return ports.length === 0 ? "<none>" : ports.join(",");
}

function externalIp(service: ApiObject): string {
  const type = valueAt(service, "spec", "type");
  const given = arrayOf(valueAt(service, "spec", "externalIPs")).map(stringOf);
  if (type === "ExternalName") return stringOf(valueAt(service, "spec", "externalName")) || "<none>";
  if (type !== "LoadBalancer") return given.join(",") || "<none>";
  const ingress = recordsOf(valueAt(service, "status", "loadBalancer", "ingress")).map(
    (entry) => stringOf(entry["ip"]) || stringOf(entry["hostname"]),
  );
  return [...ingress, ...given].join(",") || "<pending>";
}

function endpointsText(slice: ApiObject): string {
  const addresses = recordsOf(slice["endpoints"]).flatMap((endpoint) =>
    arrayOf(endpoint["addresses"]).map(stringOf),
  );
  if (addresses.length === 0) return "<unset>";
  const more = addresses.length > 3 ? ` + ${addresses.length - 3} more...` : "";
  return addresses.slice(0, 3).join(",") + more;
}

function nodeRoles(node: ApiObject): string {
  const prefix = "node-role.kubernetes.io/";
  const roles = Object.keys(node.metadata.labels ?? {}).filter((label) => label.startsWith(prefix));
  return (
    roles
      .map((label) => label.slice(prefix.length))
      .sort()
      .join(",") || "<none>"
  );
}

function nodeAddress(type: string): Cell {
  return (node) =>
    recordsOf(valueAt(node, "status", "addresses")).find((address) => address["type"] === type)?.[
      "address"
    ] ?? "<none>";
}

function jobStatus(job: ApiObject): string {
  if (conditionIs(job, "Complete", "True")) return "Complete";
  if (conditionIs(job, "Failed", "True")) return "Failed";
  return "Running";
}

const portOf = (object: ApiObject): unknown =>
  recordsOf(object["ports"])
    .map((port) => port["port"])
    .join(",") || "<unset>";
const webhooks = column("Webhooks", (object) => recordsOf(object["webhooks"]).length, "integer");
const roleText: Cell = (object) =>
  `${String(valueAt(object, "roleRef", "kind"))}/${String(valueAt(object, "roleRef", "name"))}`;
const ready = (object: ApiObject): string =>
  `${Number(valueAt(object, "status", "readyReplicas") ?? 0)}/${Number(valueAt(object, "spec", "replicas") ?? 1)}`;

const tables: Readonly<Record<string, readonly Column[]>> = {
  "/Pod": [
    nameColumn,
    column("Ready", podReady),
    column("Status", podStatus),
    column("Restarts", podRestarts),
    ageColumn,
    wide("IP", at("status", "podIP")),
    wide("Node", at("spec", "nodeName")),
    wide("Nominated Node", at("status", "nominatedNodeName")),
    wide("Readiness Gates", podReadinessGates),
  ],
  "/Service": [
    nameColumn,
    column("Type", at("spec", "type")),
    column("Cluster-IP", at("spec", "clusterIP")),
    column("External-IP", externalIp),
    column("Port(s)", servicePorts),
    ageColumn,
    wide("Selector", (object) => labelsText(valueAt(object, "spec", "selector"))),
  ],
  "/Namespace": [
    nameColumn,
    column("Status", (object) => valueAt(object, "status", "phase") ?? "Active"),
    ageColumn,
  ],
  "/ConfigMap": [
    nameColumn,
    column(
      "Data",
      (object) => Number(size("data")(object, 0)) + Number(size("binaryData")(object, 0)),
      "integer",
    ),
    ageColumn,
  ],
  "/Secret": [nameColumn, column("Type", at("type")), column("Data", size("data"), "integer"), ageColumn],
  "/ServiceAccount": [
    nameColumn,
    column("Secrets", (object) => recordsOf(object["secrets"]).length, "integer"),
    ageColumn,
  ],
  "/Node": [
    nameColumn,
    column(
      "Status",
      (node) =>
        (conditionIs(node, "Ready", "True") ? "Ready" : "NotReady") +
        (valueAt(node, "spec", "unschedulable") ? ",SchedulingDisabled" : ""),
    ),
    column("Roles", nodeRoles),
    ageColumn,
    column("Version", at("status", "nodeInfo", "kubeletVersion")),
    wide("Internal-IP", nodeAddress("InternalIP")),
    wide("External-IP", nodeAddress("ExternalIP")),
    wide("OS-Image", at("status", "nodeInfo", "osImage")),
    wide("Kernel-Version", at("status", "nodeInfo", "kernelVersion")),
    wide("Container-Runtime", at("status", "nodeInfo", "containerRuntimeVersion")),
  ],
  "/Event": [
    column("Last Seen", (event, nowMs) =>
      ageText(event["lastTimestamp"] ?? event["eventTime"] ?? event.metadata.creationTimestamp, nowMs),
    ),
    column("Type", at("type")),
    column("Reason", at("reason")),
    column(
      "Object",
      (event) =>
        `${stringOf(valueAt(event, "involvedObject", "kind")).toLowerCase()}/${stringOf(valueAt(event, "involvedObject", "name"))}`,
    ),
    column("Message", (event) => stringOf(event["message"]).trim()),
    wide("Name", (event) => event.metadata.name),
  ],
  "/Endpoints": [
    nameColumn,
    column(
      "Endpoints",
      (object) =>
        recordsOf(object["subsets"])
          .flatMap((subset) => recordsOf(subset["addresses"]).map((address) => address["ip"]))
          .join(",") || "<none>",
    ),
    ageColumn,
  ],
  "apps/Deployment": [
    nameColumn,
    column("Ready", ready),
    column("Up-to-date", count("status", "updatedReplicas"), "integer"),
    column("Available", count("status", "availableReplicas"), "integer"),
    ageColumn,
    ...containers(templateOf),
    wide("Selector", (object) => selectorText(valueAt(object, "spec", "selector"))),
  ],
  "apps/ReplicaSet": [
    nameColumn,
    column("Desired", count("spec", "replicas"), "integer"),
    column("Current", count("status", "replicas"), "integer"),
    column("Ready", count("status", "readyReplicas"), "integer"),
    ageColumn,
    ...containers(templateOf),
    wide("Selector", (object) => selectorText(valueAt(object, "spec", "selector"))),
  ],
  "apps/StatefulSet": [nameColumn, column("Ready", ready), ageColumn, ...containers(templateOf)],
  "apps/DaemonSet": [
    nameColumn,
    column("Desired", count("status", "desiredNumberScheduled"), "integer"),
    column("Current", count("status", "currentNumberScheduled"), "integer"),
    column("Ready", count("status", "numberReady"), "integer"),
    column("Up-to-date", count("status", "updatedNumberScheduled"), "integer"),
    column("Available", count("status", "numberAvailable"), "integer"),
    column("Node Selector", (object) =>
      labelsText(valueAt(object, "spec", "template", "spec", "nodeSelector")),
    ),
    ageColumn,
    ...containers(templateOf),
  ],
  "batch/Job": [
    nameColumn,
    column("Status", jobStatus),
    column(
      "Completions",
      (object) =>
        `${Number(valueAt(object, "status", "succeeded") ?? 0)}/${Number(valueAt(object, "spec", "completions") ?? 1)}`,
    ),
    ageColumn,
    ...containers(templateOf),
  ],
  "discovery.k8s.io/EndpointSlice": [
    nameColumn,
    column("AddressType", at("addressType")),
    column("Ports", portOf),
    column("Endpoints", endpointsText),
    ageColumn,
  ],
  "coordination.k8s.io/Lease": [nameColumn, column("Holder", at("spec", "holderIdentity")), ageColumn],
  "policy/PodDisruptionBudget": [
    nameColumn,
    column("Min Available", (object) => valueAt(object, "spec", "minAvailable") ?? "N/A"),
    column("Max Unavailable", (object) => valueAt(object, "spec", "maxUnavailable") ?? "N/A"),
    column("Allowed Disruptions", count("status", "disruptionsAllowed"), "integer"),
    ageColumn,
  ],
  "autoscaling/HorizontalPodAutoscaler": [
    nameColumn,
    column(
      "Reference",
      (object) =>
        `${String(valueAt(object, "spec", "scaleTargetRef", "kind"))}/${String(valueAt(object, "spec", "scaleTargetRef", "name"))}`,
    ),
    column("MinPods", (object) => valueAt(object, "spec", "minReplicas") ?? 1),
    column("MaxPods", count("spec", "maxReplicas"), "integer"),
    column("Replicas", count("status", "currentReplicas"), "integer"),
    ageColumn,
  ],
  "networking.k8s.io/Ingress": [
    nameColumn,
    column("Class", at("spec", "ingressClassName")),
    column(
      "Hosts",
      (object) =>
        recordsOf(valueAt(object, "spec", "rules"))
          .map((rule) => stringOf(rule["host"]) || "*")
          .join(",") || "*",
    ),
    column("Address", (object) =>
      recordsOf(valueAt(object, "status", "loadBalancer", "ingress"))
        .map((entry) => entry["ip"] ?? entry["hostname"])
        .join(","),
    ),
    column("Ports", (object) => (valueAt(object, "spec", "tls") === undefined ? "80" : "80, 443")),
    ageColumn,
  ],
  "networking.k8s.io/NetworkPolicy": [
    nameColumn,
    column("Pod-Selector", (object) => selectorText(valueAt(object, "spec", "podSelector"))),
    ageColumn,
  ],
  "networking.k8s.io/IngressClass": [nameColumn, column("Controller", at("spec", "controller")), ageColumn],
  "apiextensions.k8s.io/CustomResourceDefinition": [
    nameColumn,
    column("Created At", (object) => object.metadata.creationTimestamp),
  ],
  "admissionregistration.k8s.io/MutatingWebhookConfiguration": [nameColumn, webhooks, ageColumn],
  "admissionregistration.k8s.io/ValidatingWebhookConfiguration": [nameColumn, webhooks, ageColumn],
  "rbac.authorization.k8s.io/Role": [
    nameColumn,
    column("Created At", (object) => object.metadata.creationTimestamp),
  ],
  "rbac.authorization.k8s.io/ClusterRole": [
    nameColumn,
    column("Created At", (object) => object.metadata.creationTimestamp),
  ],
  "rbac.authorization.k8s.io/RoleBinding": [nameColumn, column("Role", roleText), ageColumn],
  "rbac.authorization.k8s.io/ClusterRoleBinding": [nameColumn, column("Role", roleText), ageColumn],
  "scheduling.k8s.io/PriorityClass": [
    nameColumn,
    column("Value", count("value"), "integer"),
    column("Global-Default", (object) => object["globalDefault"] ?? false, "boolean"),
    ageColumn,
  ],
};

export function columnsOf(group: string, kind: string): readonly Column[] {
  return tables[`${group}/${kind}`] ?? defaultColumns;
}
