// The roles that every Kubernetes cluster has from its first moment, as far as manifests and tools count on them.

import type { NewObject } from "../store.ts";

interface Rule {
  readonly apiGroups?: readonly string[];
  readonly resources?: readonly string[];
  readonly nonResourceURLs?: readonly string[];
  readonly verbs: readonly string[];
}

const apiVersion = "rbac.authorization.k8s.io/v1";
const labels = { "kubernetes.io/bootstrapping": "rbac-defaults" };
const readVerbs = ["get", "list", "watch"];
const writeVerbs = ["create", "delete", "deletecollection", "patch", "update"];
const workloads: Rule[] = [
  {
    apiGroups: [""],
    resources: [
      "configmaps",
      "endpoints",
      "events",
      "persistentvolumeclaims",
      "pods",
      "pods/log",
      "pods/status",
      "services",
      "serviceaccounts",
    ],
    verbs: readVerbs,
  },
  {
    apiGroups: ["apps", "batch", "autoscaling", "policy", "networking.k8s.io", "discovery.k8s.io"],
    resources: ["*"],
    verbs: readVerbs,
  },
];
const edits: Rule[] = [
  {
    apiGroups: [""],
    resources: [
      "configmaps",
      "endpoints",
      "events",
      "persistentvolumeclaims",
      "pods",
      "secrets",
      "services",
      "serviceaccounts",
    ],
    verbs: writeVerbs,
  },
  { apiGroups: [""], resources: ["secrets"], verbs: readVerbs },
  { apiGroups: [""], resources: ["pods/eviction"], verbs: ["create"] },
  {
    apiGroups: ["apps", "batch", "autoscaling", "policy", "networking.k8s.io"],
    resources: ["*"],
    verbs: writeVerbs,
  },
];

const publicPaths = ["/healthz", "/livez", "/livez/*", "/readyz", "/readyz/*", "/version", "/version/"];
const discoveryPaths = [...publicPaths, "/api", "/api/*", "/apis", "/apis/*", "/openapi", "/openapi/*"];
const issuerPaths = ["/.well-known/openid-configuration", "/openid/v1/jwks"];

const roles: Readonly<Record<string, readonly Rule[]>> = {
  "cluster-admin": [
    { apiGroups: ["*"], resources: ["*"], verbs: ["*"] },
    { nonResourceURLs: ["*"], verbs: ["*"] },
  ],
  admin: [
    ...workloads,
    ...edits,
    { apiGroups: ["rbac.authorization.k8s.io"], resources: ["roles", "rolebindings"], verbs: ["*"] },
  ],
  edit: [...workloads, ...edits],
  view: workloads,
  "system:discovery": [{ nonResourceURLs: discoveryPaths, verbs: ["get"] }],
  "system:public-info-viewer": [{ nonResourceURLs: publicPaths, verbs: ["get"] }],
  "system:service-account-issuer-discovery": [{ nonResourceURLs: issuerPaths, verbs: ["get"] }],
  "system:basic-user": [
    {
      apiGroups: ["authorization.k8s.io"],
      resources: ["selfsubjectaccessreviews", "selfsubjectrulesreviews"],
      verbs: ["create"],
    },
    { apiGroups: ["authentication.k8s.io"], resources: ["selfsubjectreviews"], verbs: ["create"] },
  ],
  "system:auth-delegator": [
    { apiGroups: ["authentication.k8s.io"], resources: ["tokenreviews"], verbs: ["create"] },
    { apiGroups: ["authorization.k8s.io"], resources: ["subjectaccessreviews"], verbs: ["create"] },
  ],
  "system:node": [
    {
      apiGroups: [""],
      resources: ["configmaps", "secrets", "services", "namespaces", "pods", "serviceaccounts", "nodes"],
      verbs: readVerbs,
    },
    {
      apiGroups: [""],
      resources: ["nodes", "nodes/status", "pods/status", "pods", "events"],
      verbs: ["create", "patch", "update", "delete"],
    },
    { apiGroups: [""], resources: ["serviceaccounts/token"], verbs: ["create"] },
    {
      apiGroups: ["coordination.k8s.io"],
      resources: ["leases"],
      verbs: ["create", "get", "patch", "update"],
    },
    { apiGroups: ["authentication.k8s.io"], resources: ["tokenreviews"], verbs: ["create"] },
  ],
};

const bindings: ReadonlyArray<readonly [role: string, group: string]> = [
  ["cluster-admin", "system:masters"],
  ["system:discovery", "system:authenticated"],
  ["system:public-info-viewer", "system:authenticated"],
  ["system:basic-user", "system:authenticated"],
  ["system:service-account-issuer-discovery", "system:serviceaccounts"],
  ["system:node", "system:nodes"],
];

export const bootstrapRoles: readonly NewObject[] = Object.entries(roles).map(([name, rules]) => ({
  apiVersion,
  kind: "ClusterRole",
  metadata: { name, labels },
  rules,
}));

export const bootstrapBindings: readonly NewObject[] = bindings.map(([role, group]) => ({
  apiVersion,
  kind: "ClusterRoleBinding",
  metadata: { name: role, labels },
  roleRef: { apiGroup: "rbac.authorization.k8s.io", kind: "ClusterRole", name: role },
  subjects: [{ apiGroup: "rbac.authorization.k8s.io", kind: "Group", name: group }],
}));
