// Leader election by a Lease: of several replicas one does what only one may do. A leader that cannot renew stops
// leading before another may begin.

import type { Clock, Logger } from "#base";
import type { KubeClient } from "./client.ts";
import { KubeError } from "./kube-error.ts";

export interface LeaderOptions {
  readonly client: KubeClient;
  readonly namespace: string;
  readonly name: string;
  /** Who we are: the pod's name. */
  readonly identity: string;
  readonly clock: Clock;
  readonly random: () => number;
  readonly log: Logger;
  readonly changed: (leading: boolean) => void;
}

const leaseSeconds = 15;
const renewMs = 5_000;
/** A leader that could not renew for so long stops leading, a while before others may take over. */
const giveUpMs = 10_000;

interface Lease {
  readonly metadata: { readonly resourceVersion?: string };
  readonly spec?: {
    readonly holderIdentity?: string;
    readonly leaseDurationSeconds?: number;
    readonly acquireTime?: string;
    readonly renewTime?: string;
    readonly leaseTransitions?: number;
  };
}

export class LeaderElection {
  readonly #options: LeaderOptions;
  #leading = false;
  #renewedAtMs = 0;
  #stopped = false;
  #cancel: (() => void) | undefined;
  /** The lease as last seen and when, by our own clock: clocks of replicas differ. */
  #seen: { version: string; atMs: number } | undefined;

  constructor(options: LeaderOptions) {
    this.#options = options;
  }

  get leading(): boolean {
    return this.#leading;
  }

  start(): void {
    void this.#round();
  }

  /** Stops, and lets go of the lease so that another need not wait. */
  async stop(): Promise<void> {
    this.#stopped = true;
    this.#cancel?.();
    if (!this.#leading) return;
    this.#setLeading(false);
    const { client } = this.#options;
    const body = { spec: { holderIdentity: "", leaseDurationSeconds: 1 } };
    await client.request(this.#path(), { method: "PATCH", patch: "merge", body }).catch(() => undefined);
  }

  async #round(): Promise<void> {
    const { clock, random, log } = this.#options;
    try {
      const won = await this.#tryAcquire();
      if (won) this.#renewedAtMs = clock.monotonicMs();
      this.#setLeading(won);
    } catch (error) {
      if (this.#leading && clock.monotonicMs() - this.#renewedAtMs > giveUpMs) {
        log.warn({ error: String(error) }, "the lease cannot be renewed; leading no longer");
        this.#setLeading(false);
      }
    }
    if (this.#stopped) return;
    this.#cancel = clock.after(renewMs * (0.8 + 0.4 * random()), () => void this.#round());
  }

  async #tryAcquire(): Promise<boolean> {
    const { client, identity, clock } = this.#options;
    const now = new Date(clock.nowMs()).toISOString().replace("Z", "000Z");
    const lease = await this.#read();
    if (lease === undefined) return this.#create(now);
    const spec = lease.spec ?? {};
    const isOurs = spec.holderIdentity === identity;
    if (!isOurs && !this.#isExpired(lease)) return false;
    const body = {
      metadata: { resourceVersion: lease.metadata.resourceVersion },
      spec: {
        holderIdentity: identity,
        leaseDurationSeconds: leaseSeconds,
        renewTime: now,
        acquireTime: isOurs ? spec.acquireTime : now,
        leaseTransitions: (spec.leaseTransitions ?? 0) + (isOurs ? 0 : 1),
      },
    };
    return ignoreConflict(client.request(this.#path(), { method: "PATCH", patch: "merge", body }));
  }

  async #read(): Promise<Lease | undefined> {
    try {
      return await this.#options.client.get<Lease>(this.#path());
    } catch (error) {
      if (error instanceof KubeError && error.status === 404) return undefined;
      throw error;
    }
  }

  #create(now: string): Promise<boolean> {
    const { client, namespace, name, identity } = this.#options;
    const body = {
      apiVersion: "coordination.k8s.io/v1",
      kind: "Lease",
      metadata: { namespace, name },
      spec: {
        holderIdentity: identity,
        leaseDurationSeconds: leaseSeconds,
        acquireTime: now,
        renewTime: now,
        leaseTransitions: 0,
      },
    };
    return ignoreConflict(client.request(this.#collection(), { method: "POST", body }));
  }

  /** Expired is a lease that did not change for its duration, as seen from here. */
  #isExpired(lease: Lease): boolean {
    if ((lease.spec?.holderIdentity ?? "") === "") return true;
    const version = lease.metadata.resourceVersion ?? "";
    const nowMs = this.#options.clock.monotonicMs();
    if (this.#seen?.version !== version) this.#seen = { version, atMs: nowMs };
    return nowMs - this.#seen.atMs > (lease.spec?.leaseDurationSeconds ?? leaseSeconds) * 1000;
  }

  #setLeading(leading: boolean): void {
    if (leading === this.#leading) return;
    this.#leading = leading;
    this.#options.log.info({ lease: this.#options.name }, leading ? "leading" : "no longer leading");
    this.#options.changed(leading);
  }

  #collection(): string {
    return `/apis/coordination.k8s.io/v1/namespaces/${this.#options.namespace}/leases`;
  }

  #path(): string {
    return `${this.#collection()}/${this.#options.name}`;
  }
}

async function ignoreConflict(request: Promise<unknown>): Promise<boolean> {
  try {
    await request;
    return true;
  } catch (error) {
    if (error instanceof KubeError && error.status === 409) return false;
    throw error;
  }
}
