// Lists and watches over HTTP.

import { setTimeout as sleep } from "node:timers/promises";
import type { Change } from "../database.ts";
import { ApiError, badRequest, tooManyRequests } from "../errors.ts";
import { apiVersionOf } from "../kinds/kind.ts";
import type { Objects, Target } from "../objects.ts";
import { matchesFields, matchesLabels, parseFieldSelector, parseLabelSelector } from "../selectors.ts";
import type { ApiObject, WatchEvent } from "../store.ts";
import type { Call } from "./call.ts";
import { renderList, renderObject } from "./tables.ts";

// Beyond it a watch is refused with 429; each costs a socket and its buffer.
const watchersMax = 2_000;
// What may wait for a slow watcher; beyond it the watch ends, and the client lists anew.
const watchBufferBytesMax = 16 * 1024 * 1024;
// A watch that names no end gets one, as Kubernetes gives it, so that clients spread over restarts.
const watchSecondsDefault = 1_800;
const bookmarkMs = 60_000;
const initialEventsEnd = "k8s.io/initial-events-end";

type Filter = (object: ApiObject) => boolean;

/** Which objects of a kind the selectors choose. Throws ApiError 400. */
export function filterOf(target: Target, labelSelector: string, fieldSelector: string, name = ""): Filter {
  const labels = parseLabelSelector(labelSelector);
  const selectable = ["metadata.name", "metadata.namespace", ...target.version.selectableFields];
  const fields = parseFieldSelector(fieldSelector, selectable);
  return (object) =>
    (name === "" || object.metadata.name === name) &&
    matchesLabels(labels, object.metadata.labels ?? {}) &&
    matchesFields(fields, object);
}

function queryFilter(call: Call, target: Target, name: string): Filter {
  return filterOf(target, call.query.get("labelSelector") ?? "", call.query.get("fieldSelector") ?? "", name);
}

/** The event that a watcher with a filter sees of a change: an object that leaves the selection is DELETED for it. */
export function eventFor(change: Change, filter: Filter): WatchEvent | undefined {
  const { type, object, previous } = change;
  const isIn = filter(object);
  const wasIn = previous !== undefined && filter(previous);
  if (type === "DELETED") return wasIn || isIn ? { type, object } : undefined;
  if (isIn) return { type: wasIn ? "MODIFIED" : "ADDED", object };
  if (!wasIn) return undefined;
  const metadata = { ...previous.metadata, resourceVersion: object.metadata.resourceVersion };
  return { type: "DELETED", object: { ...previous, metadata } };
}

export function listObjects(call: Call, objects: Objects, target: Target, nowMs: number): void {
  const filter = queryFilter(call, target, "");
  const limit = Number(call.query.get("limit") ?? 0);
  const token = call.query.get("continue");
  const start = token === null || token === "" ? undefined : decodeContinue(token);
  const namespace = target.namespace === "" ? undefined : target.namespace;
  const all = objects.database.list(target.kind.resource, namespace).filter(filter);
  const rest = start === undefined ? all : all.filter((object) => orderKey(object) > start);
  const items = limit > 0 ? rest.slice(0, limit) : rest;
  const metadata: Record<string, unknown> = { resourceVersion: String(objects.database.revision) };
  // Later pages show the present, not the time of the first page: pages of a changing collection are not one moment.
  if (items.length < rest.length) {
    metadata["continue"] = encodeContinue(orderKey(items.at(-1)!));
    metadata["remainingItemCount"] = rest.length - items.length;
  }
  call.json(200, renderList(call, target, { items, metadata }, nowMs));
}

function orderKey(object: ApiObject): string {
  return `${object.metadata.namespace ?? ""}/${object.metadata.name}`;
}

function encodeContinue(start: string): string {
  return Buffer.from(JSON.stringify({ v: "mizzen/v1", start })).toString("base64url");
}

function decodeContinue(token: string): string {
  try {
    const value = JSON.parse(Buffer.from(token, "base64url").toString("utf8")) as { start?: unknown };
    if (typeof value.start === "string") return value.start;
  } catch {
    // Told below, as for any other text.
  }
  throw badRequest("continue key is not valid");
}

let watchers = 0;

