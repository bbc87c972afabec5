// Subresources beside status: scale, and those of Pods, Namespaces and ServiceAccounts.

import { ApiError, badRequest, conflict, methodNotAllowed, noSuchPath, notOffered } from "../errors.ts";
import { arrayOf, copyOf, isRecord, recordOf, recordsOf, stringOf, valueAt } from "../json.ts";
import type { JsonRecord } from "../json.ts";
import { jsonPath } from "../kinds/jsonpath.ts";
import type { ScalePaths } from "../kinds/kind.ts";
import type { Objects, Target } from "../objects.ts";
import { applyJsonPatch, applyMergePatch, patchKindOf } from "../patch/merge.ts";
import type { TokenIssuer } from "../auth/tokens.ts";
import type { ApiObject } from "../store.ts";
import { deleteOptionsOf } from "./call.ts";
import type { Call, Route } from "./call.ts";
import { serveExec, type ExecProvider } from "./exec.ts";
import { requireObject } from "./resources.ts";

/** What a node is asked for when somebody reads a container's log. */
export interface LogAsk {
  readonly namespace: string;
  readonly pod: string;
  readonly container: string;
  readonly follow: boolean;
  /** The container's previous life. */
  readonly previous: boolean;
  /** Each line begins with its RFC 3339 time. */
  readonly timestamps: boolean;
  readonly tailLines?: number;
  readonly sinceSeconds?: number;
  /** RFC 3339. */
  readonly sinceTime?: string;
  readonly limitBytes?: number;
  /** Ends when nobody reads any more. */
  readonly signal: AbortSignal;
}

/** Hands out a log in pieces; undefined when there is none (not started, or no previous life). */
export type LogsProvider = (
  ask: LogAsk,
) => AsyncIterable<Uint8Array | string> | undefined | Promise<AsyncIterable<Uint8Array | string> | undefined>;

export interface SubresourceParts {
  readonly objects: Objects;
  readonly tokens: TokenIssuer;
  readonly logs: LogsProvider | undefined;
  readonly exec: ExecProvider | undefined;
}

type Serve = (call: Call, parts: SubresourceParts, route: Route, target: Target) => Promise<void>;

const served: Readonly<Record<string, Serve>> = {
  "pods/log": serveLog,
  "pods/exec": servePodExec,
  "pods/binding": serveBinding,
  "pods/eviction": serveEviction,
  "namespaces/finalize": serveFinalize,
  "serviceaccounts/token": serveToken,
};

const absent = ["attach", "portforward", "proxy", "ephemeralcontainers", "resize"];

export async function serveSubresource(
  call: Call,
  parts: SubresourceParts,
  route: Route,
  target: Target,
): Promise<void> {
  if (route.subresource === "scale" && target.version.scale) {
    return serveScale(call, parts.objects, route, target, target.version.scale);
  }
  const serve = served[`${target.kind.resource}/${route.subresource}`];
  if (serve) return serve(call, parts, route, target);
  if (absent.includes(route.subresource)) {
    throw notOffered(`${target.kind.plural}/${route.subresource} is not offered by the standalone cluster`);
  }
  throw noSuchPath();
}

async function servePodExec(
  call: Call,
  parts: SubresourceParts,
  route: Route,
  target: Target,
): Promise<void> {
  if (call.method !== "GET" && call.method !== "POST") throw methodNotAllowed(target.kind, call.method);
  const pod = requireObject(parts.objects, target, route.name);
  const container = chosenContainer(call, pod);
  if (!parts.exec) throw notOffered("no node runs here, so there are no containers");
  const place = { namespace: target.namespace, pod: route.name, container };
  serveExec(call.request, call.response, call.upgrade, call.query, place, parts.exec);
}

async function serveScale(
  call: Call,
  objects: Objects,
  route: Route,
  target: Target,
  paths: ScalePaths,
): Promise<void> {
  const current = requireObject(objects, target, route.name);
  if (call.method === "GET") return call.json(200, scaleOf(current, paths));
  const body = await call.body();
  const wanted = scaleAfter(call, scaleOf(current, paths), body);
  const replicas = Number(valueAt(wanted, "spec", "replicas") ?? 0);
  const version = stringOf(valueAt(wanted, "metadata", "resourceVersion"));
  const { object } = await objects.update(
    target,
    route.name,
    (latest) => {
      const next = { ...latest!, metadata: { ...latest!.metadata, resourceVersion: version || undefined } };
      setAt(next, paths.specReplicasPath, replicas);
      return next;
    },
    call.context(),
    { subresource: undefined },
  );
  call.json(200, scaleOf(object, paths));
}

