// Envoy as a child: started, started again when it dies, ended when asked to. Its output is the pod's output as it is.

import { spawn, type ChildProcess } from "node:child_process";
import { traceEnvironment, type Clock, type Logger } from "#base";
import { durationMs, type AgentConfig } from "./config.ts";
import { nodeIdOf } from "./bootstrap.ts";

export interface SupervisorOptions {
  readonly clock: Clock;
  readonly log: Logger;
  readonly command: string;
  readonly args: readonly string[];
  /** On top of the agent's own environment. */
  readonly env: Readonly<Record<string, string>>;
  /** Envoy died too often to be worth another try; the agent ends with this code and Kubernetes shows why. */
  readonly onGiveUp: (exitCode: number) => void;
}

const restartFirstMs = 100;
const restartMaxMs = 1_500;
/** An Envoy that lived this long was well; its next death starts the count anew. */
const wellAfterMs = 10_000;
/** Deaths in a row, each soon after the start, after which the configuration or the binary must be at fault. */
const deathsMax = 8;
/** An Envoy that does not end by SIGTERM in this time is killed. */
const killAfterMs = 3_000;

export class EnvoySupervisor {
  /** How often Envoy was started again. */
  restarts = 0;
  readonly #options: SupervisorOptions;
  #child: ChildProcess | undefined;
  #startedMs = 0;
  #deaths = 0;
  #stopping = false;
  #ended: (() => void) | undefined;
  #cancelRestart: () => void = () => {};

  constructor(options: SupervisorOptions) {
    this.#options = options;
  }

  get pid(): number | undefined {
    return this.#child?.pid;
  }

  start(): void {
    const { clock, command, args, env } = this.#options;
    this.#startedMs = clock.monotonicMs();
    const child = spawn(command, args, {
      stdio: ["ignore", "inherit", "inherit"],
      env: { ...process.env, ...env },
    });
    this.#child = child;
    child.on("error", (error) => this.#onDeath(`cannot be started: ${error.message}`, 126));
    child.on("exit", (code, signal) =>
      this.#onDeath(`ended with ${signal ?? `code ${code ?? 0}`}`, code ?? 1),
    );
  }

  /** Ends Envoy and resolves when it is gone. */
  async stop(): Promise<void> {
    this.#stopping = true;
    this.#cancelRestart();
    const child = this.#child;
    if (child === undefined || child.exitCode !== null || child.signalCode !== null) return;
    const ended = new Promise<void>((resolve) => (this.#ended = resolve));
    child.kill("SIGTERM");
    const cancel = this.#options.clock.after(killAfterMs, () => child.kill("SIGKILL"));
    await ended;
    cancel();
  }

  #onDeath(how: string, code: number): void {
    const { clock, log, onGiveUp } = this.#options;
    this.#child = undefined;
    if (this.#stopping) {
      this.#ended?.();
      return;
    }
    const livedMs = clock.monotonicMs() - this.#startedMs;
    this.#deaths = livedMs >= wellAfterMs ? 1 : this.#deaths + 1;
    if (this.#deaths > deathsMax) {
      log.error({ deaths: this.#deaths }, `Envoy ${how}; it is not started again`);
      onGiveUp(code === 0 ? 1 : code);
      return;
    }
    const waitMs = Math.min(restartFirstMs * 2 ** (this.#deaths - 1), restartMaxMs);
    log.error({ livedMs: Math.round(livedMs), restartMs: waitMs }, `Envoy ${how}`);
    this.#cancelRestart = clock.after(waitMs, () => {
      this.restarts += 1;
      this.start();
    });
  }
}

const logFormats = {
  text: "%Y-%m-%dT%T.%fZ\t%l\tenvoy %n %g:%#\t%v",
  json: '{"time":"%Y-%m-%dT%T.%fZ","level":"%l","scope":"envoy %n","msg":"%j"}',
} as const;

const logFlushMs = 1_000;

/** Envoy's command line; `bootstrapPath` is the rendered JSON, `override` YAML or JSON that Envoy merges over it. */
export function envoyArgs(config: AgentConfig, bootstrapPath: string, override = ""): string[] {
  const flushKb = config.proxyConfig.fileFlushMinSizeKb ?? 0;
  return [
    "-c",
    config.customConfigFile === "" ? bootstrapPath : config.customConfigFile,
    "--disable-hot-restart",
    "--drain-time-s",
    String(config.drainSeconds),
    "--drain-strategy",
    "immediate",
    "--service-cluster",
    config.serviceCluster,
    "--service-node",
    nodeIdOf(config),
    "--local-address-ip-version",
    (config.instanceIps[0] ?? "").includes(":") ? "v6" : "v4",
    "--log-level",
    config.logLevel,
    "--component-log-level",
    config.componentLogLevel,
    // Access logs are seen soon; Envoy by itself keeps lines for up to 10 s.
    "--file-flush-interval-msec",
    String(Math.max(1, Math.round(durationMs(config.proxyConfig.fileFlushInterval, logFlushMs)))),
    ...(flushKb > 0 ? ["--file-flush-min-size-kb", String(flushKb)] : []),
    "--log-format",
    config.logAsJson ? logFormats.json : logFormats.text,
    ...(override === "" ? [] : ["--config-yaml", override]),
    // 0 means a thread for each processor, which is what Envoy does by itself.
    ...(config.concurrency > 0 ? ["--concurrency", String(config.concurrency)] : []),
  ];
}

/**
 * The service's name by OpenTelemetry's conventions for Kubernetes. Who gives a namespace of the service beside wants it so, since Istio's
 * names hold the namespace themselves; injection gives it where MeshConfig asks for these conventions.
 */
function conventionalName({ annotations, labels, facts, podName }: AgentConfig): string {
  return (
    [
      annotations["resource.opentelemetry.io/service.name"],
      labels["app.kubernetes.io/instance"],
      labels["app.kubernetes.io/name"],
      facts.workload,
      podName,
    ].find((name) => name !== undefined && name !== "") ?? "unknown_service"
  );
}

/** What Envoy says of its workload in spans. Attributes that the Pod's owner sets go before the mesh's. */
export function envoyEnvironment(config: AgentConfig, given = ""): Readonly<Record<string, string>> {
  const { facts, clusterId, metadata, namespace, podName } = config;
  const isConventional = /(^|,)service\.namespace=/.test(given);
  const { tags, resource, datadogService } = traceEnvironment;
  const own = [
    ["service.name", isConventional ? conventionalName(config) : config.serviceCluster],
    ["k8s.namespace.name", namespace],
    ["k8s.pod.name", podName],
  ].map(([name, value]) => `${name}=${encodeURIComponent(value ?? "")}`);
  return {
    [tags["istio.canonical_revision"]]: facts.canonicalRevision,
    [tags["istio.canonical_service"]]: facts.canonicalService,
    [tags["istio.cluster_id"]]: clusterId,
    [tags["istio.mesh_id"]]: String(metadata["MESH_ID"] ?? ""),
    [tags["istio.namespace"]]: namespace,
    [datadogService]: config.serviceCluster,
    [resource]: given === "" ? own.join(",") : `${own.join(",")},${given}`,
  };
}
