// The table of built-in kinds. What is not in it, and in no CustomResourceDefinition, answers 404.

import { builtinSchemas } from "../schema/schema.ts";
import { columnsOf } from "./columns.ts";
import { hooksOf } from "./hooks.ts";
import { allVerbs, resourceName } from "./kind.ts";
import type { Kind, KindVersion, ScalePaths } from "./kind.ts";

/** Words after the plural: short names and marks. */
interface Row {
  readonly group: string;
  readonly version: string;
  readonly kind: string;
  readonly plural: string;
  readonly definition: string;
  readonly shortNames?: string;
  readonly cluster?: boolean;
  readonly status?: boolean;
  readonly scale?: boolean;
  readonly all?: boolean;
  readonly fields?: readonly string[];
  readonly subresources?: Kind["subresources"];
  /** Given for kinds that are asked, not kept (reviews): only create. */
  readonly asked?: boolean;
}

const workloadScale: ScalePaths = {
  specReplicasPath: ".spec.replicas",
  statusReplicasPath: ".status.replicas",
  labelSelectorPath: ".status.selector",
};

const podFields = [
  "spec.nodeName",
  "spec.restartPolicy",
  "spec.serviceAccountName",
  "status.phase",
  "status.podIP",
];
const eventFields = ["kind", "namespace", "name", "uid", "apiVersion", "resourceVersion", "fieldPath"].map(
  (field) => `involvedObject.${field}`,
);

const podSubresources: Kind["subresources"] = [
  { name: "binding", kind: "Binding", verbs: ["create"] },
  { name: "eviction", kind: "Eviction", verbs: ["create"], group: "policy", version: "v1" },
  { name: "log", kind: "Pod", verbs: ["get"] },
];

const core = { group: "", version: "v1" };
const apps = { group: "apps", version: "v1" };
const rbac = { group: "rbac.authorization.k8s.io", version: "v1" };
const admission = { group: "admissionregistration.k8s.io", version: "v1", cluster: true };
const network = { group: "networking.k8s.io", version: "v1" };
const authorization = { group: "authorization.k8s.io", version: "v1", cluster: true, asked: true };

