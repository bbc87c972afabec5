// Simulated sidecars in a process of their own: delta ADS over HTTP/2, the subscriptions and acknowledgements of a real Envoy
// (wildcards for clusters and listeners, endpoints by cluster, routes by listener), and its node metadata.

import { connect, type ClientHttp2Session, type ClientHttp2Stream } from "node:http2";
import protobuf from "protobufjs/minimal.js";
import { decodeMessage, encodeMessage, typePrefix } from "#envoy";
import { sharedNowMs, type FromProxies, type Receipt, type ToProxies } from "./messages.ts";
import { proxyPod, type WorldSize } from "./world.ts";

const path = "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources";
const types = {
  cluster: `${typePrefix}envoy.config.cluster.v3.Cluster`,
  endpoint: `${typePrefix}envoy.config.endpoint.v3.ClusterLoadAssignment`,
  listener: `${typePrefix}envoy.config.listener.v3.Listener`,
  route: `${typePrefix}envoy.config.route.v3.RouteConfiguration`,
  virtualHost: `${typePrefix}envoy.config.route.v3.VirtualHost`,
};
type Type = keyof typeof types;
/** Receipts with more names than this keep none: they are the first fill. */
const namesKeptMax = 50;
const reconnectMs = 100;

let receipts: Receipt[] = [];
let counts = { responses: 0, resources: 0, bytes: 0 };
let lastConnectAtMs = 0;
const proxies: SimulatedSidecar[] = [];

