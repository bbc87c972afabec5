// The way of every request: who is it, may they, what do they want, and the answer, also when something is wrong.

import { ServerResponse, type IncomingMessage } from "node:http";
import type { Socket } from "node:net";
import type { Clock, Logger } from "#base";
import { authenticate } from "../auth/authenticate.ts";
import type { Authorizer, Access } from "../auth/rbac.ts";
import type { TokenIssuer } from "../auth/tokens.ts";
import type { UserInfo } from "../context.ts";
import {
  ApiError,
  badRequest,
  internalError,
  methodNotAllowed,
  noSuchPath,
  unauthorized,
} from "../errors.ts";
import type { Objects, Target } from "../objects.ts";
import { Call, accessOf, parseRoute, verbOf } from "./call.ts";
import type { Route } from "./call.ts";
import type { ExecProvider, Upgrade } from "./exec.ts";
import { serveDiscovery } from "./discovery.ts";
import { serveOpenApi } from "./openapi.ts";
import { serveObjects } from "./resources.ts";
import { serveReview } from "./reviews.ts";
import { serveSubresource } from "./subresources.ts";
import type { LogsProvider } from "./subresources.ts";

export interface ServeParts {
  readonly objects: Objects;
  readonly tokens: TokenIssuer;
  readonly authorizer: Authorizer;
  readonly logs: LogsProvider | undefined;
  readonly exec: ExecProvider | undefined;
  readonly clock: Clock;
  readonly log: Logger;
  /** Aborts when the server closes. */
  readonly closing: AbortSignal;
}

const version = {
  major: "1",
  minor: "37",
  gitVersion: "v1.37.0+mizzen",
  gitCommit: "",
  gitTreeState: "clean",
  buildDate: "1970-01-01T00:00:00Z",
  goVersion: "",
  compiler: "",
  platform: "linux/amd64",
};

/** The listener for an HTTPS server. */
export function requestListener(
  parts: ServeParts,
): (request: IncomingMessage, response: ServerResponse, upgrade?: Upgrade) => void {
  return (request, response, upgrade) => {
    const gone = new AbortController();
    response.on("close", () => gone.abort());
    // A client that breaks off needs no answer; without a listener the error would end the process.
    request.on("error", () => gone.abort());
    response.on("error", () => gone.abort());
    const signal = AbortSignal.any([gone.signal, parts.closing]);
    void serve(parts, request, response, signal, upgrade).catch((error: unknown) =>
      answerError(parts, request, response, error),
    );
  };
}

/** The listener for requests that ask for another protocol: most of them are answered like any other. */
export function upgradeListener(
  listener: ReturnType<typeof requestListener>,
): (request: IncomingMessage, socket: Socket, head: Buffer) => void {
  return (request, socket, head) => {
    const response = new ServerResponse(request);
    response.shouldKeepAlive = false;
    response.assignSocket(socket);
    response.on("finish", () => socket.end());
    listener(request, response, { socket, head });
  };
}

function answerError(
  parts: ServeParts,
  request: IncomingMessage,
  response: ServerResponse,
  error: unknown,
): void {
  const known =
    error instanceof ApiError
      ? error
      : internalError(error instanceof Error ? error.message : String(error), error);
  const at = { method: request.method, path: request.url?.split("?")[0] };
  if (known.status.code >= 500 && known.status.code !== 501)
    parts.log.error({ ...at, error }, "a request failed");
  if (response.headersSent || response.destroyed) return void response.destroy();
  const retry = known.status.details?.retryAfterSeconds;
  response.writeHead(known.status.code, {
    "content-type": "application/json",
    ...(retry === undefined ? {} : { "retry-after": String(retry) }),
    // The rest of a body that was not read must not be taken for the next request.
    ...(request.complete ? {} : { connection: "close" }),
  });
  response.end(JSON.stringify(known.status));
}

async function serve(
  parts: ServeParts,
  request: IncomingMessage,
  response: ServerResponse,
  signal: AbortSignal,
  upgrade: Upgrade | undefined,
): Promise<void> {
  const caller = await authenticate(request, parts.tokens);
  if (!caller) throw unauthorized();
  const user = impersonated(parts.authorizer, caller, request);
  const url = new URL(request.url ?? "/", "https://cluster");
  const call = new Call({ request, response, user, url, signal, upgrade });
  const route = parseRoute(url.pathname);
  if (!route) return servePath(parts, call, user);
  const access = accessOf(call, route);
  if (!parts.authorizer.allows(user, access)) throw refusal(user, access);
  await serveResource(parts, call, route);
}