function scaleAfter(call: Call, scale: JsonRecord, body: unknown): unknown {
  switch (call.method) {
    case "PUT":
      return body;
    case "PATCH": {
      const { metadata, ...rest } = scale;
      const { resourceVersion: _version, ...kept } = recordOf(metadata);
      const bare = { ...rest, metadata: kept };
      return patchKindOf(call.contentType) === "json"
        ? applyJsonPatch(bare, body)
        : applyMergePatch(bare, body);
    }
    default:
      throw methodNotAllowed({ group: "autoscaling", plural: "scale", kind: "Scale" }, call.method);
  }
}

function scaleOf(object: ApiObject, paths: ScalePaths): JsonRecord {
  const { name, namespace, uid, resourceVersion, creationTimestamp } = object.metadata;
  // The workloads of apps/v1 have a selector object in their spec; custom resources name a path to the selector's text.
  const labels = recordOf(valueAt(object, "spec", "selector", "matchLabels"));
  const ofSpec = Object.entries(labels)
    .map(([key, value]) => `${key}=${stringOf(value)}`)
    .join(",");
  const selector = stringOf(jsonPath(object, paths.labelSelectorPath ?? "")[0]) || ofSpec;
  return {
    kind: "Scale",
    apiVersion: "autoscaling/v1",
    metadata: { name, namespace, uid, resourceVersion, creationTimestamp },
    spec: { replicas: jsonPath(object, paths.specReplicasPath)[0] ?? 0 },
    status: { replicas: jsonPath(object, paths.statusReplicasPath)[0] ?? 0, selector },
  };
}

function setAt(object: ApiObject, path: string, value: unknown): void {
  const steps = path.split(".").filter((step) => step !== "");
  let here: JsonRecord = object;
  for (const step of steps.slice(0, -1)) {
    const below = isRecord(here[step]) ? { ...here[step] } : {};
    here[step] = below;
    here = below;
  }
  here[steps.at(-1)!] = value;
}

async function serveLog(call: Call, parts: SubresourceParts, route: Route, target: Target): Promise<void> {
  if (call.method !== "GET") throw methodNotAllowed(target.kind, call.method);
  const pod = requireObject(parts.objects, target, route.name);
  const container = chosenContainer(call, pod);
  const number = (name: string): number | undefined => {
    const value = call.query.get(name);
    if (value === null) return undefined;
    if (!/^\d+$/.test(value))
      throw badRequest(`${name}: Invalid value: ${JSON.stringify(value)}: must be a non-negative number`);
    return Number(value);
  };
  if (!parts.logs) throw notOffered("no node runs here, so there are no logs");
  const pieces = await parts.logs({
    namespace: target.namespace,
    pod: route.name,
    container,
    follow: call.flag("follow"),
    previous: call.flag("previous"),
    timestamps: call.flag("timestamps"),
    tailLines: number("tailLines"),
    sinceSeconds: number("sinceSeconds"),
    sinceTime: call.query.get("sinceTime") ?? undefined,
    limitBytes: number("limitBytes"),
    signal: call.signal,
  });
  if (!pieces) throw badRequest(whyNoLog(call, pod, container));
  call.begin(200, "text/plain");
  call.response.flushHeaders();
  for await (const piece of pieces) {
    if (call.signal.aborted) break;
    if (!call.response.write(piece)) await drained(call);
  }
  call.response.end();
}

/** Waits until the client has read, or is gone. */
function drained(call: Call): Promise<void> {
  return new Promise((resolve) => {
    const done = (): void => {
      call.response.off("drain", done);
      call.signal.removeEventListener("abort", done);
      resolve();
    };
    call.response.on("drain", done);
    call.signal.addEventListener("abort", done);
  });
}

function chosenContainer(call: Call, pod: ApiObject): string {
  const names = ["initContainers", "containers"].flatMap((field) =>
    recordsOf(valueAt(pod, "spec", field)).map((container) => stringOf(container["name"])),
  );
  const main = recordsOf(valueAt(pod, "spec", "containers")).map((container) => stringOf(container["name"]));
  const asked = call.query.get("container") ?? "";
  if (asked === "" && main.length === 1) return main[0]!;
  if (asked === "") {
    throw badRequest(
      `a container name must be specified for pod ${pod.metadata.name}, choose one of: [${main.join(" ")}]`,
    );
  }
  if (!names.includes(asked))
    throw badRequest(`container ${asked} is not valid for pod ${pod.metadata.name}`);
  return asked;
}

