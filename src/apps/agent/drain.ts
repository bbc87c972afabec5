// The way out: on SIGTERM Envoy takes no new connections and lets open ones end. Peers hear only a little later that this
// endpoint is gone, so draining never ends at once, even when everything is quiet.

import type { Clock, Logger } from "#base";
import type { EnvoyAdmin } from "./admin.ts";
import type { AgentConfig } from "./config.ts";

export interface DrainOptions {
  readonly clock: Clock;
  readonly log: Logger;
  readonly admin: Pick<EnvoyAdmin, "ask" | "activity">;
  readonly config: Pick<
    AgentConfig,
    "role" | "minimumDrainMs" | "terminationDrainMs" | "exitOnZeroActiveConnections"
  >;
}

const pollMs = 100;

/**
 * Resolves when Envoy may end: all connections gone after the least time, or the drain time over. With
 * EXIT_ON_ZERO_ACTIVE_CONNECTIONS there is no limit but Kubernetes' own grace period.
 */
export async function drain(options: DrainOptions): Promise<void> {
  const { clock, log, admin, config } = options;
  const startedMs = clock.monotonicMs();
  // A sidecar's application still needs the way out while it shuts down, so only its inbound side is drained.
  const inboundOnly = config.role === "sidecar" ? "&inboundonly" : "";
  const told = await ask(options, `/drain_listeners?graceful&skip_exit${inboundOnly}`);
  // Without Envoy there is nothing to wait for.
  if (!told) return;
  // Keep-alive connections are told to close after their current request.
  await ask(options, "/healthcheck/fail");
  const endMs = config.exitOnZeroActiveConnections ? Infinity : config.terminationDrainMs;
  const leastMs = Math.min(config.minimumDrainMs, endMs);
  for (;;) {
    const spentMs = clock.monotonicMs() - startedMs;
    if (spentMs >= endMs) break;
    const open =
      spentMs < leastMs ? undefined : await admin.activity().catch(() => ({ requests: 0, connections: 0 }));
    if (open !== undefined && open.connections === 0 && open.requests === 0) break;
    await new Promise<void>((resolve) => void clock.after(pollMs, resolve));
  }
  log.info({ tookMs: Math.round(clock.monotonicMs() - startedMs) }, "drained");
}

/** False when nobody is there to be asked. */
async function ask({ admin, log }: DrainOptions, path: string): Promise<boolean> {
  try {
    const { status } = await admin.ask(path, "POST");
    if (status !== 200) log.warn({ path, status }, "Envoy would not drain");
    return true;
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    log.warn({ path, reason }, "Envoy could not be told to drain");
    return false;
  }
}
