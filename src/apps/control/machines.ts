// Machines outside of the cluster. Who connects and names a WorkloadGroup is entered as a WorkloadEntry, and its entry goes
// some time after it has gone. Its agent says how it is; that becomes the entry's condition.
// A group names the service account that its machines have to prove. Where a machine is, it says itself, as with Istio:
// callers check the identity of who answers there.

import protobuf from "protobufjs/minimal.js";
import type { Clock, Logger } from "#base";
import type { Engine } from "#engine";
import { collectionPath, KubeError, type KubeClient, type RateLimitedWriter } from "#kube";
import { tables } from "#model";
import {
  healthyCondition,
  machineAccount,
  machineAnnotations,
  machineEntryName,
  machineLabels,
  type WorkloadEntry,
  type WorkloadEntryCondition,
  type WorkloadGroup,
} from "#objects";
import { GrpcError, grpcStatus, type GrpcPeer, type UnaryMethod } from "#xds";
import { Unauthenticated, type Authenticate, type Caller } from "./ca-service.ts";

export const healthPath = "/mizzen.v1.MachineHealth/Report";

export interface MachineRegistryOptions {
  readonly engine: Engine;
  readonly client: KubeClient;
  readonly writer: RateLimitedWriter;
  readonly clock: Clock;
  readonly log: Logger;
  readonly authenticate: Authenticate;
  /** The namespace and the name of this replica's Pod. */
  readonly namespace: string;
  readonly instance: string;
  /** How long an entry outlives its machine's connection. */
  readonly graceMs: number;
}

/** A machine that was let in. */
export interface Machine {
  readonly group: WorkloadGroup;
  readonly namespace: string;
  readonly address: string;
  readonly network: string;
}

interface Connected {
  readonly machine: Machine;
  streams: number;
  cancelRemoval: (() => void) | undefined;
}

const entries = { group: "networking.istio.io", version: "v1", plural: "workloadentries" };
const fieldManager = "istio.io/workload-controller";
/** How often the leader looks for entries whose machines are gone and whose replica is too. */
const sweepMs = 15_000;

export class MachineRegistry {
  readonly #options: MachineRegistryOptions;
  readonly #connected = new Map<string, Connected>();
  #cancelSweep = (): void => {};

  constructor(options: MachineRegistryOptions) {
    this.#options = options;
  }

  /** To be told before the machine's stream is opened. */
  admitted(id: string, machine: Machine): void {
    const known = this.#connected.get(id);
    this.#connected.set(id, {
      machine,
      streams: known?.streams ?? 0,
      cancelRemoval: known?.cancelRemoval,
    });
  }

  connected(id: string): void {
    const entry = this.#connected.get(id);
    if (entry === undefined) return;
    entry.streams++;
    entry.cancelRemoval?.();
    entry.cancelRemoval = undefined;
    if (entry.streams === 1) this.#submit(entry.machine, undefined);
  }

  disconnected(id: string): void {
    const entry = this.#connected.get(id);
    if (entry === undefined || --entry.streams > 0) return;
    const at = this.#now();
    this.#submit(entry.machine, at);
    entry.cancelRemoval = this.#options.clock.after(this.#options.graceMs, () => {
      this.#connected.delete(id);
      this.#submitRemoval(pathOf(entry.machine), at);
    });
  }

  setLeading(leading: boolean): void {
    this.#cancelSweep();
    if (leading) this.#sweep();
  }

  stop(): void {
    this.#cancelSweep();
    for (const { cancelRemoval } of this.#connected.values()) cancelRemoval?.();
  }

  /** The gRPC method by which agents say how their workloads are. */
  readonly health: UnaryMethod = async (request, peer) => {
    const report = decodeReport(request);
    const caller = await this.#callerOf(peer);
    const { namespace } = caller.identity;
    const group = this.#options.engine.rows(tables.WorkloadGroup).get(`${namespace}/${report.group}`);
    if (group === undefined || machineAccount(group) !== caller.identity.serviceAccount)
      throw new GrpcError(grpcStatus.permissionDenied, `${report.group} is no group of this identity`);
    const path = pathOf({ group, namespace, address: report.address, network: report.network });
    this.#options.writer.submit(`health ${path}`, () => this.#writeHealth(path, report));
    return new Uint8Array();
  };

  async #callerOf(peer: GrpcPeer): Promise<Caller> {
    try {
      return await this.#options.authenticate({
        authorization: peer.authorization,
        peerCertificate: peer.certificate,
      });
    } catch (error) {
      if (!(error instanceof Unauthenticated)) throw error;
      throw new GrpcError(grpcStatus.unauthenticated, error.message);
    }
  }

  #now(): string {
    return new Date(this.#options.clock.nowMs()).toISOString();
  }

  /** Enters the machine, or notes that it has gone. */
  #submit(machine: Machine, disconnectedAt: string | undefined): void {
    const { client, writer, instance } = this.#options;
    const path = pathOf(machine);
    const body = entryOf(machine, {
      [machineAnnotations.controller]: instance,
      [machineAnnotations.connectedAt]: this.#now(),
      ...(disconnectedAt === undefined ? {} : { [machineAnnotations.disconnectedAt]: disconnectedAt }),
    });
    const query = `fieldManager=${encodeURIComponent(fieldManager)}&force=true`;
    writer.submit(`machine ${path}`, () =>
      client.request(`${path}?${query}`, { method: "PATCH", patch: "apply", body }),
    );
  }

  /** Takes an entry away, unless its machine has connected since, to whichever replica. */
  #submitRemoval(path: string, disconnectedAt: string): void {
    const { client, writer, log } = this.#options;
    writer.submit(`machine ${path}`, async () => {
      const entry = await client.get<WorkloadEntry>(path);
      if (entry.metadata.annotations?.[machineAnnotations.disconnectedAt] !== disconnectedAt) return;
      log.info(
        { entry: `${entry.metadata.namespace}/${entry.metadata.name}` },
        "machine gone; entry removed",
      );
      await client.request(path, { method: "DELETE" });
    });
  }

  /** Entries of replicas that are gone are marked; marked ones that nobody claims in time are removed. */
  #sweep(): void {
    const { engine, clock, graceMs, namespace } = this.#options;
    const pods = engine.rows(tables.Pod);
    for (const entry of engine.rows(tables.WorkloadEntry).values()) {
      const given = entry.metadata.annotations ?? {};
      const controller = given[machineAnnotations.controller];
      if (given[machineAnnotations.group] === undefined || controller === undefined) continue;
      const path = `${collectionPath(entries, entry.metadata.namespace)}/${entry.metadata.name}`;
      const goneAt = given[machineAnnotations.disconnectedAt];
      if (goneAt !== undefined) {
        if (clock.nowMs() - Date.parse(goneAt) > graceMs) this.#submitRemoval(path, goneAt);
      } else if (controller !== this.#options.instance && !pods.has(`${namespace}/${controller}`)) {
        this.#submitMark(path, controller);
      }
    }
    this.#cancelSweep = clock.after(sweepMs, () => this.#sweep());
  }

  #submitMark(path: string, controller: string): void {
    const { client, writer } = this.#options;
    writer.submit(`machine ${path}`, async () => {
      const entry = await client.get<WorkloadEntry>(path);
      if (entry.metadata.annotations?.[machineAnnotations.controller] !== controller) return;
      const body = { metadata: { annotations: { [machineAnnotations.disconnectedAt]: this.#now() } } };
      await client.request(path, { method: "PATCH", patch: "merge", body });
    });
  }

  async #writeHealth(path: string, { healthy, message }: HealthReport): Promise<void> {
    const { client } = this.#options;
    let entry: WorkloadEntry;
    try {
      entry = await client.get<WorkloadEntry>(path);
    } catch (error) {
      // The machine may say how it is before it is entered; the writer tries again.
      if (error instanceof KubeError && error.status === 404)
        throw new Error("the machine is not entered yet", { cause: error });
      throw error;
    }
    const before = entry.status?.conditions ?? [];
    const standing = before.find(({ type }) => type === healthyCondition);
    const status = healthy ? "True" : "False";
    if (standing?.status === status && (standing.message ?? "") === message) return;
    const now = this.#now().replace(/\.\d+Z$/, "Z");
    const condition: WorkloadEntryCondition = {
      type: healthyCondition,
      status,
      ...(message === "" ? {} : { message }),
      lastProbeTime: now,
      lastTransitionTime: standing?.status === status ? (standing.lastTransitionTime ?? now) : now,
    };
    const conditions = [...before.filter(({ type }) => type !== healthyCondition), condition];
    // Others write conditions of theirs beside: whoever comes second looks again.
    const body = { metadata: { resourceVersion: entry.metadata.resourceVersion }, status: { conditions } };
    try {
      await client.request(`${path}/status`, { method: "PATCH", patch: "merge", body });
    } catch (error) {
      if (error instanceof KubeError && error.status === 409)
        throw new Error("the entry changed meanwhile", { cause: error });
      throw error;
    }
  }
}