/** Who the caller asks to be taken for (kubectl --as), if a role lets it; otherwise the caller. Throws ApiError 403. */
function impersonated(authorizer: Authorizer, caller: UserInfo, request: IncomingMessage): UserInfo {
  const username = request.headers["impersonate-user"];
  // Node joins repeated headers of this name with commas.
  const groups = String(request.headers["impersonate-group"] ?? "")
    .split(",")
    .map((group) => group.trim())
    .filter((group) => group !== "");
  if (typeof username !== "string" || username === "") {
    if (groups.length > 0) throw badRequest("a group cannot be impersonated without a user");
    return caller;
  }
  const account = /^system:serviceaccount:([^:]+):([^:]+)$/.exec(username);
  const asks = [
    account
      ? { resource: "serviceaccounts", namespace: account[1]!, name: account[2]! }
      : { resource: "users", namespace: "", name: username },
    ...groups.map((name) => ({ resource: "groups", namespace: "", name })),
  ];
  for (const asked of asks) {
    const access: Access = { kind: "resource", verb: "impersonate", group: "", subresource: "", ...asked };
    if (!authorizer.allows(caller, access)) throw refusal(caller, access);
  }
  const own = account ? ["system:serviceaccounts", `system:serviceaccounts:${account[1]}`] : [];
  return { username, groups: [...new Set([...groups, ...own, "system:authenticated"])] };
}

async function serveResource(parts: ServeParts, call: Call, route: Route): Promise<void> {
  const { kind, version: kindVersion } = parts.objects.registry.byPath(
    route.group,
    route.version,
    route.plural,
  );
  if (!kind.namespaced && route.namespace !== "") throw noSuchPath();
  if (kind.namespaced && route.name !== "" && route.namespace === "") throw noSuchPath();
  const target: Target = { kind, version: kindVersion, namespace: kind.namespaced ? route.namespace : "" };
  if (kindVersion.deprecationWarning !== undefined) call.warn(kindVersion.deprecationWarning);
  if (route.subresource !== "" && route.subresource !== "status") {
    return serveSubresource(call, parts, route, target);
  }
  if (route.subresource === "status") {
    if (!kindVersion.status) throw noSuchPath();
    if (!["get", "update", "patch"].includes(verbOf(call, route))) throw methodNotAllowed(kind, call.method);
  }
  const now = (): number => parts.clock.nowMs();
  if (await serveReview(call, target, parts)) return;
  await serveObjects(call, parts.objects, route, target, now);
}

function servePath(parts: ServeParts, call: Call, user: UserInfo): void {
  const access: Access = { kind: "path", verb: call.method.toLowerCase(), path: call.path };
  if (!parts.authorizer.allows(user, access)) throw refusal(user, access);
  if (call.method !== "GET" && call.method !== "HEAD") throw noSuchPath();
  if (/^\/(healthz|livez|readyz)(\/[\w-]+)?$/.test(call.path)) return call.text(200, "ok");
  if (call.path === "/version" || call.path === "/version/") return call.json(200, version);
  if (call.path === "/openid/v1/jwks") return call.json(200, parts.tokens.jwks());
  if (call.path === "/.well-known/openid-configuration")
    return call.json(200, issuerDocument(parts.tokens.issuer));
  if (serveOpenApi(call, parts.objects.registry) || serveDiscovery(call, parts.objects.registry)) return;
  if (call.path === "/")
    return call.json(200, {
      paths: ["/api", "/apis", "/healthz", "/livez", "/openapi/v3", "/readyz", "/version"],
    });
  throw noSuchPath();
}

function issuerDocument(issuer: string): unknown {
  return {
    issuer,
    jwks_uri: `${issuer}/openid/v1/jwks`,
    response_types_supported: ["id_token"],
    subject_types_supported: ["public"],
    id_token_signing_alg_values_supported: ["ES256"],
  };
}

function refusal(user: UserInfo, access: Access): ApiError {
  const who = `User ${JSON.stringify(user.username)}`;
  if (access.kind === "path") {
    const text = `forbidden: ${who} cannot ${access.verb} path ${JSON.stringify(access.path)}`;
    return new ApiError(403, "Forbidden", text, {});
  }
  const resource = access.subresource === "" ? access.resource : `${access.resource}/${access.subresource}`;
  const qualified = access.group === "" ? resource : `${resource}.${access.group}`;
  const where =
    access.namespace === "" ? "at the cluster scope" : `in the namespace ${JSON.stringify(access.namespace)}`;
  const what = access.name === "" ? "" : ` ${JSON.stringify(access.name)}`;
  const text = `${qualified}${what} is forbidden: ${who} cannot ${access.verb} resource ${JSON.stringify(resource)} in API group ${JSON.stringify(access.group)} ${where}`;
  return new ApiError(403, "Forbidden", text, {
    name: access.name || undefined,
    group: access.group || undefined,
    kind: access.resource,
  });
}
