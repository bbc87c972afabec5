// Simulated sidecars in a process of their own: delta ADS over HTTP/2, the subscriptions and acknowledgements of a real Envoy
// (wildcards for clusters and listeners, endpoints by cluster, routes by listener), and its node metadata.

import { encodeMessage } from "#envoy";
import { StubCall } from "./h2-stub.ts";
import { sharedNowMs, type FromProxies, type Receipt, type ToProxies } from "./messages.ts";
import {
  nonceField,
  parseResponse,
  requestOf,
  subscribeField,
  typeNames,
  unsubscribeField,
  type Received,
  type Response,
  type Type,
} from "./stub-wire.ts";
import { proxyPod, type WorldSize } from "./world.ts";

const path = "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources";
/** Receipts with more names than this keep none: they are the first fill. */
const namesKeptMax = 50;
const reconnectMs = 100;
const allField = subscribeField("*");

let receipts: Receipt[] = [];
let counts = { responses: 0, resources: 0, bytes: 0 };
let lastConnectAtMs = 0;
const proxies: SimulatedSidecar[] = [];

/** What a sidecar holds of one type, and what it has asked for by name, with how to ask. */
class Holding {
  readonly held = new Map<string, Received>();
  readonly wanted = new Map<string, Uint8Array>();

  get hasAll(): boolean {
    if (this.held.size < this.wanted.size) return false;
    for (const name of this.wanted.keys()) if (!this.held.has(name)) return false;
    return true;
  }

  /** The fields of a stream's first request: what is asked for by name, and what is held. */
  claim(): Uint8Array[] {
    return [...this.wanted.values(), ...[...this.held.values()].map(({ heldField }) => heldField)];
  }
}

class SimulatedSidecar {
  readonly #at: number;
  readonly #address: string;
  readonly #node: Uint8Array;
  readonly #of = Object.fromEntries(typeNames.map((type) => [type, new Holding()])) as Record<Type, Holding>;
  /** A table wanted its virtual hosts as resources: one request a stream asks for those of all tables. */
  #discovers = false;
  #call: StubCall | undefined;
  connected = false;
  completedAtMs = 0;

  constructor(at: number, address: string, size: WorldSize) {
    this.#at = at;
    this.#address = address;
    const pod = proxyPod(at, size);
    this.#node = encodeMessage("envoy.service.discovery.v3.DeltaDiscoveryRequest", {
      node: {
        id: `sidecar~${pod.address}~${pod.name}.${pod.namespace}~${pod.namespace}.svc.cluster.local`,
        cluster: pod.name,
        userAgentName: "envoy",
        userAgentBuildVersion: { version: { majorNumber: 1, minorNumber: 40, patch: 0 } },
      },
    });
    this.open();
  }

  open(): void {
    const call = new StubCall(this.#address, path, {
      opened: () => this.#begin(),
      // The server's first bytes: a stream that has nothing new for the proxy is answered with nothing.
      connected: () => {
        this.connected = true;
        lastConnectAtMs = sharedNowMs();
      },
      message: (bytes) => this.#received(bytes),
      lost: () => {
        this.connected = false;
        setTimeout(() => this.open(), reconnectMs);
      },
    });
    this.#call = call;
  }

  /** A stream's first requests say what is held; no later one does. */
  #begin(): void {
    this.#request("cluster", this.#node, allField, ...this.#of.cluster.claim());
    this.#request("listener", allField, ...this.#of.listener.claim());
    for (const type of ["endpoint", "route"] as const) {
      if (this.#of[type].wanted.size > 0) this.#request(type, ...this.#of[type].claim());
    }
    if (this.#discovers) this.#request("virtualHost", ...this.#of.virtualHost.claim());
  }

  #request(type: Type, ...fields: readonly Uint8Array[]): void {
    this.#call?.send(requestOf(type), ...fields);
  }

  get #isComplete(): boolean {
    const { cluster, listener, endpoint, route, virtualHost } = this.#of;
    if (cluster.held.size === 0 || listener.held.size === 0) return false;
    return endpoint.hasAll && route.hasAll && (!this.#discovers || virtualHost.held.size > 0);
  }

  #received(bytes: Buffer): void {
    const atMs = sharedNowMs();
    const response = parseResponse(bytes);
    const { type, nonce, resources, removed } = response;
    counts.responses++;
    counts.bytes += bytes.length;
    counts.resources += resources.length;
    if (type === undefined) return;
    const { held } = this.#of[type];
    for (const resource of resources) held.set(resource.name, resource);
    for (const name of removed) held.delete(name);
    const isSmall = resources.length + removed.length <= namesKeptMax;
    const names = isSmall ? [...resources.map(({ name }) => name), ...removed] : [];
    receipts.push({ proxy: this.#at, atMs, type, names });
    this.#request(type, nonceField(nonce));
    if (type === "cluster") this.#follow("endpoint", response);
    if (type === "listener") this.#follow("route", response);
    if (!this.#discovers && resources.some(({ discovers }) => discovers)) {
      this.#discovers = true;
      this.#request("virtualHost");
    }
    if (this.completedAtMs === 0 && this.#isComplete) this.completedAtMs = sharedNowMs();
  }

  /** Subscribes to what the new resources name, and unsubscribes with a cluster that goes. */
  #follow(type: "endpoint" | "route", { resources, removed }: Response): void {
    const { held, wanted } = this.#of[type];
    const fields: Uint8Array[] = [];
    for (const { follows } of resources) {
      for (const name of follows) {
        if (wanted.has(name)) continue;
        const field = subscribeField(name);
        wanted.set(name, field);
        fields.push(field);
      }
    }
    for (const name of type === "endpoint" ? removed : []) {
      if (!wanted.delete(name)) continue;
      held.delete(name);
      fields.push(unsubscribeField(name));
    }
    if (fields.length > 0) this.#request(type, ...fields);
  }
}

process.on("message", (message: ToProxies) => {
  if (message.kind === "connect") {
    for (let at = message.first; at < message.first + message.count; at++)
      proxies.push(new SimulatedSidecar(at, message.address, message.size));
    say({ kind: "started" });
  } else if (message.kind === "mark") {
    receipts = [];
    counts = { responses: 0, resources: 0, bytes: 0 };
    say({ kind: "marked" });
  } else report(message.withReceipts);
});
process.on("disconnect", () => process.exit(0));

function report(withReceipts: boolean): void {
  const { user, system } = process.cpuUsage();
  say({
    kind: "report",
    receipts: withReceipts ? receipts : [],
    lastReceiptAtMs: receipts.at(-1)?.atMs,
    ...counts,
    connected: proxies.filter(({ connected }) => connected).length,
    complete: proxies.filter(({ completedAtMs }) => completedAtMs > 0).length,
    completedAtMs: Math.max(0, ...proxies.map(({ completedAtMs }) => completedAtMs)),
    lastConnectAtMs,
    cpuSeconds: (user + system) / 1e6,
  });
}

function say(message: FromProxies): void {
  process.send?.(message);
}