/** Streams changes until the client goes, the time is over, or the server closes. `name` narrows it to one object. */
export async function watchObjects(
  call: Call,
  objects: Objects,
  target: Target,
  name: string,
  now: () => number,
): Promise<void> {
  if (watchers >= watchersMax) throw tooManyRequests("too many watches, please try again later", 1);
  const filter = queryFilter(call, target, name);
  const stream = new WatchStream(call, target, now);
  const { from, existing, endsInitial } = startOf(call, objects, target, filter);
  const inNamespace = (object: ApiObject): boolean =>
    target.namespace === "" || object.metadata.namespace === target.namespace;
  // What was there is gathered first, so that a refusal (410) still is an ordinary answer.
  const early: WatchEvent[] = existing.map((object) => ({ type: "ADDED", object }));
  let isOpen = false;
  const stop = objects.database.watch(target.kind.resource, from, (change) => {
    const event = inNamespace(change.object) ? eventFor(change, filter) : undefined;
    if (event && isOpen) stream.send(event);
    else if (event) early.push(event);
  });
  watchers += 1;
  try {
    stream.open();
    isOpen = true;
    early.forEach((event) => stream.send(event));
    if (endsInitial) stream.bookmark(String(objects.database.revision), { [initialEventsEnd]: "true" });
    await untilEnd(call, stream, () => String(objects.database.revision));
  } finally {
    watchers -= 1;
    stop();
    call.response.end();
  }
}

function startOf(
  call: Call,
  objects: Objects,
  target: Target,
  filter: Filter,
): { from: number; existing: ApiObject[]; endsInitial: boolean } {
  const { database } = objects;
  const version = call.query.get("resourceVersion") ?? "";
  const initial = call.query.get("sendInitialEvents");
  if (initial !== null && call.query.get("resourceVersionMatch") !== "NotOlderThan") {
    const text =
      "resourceVersionMatch: Forbidden: sendInitialEvents requires setting resourceVersionMatch to NotOlderThan";
    throw new ApiError(422, "Invalid", `ListOptions.meta.k8s.io "" is invalid: ${text}`);
  }
  const isFresh = version === "" || version === "0";
  const wantsAll = initial === "true" || (initial === null && isFresh);
  if (!wantsAll) {
    return { from: isFresh ? database.revision : Number(version), existing: [], endsInitial: false };
  }
  const namespace = target.namespace === "" ? undefined : target.namespace;
  const existing = database.list(target.kind.resource, namespace).filter(filter);
  return {
    from: database.revision,
    existing,
    endsInitial: initial === "true" && call.flag("allowWatchBookmarks"),
  };
}

async function untilEnd(call: Call, stream: WatchStream, revision: () => string): Promise<void> {
  const seconds = Number(call.query.get("timeoutSeconds") ?? 0) || watchSecondsDefault;
  const over = AbortSignal.any([call.signal, stream.overflow, AbortSignal.timeout(seconds * 1000)]);
  while (!over.aborted) {
    // Aborting is how the sleep ends; there is nothing else to go wrong in it.
    await sleep(bookmarkMs, undefined, { signal: over }).catch(() => undefined);
    if (!over.aborted && call.flag("allowWatchBookmarks")) stream.bookmark(revision());
  }
}

class WatchStream {
  readonly #call: Call;
  readonly #target: Target;
  readonly #now: () => number;
  readonly #overflow = new AbortController();
  #sentHeaders = false;

  constructor(call: Call, target: Target, now: () => number) {
    this.#call = call;
    this.#target = target;
    this.#now = now;
  }

  /** Aborts when the client does not read what it is sent. */
  get overflow(): AbortSignal {
    return this.#overflow.signal;
  }

  open(): void {
    this.#call.begin(200, "application/json");
    this.#call.response.flushHeaders();
  }

  send(event: WatchEvent): void {
    const object = renderObject(this.#call, this.#target, event.object, this.#now(), !this.#sentHeaders);
    this.#sentHeaders = true;
    this.#write({ type: event.type, object });
  }

  bookmark(resourceVersion: string, annotations?: Record<string, string>): void {
    const { kind, version } = this.#target;
    const metadata = { resourceVersion, creationTimestamp: null, ...(annotations ? { annotations } : {}) };
    this.#write({
      type: "BOOKMARK",
      object: { kind: kind.kind, apiVersion: apiVersionOf(kind.group, version.name), metadata },
    });
  }

  #write(line: unknown): void {
    const { response } = this.#call;
    if (response.destroyed || this.#overflow.signal.aborted) return;
    response.write(`${JSON.stringify(line)}\n`);
    if (response.writableLength > watchBufferBytesMax) this.#overflow.abort();
  }
}
