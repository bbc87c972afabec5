// Which defaults and checks belong to which built-in kind.

import { forbiddenField, invalidValue, notSupported, required } from "../errors.ts";
import type { FieldError } from "../errors.ts";
import { formatError } from "../schema/formats.ts";
import { recordOf, recordsOf, sameJson, stringOf, valueAt } from "../json.ts";
import type { ApiObject } from "../store.ts";
import { crdHooks } from "./crd.ts";
import type { KindHooks } from "./kind.ts";
import { podHooks, setDefault } from "./pod.ts";
import { serviceHooks } from "./service.ts";
import { daemonSetHooks, deploymentHooks, jobHooks, replicaSetHooks, statefulSetHooks } from "./workloads.ts";

const secretHooks: KindHooks = {
  defaults: (secret) => {
    setDefault(secret, "type", "Opaque");
    const texts = recordOf(secret["stringData"]);
    if (Object.keys(texts).length === 0) return;
    const encoded = Object.entries(texts).map(([key, text]) => [
      key,
      Buffer.from(stringOf(text)).toString("base64"),
    ]);
    secret["data"] = {
      ...recordOf(secret["data"]),
      ...(Object.fromEntries(encoded) as Record<string, string>),
    };
    delete secret["stringData"];
  },
  validate: (secret, previous) => {
    const data = recordOf(secret["data"]);
    const errors = Object.entries(data)
      .filter(([, value]) => formatError("byte", stringOf(value)) !== undefined)
      .map(([key]) => invalidValue(`data[${key}]`, "<secret contents redacted>", "must be base64"));
    if (secret["type"] === "kubernetes.io/tls") {
      for (const key of ["tls.crt", "tls.key"])
        if (data[key] === undefined) errors.push(required(`data[${key}]`));
    }
    if (previous && previous["type"] !== secret["type"]) {
      errors.push(invalidValue("type", secret["type"], "field is immutable"));
    }
    return [...errors, ...immutableData(secret, previous)];
  },
};

function immutableData(object: ApiObject, previous: ApiObject | undefined): FieldError[] {
  if (previous?.["immutable"] !== true) return [];
  const errors: FieldError[] = [];
  if (object["immutable"] !== true)
    errors.push(forbiddenField("immutable", "field is immutable when `immutable` is set"));
  for (const field of ["data", "binaryData"]) {
    if (!sameJson(object[field], previous[field])) {
      errors.push(forbiddenField(field, "field is immutable when `immutable` is set"));
    }
  }
  return errors;
}

const namespaceHooks: KindHooks = {
  defaults: (namespace) => {
    const finalizers = valueAt(namespace, "spec", "finalizers");
    if (namespace.metadata.deletionTimestamp === undefined && finalizers === undefined) {
      namespace["spec"] = { finalizers: ["kubernetes"] };
    }
    // The label by which selectors name a namespace is the server's own.
    namespace.metadata.labels = {
      ...namespace.metadata.labels,
      "kubernetes.io/metadata.name": namespace.metadata.name,
    };
    setDefault(namespace, "status", { phase: "Active" });
  },
};

const webhookHooks: KindHooks = {
  defaults: (configuration) => {
    for (const webhook of recordsOf(configuration["webhooks"])) {
      setDefault(webhook, "failurePolicy", "Fail");
      setDefault(webhook, "matchPolicy", "Equivalent");
      setDefault(webhook, "namespaceSelector", {});
      setDefault(webhook, "objectSelector", {});
      setDefault(webhook, "timeoutSeconds", 10);
      if (configuration.kind.startsWith("Mutating")) setDefault(webhook, "reinvocationPolicy", "Never");
      for (const rule of recordsOf(webhook["rules"])) setDefault(rule, "scope", "*");
      const service = valueAt(webhook, "clientConfig", "service");
      if (service !== undefined) setDefault(recordOf(service), "port", 443);
    }
  },
  validate: (configuration) =>
    recordsOf(configuration["webhooks"]).flatMap((webhook, i) => validateWebhook(webhook, `webhooks[${i}]`)),
};

function validateWebhook(webhook: Record<string, unknown>, path: string): FieldError[] {
  const errors: FieldError[] = [];
  const { url, service } = recordOf(webhook["clientConfig"]);
  if ((url === undefined) === (service === undefined)) {
    errors.push(required(`${path}.clientConfig`, "exactly one of url or service is required"));
  }
  if (!["None", "NoneOnDryRun"].includes(stringOf(webhook["sideEffects"]))) {
    errors.push(notSupported(`${path}.sideEffects`, webhook["sideEffects"], ["None", "NoneOnDryRun"]));
  }
  if (!recordsOf([webhook]).every((one) => Array.isArray(one["admissionReviewVersions"]))) {
    errors.push(required(`${path}.admissionReviewVersions`));
  }
  return errors;
}

const roleBindingHooks: KindHooks = {
  defaults: (binding) => {
    setDefault(recordOf(binding["roleRef"]), "apiGroup", "rbac.authorization.k8s.io");
    for (const subject of recordsOf(binding["subjects"])) {
      setDefault(
        subject,
        "apiGroup",
        subject["kind"] === "ServiceAccount" ? "" : "rbac.authorization.k8s.io",
      );
      if (subject["apiGroup"] === "") delete subject["apiGroup"];
    }
  },
  validate: (binding, previous) =>
    previous && !sameJson(binding["roleRef"], previous["roleRef"])
      ? [invalidValue("roleRef", binding["roleRef"], "cannot change roleRef")]
      : [],
};

const endpointSliceHooks: KindHooks = {
  defaults: (slice) => {
    for (const port of recordsOf(slice["ports"])) {
      setDefault(port, "name", "");
      setDefault(port, "protocol", "TCP");
    }
  },
  validate: (slice, previous) => {
    const types = ["FQDN", "IPv4", "IPv6"];
    const type = slice["addressType"];
    if (!types.includes(stringOf(type))) return [notSupported("addressType", type, types)];
    return previous && previous["addressType"] !== type
      ? [invalidValue("addressType", type, "field is immutable")]
      : [];
  },
};

const hooks: Readonly<Record<string, KindHooks>> = {
  "/Pod": podHooks,
  "/Service": serviceHooks,
  "/Secret": secretHooks,
  "/ConfigMap": { validate: immutableData },
  "/Namespace": namespaceHooks,
  "apps/Deployment": deploymentHooks,
  "apps/ReplicaSet": replicaSetHooks,
  "apps/StatefulSet": statefulSetHooks,
  "apps/DaemonSet": daemonSetHooks,
  "batch/Job": jobHooks,
  "discovery.k8s.io/EndpointSlice": endpointSliceHooks,
  "rbac.authorization.k8s.io/RoleBinding": roleBindingHooks,
  "rbac.authorization.k8s.io/ClusterRoleBinding": roleBindingHooks,
  "admissionregistration.k8s.io/MutatingWebhookConfiguration": webhookHooks,
  "admissionregistration.k8s.io/ValidatingWebhookConfiguration": webhookHooks,
  "apiextensions.k8s.io/CustomResourceDefinition": crdHooks,
};

export function hooksOf(group: string, kind: string): KindHooks {
  return hooks[`${group}/${kind}`] ?? {};
}
