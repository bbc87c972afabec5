// Pods, and the templates that workloads carry: Kubernetes' defaults and the checks that catch the usual mistakes.

import { duplicate, forbiddenField, invalidValue, notSupported, required } from "../errors.ts";
import type { FieldError } from "../errors.ts";
import { copyOf, isRecord, recordOf, recordsOf, sameJson, stringOf, valueAt } from "../json.ts";
import type { JsonRecord } from "../json.ts";
import type { ApiObject } from "../store.ts";
import { labelErrors, nameErrors } from "./names.ts";
import type { KindHooks } from "./kind.ts";

// Kubernetes' figures.
const graceSecondsDefault = 30;
const projectedModeDefault = 0o644;
const tokenSecondsDefault = 3_600;

export const podHooks: KindHooks = {
  defaults: (pod) => {
    const spec = recordOf(pod["spec"]);
    defaultPodSpec(spec);
    setDefault(spec, "enableServiceLinks", true);
    const status = isRecord(pod["status"]) ? pod["status"] : {};
    setDefault(status, "phase", "Pending");
    status["qosClass"] ??= qosClass(spec);
    pod["status"] = status;
  },
  validate: (pod, previous) => [
    ...validatePodSpec(recordOf(pod["spec"]), "spec"),
    ...(previous ? immutablePodFields(pod, previous) : []),
  ],
};

export function setDefault(record: JsonRecord, field: string, value: unknown): void {
  if (record[field] === undefined || record[field] === null) record[field] = value;
}

export function defaultPodSpec(spec: JsonRecord): void {
  setDefault(spec, "restartPolicy", "Always");
  setDefault(spec, "dnsPolicy", "ClusterFirst");
  setDefault(spec, "schedulerName", "default-scheduler");
  setDefault(spec, "terminationGracePeriodSeconds", graceSecondsDefault);
  setDefault(spec, "securityContext", {});
  if (spec["serviceAccountName"] === undefined && typeof spec["serviceAccount"] === "string") {
    spec["serviceAccountName"] = spec["serviceAccount"];
  }
  if (typeof spec["serviceAccountName"] === "string") spec["serviceAccount"] = spec["serviceAccountName"];
  for (const container of [...recordsOf(spec["initContainers"]), ...recordsOf(spec["containers"])]) {
    defaultContainer(container);
  }
  recordsOf(spec["volumes"]).forEach(defaultVolume);
}

function defaultContainer(container: JsonRecord): void {
  const image = stringOf(container["image"]);
  const isLatest = /:latest$/.test(image) || !/[:@][^/]*$/.test(image);
  setDefault(container, "imagePullPolicy", isLatest ? "Always" : "IfNotPresent");
  setDefault(container, "terminationMessagePath", "/dev/termination-log");
  setDefault(container, "terminationMessagePolicy", "File");
  setDefault(container, "resources", {});
  const resources = recordOf(container["resources"]);
  for (const [name, limit] of Object.entries(recordOf(resources["limits"]))) {
    setDefault(resources, "requests", {});
    setDefault(recordOf(resources["requests"]), name, limit);
  }
  for (const port of recordsOf(container["ports"])) setDefault(port, "protocol", "TCP");
  for (const probe of ["livenessProbe", "readinessProbe", "startupProbe"]) {
    if (isRecord(container[probe])) defaultProbe(container[probe]);
  }
  for (const hook of ["postStart", "preStop"])
    defaultHttpGet(valueAt(container, "lifecycle", hook, "httpGet"));
  for (const env of recordsOf(container["env"])) {
    const field = valueAt(env, "valueFrom", "fieldRef");
    if (isRecord(field)) setDefault(field, "apiVersion", "v1");
  }
}

function defaultProbe(probe: JsonRecord): void {
  setDefault(probe, "timeoutSeconds", 1);
  setDefault(probe, "periodSeconds", 10);
  setDefault(probe, "successThreshold", 1);
  setDefault(probe, "failureThreshold", 3);
  defaultHttpGet(probe["httpGet"]);
}

function defaultHttpGet(get: unknown): void {
  if (!isRecord(get)) return;
  setDefault(get, "path", "/");
  setDefault(get, "scheme", "HTTP");
}

function defaultVolume(volume: JsonRecord): void {
  for (const kind of ["configMap", "secret", "projected", "downwardAPI"]) {
    if (isRecord(volume[kind])) setDefault(volume[kind], "defaultMode", projectedModeDefault);
  }
  if (isRecord(volume["hostPath"])) setDefault(volume["hostPath"], "type", "");
  for (const source of recordsOf(valueAt(volume, "projected", "sources"))) {
    const token = source["serviceAccountToken"];
    if (isRecord(token)) setDefault(token, "expirationSeconds", tokenSecondsDefault);
    for (const item of recordsOf(valueAt(source, "downwardAPI", "items"))) {
      if (isRecord(item["fieldRef"])) setDefault(item["fieldRef"], "apiVersion", "v1");
    }
  }
  const hasSource = Object.keys(volume).some((key) => key !== "name");
  if (!hasSource) volume["emptyDir"] = {};
}

function qosClass(spec: JsonRecord): string {
  const containers = [...recordsOf(spec["containers"]), ...recordsOf(spec["initContainers"])];
  const asks = containers.map((container) => ({
    limits: recordOf(valueAt(container, "resources", "limits")),
    requests: recordOf(valueAt(container, "resources", "requests")),
  }));
  if (asks.every(({ limits, requests }) => Object.keys({ ...limits, ...requests }).length === 0))
    return "BestEffort";
  const guaranteed = asks.every(({ limits, requests }) =>
    ["cpu", "memory"].every((name) => limits[name] !== undefined && sameJson(limits[name], requests[name])),
  );
  return guaranteed ? "Guaranteed" : "Burstable";
}

