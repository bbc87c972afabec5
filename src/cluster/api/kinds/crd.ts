// CustomResourceDefinitions: their own defaults and checks, and the kinds that they add.

import { invalidValue, notSupported, required } from "../errors.ts";
import type { FieldError } from "../errors.ts";
import { arrayOf, isRecord, recordOf, recordsOf, stringOf, valueAt } from "../json.ts";
import type { JsonRecord } from "../json.ts";
import type { Schema } from "../schema/schema.ts";
import type { ApiObject } from "../store.ts";
import { ageText, defaultColumns } from "./columns.ts";
import { jsonPath } from "./jsonpath.ts";
import { allVerbs, resourceName } from "./kind.ts";
import type { Column, Kind, KindHooks, KindVersion } from "./kind.ts";
import { setDefault } from "./pod.ts";

export const crdHooks: KindHooks = {
  defaults: (crd) => {
    const spec = recordOf(crd["spec"]);
    const names = recordOf(spec["names"]);
    setDefault(names, "singular", stringOf(names["kind"]).toLowerCase());
    setDefault(names, "listKind", `${stringOf(names["kind"])}List`);
    setDefault(spec, "conversion", { strategy: "None" });
    crd["status"] = statusOf(crd, names, recordsOf(spec["versions"]));
  },
  validate: (crd, previous) => {
    const spec = recordOf(crd["spec"]);
    const errors: FieldError[] = [];
    const plural = stringOf(valueAt(spec, "names", "plural"));
    const wanted = `${plural}.${stringOf(spec["group"])}`;
    if (crd.metadata.name !== wanted) {
      errors.push(
        invalidValue("metadata.name", crd.metadata.name, 'must be spec.names.plural+"."+spec.group'),
      );
    }
    if (!["Cluster", "Namespaced"].includes(stringOf(spec["scope"]))) {
      errors.push(notSupported("spec.scope", spec["scope"], ["Cluster", "Namespaced"]));
    }
    const versions = recordsOf(spec["versions"]);
    if (versions.filter((version) => version["storage"] === true).length !== 1) {
      const text = "must have exactly one version marked as storage version";
      errors.push(
        invalidValue(
          "spec.versions",
          versions.map((version) => version["name"]),
          text,
        ),
      );
    }
    versions.forEach((version, i) => {
      if (!isRecord(valueAt(version, "schema", "openAPIV3Schema"))) {
        errors.push(required(`spec.versions[${i}].schema.openAPIV3Schema`, "schemas are required"));
      }
    });
    const strategy = valueAt(spec, "conversion", "strategy");
    if (strategy !== "None") errors.push(notSupported("spec.conversion.strategy", strategy, ["None"]));
    for (const field of ["group", "scope"]) {
      const before = valueAt(previous, "spec", field);
      if (before !== undefined && before !== spec[field]) {
        errors.push(invalidValue(`spec.${field}`, spec[field], "field is immutable"));
      }
    }
    return errors;
  },
};

/** A definition holds from the moment it is stored, so its status says so from the start. */
function statusOf(crd: ApiObject, names: JsonRecord, versions: readonly JsonRecord[]): JsonRecord {
  const lastTransitionTime = crd.metadata.creationTimestamp;
  const condition = (type: string, reason: string, message: string): JsonRecord => ({
    type,
    status: "True",
    lastTransitionTime,
    reason,
    message,
  });
  return {
    acceptedNames: names,
    storedVersions: versions
      .filter((version) => version["storage"] === true)
      .map((version) => version["name"]),
    conditions: [
      condition("NamesAccepted", "NoConflicts", "no conflicts found"),
      condition("Established", "InitialNamesAccepted", "the initial names have been accepted"),
    ],
  };
}

/** The kind that a CustomResourceDefinition adds. */
export function customKind(crd: ApiObject): Kind {
  const spec = recordOf(crd["spec"]);
  const names = recordOf(spec["names"]);
  const group = stringOf(spec["group"]);
  const plural = stringOf(names["plural"]);
  const versions = recordsOf(spec["versions"]);
  const storage = versions.find((version) => version["storage"] === true);
  return {
    group,
    kind: stringOf(names["kind"]),
    listKind: stringOf(names["listKind"]) || `${stringOf(names["kind"])}List`,
    plural,
    resource: resourceName(group, plural),
    singular: stringOf(names["singular"]),
    shortNames: arrayOf(names["shortNames"]).map(stringOf),
    categories: arrayOf(names["categories"]).map(stringOf),
    namespaced: spec["scope"] === "Namespaced",
    verbs: allVerbs,
    versions: versions.map(customVersion).toSorted((a, b) => compareVersions(a.name, b.name)),
    storageVersion: stringOf(storage?.["name"]),
    custom: true,
    hooks: {},
    subresources: [],
  };
}

function customVersion(version: JsonRecord): KindVersion {
  const scale = valueAt(version, "subresources", "scale");
  const extra = recordsOf(version["additionalPrinterColumns"]);
  return {
    name: stringOf(version["name"]),
    served: version["served"] === true,
    schema: recordOf(valueAt(version, "schema", "openAPIV3Schema")) as Schema,
    columns: extra.length === 0 ? defaultColumns : [defaultColumns[0]!, ...extra.map(customColumn)],
    status: isRecord(valueAt(version, "subresources", "status")),
    scale: isRecord(scale)
      ? {
          specReplicasPath: stringOf(scale["specReplicasPath"]),
          statusReplicasPath: stringOf(scale["statusReplicasPath"]),
          labelSelectorPath: stringOf(scale["labelSelectorPath"]) || undefined,
        }
      : undefined,
    selectableFields: recordsOf(version["selectableFields"]).map((field) =>
      stringOf(field["jsonPath"]).slice(1),
    ),
    deprecationWarning:
      version["deprecated"] === true
        ? stringOf(version["deprecationWarning"]) || `version ${stringOf(version["name"])} is deprecated`
        : undefined,
  };
}

function customColumn(column: JsonRecord): Column {
  const path = stringOf(column["jsonPath"]);
  const type = stringOf(column["type"]);
  return {
    name: stringOf(column["name"]),
    type,
    format: stringOf(column["format"]),
    description: stringOf(column["description"]),
    priority: Number(column["priority"] ?? 0),
    cell: (object, nowMs) => {
      const values = jsonPath(object, path);
      if (values.length === 0) return null;
      if (type === "date") return ageText(values[0], nowMs);
      if (type === "string")
        return values.map((value) => (typeof value === "string" ? value : JSON.stringify(value))).join(",");
      return values[0];
    },
  };
}

/** Kubernetes' order of preference: v2, v1, v1beta2, v1beta1, v1alpha1, then others by name. */
export function compareVersions(a: string, b: string): number {
  const [x, y] = [rank(a), rank(b)];
  if (x === undefined || y === undefined) return x === y ? (a < b ? -1 : 1) : x === undefined ? 1 : -1;
  for (const i of [0, 1, 2] as const) if (x[i] !== y[i]) return y[i] - x[i];
  return 0;
}

function rank(name: string): readonly [number, number, number] | undefined {
  const match = /^v(\d+)(?:(alpha|beta)(\d+))?$/.exec(name);
  if (!match) return undefined;
  const stability = match[2] === undefined ? 2 : match[2] === "beta" ? 1 : 0;
  return [stability, Number(match[1]), Number(match[3] ?? 0)];
}
