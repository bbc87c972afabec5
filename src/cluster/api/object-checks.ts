// From what a client sent to an object fit to be stored: decoding, defaults, and every check that needs no other object.

import { parse as parseYaml } from "yaml";
import type { WriteContext } from "./context.ts";
import { ApiError, badRequest, invalidValue, required } from "./errors.ts";
import type { FieldError } from "./errors.ts";
import { copyOf, isRecord, recordsOf, stringOf } from "./json.ts";
import { apiVersionOf } from "./kinds/kind.ts";
import { annotationErrors, labelErrors, nameErrors, nameRuleOf } from "./kinds/names.ts";
import type { Target } from "./objects.ts";
import { validateRules } from "./schema/cel.ts";
import { applyDefaults, prune } from "./schema/prune.ts";
import { resolveSchema } from "./schema/schema.ts";
import type { Schema } from "./schema/schema.ts";
import { validateSchema } from "./schema/validate.ts";
import type { ApiMeta, ApiObject } from "./store.ts";

/** Reads a request's body: JSON, or YAML where the client says so. Throws ApiError 400. */
export function parseBody(text: string, contentType: string): unknown {
  try {
    return /yaml/.test(contentType) ? parseYaml(text) : JSON.parse(text);
  } catch (cause) {
    const why = cause instanceof Error ? cause.message.split("\n")[0] : "unreadable";
    throw new ApiError(400, "BadRequest", `the body of the request could not be read: ${why}`, {}, { cause });
  }
}

/** A copy of the body with the right kind, name and namespace, and without unknown fields. Throws ApiError 400. */
export function decode(target: Target, body: unknown, context: WriteContext): ApiObject {
  const { kind, version, namespace } = target;
  const apiVersion = apiVersionOf(kind.group, version.name);
  if (!isRecord(body)) throw badRequest(`the body must be a ${kind.kind} object`);
  if (body["kind"] !== undefined && body["kind"] !== kind.kind) {
    throw badRequest(
      `${stringOf(body["kind"])} in version "${version.name}" cannot be handled as a ${kind.kind}`,
    );
  }
  const given = body["apiVersion"];
  const isOwn = given === undefined || stringOf(given).split("/")[0] === apiVersion.split("/")[0];
  if (!isOwn || (kind.group === "" && given !== undefined && given !== apiVersion)) {
    const text = `the API version in the data (${stringOf(given)}) does not match the expected API version (${apiVersion})`;
    throw badRequest(text);
  }
  const { value, unknown } = prune(body, version.schema);
  const metadata = decodeMeta(value["metadata"], unknown);
  if (unknown.length > 0) tellUnknown(target, unknown, context);
  const object: ApiObject = { ...copyOf(value), apiVersion, kind: kind.kind, metadata };
  if (kind.namespaced) {
    if (metadata.namespace && metadata.namespace !== namespace) {
      throw badRequest(
        "the namespace of the provided object does not match the namespace sent on the request",
      );
    }
    metadata.namespace = namespace;
  } else delete metadata.namespace;
  return object;
}

function decodeMeta(value: unknown, unknown: string[]): ApiMeta {
  if (value !== undefined && value !== null && !isRecord(value))
    throw badRequest("metadata must be an object");
  const pruned = prune(copyOf(value ?? {}), { $ref: "V1ObjectMeta" });
  // metadata of custom resources has no fields of its own in their schemas, so it is looked at here for both.
  unknown.push(...pruned.unknown.map((path) => `metadata.${path}`).filter((path) => !unknown.includes(path)));
  const meta = pruned.value as Record<string, unknown>;
  for (const [field, one] of Object.entries(meta)) if (one === null) delete meta[field];
  const errors = validateSchema(meta, { $ref: "V1ObjectMeta" }, "metadata");
  if (errors.length > 0) throw badRequest(`${errors[0]!.field}: ${errors[0]!.message}`);
  return { ...(meta as Partial<ApiMeta>), name: stringOf(meta["name"]) };
}

function tellUnknown({ kind, version }: Target, unknown: readonly string[], context: WriteContext): void {
  const texts = unknown.map((path) => `unknown field ${JSON.stringify(path)}`);
  if (context.fieldValidation === "Warn") texts.forEach((text) => context.warn(text));
  if (context.fieldValidation !== "Strict") return;
  const shown = texts.join(", ");
  throw badRequest(
    `${kind.kind} in version "${version.name}" cannot be handled as a ${kind.kind}: strict decoding error: ${shown}`,
  );
}