export function validatePodSpec(spec: JsonRecord, path: string): FieldError[] {
  const errors: FieldError[] = [];
  const containers = recordsOf(spec["containers"]);
  const volumes = new Set(recordsOf(spec["volumes"]).map((volume) => stringOf(volume["name"])));
  const seen = new Set<string>();
  if (containers.length === 0) errors.push(required(`${path}.containers`));
  for (const field of ["initContainers", "containers"]) {
    recordsOf(spec[field]).forEach((container, i) =>
      errors.push(...validateContainer(container, `${path}.${field}[${i}]`, volumes, seen)),
    );
  }
  errors.push(...choice(spec, "restartPolicy", ["Always", "OnFailure", "Never"], path));
  errors.push(
    ...choice(spec, "dnsPolicy", ["ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"], path),
  );
  const volumeNames = new Set<string>();
  recordsOf(spec["volumes"]).forEach((volume, i) => {
    const name = stringOf(volume["name"]);
    const at = `${path}.volumes[${i}].name`;
    errors.push(...nameErrors(name, at, "label"));
    if (volumeNames.has(name)) errors.push(duplicate(at, name));
    volumeNames.add(name);
  });
  if (Number(spec["terminationGracePeriodSeconds"] ?? 0) < 0) {
    errors.push(
      invalidValue(
        `${path}.terminationGracePeriodSeconds`,
        spec["terminationGracePeriodSeconds"],
        "must be greater than or equal to 0",
      ),
    );
  }
  return errors;
}

function choice(record: JsonRecord, field: string, allowed: readonly string[], path: string): FieldError[] {
  const value = record[field];
  if (value === undefined || allowed.includes(stringOf(value))) return [];
  return [notSupported(`${path}.${field}`, value, allowed)];
}

function validateContainer(
  container: JsonRecord,
  path: string,
  volumes: ReadonlySet<string>,
  seen: Set<string>,
): FieldError[] {
  const errors: FieldError[] = [];
  const name = stringOf(container["name"]);
  errors.push(...nameErrors(name, `${path}.name`, "label"));
  if (seen.has(name)) errors.push(duplicate(`${path}.name`, name));
  seen.add(name);
  if (stringOf(container["image"]) === "") errors.push(required(`${path}.image`));
  errors.push(...choice(container, "imagePullPolicy", ["Always", "IfNotPresent", "Never"], path));
  recordsOf(container["ports"]).forEach((port, i) => {
    errors.push(...portErrors(port["containerPort"], `${path}.ports[${i}].containerPort`));
    errors.push(...choice(port, "protocol", ["TCP", "UDP", "SCTP"], `${path}.ports[${i}]`));
  });
  recordsOf(container["volumeMounts"]).forEach((mount, i) => {
    const at = `${path}.volumeMounts[${i}]`;
    const volume = stringOf(mount["name"]);
    if (!volumes.has(volume)) {
      errors.push({
        field: `${at}.name`,
        reason: "FieldValueNotFound",
        message: `Not found: ${JSON.stringify(volume)}`,
      });
    }
    if (stringOf(mount["mountPath"]) === "") errors.push(required(`${at}.mountPath`));
  });
  recordsOf(container["env"]).forEach((env, i) => {
    if (stringOf(env["name"]) === "") errors.push(required(`${path}.env[${i}].name`));
    if (stringOf(env["value"]) !== "" && env["valueFrom"] !== undefined) {
      errors.push(
        invalidValue(`${path}.env[${i}].valueFrom`, "", "may not be specified when `value` is not empty"),
      );
    }
  });
  return errors;
}

export function portErrors(port: unknown, path: string): FieldError[] {
  if (typeof port === "number" && Number.isInteger(port) && port >= 1 && port <= 65_535) return [];
  if (port === undefined || port === 0) return [required(path)];
  return [invalidValue(path, port, "must be between 1 and 65535, inclusive")];
}

const changeable =
  "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";

function immutablePodFields(pod: ApiObject, previous: ApiObject): FieldError[] {
  return sameJson(fixedPart(pod), fixedPart(previous)) ? [] : [forbiddenField("spec", changeable)];
}

/** The spec without what may change. nodeName may be set once, by the scheduler's binding; ephemeral containers are not offered. */
function fixedPart(pod: ApiObject): unknown {
  const spec = copyOf(recordOf(pod["spec"]));
  for (const field of [
    "activeDeadlineSeconds",
    "tolerations",
    "terminationGracePeriodSeconds",
    "nodeName",
    "schedulingGates",
  ]) {
    delete spec[field];
  }
  for (const container of [...recordsOf(spec["containers"]), ...recordsOf(spec["initContainers"])]) {
    delete container["image"];
    delete container["imagePullPolicy"];
    delete container["resources"];
  }
  return spec;
}

/** A workload's `spec.template`: its labels have to be selected, its Pod always restarts. */
export function validateTemplate(object: ApiObject, restartPolicies: readonly string[]): FieldError[] {
  const template = valueAt(object, "spec", "template");
  const spec = recordOf(valueAt(template, "spec"));
  const errors = validatePodSpec(spec, "spec.template.spec");
  const policy = spec["restartPolicy"];
  if (typeof policy === "string" && !restartPolicies.includes(policy)) {
    errors.push(notSupported("spec.template.spec.restartPolicy", policy, restartPolicies));
  }
  errors.push(...labelErrors(valueAt(template, "metadata", "labels"), "spec.template.metadata.labels"));
  return errors;
}
