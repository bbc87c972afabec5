// One request on its way through the server: what it asks, who asks, and how it is answered.

import type { IncomingMessage, OutgoingHttpHeaders, ServerResponse } from "node:http";
import type { Access } from "../auth/rbac.ts";
import type { UserInfo, WriteContext } from "../context.ts";
import { ApiError, badRequest } from "../errors.ts";
import { isRecord, stringOf } from "../json.ts";
import type { Upgrade } from "./exec.ts";
import { parseProtobuf } from "./protobuf.ts";
import { parseBody } from "../object-checks.ts";

// Beyond it a body is refused with 413, as Kubernetes' API server does.
const bodyBytesMax = 3 * 1024 * 1024;

export interface Route {
  readonly group: string;
  readonly version: string;
  readonly plural: string;
  /** "" for all namespaces and for cluster-scoped kinds. */
  readonly namespace: string;
  /** "" for the collection. */
  readonly name: string;
  readonly subresource: string;
}

/** Reads `/api/v1/...` and `/apis/<group>/<version>/...`; undefined for other paths. */
export function parseRoute(path: string): Route | undefined {
  const parts = path
    .split("/")
    .filter((part) => part !== "")
    .map(decoded);
  const isCore = parts[0] === "api";
  if (!isCore && parts[0] !== "apis") return undefined;
  const [group, version, ...rest] = isCore ? ["", ...parts.slice(1)] : parts.slice(1);
  if (group === undefined || version === undefined || rest.length === 0) return undefined;
  const ofNamespace =
    rest[0] === "namespaces" && rest.length > 2 && !(isCore && ["status", "finalize"].includes(rest[2]!));
  const [plural, name, subresource, ...more] = ofNamespace ? rest.slice(2) : rest;
  if (more.length > 0) return undefined;
  const namespace = ofNamespace ? rest[1]! : "";
  return { group, version, plural: plural!, namespace, name: name ?? "", subresource: subresource ?? "" };
}

function decoded(part: string): string {
  try {
    return decodeURIComponent(part);
  } catch (cause) {
    throw new ApiError(400, "BadRequest", `the path is not well-formed: ${part}`, {}, { cause });
  }
}

export class Call {
  readonly request: IncomingMessage;
  readonly response: ServerResponse;
  readonly user: UserInfo;
  readonly path: string;
  readonly query: URLSearchParams;
  /** Ends when the client goes or the server closes. */
  readonly signal: AbortSignal;
  /** The connection, when the client wants to use it for another protocol. */
  readonly upgrade: Upgrade | undefined;
  readonly #warnings: string[] = [];

  constructor(parts: {
    request: IncomingMessage;
    response: ServerResponse;
    user: UserInfo;
    url: URL;
    signal: AbortSignal;
    upgrade: Upgrade | undefined;
  }) {
    this.request = parts.request;
    this.response = parts.response;
    this.user = parts.user;
    this.path = parts.url.pathname;
    this.query = parts.url.searchParams;
    this.signal = parts.signal;
    this.upgrade = parts.upgrade;
  }

  get method(): string {
    return this.request.method ?? "GET";
  }

  get contentType(): string {
    return this.request.headers["content-type"] ?? "application/json";
  }

  get accept(): string {
    return this.request.headers.accept ?? "*/*";
  }

  /** The parsed body; an empty one is undefined. Throws ApiError 400, 413, 415. */
  async body(): Promise<unknown> {
    if (/cbor/.test(this.contentType)) {
      throw new ApiError(
        415,
        "UnsupportedMediaType",
        `the body of the request was in an unsupported format - accepted media types include: application/json, application/yaml, application/vnd.kubernetes.protobuf`,
      );
    }
    const chunks: Buffer[] = [];
    let bytes = 0;
    for await (const chunk of this.request as AsyncIterable<Buffer>) {
      bytes += chunk.length;
      if (bytes > bodyBytesMax) {
        throw new ApiError(
          413,
          "RequestEntityTooLarge",
          `Request entity too large: limit is ${bodyBytesMax}`,
        );
      }
      chunks.push(chunk);
    }
    if (bytes > 0 && this.contentType.startsWith("application/vnd.kubernetes.protobuf")) {
      return parseProtobuf(Buffer.concat(chunks));
    }
    const text = Buffer.concat(chunks).toString("utf8");
    return text.trim() === "" ? undefined : parseBody(text, this.contentType);
  }

