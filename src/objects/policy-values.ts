// Values of an AuthorizationPolicy: keys of conditions, path templates, service accounts, trust domains.

import { cidrFault, show, type Fault } from "./values.ts";

export function firstFault<T>(values: readonly T[] | undefined, check: (value: T) => Fault): Fault {
  for (const value of values ?? []) {
    const fault = check(value);
    if (fault !== undefined) return fault;
  }
  return undefined;
}

export function emptyFault(value: string): Fault {
  return value === "" ? "an empty value matches nothing: remove it" : undefined;
}

/** One wildcard, first or last. */
export function wildcardValueFault(value: string): Fault {
  const stars = value.split("*").length - 1;
  if (stars > 1) return `${show(value)} has several wildcards: one is allowed`;
  const good = stars === 0 || value.startsWith("*") || value.endsWith("*");
  return (
    emptyFault(value) ??
    (good ? undefined : `${show(value)} has a wildcard inside: it may stand first or last only`)
  );
}

export function trustDomainValueFault(value: string): Fault {
  return (
    wildcardValueFault(value) ??
    (value.includes("/") ? `${show(value)} is not a trust domain: it holds a /` : undefined)
  );
}

const serviceAccountsMax = 16;

/** `name` or `namespace/name`, at most 16 of them, at most 320 characters each. */
export function serviceAccountsFault(values: readonly string[] | undefined): Fault {
  if ((values?.length ?? 0) > serviceAccountsMax)
    return `${values?.length} values: at most ${serviceAccountsMax} are allowed`;
  return firstFault(values, (value) => {
    const parts = value.split("/");
    const good =
      parts.length <= 2 && parts.every((part) => part !== "") && !value.includes("*") && value.length <= 320;
    return good
      ? undefined
      : `${show(value)} is not a service account: expected name or namespace/name, without wildcard`;
  });
}

/** Whether a path holds `{*}` (one segment) or `{**}` (any number). */
export function isPathTemplate(path: string): boolean {
  return path.includes("{*}") || path.includes("{**}");
}

/** Whether a segment of a path template is a plain text that Envoy takes. */
export function isTemplateLiteral(segment: string): boolean {
  return /^[a-zA-Z0-9\-._~%!$&'()+,;:@=]+$/.test(segment);
}

/** `{**}` may stand once, with no operator after it; braces nowhere else. */
export function pathTemplateFault(path: string): Fault {
  const template = isPathTemplate(path);
  let rest = false;
  for (const segment of path.replace(/^\/+|\/+$/g, "").split("/")) {
    if (segment === "{*}" || segment === "{**}") {
      if (rest) return `${show(path)} has an operator after {**}, which must be the last`;
      rest = segment === "{**}";
    } else if (/[{}]/.test(segment)) return `${show(path)} has braces that are neither {*} nor {**}`;
    else if (template && !isTemplateLiteral(segment))
      return `${show(path)} has the segment ${show(segment)}, which a path template cannot hold`;
  }
  return undefined;
}

export function portTextFault(value: string): Fault {
  return /^\d+$/.test(value) && Number(value) <= 65535 ? undefined : `${show(value)} is not a port`;
}

const freeKeys = new Set([
  "source.namespace",
  "source.principal",
  "request.auth.principal",
  "request.auth.audiences",
  "request.auth.presenter",
  "connection.sni",
]);
const mapKeys = ["request.headers", "request.auth.claims", "experimental.envoy.filters."];

/** Whether `when[].key` is known and its values fit. */
export function conditionFault(key: string, values: readonly string[] | undefined): Fault {
  const empty = firstFault(values, emptyFault);
  if (empty !== undefined) return empty;
  if (mapKeys.some((prefix) => key.startsWith(prefix))) {
    const open = key.indexOf("[");
    return key.endsWith("]") && open > 0 && open < key.length - 2
      ? undefined
      : `${show(key)} names no entry: expected ${key.split("[")[0]}[name]`;
  }
  if (["source.ip", "remote.ip", "destination.ip"].includes(key)) return firstFault(values, cidrFault);
  if (key === "destination.port") return firstFault(values, portTextFault);
  if (key === "source.serviceAccount") return serviceAccountsFault(values);
  if (key === "source.trustDomain") return firstFault(values, wildcardValueFault);
  return freeKeys.has(key) ? undefined : `${show(key)} is no attribute of a request`;
}
