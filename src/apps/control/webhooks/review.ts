// AdmissionReview v1: what the API server asks a webhook, and what it gets.
// https://kubernetes.io/docs/reference/access-authn-authz/extensible-admission-controllers/

export interface AdmissionRequest {
  readonly uid: string;
  readonly kind: { readonly group: string; readonly version: string; readonly kind: string };
  readonly namespace?: string;
  readonly name?: string;
  readonly operation: "CREATE" | "UPDATE" | "DELETE" | "CONNECT";
  readonly object?: unknown;
  readonly dryRun?: boolean;
}

export interface AdmissionResponse {
  readonly uid: string;
  readonly allowed: boolean;
  readonly status?: { readonly code: number; readonly reason: string; readonly message: string };
  readonly warnings?: readonly string[];
  readonly patchType?: "JSONPatch";
  /** Base64 of the patch's JSON. */
  readonly patch?: string;
}

const apiVersion = "admission.k8s.io/v1";

/** Throws a SyntaxError that says what is expected when the text is no AdmissionReview v1 with a request. */
export function parseReview(text: string): AdmissionRequest {
  const review: unknown = JSON.parse(text);
  const request = fieldOf(review, "request");
  if (fieldOf(review, "apiVersion") !== apiVersion || typeof fieldOf(request, "uid") !== "string") {
    throw new SyntaxError(`an AdmissionReview of ${apiVersion} with a request is expected`);
  }
  return request as AdmissionRequest;
}

export function renderReview(response: AdmissionResponse): string {
  return JSON.stringify({ apiVersion, kind: "AdmissionReview", response });
}

export function allow(request: AdmissionRequest, warnings: readonly string[] = []): AdmissionResponse {
  return { uid: request.uid, allowed: true, ...(warnings.length > 0 && { warnings }) };
}

export function refuse(
  request: AdmissionRequest,
  message: string,
  warnings: readonly string[] = [],
): AdmissionResponse {
  const status = { code: 422, reason: "Invalid", message };
  return { uid: request.uid, allowed: false, status, ...(warnings.length > 0 && { warnings }) };
}

export function fieldOf(value: unknown, name: string): unknown {
  if (typeof value !== "object" || value === null) return undefined;
  return (value as Readonly<Record<string, unknown>>)[name];
}
