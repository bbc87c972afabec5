// Every refusal is a metav1.Status; kubectl and client-go read its reason, its code and its causes.

export interface StatusCause {
  readonly reason: string;
  readonly message: string;
  readonly field?: string;
}

export interface Status {
  readonly kind: "Status";
  readonly apiVersion: "v1";
  readonly metadata: Record<string, never>;
  readonly status: "Failure" | "Success";
  readonly message: string;
  readonly reason?: string;
  readonly details?: {
    readonly name?: string;
    readonly group?: string;
    readonly kind?: string;
    readonly uid?: string;
    readonly causes?: readonly StatusCause[];
    readonly retryAfterSeconds?: number;
  };
  readonly code: number;
}

/** Names the thing that a request is about: `pods "a"`, `virtualservices.networking.istio.io "b"`. */
export interface Subject {
  readonly group: string;
  readonly plural: string;
  readonly kind: string;
}

export class ApiError extends Error {
  readonly status: Status;

  constructor(
    code: number,
    reason: string,
    message: string,
    details?: Status["details"],
    options?: ErrorOptions,
  ) {
    super(message, options);
    this.name = "ApiError";
    this.status = {
      kind: "Status",
      apiVersion: "v1",
      metadata: {},
      status: "Failure",
      message,
      reason,
      details,
      code,
    };
  }
}

function qualified(subject: Subject): string {
  return subject.group === "" ? subject.plural : `${subject.plural}.${subject.group}`;
}

function detailsOf(subject: Subject, name: string): { name?: string; group?: string; kind: string } {
  return { name: name === "" ? undefined : name, group: subject.group || undefined, kind: subject.plural };
}

export function notFound(subject: Subject, name: string): ApiError {
  return new ApiError(404, "NotFound", `${qualified(subject)} "${name}" not found`, detailsOf(subject, name));
}

/** No such resource, path or version: kubectl prints "the server could not find the requested resource". */
export function noSuchPath(): ApiError {
  return new ApiError(404, "NotFound", "the server could not find the requested resource", {});
}

export function alreadyExists(subject: Subject, name: string): ApiError {
  const text = `${qualified(subject)} "${name}" already exists`;
  return new ApiError(409, "AlreadyExists", text, detailsOf(subject, name));
}

export function conflict(subject: Subject, name: string, why: string): ApiError {
  const text = `Operation cannot be fulfilled on ${qualified(subject)} "${name}": ${why}`;
  return new ApiError(409, "Conflict", text, detailsOf(subject, name));
}

export const staleObject =
  "the object has been modified; please apply your changes to the latest version and try again";

export function applyConflict(causes: readonly StatusCause[]): ApiError {
  const texts = causes.map((cause) => `${cause.message}: ${cause.field ?? ""}`);
  const text =
    causes.length === 1
      ? `Apply failed with 1 conflict: ${texts[0]}`
      : `Apply failed with ${causes.length} conflicts:\n${texts.map((line) => `- ${line}`).join("\n")}`;
  return new ApiError(409, "Conflict", text, { causes });
}

export function forbidden(subject: Subject, name: string, why: string): ApiError {
  const what = name === "" ? qualified(subject) : `${qualified(subject)} "${name}"`;
  return new ApiError(403, "Forbidden", `${what} is forbidden: ${why}`, detailsOf(subject, name));
}

export function unauthorized(): ApiError {
  return new ApiError(401, "Unauthorized", "Unauthorized");
}

export function badRequest(text: string): ApiError {
  return new ApiError(400, "BadRequest", text);
}

export function methodNotAllowed(subject: Subject, verb: string): ApiError {
  const text = `${verb} is not supported on resources of kind "${qualified(subject)}"`;
  return new ApiError(405, "MethodNotAllowed", text, detailsOf(subject, ""));
}

export function unsupportedMedia(text: string): ApiError {
  return new ApiError(415, "UnsupportedMediaType", text);
}

/** The history window no longer reaches back to the asked version: the client lists anew. */
export function tooOld(asked: string, oldest: string): ApiError {
  return new ApiError(410, "Expired", `too old resource version: ${asked} (${oldest})`);
}

export function notOffered(text: string): ApiError {
  return new ApiError(501, "NotImplemented", text);
}

export function internalError(text: string, cause?: unknown): ApiError {
  return new ApiError(500, "InternalError", `Internal error occurred: ${text}`, undefined, { cause });
}

export function tooManyRequests(text: string, retryAfterSeconds: number): ApiError {
  return new ApiError(429, "TooManyRequests", text, { retryAfterSeconds });
}

// Field errors in Kubernetes' words.

export interface FieldError {
  readonly field: string;
  readonly reason:
    | "FieldValueRequired"
    | "FieldValueInvalid"
    | "FieldValueForbidden"
    | "FieldValueNotSupported"
    | "FieldValueDuplicate"
    | "FieldValueTypeInvalid"
    | "FieldValueTooLong"
    | "FieldValueTooMany"
    | "FieldValueNotFound";
  /** Without the path: `Invalid value: 0: must be between 1 and 65535, inclusive`. */
  readonly message: string;
}

export function required(field: string, detail = ""): FieldError {
  return {
    field,
    reason: "FieldValueRequired",
    message: `Required value${detail === "" ? "" : `: ${detail}`}`,
  };
}

export function invalidValue(field: string, value: unknown, detail: string): FieldError {
  return { field, reason: "FieldValueInvalid", message: `Invalid value: ${rendered(value)}: ${detail}` };
}

export function forbiddenField(field: string, detail: string): FieldError {
  return { field, reason: "FieldValueForbidden", message: `Forbidden: ${detail}` };
}

export function duplicate(field: string, value: unknown): FieldError {
  return { field, reason: "FieldValueDuplicate", message: `Duplicate value: ${rendered(value)}` };
}

export function notSupported(field: string, value: unknown, allowed: readonly unknown[]): FieldError {
  const list = allowed.map((item) => JSON.stringify(item)).join(", ");
  return {
    field,
    reason: "FieldValueNotSupported",
    message: `Unsupported value: ${rendered(value)}: supported values: ${list}`,
  };
}

export function wrongType(field: string, value: unknown, wanted: string): FieldError {
  const got = Array.isArray(value) ? "array" : value === null ? "null" : typeof value;
  const message = `Invalid value: ${rendered(got)}: ${field} in body must be of type ${wanted}: ${rendered(got)}`;
  return { field, reason: "FieldValueTypeInvalid", message };
}

function rendered(value: unknown): string {
  return value === undefined ? "null" : JSON.stringify(value);
}

export function invalid(subject: Subject, name: string, errors: readonly FieldError[]): ApiError {
  const texts = [...new Set(errors.map((error) => `${error.field}: ${error.message}`))];
  const shown = texts.length === 1 ? texts[0] : `[${texts.join(", ")}]`;
  const kind = subject.group === "" ? subject.kind : `${subject.kind}.${subject.group}`;
  const causes = errors.map(({ field, reason, message }) => ({ field, reason, message }));
  return new ApiError(422, "Invalid", `${kind} "${name}" is invalid: ${shown}`, {
    name,
    group: subject.group || undefined,
    kind: subject.kind,
    causes,
  });
}