class SimulatedSidecar {
  readonly #at: number;
  readonly #address: string;
  readonly #node: Record<string, unknown>;
  readonly #held: Record<Type, Map<string, string>> = {
    cluster: new Map(),
    endpoint: new Map(),
    listener: new Map(),
    route: new Map(),
    virtualHost: new Map(),
  };
  readonly #wanted: { endpoint: Set<string>; route: Set<string> } = { endpoint: new Set(), route: new Set() };
  /** A table wanted its virtual hosts as resources: one request a stream asks for those of all tables. */
  #discovers = false;
  #session: ClientHttp2Session | undefined;
  #stream: ClientHttp2Stream | undefined;
  /** Received and not yet complete: joined only once a message is whole. */
  #chunks: Buffer[] = [];
  #chunksBytes = 0;
  #missingBytes = 5;
  connected = false;
  completedAtMs = 0;

  constructor(at: number, address: string, size: WorldSize) {
    this.#at = at;
    this.#address = address;
    const pod = proxyPod(at, size);
    this.#node = {
      id: `sidecar~${pod.address}~${pod.name}.${pod.namespace}~${pod.namespace}.svc.cluster.local`,
      cluster: pod.name,
      userAgentName: "envoy",
      userAgentBuildVersion: { version: { majorNumber: 1, minorNumber: 40, patch: 0 } },
    };
    this.open();
  }

  open(): void {
    const session = connect(`http://${this.#address}`, { settings: { initialWindowSize: 65_536 * 16 } });
    // The server's first bytes: a stream that has nothing new for the proxy is answered with nothing.
    session.on("remoteSettings", () => {
      this.connected = true;
      lastConnectAtMs = sharedNowMs();
    });
    session.on("error", () => this.#lost(session));
    session.on("close", () => this.#lost(session));
    this.#session = session;
    const stream = session.request({
      ":method": "POST",
      ":path": path,
      "content-type": "application/grpc",
      te: "trailers",
    });
    this.#stream = stream;
    this.#chunks = [];
    this.#chunksBytes = 0;
    this.#missingBytes = 5;
    stream.on("data", (chunk: Buffer) => this.#received(chunk));
    stream.on("error", () => session.close());
    stream.on("close", () => session.close());
    this.#request("cluster", { node: this.#node, resourceNamesSubscribe: ["*"] });
    this.#request("listener", { resourceNamesSubscribe: ["*"] });
    for (const type of ["endpoint", "route"] as const) {
      const names = [...this.#wanted[type]];
      if (names.length > 0) this.#request(type, { resourceNamesSubscribe: names });
    }
    if (this.#discovers) this.#request("virtualHost", { resourceNamesSubscribe: [] });
  }

  get complete(): boolean {
    return (
      this.#held.cluster.size > 0 &&
      this.#held.listener.size > 0 &&
      [...this.#wanted.endpoint].every((name) => this.#held.endpoint.has(name)) &&
      [...this.#wanted.route].every((name) => this.#held.route.has(name)) &&
      (!this.#discovers || this.#held.virtualHost.size > 0)
    );
  }

  #lost(session: ClientHttp2Session): void {
    if (this.#session !== session) return;
    this.#session = undefined;
    this.connected = false;
    session.destroy();
    setTimeout(() => this.open(), reconnectMs);
  }

  #request(type: Type, fields: Record<string, unknown>): void {
    const first =
      "resourceNamesSubscribe" in fields && this.#held[type].size > 0 && !("responseNonce" in fields);
    const message = encodeMessage("envoy.service.discovery.v3.DeltaDiscoveryRequest", {
      typeUrl: types[type],
      ...(first ? { initialResourceVersions: Object.fromEntries(this.#held[type]) } : {}),
      ...fields,
    });
    const head = Buffer.alloc(5);
    head.writeUInt32BE(message.length, 1);
    this.#stream?.write(Buffer.concat([head, message]));
  }

  #received(chunk: Buffer): void {
    this.#chunks.push(chunk);
    this.#chunksBytes += chunk.length;
    if (this.#chunksBytes < this.#missingBytes) return;
    let buffer = Buffer.concat(this.#chunks);
    this.#missingBytes = 5;
    while (buffer.length >= 5) {
      const length = buffer.readUInt32BE(1);
      this.#missingBytes = 5 + length;
      if (buffer.length < 5 + length) break;
      const message = buffer.subarray(5, 5 + length);
      buffer = buffer.subarray(5 + length);
      this.#missingBytes = 5;
      this.#response(message);
    }
    this.#chunks = [buffer];
    this.#chunksBytes = buffer.length;
  }

  #response(bytes: Uint8Array): void {
    const response = parseResponse(bytes);
    const type = (Object.keys(types) as Type[]).find((one) => types[one] === response.typeUrl);
    counts.responses++;
    counts.bytes += bytes.length;
    counts.resources += response.resources.length;
    if (type === undefined) return;
    for (const { name, version } of response.resources) this.#held[type].set(name, version);
    for (const name of response.removed) this.#held[type].delete(name);
    const names = [...response.resources.map(({ name }) => name), ...response.removed];
    receipts.push({
      proxy: this.#at,
      atMs: sharedNowMs(),
      type,
      names: names.length <= namesKeptMax ? names : [],
    });
    this.#request(type, { responseNonce: response.nonce });
    if (type === "cluster") this.#follow("endpoint", response, endpointsOf);
    if (type === "listener") this.#follow("route", response, routesOf);
    if (type === "route" && !this.#discovers && response.resources.some(discovers)) {
      this.#discovers = true;
      this.#request("virtualHost", { resourceNamesSubscribe: [] });
    }
    if (this.completedAtMs === 0 && this.complete) this.completedAtMs = sharedNowMs();
  }

  /** Subscribes to what the new resources name, and unsubscribes with a cluster that goes. */
  #follow(
    type: "endpoint" | "route",
    response: Parsed,
    namesOf: (resource: ParsedResource) => readonly string[],
  ): void {
    const wanted = this.#wanted[type];
    const subscribe = [...new Set(response.resources.flatMap(namesOf))].filter((name) => !wanted.has(name));
    const unsubscribe = type === "endpoint" ? response.removed.filter((name) => wanted.has(name)) : [];
    for (const name of subscribe) wanted.add(name);
    for (const name of unsubscribe) {
      wanted.delete(name);
      this.#held[type].delete(name);
    }
    if (subscribe.length + unsubscribe.length === 0) return;
    this.#request(type, { resourceNamesSubscribe: subscribe, resourceNamesUnsubscribe: unsubscribe });
  }
}

interface ParsedResource {
  readonly name: string;
  readonly version: string;
  readonly value: Uint8Array;
}

interface Parsed {
  readonly typeUrl: string;
  readonly nonce: string;
  readonly resources: readonly ParsedResource[];
  readonly removed: readonly string[];
}

/** DeltaDiscoveryResponse: resources = 2, type_url = 4, nonce = 5, removed_resources = 6. */
function parseResponse(bytes: Uint8Array): Parsed {
  const reader = protobuf.Reader.create(bytes);
  const resources: ParsedResource[] = [];
  const removed: string[] = [];
  let typeUrl = "";
  let nonce = "";
  while (reader.pos < reader.len) {
    const tag = reader.uint32();
    if (tag >>> 3 === 2) resources.push(parseResource(reader.bytes()));
    else if (tag >>> 3 === 4) typeUrl = reader.string();
    else if (tag >>> 3 === 5) nonce = reader.string();
    else if (tag >>> 3 === 6) removed.push(reader.string());
    else reader.skipType(tag & 7);
  }
  return { typeUrl, nonce, resources, removed };
}

/** Resource: version = 1, resource (Any: value = 2) = 2, name = 3. */
function parseResource(bytes: Uint8Array): ParsedResource {
  const reader = protobuf.Reader.create(bytes);
  let resource: ParsedResource = { name: "", version: "", value: new Uint8Array() };
  while (reader.pos < reader.len) {
    const tag = reader.uint32();
    if (tag >>> 3 === 1) resource = { ...resource, version: reader.string() };
    else if (tag >>> 3 === 2) resource = { ...resource, value: anyValue(reader.bytes()) };
    else if (tag >>> 3 === 3) resource = { ...resource, name: reader.string() };
    else reader.skipType(tag & 7);
  }
  return resource;
}

function anyValue(bytes: Uint8Array): Uint8Array {
  const reader = protobuf.Reader.create(bytes);
  while (reader.pos < reader.len) {
    const tag = reader.uint32();
    if (tag >>> 3 === 2) return reader.bytes();
    reader.skipType(tag & 7);
  }
  return new Uint8Array();
}

// What a version names is looked up once for all proxies: a real Envoy decodes for itself, but that is not the server's cost.
const followed = new Map<string, readonly string[]>();

function once(resource: ParsedResource, look: () => readonly string[]): readonly string[] {
  const key = `${resource.name} ${resource.version}`;
  let names = followed.get(key);
  if (names === undefined) followed.set(key, (names = look()));
  return names;
}

function endpointsOf(resource: ParsedResource): readonly string[] {
  return once(resource, () => {
    const cluster = decodeMessage("envoy.config.cluster.v3.Cluster", resource.value) as { type?: string };
    return cluster.type === "EDS" ? [resource.name] : [];
  });
}

/** Whether a route table wants its virtual hosts as resources. */
function discovers({ value }: ParsedResource): boolean {
  return "vhds" in decodeMessage("envoy.config.route.v3.RouteConfiguration", value);
}

function routesOf(resource: ParsedResource): readonly string[] {
  return once(resource, () => {
    const text = JSON.stringify(decodeMessage("envoy.config.listener.v3.Listener", resource.value));
    return [...text.matchAll(/"routeConfigName":"([^"]*)"/g)].map((match) => match[1] ?? "");
  });
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
  } else report();
});
process.on("disconnect", () => process.exit(0));

function report(): void {
  const { user, system } = process.cpuUsage();
  say({
    kind: "report",
    receipts,
    ...counts,
    connected: proxies.filter(({ connected }) => connected).length,
    complete: proxies.filter(({ complete }) => complete).length,
    completedAtMs: Math.max(0, ...proxies.map(({ completedAtMs }) => completedAtMs)),
    lastConnectAtMs,
    cpuSeconds: (user + system) / 1e6,
  });
}

function say(message: FromProxies): void {
  process.send?.(message);
}
