// Writes src/cluster/api/generated/builtin-schemas.json: the fields of the built-in kinds, read from the models that
// @kubernetes/client-node carries (names, types, which are required; no descriptions). Run it after that package changes.

import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";

const models = join(import.meta.dirname, "../node_modules/@kubernetes/client-node/dist/gen/models");
const target = join(import.meta.dirname, "../src/cluster/api/generated/builtin-schemas.json");

const roots = [
  "V1Namespace V1Pod V1PodTemplate V1Service V1Endpoints V1ServiceAccount V1Secret V1ConfigMap CoreV1Event V1Node V1LimitRange",
  "V1ResourceQuota V1PersistentVolume V1PersistentVolumeClaim V1ReplicationController V1Binding V1EndpointSlice EventsV1Event",
  "V1Deployment V1ReplicaSet V1StatefulSet V1DaemonSet V1ControllerRevision V1Job V1CronJob V1Lease V1IngressClass V1Ingress",
  "V1NetworkPolicy V1MutatingWebhookConfiguration V1ValidatingWebhookConfiguration V1ValidatingAdmissionPolicy",
  "V1ValidatingAdmissionPolicyBinding V1CustomResourceDefinition V1PodDisruptionBudget V2HorizontalPodAutoscaler V1PriorityClass",
  "V1Role V1ClusterRole V1RoleBinding V1ClusterRoleBinding V1TokenReview AuthenticationV1TokenRequest V1SubjectAccessReview",
  "V1SelfSubjectAccessReview V1LocalSubjectAccessReview V1SelfSubjectRulesReview V1SelfSubjectReview V1Scale V1Eviction",
  "V1StorageClass V1RuntimeClass V1APIService V1DeleteOptions",
]
  .join(" ")
  .split(" ");

// Quantities: written as text or as a number, though the models call them strings.
const quantityMaps = new Set(
  [
    "limits requests capacity allocatable hard used default defaultRequest max min maxLimitRequestRatio overhead",
  ].flatMap((names) => names.split(" ")),
);
const quantities = new Set(["sizeLimit", "divisor", "averageValue", "averageUtilization"]);

interface Attribute {
  readonly baseName: string;
  readonly type: string;
  readonly format: string;
}

type Schema = Record<string, unknown>;

const definitions: Record<string, Schema> = {};
const waiting = [...roots];
for (let name = waiting.pop(); name !== undefined; name = waiting.pop()) {
  if (definitions[name] === undefined) definitions[name] = definitionOf(name);
}
const sorted = Object.fromEntries(Object.entries(definitions).sort(([a], [b]) => (a < b ? -1 : 1)));
writeFileSync(target, `${JSON.stringify(sorted)}\n`);
console.log(`${Object.keys(sorted).length} definitions`);

function definitionOf(name: string): Schema {
  if (name === "V1JSONSchemaProps") return { type: "object", "x-kubernetes-preserve-unknown-fields": true };
  const code = readFileSync(join(models, `${name}.js`), "utf8");
  const types = readFileSync(join(models, `${name}.d.ts`), "utf8");
  const table = /attributeTypeMap = (\[[\s\S]*?\n\]|\[\]);/.exec(code)?.[1] ?? "[]";
  const attributes = JSON.parse(table) as Attribute[];
  const properties = Object.fromEntries(
    attributes.map((attribute) => [attribute.baseName, schemaOf(attribute)]),
  );
  const required = [...types.matchAll(/^ {4}'([^']+)': /gm)].map((match) => match[1]!);
  return { type: "object", properties, ...(required.length > 0 ? { required } : {}) };
}

function schemaOf({ baseName, type, format }: Attribute): Schema {
  if (quantities.has(baseName) && type === "string") return { "x-kubernetes-int-or-string": true };
  if (quantityMaps.has(baseName) && type === "{ [key: string]: string; }") {
    return { type: "object", additionalProperties: { "x-kubernetes-int-or-string": true } };
  }
  return schemaOfType(type, format);
}

function schemaOfType(type: string, format: string): Schema {
  const list = /^Array<(.*)>$/.exec(type);
  if (list) return { type: "array", items: schemaOfType(list[1]!, format) };
  const map = /^\{ \[key: string\]: (.*); \}$/.exec(type);
  if (map) return { type: "object", additionalProperties: schemaOfType(map[1]!, format) };
  switch (type) {
    case "string":
      return format === "byte" ? { type: "string", format: "byte" } : { type: "string" };
    case "boolean":
      return { type: "boolean" };
    case "number":
      return format === "double" ? { type: "number" } : { type: "integer", format };
    case "Date":
    case "V1MicroTime":
      return { type: "string", format: "date-time" };
    case "IntOrString":
      return { "x-kubernetes-int-or-string": true };
    case "any":
      return { "x-kubernetes-preserve-unknown-fields": true };
    default:
      waiting.push(type);
      return { $ref: type };
  }
}
