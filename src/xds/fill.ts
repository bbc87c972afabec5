// What newcomers get. Proxies of one view that hold nothing get the same first answer, of thousands of resources: it is
// put together once, and they share its bytes and the map of its versions. While resources are on trial there is none,
// since what a proxy then gets depends on which one it is. Most of it is the same for other views, too: the bytes are in
// blocks that end where a resource's version says so, wherever it stands, and equal blocks of all views are one.

import type { EnvoyResource } from "#envoy";
import { partsOfDiscovered } from "#plan";
import { responseBytesMax } from "./limits.ts";
import type { SentResource } from "./subscription.ts";
import { frameResource } from "./wire.ts";

export interface Fill {
  readonly versions: ReadonlyMap<string, string>;
  readonly resources: ReadonlyMap<string, SentResource>;
  /** The resources as they stand in a response, in pieces. */
  readonly body: readonly Uint8Array[];
  readonly bodyBytes: number;
  /** Of virtual hosts, the tables that they are of. */
  readonly tables: ReadonlySet<string>;
}

/** A name with what is served of it. */
type Served = readonly [string, EnvoyResource];

/** With fewer resources than this there is nothing to gain. */
const fillLengthMin = 2;

/** After a restart a view's proxies come one by one while others are served: its first answer waits for the next. */
const fillKeptMs = 10_000;

/** What a view serves of one type; built when asked for, and kept until the view's log has moved on or nobody asks. */
export class Fills {
  #versions: ReadonlyMap<string, string> | undefined;
  #versionsAt = -1;
  #fill: Fill | undefined;
  #fillAt = -1;
  #usedAtMs = 0;

  /** Name to version of what is served. @param head the log's head: what was built for another is outdated */
  versions(head: number, served: () => Iterable<Served>): ReadonlyMap<string, string> {
    if (this.#versions === undefined || this.#versionsAt !== head) {
      this.#versions = new Map([...served()].map(([name, { version }]) => [name, version]));
      this.#versionsAt = head;
    }
    return this.#versions;
  }

  /** Undefined where a first answer is small, or too large for one response. */
  fill(head: number, served: () => Iterable<Served>, nowMs: number): Fill | undefined {
    this.#usedAtMs = nowMs;
    if (this.#fillAt !== head) {
      this.#fillAt = head;
      this.#fill = this.#build(head, [...served()]);
    }
    return this.#fill;
  }

  /** To be called now and then: gives up what nobody asked for in a while. */
  forget(nowMs: number): void {
    if (this.#fillAt === -1 || nowMs - this.#usedAtMs < fillKeptMs) return;
    this.#fill = undefined;
    this.#fillAt = -1;
  }

  #build(head: number, served: readonly Served[]): Fill | undefined {
    const bytes = served.reduce((sum, [, resource]) => sum + resource.bytes.length, 0);
    if (served.length < fillLengthMin || bytes > responseBytesMax) return undefined;
    const resources = served.map(([name, resource]): [string, SentResource] => [
      name,
      { resource, trial: undefined, versionBefore: undefined },
    ]);
    return {
      versions: this.versions(head, () => served),
      resources: new Map(resources),
      ...blocksOf(served.map(([, resource]) => resource)),
      tables: new Set(
        served.flatMap(([name, { type }]) => (type === "virtualHost" ? partsOfDiscovered(name).table : [])),
      ),
    };
  }
}

interface Block {
  readonly resources: readonly EnvoyResource[];
  readonly bytes: Uint8Array;
}

/** By the first resource. */
const blocks = new WeakMap<EnvoyResource, Block>();

/** Versions are hashes of 64 digits each: one of as many resources ends a block. */
const blockEnd = "A";

function blocksOf(resources: readonly EnvoyResource[]): Pick<Fill, "body" | "bodyBytes"> {
  const body: Uint8Array[] = [];
  let bodyBytes = 0;
  for (let start = 0; start < resources.length;) {
    let end = start + 1;
    while (end < resources.length && !resources[end - 1]!.version.startsWith(blockEnd)) end++;
    const { bytes } = blockOf(resources.slice(start, end));
    body.push(bytes);
    bodyBytes += bytes.length;
    start = end;
  }
  return { body, bodyBytes };
}

function blockOf(resources: readonly EnvoyResource[]): Block {
  const [first] = resources;
  const known = blocks.get(first!);
  const isSame =
    known?.resources.length === resources.length && known.resources.every((one, at) => one === resources[at]);
  if (isSame) return known;
  const block = { resources, bytes: Buffer.concat(resources.map(frameResource)) };
  blocks.set(first!, block);
  return block;
}
