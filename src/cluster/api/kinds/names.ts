// Kubernetes' rules for names, labels and annotations, in its words.

import { invalidValue, required } from "../errors.ts";
import type { FieldError } from "../errors.ts";
import { isRecord, recordOf } from "../json.ts";

const label = /^[a-z0-9]([-a-z0-9]*[a-z0-9])?$/;
const subdomain = /^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$/;
const labelValue = /^(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?$/;
const qualifiedName = /^([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]$/;
// Kubernetes' total for all annotations of an object, in bytes of UTF-8.
const annotationsBytesMax = 256 * 1024;

const labelText =
  "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";
const label1035Text =
  "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation is '[a-z]([-a-z0-9]*[a-z0-9])?')";
const subdomainText =
  "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";

export type NameRule = "label" | "label1035" | "subdomain" | "path";

/** What is wrong with a name; `path` is the field's. */
export function nameErrors(name: string, path: string, rule: NameRule): FieldError[] {
  if (name === "") return [required(path)];
  switch (rule) {
    case "label":
      return name.length <= 63 && label.test(name) ? [] : [invalidValue(path, name, labelText)];
    case "label1035":
      return name.length <= 63 && label.test(name) && /^[a-z]/.test(name)
        ? []
        : [invalidValue(path, name, label1035Text)];
    case "subdomain":
      if (name.length > 253) return [invalidValue(path, name, "must be no more than 253 characters")];
      return subdomain.test(name) ? [] : [invalidValue(path, name, subdomainText)];
    case "path":
      return /[/%]/.test(name) || name === "." || name === ".."
        ? [invalidValue(path, name, "may not contain '/' or '%', nor be '.' or '..'")]
        : [];
  }
}

/** Which rule the names of a kind follow. */
export function nameRuleOf(group: string, kind: string): NameRule {
  if (group === "rbac.authorization.k8s.io") return "path";
  if (group === "" && kind === "Namespace") return "label";
  if (group === "" && kind === "Service") return "label1035";
  return "subdomain";
}

export function labelErrors(labels: unknown, path: string): FieldError[] {
  if (labels === undefined || labels === null) return [];
  if (!isRecord(labels)) return [invalidValue(path, "labels", "must be a map of strings")];
  return Object.entries(labels).flatMap(([key, value]) => {
    const errors = keyErrors(key, path);
    if (typeof value !== "string") return [...errors, invalidValue(path, value, "must be a string")];
    if (value.length > 63) return [...errors, invalidValue(path, value, "must be no more than 63 bytes")];
    if (labelValue.test(value)) return errors;
    const text =
      "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')";
    return [...errors, invalidValue(path, value, text)];
  });
}

function keyErrors(key: string, path: string): FieldError[] {
  const slash = key.indexOf("/");
  const prefix = slash < 0 ? undefined : key.slice(0, slash);
  const name = slash < 0 ? key : key.slice(slash + 1);
  const errors = prefix === undefined ? [] : nameErrors(prefix, path, "subdomain");
  if (name.length > 63 || !qualifiedName.test(name)) {
    const text =
      "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";
    errors.push(invalidValue(path, key, text));
  }
  return errors;
}

export function annotationErrors(annotations: unknown): FieldError[] {
  const path = "metadata.annotations";
  const entries = Object.entries(recordOf(annotations));
  const errors = entries.flatMap(([key, value]) =>
    typeof value === "string"
      ? keyErrors(key.toLowerCase(), path)
      : [invalidValue(path, value, "must be a string")],
  );
  const bytes = entries.reduce((sum, [key, value]) => sum + Buffer.byteLength(key + String(value)), 0);
  if (bytes > annotationsBytesMax) {
    errors.push({
      field: path,
      reason: "FieldValueTooLong",
      message: `Too long: may not be more than ${annotationsBytesMax} bytes`,
    });
  }
  return errors;
}