function pathOf({ group, namespace, address, network }: Machine): string {
  const name = machineEntryName(group.metadata.name, address, network);
  return `${collectionPath(entries, namespace)}/${name}`;
}

function entryOf({ group, namespace, address, network }: Machine, given: Record<string, string>) {
  const template = group.spec?.template;
  const labels = machineLabels(group);
  const checks = group.spec?.probe === undefined ? {} : { [machineAnnotations.healthChecks]: "true" };
  const { apiVersion, kind, metadata } = group;
  return {
    apiVersion: "networking.istio.io/v1",
    kind: "WorkloadEntry",
    metadata: {
      name: machineEntryName(metadata.name, address, network),
      namespace,
      labels,
      annotations: {
        ...group.spec?.metadata?.annotations,
        [machineAnnotations.group]: metadata.name,
        ...checks,
        ...given,
      },
      // Without the group nobody could enter the machine again.
      ...(metadata.uid === undefined
        ? {}
        : {
            ownerReferences: [{ apiVersion, kind, name: metadata.name, uid: metadata.uid, controller: true }],
          }),
    },
    spec: {
      ...template,
      address,
      labels,
      serviceAccount: machineAccount(group),
      ...(network === "" ? {} : { network }),
    },
  };
}

interface HealthReport {
  readonly group: string;
  readonly address: string;
  readonly network: string;
  readonly healthy: boolean;
  readonly message: string;
}

const messageLengthMax = 512;

/** Report { string group = 1; string address = 2; string network = 3; bool healthy = 4; string message = 5 } */
function decodeReport(bytes: Uint8Array): HealthReport {
  const report = { group: "", address: "", network: "", healthy: false, message: "" };
  try {
    const reader = protobuf.Reader.create(bytes);
    while (reader.pos < reader.len) {
      const tag = reader.uint32();
      if (tag === 0x0a) report.group = reader.string();
      else if (tag === 0x12) report.address = reader.string();
      else if (tag === 0x1a) report.network = reader.string();
      else if (tag === 0x20) report.healthy = reader.bool();
      else if (tag === 0x2a) report.message = reader.string().slice(0, messageLengthMax);
      else reader.skipType(tag & 7);
    }
  } catch (cause) {
    throw new GrpcError(grpcStatus.invalidArgument, `not a health report: ${String(cause)}`);
  }
  return report;
}
