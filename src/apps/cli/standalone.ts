// The standalone cluster as the commands see it: this file alone knows the names that the room `cluster` gives it.

import { clusterStatus, launchCluster, teardownCluster } from "#cluster";
import { NotSoError } from "./command.ts";

export interface StandaloneOptions {
  readonly name: string;
  readonly home?: string;
  readonly httpPort: number;
  readonly httpsPort: number;
  readonly apiPort: number;
  readonly imagesFile?: string;
}

export interface RunningStandalone {
  readonly kubeconfig: string;
  readonly log: string;
  /** Resolves when the cluster's process ended without being asked to. */
  readonly failed: Promise<void>;
  stop(): Promise<void>;
}

/** Resolves when the API answers. Rejects with NotSoError, one sentence and its remedy, and then leaves nothing behind. */
export async function launchStandalone(options: StandaloneOptions): Promise<RunningStandalone> {
  const { name, home, httpPort, httpsPort, apiPort, imagesFile } = options;
  const service = "sm-gateways/istio-ingressgateway";
  const publish = [
    { service, port: 80, hostPort: httpPort, flag: "--port" },
    { service, port: 443, hostPort: httpsPort, flag: "--https-port" },
  ];
  const running = await asNotSo(
    launchCluster({ name, home, apiPort, publish, imagesFile, needsEnvoy: true }),
  );
  const failed = new Promise<void>((resolve) => {
    void running.exited.then(({ expected }) => {
      if (!expected) resolve();
    });
  });
  return {
    kubeconfig: running.kubeconfigPath,
    log: running.layout.clusterLog,
    failed,
    stop: () => running.stop(),
  };
}

/** False when there was nothing to end. */
export function teardownStandalone(name: string, home: string | undefined): Promise<boolean> {
  return asNotSo(teardownCluster(name, { home }));
}

export async function isStandaloneRunning(name: string, home: string | undefined): Promise<boolean> {
  return (await clusterStatus(name, { home })).kind === "running";
}

async function asNotSo<T>(work: Promise<T>): Promise<T> {
  try {
    return await work;
  } catch (cause) {
    throw new NotSoError(cause instanceof Error ? cause.message : String(cause), { cause });
  }
}
