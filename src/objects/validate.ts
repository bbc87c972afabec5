// Whether an object may enter the mesh: its schema, the rules of its schema, and what Istio's webhook checks beyond them.

import type { Problem } from "#base";

import type { EnvoyFilter } from "./envoy-filter.ts";
import { unsupportedFieldWarnings, unsupportedMetadataWarnings } from "./fields.ts";
import { kindOf, kinds, versionOf } from "./kinds.ts";
import { refOf, type KubeObject } from "./object.ts";
import { openReport, type Report } from "./report.ts";
import { checkSchema, schemaOf, withDefaults } from "./schema.ts";
import { meshConfigMapProblems } from "./mesh-config-map.ts";
import { checkMetadata } from "./validate/metadata.ts";
import { semanticRules } from "./validate/rules.ts";

export interface ValidationContext {
  /**
   * What of an EnvoyFilter's patches does not fit Envoy's own message types, which this room does not know (`envoyFilterMismatches` of
   * `#envoy`). Absent: patches are taken as they are.
   */
  readonly envoyFilter?: (filter: EnvoyFilter) => readonly { readonly path: string; readonly text: string }[];
}

/**
 * Every problem of an object, in the order of its fields; none when it is good. Errors refuse it, warnings are shown and it is
 * taken. Kinds without a schema (those of Kubernetes itself) have no problems here: their API server checks them.
 */
export function validateObject(object: KubeObject, context: ValidationContext = {}): readonly Problem[] {
  const report = openReport(refOf(object));
  const schema = schemaOf(object.apiVersion, object.kind);
  if (schema === undefined) {
    reportUnknownKind(object, report);
    return report.problems;
  }
  const {
    apiVersion: _apiVersion,
    kind: _kind,
    metadata: _metadata,
    status: _status,
    ...own
  } = object as KubeObject & Record<string, unknown>;
  checkSchema(withDefaults(own, schema), schema, "", report);
  checkMetadata(object, report);
  // Values of wrong types would mislead the rules that follow; what they would find is found when these are mended.
  if (!report.problems.some(({ code }) => code === "MZ0101")) semanticRules(object, report, context);
  return report.problems;
}

function reportUnknownKind(object: KubeObject, report: Report): void {
  const sameKind = kinds.filter(({ kind, family }) => kind === object.kind && family !== "kubernetes");
  const known = kindOf(object);
  if (known !== undefined && known.family === "kubernetes") return;
  if (known !== undefined)
    report.add(
      "MZ0003",
      "apiVersion",
      `${known.kind} has no version ${versionOf(object.apiVersion)}: expected one of ${known.versions.join(", ")}`,
    );
  else if (sameKind.length > 0)
    report.add(
      "MZ0003",
      "apiVersion",
      `${object.kind} is not of ${object.apiVersion}: expected ${sameKind.map(({ group, versions }) => `${group}/${versions[0]}`).join(" or ")}`,
    );
}

/** What the webhook and `mizzen validate` say of an object: its problems, and the fields that have no effect yet. */
export function admissionProblems(object: KubeObject, context: ValidationContext = {}): readonly Problem[] {
  // What is wrong with objects of the Gateway API, their definitions and their status say.
  if (kindOf(object)?.family === "gateway-api") return unsupportedFieldWarnings(object);
  const problems = [...validateObject(object, context), ...meshConfigMapProblems(object)];
  // In an object of wrong types no field can be told by its path.
  if (problems.some(({ code }) => code === "MZ0101")) return problems;
  return [...problems, ...unsupportedFieldWarnings(object), ...unsupportedMetadataWarnings(object)];
}

/** Whether a list of problems refuses the object. */
export function hasErrors(problems: readonly Problem[]): boolean {
  return problems.some(({ severity }) => severity === "error");
}
