// The verbs on objects: get, list, watch, create, update, patch, delete, deletecollection, and the status of each.

import type { WriteContext } from "../context.ts";
import { badRequest, invalid, methodNotAllowed, notFound, required, unsupportedMedia } from "../errors.ts";
import { isRecord, recordOf, stringOf } from "../json.ts";
import { apiVersionOf, inVersion } from "../kinds/kind.ts";
import { decode } from "../object-checks.ts";
import type { Deletion, Objects, Target, UpdateOptions } from "../objects.ts";
import { serverSideApply } from "../patch/apply.ts";
import { listRulesOf } from "../patch/lists.ts";
import { applyJsonPatch, applyMergePatch, applyStrategicPatch, patchKindOf } from "../patch/merge.ts";
import type { ApiObject, PatchKind } from "../store.ts";
import { deleteOptionsOf, verbOf } from "./call.ts";
import type { Call, Route } from "./call.ts";
import { filterOf, listObjects, watchObjects } from "./lists.ts";
import { renderList, renderObject } from "./tables.ts";

/** Answers a request for objects themselves (or, with subresource status, for their status). */
export async function serveObjects(
  call: Call,
  objects: Objects,
  route: Route,
  target: Target,
  now: () => number,
): Promise<void> {
  const verb = verbOf(call, route);
  if (!target.kind.verbs.includes(verb)) throw methodNotAllowed(target.kind, call.method);
  if (target.kind.namespaced && target.namespace === "" && verb === "create") {
    throw badRequest("an empty namespace may not be set during creation");
  }
  const send = (code: number, object: ApiObject): void =>
    call.json(code, renderObject(call, target, object, now()));
  switch (verb) {
    case "get": {
      const isWatch = ["true", "1"].includes(call.query.get("watch") ?? "");
      if (isWatch) return watchObjects(call, objects, target, route.name, now);
      return send(200, requireObject(objects, target, route.name));
    }
    case "list":
      return listObjects(call, objects, target, now());
    case "watch":
      return watchObjects(call, objects, target, "", now);
    case "create":
      return send(201, await objects.create(target, (await call.body()) ?? {}, call.context()));
    case "update":
      return send(200, await replace(call, objects, route, target));
    case "patch": {
      const { object, created } = await patchObject(call, objects, route, target);
      return send(created ? 201 : 200, object);
    }
    case "delete":
      return sendDeletion(call, target, await remove(call, objects, route, target), now());
    case "deletecollection":
      return removeAll(call, objects, target, now());
    default:
      throw methodNotAllowed(target.kind, call.method);
  }
}

export function requireObject(objects: Objects, target: Target, name: string): ApiObject {
  const object = objects.database.get(target.kind.resource, target.namespace, name);
  if (!object) throw notFound(target.kind, name);
  return object;
}

async function replace(call: Call, objects: Objects, route: Route, target: Target): Promise<ApiObject> {
  const body = await call.body();
  if (!isRecord(body)) throw badRequest(`the body must be a ${target.kind.kind} object`);
  const name = stringOf(recordOf(body["metadata"])["name"]);
  if (name !== route.name) {
    throw badRequest(`the name of the object (${name}) does not match the name on the URL (${route.name})`);
  }
  // Custom resources are replaced knowingly, as Kubernetes demands.
  if (target.kind.custom && !recordOf(body["metadata"])["resourceVersion"]) {
    throw invalid(target.kind, name, [
      {
        field: "metadata.resourceVersion",
        reason: "FieldValueInvalid",
        message: "Invalid value: 0: must be specified for an update",
      },
    ]);
  }
  const options: UpdateOptions = { subresource: route.subresource || undefined };
  return (
    await objects.update(target, route.name, () => body as unknown as ApiObject, call.context(), options)
  ).object;
}

async function patchObject(
  call: Call,
  objects: Objects,
  route: Route,
  target: Target,
): Promise<{ object: ApiObject; created: boolean }> {
  const kind = patchKindOf(call.contentType);
  if (kind === undefined || (kind === "strategic" && target.kind.custom)) {
    const known = [
      "application/json-patch+json",
      "application/merge-patch+json",
      "application/apply-patch+yaml",
    ];
    const accepted = target.kind.custom ? known : [...known, "application/strategic-merge-patch+json"];
    throw unsupportedMedia(
      `the body of the request was in an unknown format - accepted media types include: ${accepted.join(", ")}`,
    );
  }
  const body = await call.body();
  const context = call.context();
  const subresource = route.subresource || undefined;
  if (kind === "apply") return applyObject(call, objects, target, route, body, context);
  return objects.update(target, route.name, (current) => patched(current!, target, kind, body), context, {
    subresource,
  });
}