function whyNoLog(call: Call, pod: ApiObject, container: string): string {
  const of = `container ${JSON.stringify(container)} in pod ${JSON.stringify(pod.metadata.name)}`;
  if (call.flag("previous")) return `previous terminated ${of} not found`;
  const statuses = ["initContainerStatuses", "containerStatuses"].flatMap((field) =>
    recordsOf(valueAt(pod, "status", field)),
  );
  const status = statuses.find((one) => one["name"] === container);
  const reason = stringOf(valueAt(status, "state", "waiting", "reason")) || "ContainerCreating";
  return `${of} is waiting to start: ${reason}`;
}

async function serveBinding(
  call: Call,
  parts: SubresourceParts,
  route: Route,
  target: Target,
): Promise<void> {
  if (call.method !== "POST") throw methodNotAllowed(target.kind, call.method);
  const body = await call.body();
  const node = stringOf(valueAt(body, "target", "name"));
  if (node === "") throw badRequest("target.name is required");
  await parts.objects.update(
    target,
    route.name,
    (pod) => {
      const taken = stringOf(valueAt(pod, "spec", "nodeName"));
      if (taken !== "")
        throw conflict(target.kind, route.name, `pod ${route.name} is already assigned to node "${taken}"`);
      return {
        ...pod!,
        metadata: { ...pod!.metadata, resourceVersion: undefined },
        spec: { ...recordOf(pod!["spec"]), nodeName: node },
      };
    },
    call.context(),
  );
  call.json(201, { kind: "Status", apiVersion: "v1", metadata: {}, status: "Success", code: 201 });
}

async function serveEviction(
  call: Call,
  parts: SubresourceParts,
  route: Route,
  target: Target,
): Promise<void> {
  if (call.method !== "POST") throw methodNotAllowed(target.kind, call.method);
  const pod = requireObject(parts.objects, target, route.name);
  const options = deleteOptionsOf(valueAt(await call.body(), "deleteOptions"), call.query);
  parts.objects.checkBudget(pod);
  const context = call.context();
  await parts.objects.delete(target, route.name, options, {
    ...context,
    dryRun: context.dryRun || options.dryRun,
  });
  call.json(201, { kind: "Status", apiVersion: "v1", metadata: {}, status: "Success", code: 201 });
}

async function serveFinalize(
  call: Call,
  parts: SubresourceParts,
  route: Route,
  target: Target,
): Promise<void> {
  if (call.method !== "PUT") throw methodNotAllowed(target.kind, call.method);
  const body = await call.body();
  const finalizers = arrayOf(valueAt(body, "spec", "finalizers")).map(stringOf);
  const { object } = await parts.objects.update(
    target,
    route.name,
    (namespace) => {
      const next = copyOf(namespace!);
      next["spec"] = { ...recordOf(next["spec"]), finalizers };
      next.metadata.resourceVersion = stringOf(valueAt(body, "metadata", "resourceVersion")) || undefined;
      return next;
    },
    call.context(),
  );
  call.json(200, object);
}

async function serveToken(call: Call, parts: SubresourceParts, route: Route, target: Target): Promise<void> {
  if (call.method !== "POST") throw methodNotAllowed(target.kind, call.method);
  const body = await call.body();
  const spec = recordOf(valueAt(body, "spec"));
  const bound = recordOf(spec["boundObjectRef"]);
  if (spec["boundObjectRef"] !== undefined && bound["kind"] !== "Pod") {
    throw new ApiError(
      400,
      "BadRequest",
      `spec.boundObjectRef.kind: only Pod is supported, got ${stringOf(bound["kind"])}`,
    );
  }
  const expirationSeconds = Number(spec["expirationSeconds"] ?? 3_600);
  const { token, expiresAtMs } = await parts.tokens.issue({
    namespace: target.namespace,
    serviceAccount: route.name,
    audiences: arrayOf(spec["audiences"]).map(stringOf),
    expirationSeconds,
    pod:
      spec["boundObjectRef"] === undefined
        ? undefined
        : { name: stringOf(bound["name"]), uid: stringOf(bound["uid"]) },
  });
  const expirationTimestamp = new Date(expiresAtMs).toISOString().replace(/\.\d+Z$/, "Z");
  call.json(201, {
    kind: "TokenRequest",
    apiVersion: "authentication.k8s.io/v1",
    metadata: { name: route.name, namespace: target.namespace },
    spec: { ...spec, expirationSeconds },
    status: { token, expirationTimestamp },
  });
}
