// Gives addresses to hosts of ServiceEntries that name none, and writes them where Istio's users look: `status.addresses`.
// One replica does, the leader; all of them, and the next leader, go by what is written.

import { isDeepStrictEqual } from "node:util";
import type { Logger } from "#base";
import type { Engine } from "#engine";
import { collectionPath, type KubeClient, type RateLimitedWriter } from "#kube";
import { chooseAddress, isWildcard, pairOf, tables, wantsAutoAddresses } from "#model";
import { objectKey, type KubeObject, type ServiceEntry, type ServiceEntryAddress } from "#objects";

export interface AddressAllocatorOptions {
  readonly engine: Engine;
  readonly client: KubeClient;
  readonly writer: RateLimitedWriter;
  readonly log: Logger;
}

export class AddressAllocator {
  readonly #options: AddressAllocatorOptions;
  /** IPv4 address to `namespace/entry/host`. */
  readonly #owners = new Map<string, string>();
  /** The IPv4 addresses of an entry, by its key. */
  readonly #held = new Map<string, readonly string[]>();
  #leading = false;

  constructor(options: AddressAllocatorOptions) {
    this.#options = options;
  }

  setLeading(leading: boolean): void {
    if (leading === this.#leading) return;
    this.#leading = leading;
    this.#owners.clear();
    this.#held.clear();
    if (!leading) return;
    const entries = [...this.#options.engine.rows(tables.ServiceEntry).values()];
    // What is written stands; only then are new addresses chosen.
    for (const entry of entries) this.#claim(entry);
    for (const entry of entries) this.#allocate(entry);
  }

  /** To be told of objects that were set and that went, of any kind. */
  changed(set: readonly KubeObject[], removed: readonly KubeObject[]): void {
    if (!this.#leading) return;
    for (const object of removed) if (isEntry(object)) this.#release(objectKey(object));
    for (const object of set) {
      if (!isEntry(object)) continue;
      this.#claim(object);
      this.#allocate(object);
    }
  }

  #release(key: string): void {
    for (const address of this.#held.get(key) ?? []) this.#owners.delete(address);
    this.#held.delete(key);
  }

  /** Takes note of the addresses that an entry has; one that another entry has too stays with that. */
  #claim(entry: ServiceEntry): void {
    const key = objectKey(entry);
    this.#release(key);
    const hosts = hostsOf(entry);
    const held: string[] = [];
    for (const { value = "", host = "" } of entry.status?.addresses ?? []) {
      if (pairOf(value) === undefined || !hosts.includes(host) || this.#owners.has(value)) continue;
      this.#owners.set(value, `${key}/${host}`);
      held.push(value);
    }
    if (held.length > 0) this.#held.set(key, held);
  }

  #allocate(entry: ServiceEntry): void {
    const key = objectKey(entry);
    const held = this.#held.get(key) ?? [];
    const wanted: ServiceEntryAddress[] = [];
    const taken: string[] = [];
    for (const host of hostsOf(entry)) {
      const owner = `${key}/${host}`;
      const own = held.find((address) => this.#owners.get(address) === owner);
      const pair =
        own === undefined ? chooseAddress(owner, (address) => !this.#owners.has(address)) : pairOf(own);
      if (pair === undefined) {
        this.#options.log.error({ serviceEntry: key, host }, "there is no address left for this host");
        continue;
      }
      this.#owners.set(pair.ipv4, owner);
      taken.push(pair.ipv4);
      wanted.push({ value: pair.ipv4, host }, { value: pair.ipv6, host });
    }
    if (taken.length > 0) this.#held.set(key, taken);
    if (!isDeepStrictEqual(wanted, entry.status?.addresses ?? [])) this.#write(entry, wanted);
  }

  #write({ metadata }: ServiceEntry, addresses: readonly ServiceEntryAddress[]): void {
    const { client, writer } = this.#options;
    const resource = { group: "networking.istio.io", version: "v1", plural: "serviceentries" };
    const path = `${collectionPath(resource, metadata.namespace)}/${metadata.name}/status`;
    writer.submit(`addresses ${metadata.namespace}/${metadata.name}`, () =>
      client.request(path, { method: "PATCH", patch: "merge", body: { status: { addresses } } }),
    );
  }
}

function isEntry(object: KubeObject): object is ServiceEntry {
  return object.kind === "ServiceEntry";
}

/** The hosts that get addresses: a wildcard is no single host. */
function hostsOf(entry: ServiceEntry): readonly string[] {
  if (!wantsAutoAddresses(entry)) return [];
  return (entry.spec?.hosts ?? []).filter((host) => !isWildcard(host));
}
