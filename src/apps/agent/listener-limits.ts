// ProxyConfig's listenerConnectionLimit at a router. Envoy limits a listener's connections by a runtime value that has the
// listener's name in it, and which listeners there are the control plane says to Envoy alone: so Envoy is asked, and told.

import type { Clock, Logger } from "#base";
import type { EnvoyAdmin } from "./admin.ts";
import { connectionLimitOf } from "./bootstrap.ts";

export interface ListenerLimitOptions {
  readonly clock: Clock;
  readonly log: Logger;
  readonly admin: Pick<EnvoyAdmin, "ask">;
  readonly limit: number;
  /** How often Envoy was started again: a new one knows nothing of what the old one was told. */
  readonly restarts: () => number;
}

/** A listener is without its limit for as long at most. */
const lookMs = 1_000;
/** The agent's own, which stay open for health and metrics. */
const ownListeners: ReadonlySet<string> = new Set(["envoy_prometheus", "envoy_ready"]);

export class ListenerLimits {
  readonly #options: ListenerLimitOptions;
  readonly #limited = new Set<string>();
  #restarts = 0;
  #complained = false;
  #cancel: () => void = () => {};

  constructor(options: ListenerLimitOptions) {
    this.#options = options;
  }

  start(): void {
    this.#cancel = this.#options.clock.after(lookMs, () => void this.look().then(() => this.start()));
  }

  stop(): void {
    this.#cancel();
  }

  /** Never throws: an Envoy that does not answer is asked again. */
  async look(): Promise<void> {
    const { admin, limit, log, restarts } = this.#options;
    if (this.#restarts !== restarts()) {
      this.#restarts = restarts();
      this.#limited.clear();
    }
    try {
      const { body } = await admin.ask("/listeners?format=json");
      const unlimited = namesIn(body).filter((name) => !ownListeners.has(name) && !this.#limited.has(name));
      if (unlimited.length === 0) return;
      const values = unlimited.map((name) => `${encodeURIComponent(connectionLimitOf(name))}=${limit}`);
      const { status } = await admin.ask(`/runtime_modify?${values.join("&")}`, "POST");
      if (status !== 200) throw new Error(`status ${status}`);
      for (const name of unlimited) this.#limited.add(name);
      this.#complained = false;
    } catch (error) {
      // While Envoy starts it does not answer yet: once is enough to be told.
      if (!this.#complained) log.info({ reason: String(error) }, "listeners cannot be limited yet");
      this.#complained = true;
    }
  }
}

function namesIn(body: string): readonly string[] {
  const { listener_statuses: listeners = [] } = JSON.parse(body) as {
    readonly listener_statuses?: readonly { readonly name?: string }[];
  };
  return listeners.flatMap(({ name }) => name ?? []);
}