/** The object after a patch, in the target's version. A version that the patch does not name is not insisted on. */
export function patched(current: ApiObject, target: Target, type: PatchKind, patch: unknown): ApiObject {
  const before = inVersion(current, target.kind, target.version.name);
  const after = applyPatch(before, target, type, patch);
  if (!isRecord(after) || !isRecord(after["metadata"])) throw badRequest("the patch leaves no object");
  const result = after as ApiObject;
  if (result.metadata.resourceVersion !== before.metadata.resourceVersion) return result;
  return { ...result, metadata: { ...result.metadata, resourceVersion: undefined } };
}

function applyPatch(before: ApiObject, target: Target, type: PatchKind, patch: unknown): unknown {
  if (type === "json") return applyJsonPatch(before, patch);
  if (!isRecord(patch)) throw badRequest("the patch must be an object");
  return type === "merge"
    ? applyMergePatch(before, patch)
    : applyStrategicPatch(before, patch, listRulesOf(target.kind));
}

function applyObject(
  call: Call,
  objects: Objects,
  target: Target,
  route: Route,
  body: unknown,
  context: WriteContext,
): Promise<{ object: ApiObject; created: boolean }> {
  const name = call.query.get("fieldManager");
  if (!name) {
    throw invalid({ group: "meta.k8s.io", plural: "patchoptions", kind: "PatchOptions" }, "", [
      required("fieldManager", "is required for apply patch"),
    ]);
  }
  if (!isRecord(body)) throw badRequest("an apply patch must be an object");
  const metadata = recordOf(body["metadata"]);
  if (Array.isArray(metadata["managedFields"]) && metadata["managedFields"].length > 0) {
    throw badRequest("metadata.managedFields must be nil");
  }
  if (stringOf(metadata["name"]) !== "" && metadata["name"] !== route.name) {
    throw badRequest(
      `the name of the object (${stringOf(metadata["name"])}) does not match the name on the URL (${route.name})`,
    );
  }
  const apiVersion = apiVersionOf(target.kind.group, target.version.name);
  const wanted = decode(target, { ...body, metadata: { ...metadata, name: route.name } }, context);
  const subresource = route.subresource || undefined;
  const manager = { name, operation: "Apply" as const, apiVersion, time: objects.now(), subresource };
  const shape = { schema: target.version.schema, rules: listRulesOf(target.kind) };
  const force = call.flag("force");
  const change = (current: ApiObject | undefined): ApiObject => {
    const base = current && inVersion(current, target.kind, target.version.name);
    const merged = serverSideApply(base, wanted, manager, force, shape);
    const { resourceVersion } = wanted.metadata;
    return { ...merged, metadata: { ...merged.metadata, resourceVersion } };
  };
  return objects.update(target, route.name, change, context, {
    operation: "Apply",
    orCreate: subresource === undefined,
    subresource,
  });
}

async function remove(call: Call, objects: Objects, route: Route, target: Target): Promise<Deletion> {
  const options = deleteOptionsOf(await call.body(), call.query);
  const context = call.context();
  return objects.delete(target, route.name, options, {
    ...context,
    dryRun: context.dryRun || options.dryRun,
  });
}

function sendDeletion(call: Call, target: Target, deletion: Deletion, nowMs: number): void {
  if (!deletion.removed) return call.json(200, renderObject(call, target, deletion.object, nowMs));
  const { kind } = target;
  const { name, uid } = deletion.object.metadata;
  call.json(200, {
    kind: "Status",
    apiVersion: "v1",
    metadata: {},
    status: "Success",
    details: { name, group: kind.group || undefined, kind: kind.plural, uid },
  });
}

async function removeAll(call: Call, objects: Objects, target: Target, nowMs: number): Promise<void> {
  const options = deleteOptionsOf(await call.body(), call.query);
  const filter = filterOf(
    target,
    call.query.get("labelSelector") ?? "",
    call.query.get("fieldSelector") ?? "",
  );
  const namespace = target.namespace === "" ? undefined : target.namespace;
  const chosen = objects.database.list(target.kind.resource, namespace).filter(filter);
  const context = call.context();
  const gone: ApiObject[] = [];
  for (const object of chosen) {
    const here = { ...target, namespace: object.metadata.namespace ?? "" };
    gone.push((await objects.delete(here, object.metadata.name, options, context)).object);
  }
  const metadata = { resourceVersion: String(objects.database.revision) };
  call.json(200, renderList(call, target, { items: gone, metadata }, nowMs));
}
