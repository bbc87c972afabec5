// The ADS methods: lets proxies in, one session for each stream. Who a proxy is, and so what it is entitled to, is
// decided by `admit` from what it has proven and not from what it says.

import type { Logger } from "#base";
import { resourceTypeOf, type Message } from "#envoy";
import { resourceTypes, type ResourceType } from "#plan";
import { grpcStatus, GrpcError, type GrpcPeer } from "./grpc-api.ts";
import type { GrpcStream, StreamHandlers } from "./grpc.ts";
import { admissionsMax, waitingRequestsMax } from "./limits.ts";
import type { Mesh } from "./mesh.ts";
import { AdsSession, type Closing, type SessionReports, type TypeStatus } from "./session.ts";
import { StateOfTheWorld } from "./sotw.ts";
import { leavesAtMs, Spreading, type Fleet } from "./spreading.ts";
import { RequestReader, type DeltaRequest } from "./wire.ts";

export const adsPath = "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources";
export const stateAdsPath =
  "/envoy.service.discovery.v3.AggregatedDiscoveryService/StreamAggregatedResources";

/** How a client speaks: of what changed, or of the state of the world. */
export type AdsProtocol = "delta" | "state-of-the-world";

/** A proxy that was let in. */
export interface Admitted<C> {
  /** Envoy's node id. */
  readonly id: string;
  readonly proxyClass: C;
}

export interface AdsServerOptions<C, V> {
  readonly mesh: Mesh<C, V>;
  /** Who is this? Throws GrpcError for those who are not let in. */
  readonly admit: (node: Message, peer: GrpcPeer, protocol: AdsProtocol) => Promise<Admitted<C>>;
  /** The class of a client that asks for these listeners and clusters, if its class says that. */
  readonly classAsking?: (proxyClass: C, names: readonly string[]) => C;
  readonly nowMs: () => number;
  /** Where `admit` believes what a proxy says: keys are for those who have proven who they are. */
  readonly withholdsSecrets?: boolean;
  /** The replicas among which proxies are spread; without it each stays where it is. */
  readonly spread?: { readonly fleet: (nowMs: number) => Fleet; readonly random: () => number };
  readonly log: Logger;
  readonly reports: SessionReports & {
    connected(id: string): void;
    disconnected(id: string): void;
    refused(reason: string): void;
  };
}

/** How `syncz` shows a proxy. */
export interface ProxyStatus {
  readonly proxy: string;
  readonly peer: string;
  readonly connectedAtMs: number;
  readonly types: readonly TypeStatus[];
}

/** The types whose names decide about the views of a client without a proxy; routes and endpoints come with them. */
const viewTypes: readonly ResourceType[] = ["listener", "cluster"];

/** So long at least, and twice that at most, is kept what proxies said that come back one by one. */
const readKeptMs = 10_000;

interface Connection<C> {
  readonly stream: GrpcStream;
  /** Of a client of the state of the world: what is translated from and to that. */
  readonly state: StateOfTheWorld | undefined;
  readonly connectedAtMs: number;
  readonly leavesAtMs: number;
  admitted: Admitted<C> | undefined;
  session: AdsSession | undefined;
  /** Requests that came while the proxy was being admitted. */
  waiting: DeltaRequest[];
  admitting: boolean;
  closed: boolean;
}

export class AdsServer<C, V> {
  readonly #options: AdsServerOptions<C, V>;
  readonly #connections = new Set<Connection<C>>();
  /** By `name.namespace`. */
  readonly #byPod = new Map<string, Set<Connection<C>>>();
  readonly #spreading = new Spreading();
  readonly #reader = new RequestReader();
  #readerForgetsAtMs = 0;
  #admissions = 0;

  constructor(options: AdsServerOptions<C, V>) {
    this.#options = options;
  }

  get connectionCount(): number {
    return this.#connections.size;
  }

  /** The gRPC method of delta xDS. */
  readonly method = (stream: GrpcStream): StreamHandlers => this.#connected(stream, undefined);

  /** The gRPC method of state-of-the-world xDS. */
  readonly stateMethod = (stream: GrpcStream): StreamHandlers =>
    this.#connected(stream, new StateOfTheWorld());