const rows: readonly Row[] = [
  {
    ...core,
    kind: "Namespace",
    plural: "namespaces",
    definition: "V1Namespace",
    shortNames: "ns",
    cluster: true,
    status: true,
    fields: ["status.phase"],
    subresources: [{ name: "finalize", kind: "Namespace", verbs: ["update"] }],
  },
  {
    ...core,
    kind: "Pod",
    plural: "pods",
    definition: "V1Pod",
    shortNames: "po",
    status: true,
    all: true,
    fields: podFields,
    subresources: podSubresources,
  },
  { ...core, kind: "PodTemplate", plural: "podtemplates", definition: "V1PodTemplate" },
  {
    ...core,
    kind: "Service",
    plural: "services",
    definition: "V1Service",
    shortNames: "svc",
    status: true,
    all: true,
    fields: ["spec.clusterIP", "spec.type"],
  },
  { ...core, kind: "Endpoints", plural: "endpoints", definition: "V1Endpoints", shortNames: "ep" },
  {
    ...core,
    kind: "ServiceAccount",
    plural: "serviceaccounts",
    definition: "V1ServiceAccount",
    shortNames: "sa",
    subresources: [
      {
        name: "token",
        kind: "TokenRequest",
        verbs: ["create"],
        group: "authentication.k8s.io",
        version: "v1",
      },
    ],
  },
  { ...core, kind: "Secret", plural: "secrets", definition: "V1Secret", fields: ["type"] },
  { ...core, kind: "ConfigMap", plural: "configmaps", definition: "V1ConfigMap", shortNames: "cm" },
  {
    ...core,
    kind: "Event",
    plural: "events",
    definition: "CoreV1Event",
    shortNames: "ev",
    fields: [...eventFields, "reason", "reportingComponent", "source", "type"],
  },
  {
    ...core,
    kind: "Node",
    plural: "nodes",
    definition: "V1Node",
    shortNames: "no",
    cluster: true,
    status: true,
    fields: ["spec.unschedulable"],
  },
  { ...core, kind: "LimitRange", plural: "limitranges", definition: "V1LimitRange", shortNames: "limits" },
  {
    ...core,
    kind: "ResourceQuota",
    plural: "resourcequotas",
    definition: "V1ResourceQuota",
    shortNames: "quota",
    status: true,
  },
  {
    ...core,
    kind: "PersistentVolume",
    plural: "persistentvolumes",
    definition: "V1PersistentVolume",
    shortNames: "pv",
    cluster: true,
    status: true,
  },
  {
    ...core,
    kind: "PersistentVolumeClaim",
    plural: "persistentvolumeclaims",
    definition: "V1PersistentVolumeClaim",
    shortNames: "pvc",
    status: true,
  },
  {
    group: "events.k8s.io",
    version: "v1",
    kind: "Event",
    plural: "events",
    definition: "EventsV1Event",
    shortNames: "ev",
    fields: ["reason", "type"],
  },
  {
    ...apps,
    kind: "Deployment",
    plural: "deployments",
    definition: "V1Deployment",
    shortNames: "deploy",
    status: true,
    scale: true,
    all: true,
  },
  {
    ...apps,
    kind: "ReplicaSet",
    plural: "replicasets",
    definition: "V1ReplicaSet",
    shortNames: "rs",
    status: true,
    scale: true,
    all: true,
    fields: ["status.replicas"],
  },
  {
    ...apps,
    kind: "StatefulSet",
    plural: "statefulsets",
    definition: "V1StatefulSet",
    shortNames: "sts",
    status: true,
    scale: true,
    all: true,
  },
  {
    ...apps,
    kind: "DaemonSet",
    plural: "daemonsets",
    definition: "V1DaemonSet",
    shortNames: "ds",
    status: true,
    all: true,
  },
  { ...apps, kind: "ControllerRevision", plural: "controllerrevisions", definition: "V1ControllerRevision" },
  {
    group: "batch",
    version: "v1",
    kind: "Job",
    plural: "jobs",
    definition: "V1Job",
    status: true,
    all: true,
  },
  {
    group: "batch",
    version: "v1",
    kind: "CronJob",
    plural: "cronjobs",
    definition: "V1CronJob",
    shortNames: "cj",
    status: true,
    all: true,
  },
  {
    group: "autoscaling",
    version: "v2",
    kind: "HorizontalPodAutoscaler",
    plural: "horizontalpodautoscalers",
    definition: "V2HorizontalPodAutoscaler",
    shortNames: "hpa",
    status: true,
    all: true,
  },
  {
    group: "policy",
    version: "v1",
    kind: "PodDisruptionBudget",
    plural: "poddisruptionbudgets",
    definition: "V1PodDisruptionBudget",
    shortNames: "pdb",
    status: true,
  },
  {
    group: "discovery.k8s.io",
    version: "v1",
    kind: "EndpointSlice",
    plural: "endpointslices",
    definition: "V1EndpointSlice",
  },
  { group: "coordination.k8s.io", version: "v1", kind: "Lease", plural: "leases", definition: "V1Lease" },
  {
    ...network,
    kind: "NetworkPolicy",
    plural: "networkpolicies",
    definition: "V1NetworkPolicy",
    shortNames: "netpol",
  },
  {
    ...network,
    kind: "Ingress",
    plural: "ingresses",
    definition: "V1Ingress",
    shortNames: "ing",
    status: true,
  },
  { ...network, kind: "IngressClass", plural: "ingressclasses", definition: "V1IngressClass", cluster: true },
  {
    group: "scheduling.k8s.io",
    version: "v1",
    kind: "PriorityClass",
    plural: "priorityclasses",
    definition: "V1PriorityClass",
    shortNames: "pc",
    cluster: true,
  },
  {
    group: "storage.k8s.io",
    version: "v1",
    kind: "StorageClass",
    plural: "storageclasses",
    definition: "V1StorageClass",
    shortNames: "sc",
    cluster: true,
  },
  {
    group: "node.k8s.io",
    version: "v1",
    kind: "RuntimeClass",
    plural: "runtimeclasses",
    definition: "V1RuntimeClass",
    cluster: true,
  },
  { ...rbac, kind: "Role", plural: "roles", definition: "V1Role" },
  { ...rbac, kind: "RoleBinding", plural: "rolebindings", definition: "V1RoleBinding" },
  { ...rbac, kind: "ClusterRole", plural: "clusterroles", definition: "V1ClusterRole", cluster: true },
  {
    ...rbac,
    kind: "ClusterRoleBinding",
    plural: "clusterrolebindings",
    definition: "V1ClusterRoleBinding",
    cluster: true,
  },
  {
    ...admission,
    kind: "MutatingWebhookConfiguration",
    plural: "mutatingwebhookconfigurations",
    definition: "V1MutatingWebhookConfiguration",
  },
  {
    ...admission,
    kind: "ValidatingWebhookConfiguration",
    plural: "validatingwebhookconfigurations",
    definition: "V1ValidatingWebhookConfiguration",
  },
  {
    ...admission,
    kind: "ValidatingAdmissionPolicy",
    plural: "validatingadmissionpolicies",
    definition: "V1ValidatingAdmissionPolicy",
    status: true,
  },
  {
    ...admission,
    kind: "ValidatingAdmissionPolicyBinding",
    plural: "validatingadmissionpolicybindings",
    definition: "V1ValidatingAdmissionPolicyBinding",
  },
  {
    group: "apiextensions.k8s.io",
    version: "v1",
    kind: "CustomResourceDefinition",
    plural: "customresourcedefinitions",
    definition: "V1CustomResourceDefinition",
    shortNames: "crd crds",
    cluster: true,
    status: true,
  },
  {
    group: "authentication.k8s.io",
    version: "v1",
    kind: "TokenReview",
    plural: "tokenreviews",
    definition: "V1TokenReview",
    cluster: true,
    asked: true,
  },
  {
    group: "authentication.k8s.io",
    version: "v1",
    kind: "SelfSubjectReview",
    plural: "selfsubjectreviews",
    definition: "V1SelfSubjectReview",
    cluster: true,
    asked: true,
  },
  {
    ...authorization,
    kind: "SubjectAccessReview",
    plural: "subjectaccessreviews",
    definition: "V1SubjectAccessReview",
  },
  {
    ...authorization,
    kind: "SelfSubjectAccessReview",
    plural: "selfsubjectaccessreviews",
    definition: "V1SelfSubjectAccessReview",
  },
  {
    ...authorization,
    kind: "SelfSubjectRulesReview",
    plural: "selfsubjectrulesreviews",
    definition: "V1SelfSubjectRulesReview",
  },
  {
    ...authorization,
    kind: "LocalSubjectAccessReview",
    plural: "localsubjectaccessreviews",
    definition: "V1LocalSubjectAccessReview",
    cluster: false,
  },
];

export const builtinKinds: readonly Kind[] = rows.map(kindOf);

function kindOf(row: Row): Kind {
  const version: KindVersion = {
    name: row.version,
    served: true,
    schema: builtinSchemas[row.definition] ?? {},
    columns: columnsOf(row.group, row.kind),
    status: row.status ?? false,
    scale: row.scale ? workloadScale : undefined,
    selectableFields: row.fields ?? [],
  };
  return {
    group: row.group,
    kind: row.kind,
    listKind: `${row.kind}List`,
    plural: row.plural,
    resource: resourceName(row.group, row.plural),
    singular: row.kind.toLowerCase(),
    shortNames: row.shortNames?.split(" ") ?? [],
    categories: row.all
      ? ["all"]
      : row.group === admission.group || row.plural.startsWith("customres")
        ? ["api-extensions"]
        : [],
    namespaced: row.cluster !== true,
    verbs: row.asked ? ["create"] : allVerbs,
    versions: [version],
    storageVersion: row.version,
    custom: false,
    hooks: hooksOf(row.group, row.kind),
    subresources: row.subresources ?? [],
  };
}
