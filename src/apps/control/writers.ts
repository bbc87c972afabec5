// All that writes to the API server because of what the mesh is or does: statuses, events, deployments of gateways, addresses, and
// the entries of machines. A control plane that reads a directory has none of it.

import type { Clock, Logger, ObjectRef, Problem } from "#base";
import type { Changed, Engine } from "#engine";
import type { KubeClient, RateLimitedWriter } from "#kube";
import type { ProxyClass } from "#model";
import type { KubeObject } from "#objects";
import type { View } from "#plan";
import type { Mesh } from "#xds";
import { AddressAllocator } from "./address-allocator.ts";
import type { Authenticate } from "./ca-service.ts";
import { DistributionCounter } from "./distribution-counter.ts";
import { distributionOf } from "./distribution.ts";
import { GatewayApiWriter } from "./gateway-api.ts";
import { idlePatches } from "./idle-patches.ts";
import { IngressEvents } from "./ingress-events.ts";
import type { ControlPlaneLimit } from "./limits.ts";
import { MachineRegistry } from "./machines.ts";
import { RejectionWriter } from "./rejection-writer.ts";
import type { Settings } from "./settings.ts";
import type { StandingStatuses } from "./standing-statuses.ts";
import { StatusWriter } from "./status-writer.ts";

export interface WritersOptions {
  readonly settings: Settings;
  readonly engine: Engine;
  readonly client: KubeClient;
  readonly writer: RateLimitedWriter;
  readonly clock: Clock;
  readonly log: Logger;
  readonly standing: StandingStatuses;
  readonly authenticate: Authenticate;
  readonly mesh: () => Mesh<ProxyClass, View>;
  /** Control planes that serve proxies, this one among them. */
  readonly replicas: () => number;
  /** What an object says wrong by itself. */
  readonly validate: (object: KubeObject) => readonly Problem[];
  readonly reached: (limit: ControlPlaneLimit) => void;
}

/** How long the entry of a machine outlives its connection: Istio's default. */
const machineGraceMs = 10_000;

export class Writers {
  readonly rejections: RejectionWriter;
  readonly machines: MachineRegistry;
  readonly #gatewayApi: GatewayApiWriter;
  readonly #addresses: AddressAllocator;
  readonly #ingressEvents: IngressEvents;
  readonly #counter: DistributionCounter;
  readonly #statuses: StatusWriter;
  readonly #writesStatus: boolean;

  constructor(options: WritersOptions) {
    const { settings, engine, mesh, clock, reached } = options;
    this.#writesStatus = settings.objectStatus;
    this.rejections = new RejectionWriter({ ...options, component: settings.podName, reached });
    this.machines = new MachineRegistry({
      ...options,
      namespace: settings.namespace,
      instance: settings.podName,
      graceMs: machineGraceMs,
    });
    this.#gatewayApi = new GatewayApiWriter({ ...options, revision: settings.revision });
    this.#addresses = new AddressAllocator(options);
    this.#ingressEvents = new IngressEvents({ ...options, component: settings.podName });
    this.#counter = new DistributionCounter({
      clock,
      distributionOf: (object) => distributionOf(engine, mesh(), object),
      replicas: options.replicas,
      counted: (object) => this.#statuses.look(object),
    });
    this.#statuses = new StatusWriter({
      ...options,
      counter: this.#counter,
      observed: (object) => idlePatches(engine, mesh(), object),
    });
  }

  setLeading(leading: boolean): void {
    this.#gatewayApi.setLeading(leading);
    this.#addresses.setLeading(leading);
    if (this.#writesStatus) this.#statuses.setLeading(leading);
    if (this.#writesStatus) this.#ingressEvents.setLeading(leading);
    this.machines.setLeading(leading);
  }

  /** Objects came, changed or went. */
  changed(set: readonly KubeObject[], removed: readonly KubeObject[]): void {
    this.#addresses.changed(set, removed);
  }

  /** A batch is published. @param objects those that changed in it */
  settled(objects: Iterable<KubeObject>, answers: readonly Changed[]): void {
    this.#gatewayApi.settled(answers);
    this.#ingressEvents.settled(answers);
    this.#statuses.settled(objects, answers);
  }

  /** An object's status is other than we left it. */
  restated(object: ObjectRef): void {
    this.#statuses.look(object);
  }

  /** Other proxies than before may be what an EnvoyFilter is for. */
  viewsChanged(): void {
    this.#statuses.lookAt("EnvoyFilter");
  }

  /** To be called every half second or so. */
  tick(): void {
    this.#counter.tick();
    this.#ingressEvents.tick();
  }

  stop(): void {
    this.machines.stop();
  }
}