  #connected(stream: GrpcStream, state: StateOfTheWorld | undefined): StreamHandlers {
    const { nowMs, spread } = this.#options;
    const connectedAtMs = nowMs();
    const connection: Connection<C> = {
      stream,
      state,
      connectedAtMs,
      leavesAtMs: spread === undefined ? Infinity : leavesAtMs(connectedAtMs, spread.random()),
      admitted: undefined,
      session: undefined,
      waiting: [],
      admitting: false,
      closed: false,
    };
    this.#connections.add(connection);
    return {
      message: (bytes) => this.#receive(connection, bytes),
      closed: () => this.#closed(connection),
    };
  }

  /** To be called every second or so. */
  tick(): void {
    for (const { session } of this.#connections) session?.tick();
    this.#options.mesh.tick();
    this.#forgetRead();
    this.#spread();
  }

  #forgetRead(): void {
    const nowMs = this.#options.nowMs();
    if (nowMs < this.#readerForgetsAtMs) return;
    this.#readerForgetsAtMs = nowMs + readKeptMs;
    this.#reader.forget();
  }

  #spread(): void {
    const { spread, nowMs, log } = this.#options;
    if (spread === undefined) return;
    const now = nowMs();
    const held = [...this.#connections].filter(({ session }) => session !== undefined);
    const chosen = this.#spreading.choose(held, spread.fleet(now), now);
    if (chosen === undefined) return;
    log.info({ proxy: chosen.admitted?.id }, "proxy let go, for another replica");
    chosen.stream.leave("connect again: there are other replicas of the control plane");
    this.#closed(chosen);
  }

  status(): ProxyStatus[] {
    return [...this.#connections].flatMap(({ admitted, session, stream, connectedAtMs }) =>
      admitted === undefined || session === undefined
        ? []
        : [{ proxy: admitted.id, peer: stream.peer.address, connectedAtMs, types: session.status() }],
    );
  }

  /** The names and versions that a proxy holds, for each type; undefined if no such proxy is connected. */
  holdings(id: string): Record<ResourceType, Record<string, string>> | undefined {
    const session = this.sessionOf(id);
    if (session === undefined) return undefined;
    const entries = resourceTypes.map((type) => [type, Object.fromEntries(session.held(type))]);
    return Object.fromEntries(entries) as Record<ResourceType, Record<string, string>>;
  }

  /** Finds a proxy by its node id, or by its pod's `name.namespace`. */
  sessionOf(id: string): AdsSession | undefined {
    const [connection] = this.#byPod.get(podOfNode(id)) ?? [];
    return connection?.session;
  }

  /**
   * Asks again what class a pod's proxy is in, after the Pod changed.
   * @param pod `name.namespace`, as in node ids
   * @param classOf undefined if the proxy is no longer entitled to anything: its stream ends
   */
  reclassify(
    pod: string,
    classOf: (admitted: Admitted<C>) => C | undefined,
    sameClass: (one: C, other: C) => boolean,
  ): void {
    // Ending a stream changes the set.
    for (const connection of [...(this.#byPod.get(pod) ?? [])]) {
      const { admitted, session } = connection;
      if (admitted === undefined || session === undefined) continue;
      const proxyClass = classOf(admitted);
      if (proxyClass === undefined) {
        connection.stream.end(grpcStatus.permissionDenied, "the pod of this proxy is gone");
        this.#closed(connection);
      } else if (!sameClass(proxyClass, admitted.proxyClass)) {
        this.#changeClass(connection, session, admitted, proxyClass);
      }
    }
  }

  #changeClass(connection: Connection<C>, session: AdsSession, admitted: Admitted<C>, proxyClass: C): void {
    this.#options.mesh.detach(session, admitted.proxyClass);
    connection.admitted = { ...admitted, proxyClass };
    session.viewsChanged(this.#options.mesh.attach(session, proxyClass));
  }

  #receive(connection: Connection<C>, bytes: Uint8Array): void {
    let request: DeltaRequest | undefined;
    try {
      request = connection.state === undefined ? this.#reader.read(bytes) : connection.state.parse(bytes);
    } catch (error) {
      const name = connection.state === undefined ? "DeltaDiscoveryRequest" : "DiscoveryRequest";
      const message = `not a ${name}: ${String(error)}`;
      this.#end(connection, { code: grpcStatus.invalidArgument, message });
      return;
    }
    if (request === undefined) return;
    if (connection.session !== undefined) {
      this.#deliver(connection.session, request, connection);
      return;
    }
    connection.waiting.push(request);
    if (connection.waiting.length > waitingRequestsMax) {
      this.#options.reports.reached("waitingRequests");
      const message = "too many requests before admission";
      this.#end(connection, { code: grpcStatus.resourceExhausted, message });
    } else if (!connection.admitting) void this.#admit(connection, request.node);
  }

  #deliver(session: AdsSession, request: DeltaRequest, connection: Connection<C>): void {
    const type = resourceTypeOf(request.typeUrl);
    // A type that is not served (runtime, scoped routes) stays unanswered, as if nothing of it existed.
    if (type === undefined) {
      this.#options.log.debug(
        { proxy: connection.admitted?.id, type: request.typeUrl },
        "a type that is not served",
      );
      return;
    }
    if (type === "secret" && this.#options.withholdsSecrets === true) {
      const proxy = connection.admitted?.id;
      this.#options.log.warn({ proxy }, "secrets are not served to a proxy that has proven nothing");
      return;
    }
    this.#noteNames(connection, session, request, type);
    session.receive(request, type);
  }

  /** Before the request is answered, the views have to be there that it asks for. */
  #noteNames(
    connection: Connection<C>,
    session: AdsSession,
    { subscribe, unsubscribe }: DeltaRequest,
    type: ResourceType,
  ): void {
    const { admitted } = connection;
    const { classAsking } = this.#options;
    if (classAsking === undefined || admitted === undefined) return;
    if (!viewTypes.includes(type) || subscribe.length + unsubscribe.length === 0) return;
    const names = new Set([...session.asked(type), ...subscribe]);
    for (const name of unsubscribe) names.delete(name);
    for (const other of viewTypes)
      if (other !== type) for (const name of session.asked(other)) names.add(name);
    const proxyClass = classAsking(admitted.proxyClass, [...names].toSorted());
    if (proxyClass !== admitted.proxyClass) this.#changeClass(connection, session, admitted, proxyClass);
  }

  async #admit(connection: Connection<C>, node: Message | undefined): Promise<void> {
    connection.admitting = true;
    if (this.#admissions >= admissionsMax) {
      this.#options.reports.reached("admissions");
      this.#refuse(
        connection,
        new GrpcError(grpcStatus.unavailable, "too many proxies connect at once; come again"),
      );
      return;
    }
    this.#admissions++;
    try {
      if (node === undefined)
        throw new GrpcError(grpcStatus.invalidArgument, "the first request names no node");
      const protocol = connection.state === undefined ? "delta" : "state-of-the-world";
      const admitted = await this.#options.admit(node, connection.stream.peer, protocol);
      if (!connection.closed) this.#open(connection, admitted);
    } catch (error) {
      this.#refuse(connection, error);
    } finally {
      this.#admissions--;
    }
  }

  #open(connection: Connection<C>, admitted: Admitted<C>): void {
    const { mesh, nowMs, reports, log } = this.#options;
    const { state } = connection;
    const session: AdsSession = new AdsSession({
      id: admitted.id,
      nowMs,
      ...(state === undefined ? {} : { render: (response, sent) => state.render(response, sent) }),
      send: (pieces) => connection.stream.send(...pieces),
      close: (closing) => this.#end(connection, closing),
      reject: (rejection, views) => mesh.reject(rejection, views),
      flush: () => mesh.flush(),
      offers: mesh.offersFor(() => session),
      reports,
    });
    connection.admitted = admitted;
    connection.session = session;
    const pod = podOfNode(admitted.id);
    const ofPod = this.#byPod.get(pod);
    if (ofPod === undefined) this.#byPod.set(pod, new Set([connection]));
    else ofPod.add(connection);
    session.viewsChanged(mesh.attach(session, admitted.proxyClass));
    reports.connected(admitted.id);
    log.info({ proxy: admitted.id, peer: connection.stream.peer.address }, "proxy connected");
    const waiting = connection.waiting;
    connection.waiting = [];
    for (const request of waiting) this.#deliver(session, request, connection);
  }

  #refuse(connection: Connection<C>, error: unknown): void {
    const refusal =
      error instanceof GrpcError
        ? error
        : new GrpcError(grpcStatus.unavailable, "admission failed; come again");
    const { address } = connection.stream.peer;
    this.#options.log.warn({ peer: address, code: refusal.code, error: String(error) }, "proxy refused");
    this.#options.reports.refused(refusal.message);
    this.#end(connection, refusal);
  }

  #end(connection: Connection<C>, { code, message }: Closing): void {
    connection.stream.end(code, message);
    this.#closed(connection);
  }

  #closed(connection: Connection<C>): void {
    if (connection.closed) return;
    connection.closed = true;
    this.#connections.delete(connection);
    const { admitted, session } = connection;
    if (admitted === undefined || session === undefined) return;
    const pod = podOfNode(admitted.id);
    const ofPod = this.#byPod.get(pod);
    ofPod?.delete(connection);
    if (ofPod?.size === 0) this.#byPod.delete(pod);
    this.#options.mesh.detach(session, admitted.proxyClass);
    this.#options.reports.disconnected(admitted.id);
    this.#options.log.info({ proxy: admitted.id }, "proxy disconnected");
  }
}

/** The `name.namespace` of `kind~address~name.namespace~domain`; the text itself if it has no such parts. */
function podOfNode(id: string): string {
  return id.split("~")[2] ?? id;
}