  flag(name: string): boolean {
    const value = this.query.get(name);
    return value !== null && value !== "false" && value !== "0";
  }

  /** How the write is to be done, as the query says. Throws ApiError 400. */
  context(): WriteContext {
    const dryRun = this.query.getAll("dryRun");
    if (dryRun.some((value) => value !== "All"))
      throw badRequest(`invalid dryRun: ${dryRun.join(",")}; only All is supported`);
    const fieldValidation = this.query.get("fieldValidation") || "Warn";
    if (fieldValidation !== "Strict" && fieldValidation !== "Warn" && fieldValidation !== "Ignore") {
      throw badRequest(`invalid fieldValidation: ${fieldValidation}; supported are Ignore, Warn, Strict`);
    }
    const agent = stringOf(this.request.headers["user-agent"]).split("/")[0];
    const fieldManager = this.query.get("fieldManager") || agent || "unknown";
    return {
      user: this.user,
      fieldManager,
      dryRun: dryRun.length > 0,
      fieldValidation,
      warn: (text) => this.warn(text),
    };
  }

  warn(text: string): void {
    if (!this.#warnings.includes(text)) this.#warnings.push(text);
  }

  /** Writes the head with whatever was to be warned of. */
  begin(code: number, contentType: string): void {
    const warnings = this.#warnings.map((text) => `299 - ${JSON.stringify(printable(text))}`);
    const headers: OutgoingHttpHeaders = {
      "content-type": contentType,
      "cache-control": "no-cache, private",
    };
    if (warnings.length > 0) headers["warning"] = warnings.join(", ");
    this.response.writeHead(code, headers);
  }

  json(code: number, value: unknown): void {
    if (this.response.headersSent) {
      this.response.destroy();
      return;
    }
    const text = JSON.stringify(value);
    this.begin(code, "application/json");
    this.response.end(text);
  }

  text(code: number, value: string): void {
    this.begin(code, "text/plain; charset=utf-8");
    this.response.end(value);
  }
}

/** Headers carry ASCII alone. */
function printable(text: string): string {
  return text.replaceAll(/[^\x20-\x7e]/g, "?");
}

/** What the authorizer is asked about a request to a resource. */
export function accessOf(call: { method: string; query: URLSearchParams }, route: Route): Access {
  return {
    kind: "resource",
    verb: verbOf(call, route),
    group: route.group,
    resource: route.plural,
    subresource: route.subresource,
    namespace: route.namespace || (route.group === "" && route.plural === "namespaces" ? route.name : ""),
    name: route.name,
  };
}

export function verbOf(call: { method: string; query: URLSearchParams }, route: Route): string {
  const isWatch = ["true", "1"].includes(call.query.get("watch") ?? "");
  switch (call.method) {
    case "GET":
    case "HEAD":
      if (route.name !== "") return "get";
      return isWatch ? "watch" : "list";
    case "POST":
      return "create";
    case "PUT":
      return "update";
    case "PATCH":
      return "patch";
    case "DELETE":
      return route.name === "" ? "deletecollection" : "delete";
    default:
      return call.method.toLowerCase();
  }
}

/** metav1.DeleteOptions come in the body, or in the query. */
export function deleteOptionsOf(
  body: unknown,
  query: URLSearchParams,
): {
  gracePeriodSeconds?: number;
  propagationPolicy?: "Background" | "Foreground" | "Orphan";
  preconditions?: { uid?: string; resourceVersion?: string };
  dryRun: boolean;
} {
  const options = isRecord(body) ? body : {};
  const grace = options["gracePeriodSeconds"] ?? query.get("gracePeriodSeconds") ?? undefined;
  const policy = options["propagationPolicy"] ?? query.get("propagationPolicy") ?? undefined;
  if (policy !== undefined && policy !== "Background" && policy !== "Foreground" && policy !== "Orphan") {
    throw badRequest(`invalid propagationPolicy: ${JSON.stringify(policy)}`);
  }
  const conditions = isRecord(options["preconditions"]) ? options["preconditions"] : undefined;
  return {
    gracePeriodSeconds: grace === undefined ? undefined : Number(grace),
    propagationPolicy: options["orphanDependents"] === true ? "Orphan" : policy,
    preconditions: conditions && {
      uid: stringOf(conditions["uid"]) || undefined,
      resourceVersion: stringOf(conditions["resourceVersion"]) || undefined,
    },
    dryRun: Array.isArray(options["dryRun"]) && options["dryRun"].includes("All"),
  };
}
