// Deployments, ReplicaSets, StatefulSets, DaemonSets and Jobs: Kubernetes' defaults and checks.

import { invalidValue, required } from "../errors.ts";
import type { FieldError } from "../errors.ts";
import { isRecord, recordOf, sameJson, stringOf, valueAt } from "../json.ts";
import { matchesLabels, selectorRequirements } from "../selectors.ts";
import type { ApiObject } from "../store.ts";
import type { KindHooks } from "./kind.ts";
import { defaultPodSpec, setDefault, validateTemplate } from "./pod.ts";

export const deploymentHooks: KindHooks = {
  defaults: (object) => {
    const spec = defaultWorkload(object);
    setDefault(spec, "replicas", 1);
    setDefault(spec, "revisionHistoryLimit", 10);
    setDefault(spec, "progressDeadlineSeconds", 600);
    setDefault(spec, "strategy", {});
    const strategy = recordOf(spec["strategy"]);
    setDefault(strategy, "type", "RollingUpdate");
    if (strategy["type"] !== "RollingUpdate") return;
    setDefault(strategy, "rollingUpdate", {});
    const rolling = recordOf(strategy["rollingUpdate"]);
    setDefault(rolling, "maxUnavailable", "25%");
    setDefault(rolling, "maxSurge", "25%");
  },
  validate: validateWorkload,
};

export const replicaSetHooks: KindHooks = {
  defaults: (object) => setDefault(defaultWorkload(object), "replicas", 1),
  validate: validateWorkload,
};

export const statefulSetHooks: KindHooks = {
  defaults: (object) => {
    const spec = defaultWorkload(object);
    setDefault(spec, "replicas", 1);
    setDefault(spec, "podManagementPolicy", "OrderedReady");
    setDefault(spec, "revisionHistoryLimit", 10);
    setDefault(spec, "updateStrategy", { type: "RollingUpdate", rollingUpdate: { partition: 0 } });
  },
  validate: validateWorkload,
};

export const daemonSetHooks: KindHooks = {
  defaults: (object) => {
    const spec = defaultWorkload(object);
    setDefault(spec, "revisionHistoryLimit", 10);
    setDefault(spec, "updateStrategy", {
      type: "RollingUpdate",
      rollingUpdate: { maxSurge: 0, maxUnavailable: 1 },
    });
  },
  validate: validateWorkload,
};

export const jobHooks: KindHooks = {
  defaults: (object) => {
    const spec = defaultWorkload(object);
    setDefault(spec, "parallelism", 1);
    setDefault(spec, "completions", 1);
    setDefault(spec, "backoffLimit", 6);
    setDefault(spec, "completionMode", "NonIndexed");
    setDefault(spec, "suspend", false);
    if (spec["selector"] !== undefined || object.metadata.uid === undefined) return;
    // A Job selects its own Pods by its uid, as in Kubernetes.
    const own = { "batch.kubernetes.io/controller-uid": object.metadata.uid };
    spec["selector"] = { matchLabels: own };
    const meta = recordOf(valueAt(spec, "template", "metadata"));
    meta["labels"] = {
      ...recordOf(meta["labels"]),
      ...own,
      "batch.kubernetes.io/job-name": object.metadata.name,
    };
    recordOf(spec["template"])["metadata"] = meta;
  },
  validate: (object) => {
    const policy = stringOf(valueAt(object, "spec", "template", "spec", "restartPolicy"));
    const errors = validateTemplate(object, ["OnFailure", "Never"]);
    return policy === "" ? [...errors, required("spec.template.spec.restartPolicy")] : errors;
  },
};

function defaultWorkload(object: ApiObject): Record<string, unknown> {
  const spec = recordOf(object["spec"]);
  object["spec"] = spec;
  const podSpec = valueAt(spec, "template", "spec");
  if (isRecord(podSpec)) defaultPodSpec(podSpec);
  setDefault(object, "status", {});
  return spec;
}

function validateWorkload(object: ApiObject, previous: ApiObject | undefined): FieldError[] {
  const errors = validateTemplate(object, ["Always"]);
  const selector = valueAt(object, "spec", "selector");
  const requirements = selectorRequirements(selector);
  const labels = recordOf(valueAt(object, "spec", "template", "metadata", "labels"));
  if (!isRecord(selector) || requirements.length === 0) errors.push(required("spec.selector"));
  else if (!matchesLabels(requirements, labels)) {
    errors.push(
      invalidValue("spec.template.metadata.labels", labels, "`selector` does not match template `labels`"),
    );
  }
  if (previous && !sameJson(selector, valueAt(previous, "spec", "selector"))) {
    errors.push(invalidValue("spec.selector", selector, "field is immutable"));
  }
  const replicas = valueAt(object, "spec", "replicas");
  if (typeof replicas === "number" && replicas < 0) {
    errors.push(invalidValue("spec.replicas", replicas, "must be greater than or equal to 0"));
  }
  return errors;
}
