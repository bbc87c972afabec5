// How a machine's workload is, told to the control plane: probed as its WorkloadGroup asks (Istio's thresholds), and healthy
// as soon as the proxy is ready where the group asks for nothing.

import { execFile } from "node:child_process";
import protobuf from "protobufjs/minimal.js";
import type { Clock, Logger } from "#base";
import { hostOf } from "./ca-client.ts";
import type { AppProbe, ReadinessProbe } from "./config.ts";
import { callUnary } from "./grpc.ts";
import { askApplication } from "./probes.ts";

export interface HealthOptions {
  readonly clock: Clock;
  readonly log: Logger;
  readonly probe: ReadinessProbe | undefined;
  /** Nothing is healthy before. */
  readonly proxyReady: () => Promise<boolean>;
  readonly report: (healthy: boolean, message: string) => Promise<void>;
}

const loopback = "127.0.0.1";
/** Kubernetes' and Istio's defaults. */
const defaults = { periodSeconds: 10, timeoutSeconds: 1, successThreshold: 1, failureThreshold: 3 } as const;
/** The proxy's readiness is looked at this often where the group has no probe. */
const readinessPeriodMs = 1_000;
/** What was said is said again, since the control plane may have lost it. */
const repeatMs = 30_000;
const leavingTimeoutMs = 2_000;

export class HealthReporter {
  readonly #options: HealthOptions;
  #successes = 0;
  #failures = 0;
  #said: { readonly healthy: boolean; readonly atMs: number } | undefined;
  #cancel = (): void => {};
  #stopped = false;

  constructor(options: HealthOptions) {
    this.#options = options;
  }

  start(): void {
    const { clock, probe } = this.#options;
    this.#cancel = clock.after((probe?.initialDelaySeconds ?? 0) * 1_000, () => void this.#round());
  }

  /** Says that the workload leaves, so that nobody is sent here any longer. Does not throw; waits a little at most. */
  async leave(): Promise<void> {
    this.#stopped = true;
    this.#cancel();
    const { clock, log, report } = this.#options;
    const waited = new Promise<void>((resolve) => void clock.after(leavingTimeoutMs, resolve));
    const said = report(false, "the machine leaves").catch((error: Error) =>
      log.warn({ reason: error.message }, "leaving could not be told"),
    );
    await Promise.race([said, waited]);
  }

  async #round(): Promise<void> {
    const { clock, probe, proxyReady } = this.#options;
    const failure = (await proxyReady()) ? await failureOf(probe) : "the proxy is not ready";
    if (this.#stopped) return;
    this.#successes = failure === undefined ? this.#successes + 1 : 0;
    this.#failures = failure === undefined ? 0 : this.#failures + 1;
    if (failure === undefined && this.#successes >= (probe?.successThreshold ?? defaults.successThreshold))
      await this.#say(true, "");
    // Before the first success nothing is known to be healthy, and the entry says so by itself.
    if (failure !== undefined && this.#failures >= (probe?.failureThreshold ?? defaults.failureThreshold))
      await this.#say(false, failure);
    if (this.#stopped) return;
    const periodMs =
      probe === undefined ? readinessPeriodMs : (probe.periodSeconds ?? defaults.periodSeconds) * 1_000;
    this.#cancel = clock.after(periodMs, () => void this.#round());
  }

  async #say(healthy: boolean, message: string): Promise<void> {
    const { clock, log, report } = this.#options;
    const nowMs = clock.monotonicMs();
    if (this.#said?.healthy === healthy && nowMs - this.#said.atMs < repeatMs) return;
    if (this.#said?.healthy !== healthy) log.info({ healthy, message }, "health of the workload");
    try {
      await report(healthy, message);
      this.#said = { healthy, atMs: nowMs };
    } catch (error) {
      log.warn(
        { reason: error instanceof Error ? error.message : String(error) },
        "health could not be told",
      );
    }
  }
}

/** Why the workload is not healthy; undefined when it is. */
async function failureOf(probe: ReadinessProbe | undefined): Promise<string | undefined> {
  if (probe === undefined) return undefined;
  const timeoutSeconds = probe.timeoutSeconds ?? defaults.timeoutSeconds;
  if (probe.exec !== undefined) return failureOfCommand(probe.exec.command, timeoutSeconds * 1_000);
  const { httpGet, tcpSocket, grpc } = probe;
  const host = httpGet?.host ?? tcpSocket?.host ?? "";
  const place = { host: host === "" ? loopback : host, localAddress: undefined };
  const asked: AppProbe = {
    timeoutSeconds,
    ...(httpGet === undefined ? {} : { httpGet }),
    ...(tcpSocket === undefined ? {} : { tcpSocket }),
    ...(grpc === undefined ? {} : { grpc: { port: grpc.port ?? 0, service: grpc.service } }),
  };
  const { status, body } = await askApplication(asked, place);
  return status >= 200 && status < 400 ? undefined : `the probe got ${status} ${body}`.trim();
}

function failureOfCommand(
  [file = "", ...args]: readonly string[],
  timeoutMs: number,
): Promise<string | undefined> {
  return new Promise((resolve) => {
    execFile(file, args, { timeout: timeoutMs }, (error) =>
      resolve(error === null ? undefined : `${file}: ${error.message.split("\n")[0]}`),
    );
  });
}

export interface HealthCall {
  /** `host:port` of the control plane. */
  readonly address: string;
  readonly rootPem: string;
  /** What proves who reports. */
  readonly certificate: { readonly chainPem: string; readonly keyPem: string };
  readonly group: string;
  readonly machine: string;
  readonly network: string;
  readonly healthy: boolean;
  readonly message: string;
}

const path = "/mizzen.v1.MachineHealth/Report";
const timeoutMs = 5_000;

/** Throws GrpcError, or an Error of what the network or TLS said. */
export async function sendHealth(call: HealthCall): Promise<void> {
  const message = protobuf.Writer.create();
  message.uint32(0x0a).string(call.group).uint32(0x12).string(call.machine);
  message.uint32(0x1a).string(call.network).uint32(0x20).bool(call.healthy).uint32(0x2a).string(call.message);
  const { chainPem, keyPem } = call.certificate;
  await callUnary({
    url: `https://${call.address}`,
    path,
    headers: {},
    message: message.finish(),
    timeoutMs,
    tls: { ca: call.rootPem, servername: hostOf(call.address), cert: chainPem, key: keyPem },
  });
}