/** A copy with the defaults of schema and kind filled in, once more pruned: webhooks may have added anything. */
export function settle(
  { kind, version }: Target,
  object: ApiObject,
  _previous: ApiObject | undefined,
): ApiObject {
  const pruned = copyOf(prune(object, version.schema).value);
  const defaulted = kind.custom ? applyDefaults(pruned, version.schema) : withoutNulls(pruned);
  // Hooks presume shapes; what has the wrong ones is refused by the schema before they look.
  if (kind.custom || validateTypes(defaulted, version.schema).length === 0) kind.hooks.defaults?.(defaulted);
  return defaulted;
}

/** Built-in kinds read null as absent. */
function withoutNulls<T>(value: T): T {
  if (Array.isArray(value)) return value.map(withoutNulls) as T;
  if (!isRecord(value)) return value;
  return Object.fromEntries(
    Object.entries(value)
      .filter(([, field]) => field !== null)
      .map(([name, field]) => [name, withoutNulls(field)]),
  ) as T;
}

function validateTypes(object: ApiObject, schema: Schema): FieldError[] {
  const resolved = resolveSchema(schema);
  const errors = validateSchema(object, resolved);
  return errors.filter((error) => error.reason === "FieldValueTypeInvalid");
}

/** All that is wrong with an object about to be stored. */
export function objectErrors(
  target: Target,
  object: ApiObject,
  previous: ApiObject | undefined,
  subresource = "",
): FieldError[] {
  const { kind, version } = target;
  // Where the status is a subresource it is checked when it is written: a default in its schema may be no valid status by itself.
  const isOthers = (field: string): boolean =>
    field.startsWith("metadata") ||
    (field.startsWith("status") && version.status && subresource !== "status");
  const errors: FieldError[] = [];
  const meta = object.metadata;
  if (!previous) {
    if (meta.name === "") errors.push(required("metadata.name", "name or generateName is required"));
    else errors.push(...nameErrors(meta.name, "metadata.name", nameRuleOf(kind.group, kind.kind)));
  }
  errors.push(...labelErrors(meta.labels, "metadata.labels"), ...annotationErrors(meta.annotations));
  errors.push(...ownerErrors(object), ...finalizerErrors(object));
  const { metadata: _metadata, ...content } = object;
  const isLenient = (error: FieldError): boolean =>
    !kind.custom && error.reason === "FieldValueRequired" && error.field.startsWith("status");
  const bySchema = validateSchema(content, version.schema).filter(
    (error) => !isOthers(error.field) && !isLenient(error),
  );
  errors.push(...bySchema);
  const typesFit = bySchema.every((error) => error.reason !== "FieldValueTypeInvalid");
  if (typesFit && bySchema.length === 0 && kind.custom)
    errors.push(...validateRules(object, previous, version.schema));
  if (typesFit) errors.push(...(kind.hooks.validate?.(object, previous) ?? []));
  return uniqueByText(errors);
}

function uniqueByText(errors: readonly FieldError[]): FieldError[] {
  return [...new Map(errors.map((error) => [`${error.field}: ${error.message}`, error])).values()];
}

function ownerErrors(object: ApiObject): FieldError[] {
  const owners = recordsOf(object.metadata.ownerReferences);
  const errors = owners.flatMap((owner, i) =>
    ["apiVersion", "kind", "name", "uid"]
      .filter((field) => stringOf(owner[field]) === "")
      .map((field) => invalidValue(`metadata.ownerReferences[${i}].${field}`, "", "must not be empty")),
  );
  if (owners.filter((owner) => owner["controller"] === true).length > 1) {
    const text = "Only one reference can have Controller set to true";
    errors.push(
      invalidValue(
        "metadata.ownerReferences",
        owners.map((owner) => owner["name"]),
        text,
      ),
    );
  }
  return errors;
}

function finalizerErrors(object: ApiObject): FieldError[] {
  return (object.metadata.finalizers ?? [])
    .filter(
      (finalizer) =>
        !finalizer.includes("/") && !["foregroundDeletion", "orphan", "kubernetes"].includes(finalizer),
    )
    .map((finalizer) =>
      invalidValue(
        "metadata.finalizers",
        finalizer,
        "name is neither a standard finalizer name nor is it fully qualified",
      ),
    );
}
