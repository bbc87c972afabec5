// Waiting for what was applied to be so, with the reason when it is not in time.

import { get } from "node:http";
import { NotSoError } from "./command.ts";
import type { KubeClient, KubeObjectLike } from "./kube.ts";

const pollMs = 100;

/** Polls until `look` returns undefined; what it returns else is what is being waited for. Rejects with NotSoError at the deadline. */
export async function waitUntil(
  what: string,
  timeoutMs: number,
  look: () => Promise<string | undefined>,
  say: (detail: string) => void = () => {},
): Promise<void> {
  const endMs = performance.now() + timeoutMs;
  for (;;) {
    const missing = await look();
    if (missing === undefined) return;
    say(missing);
    if (performance.now() > endMs)
      throw new NotSoError(
        `${what} took longer than ${Math.round(timeoutMs / 1_000)} s; still waiting for ${missing}`,
      );
    await new Promise((resolve) => setTimeout(resolve, pollMs));
  }
}

interface DeploymentStatus {
  readonly observedGeneration?: number;
  readonly availableReplicas?: number;
  readonly updatedReplicas?: number;
}

/** Waits until every Deployment of the namespace, or only those named, has all its replicas available. */
export async function waitForDeployments(
  kube: KubeClient,
  namespace: string,
  options: {
    readonly names?: readonly string[];
    readonly timeoutMs: number;
    readonly say?: (detail: string) => void;
  },
): Promise<void> {
  const look = async (): Promise<string | undefined> => {
    const all = await kube.list(`/apis/apps/v1/namespaces/${namespace}/deployments`);
    const wanted =
      options.names === undefined
        ? all
        : all.filter(({ metadata }) => options.names?.includes(metadata.name));
    const absent = options.names?.filter((name) => !all.some(({ metadata }) => metadata.name === name)) ?? [];
    const waiting = [
      ...absent,
      ...wanted.filter((deployment) => !isAvailable(deployment)).map(({ metadata }) => metadata.name),
    ];
    if (waiting.length === 0) return undefined;
    return `${waiting.length} of ${wanted.length + absent.length}: ${waiting.slice(0, 3).join(", ")}${waiting.length > 3 ? ", ..." : ""}`;
  };
  try {
    await waitUntil(`starting the deployments of ${namespace}`, options.timeoutMs, look, options.say);
  } catch (cause) {
    const reasons = await explainPods(kube, namespace).catch(() => []);
    if (!(cause instanceof NotSoError) || reasons.length === 0) throw cause;
    throw new NotSoError(`${cause.message}\n  ${reasons.join("\n  ")}`, { cause });
  }
}

function isAvailable(deployment: KubeObjectLike): boolean {
  const wanted = (deployment["spec"] as { replicas?: number } | undefined)?.replicas ?? 1;
  const status = (deployment["status"] as DeploymentStatus | undefined) ?? {};
  const isSeen = (status.observedGeneration ?? 0) >= (deployment.metadata.generation ?? 0);
  return isSeen && (status.availableReplicas ?? 0) >= wanted && (status.updatedReplicas ?? 0) >= wanted;
}

interface PodStatus {
  readonly phase?: string;
  readonly initContainerStatuses?: readonly ContainerStatus[];
  readonly containerStatuses?: readonly ContainerStatus[];
}

interface ContainerStatus {
  readonly name: string;
  readonly ready?: boolean;
  readonly restartCount?: number;
  readonly state?: {
    readonly waiting?: { readonly reason?: string; readonly message?: string };
    readonly terminated?: { readonly exitCode?: number };
  };
}

/** What each pod that is not ready says about itself. */
async function explainPods(kube: KubeClient, namespace: string): Promise<string[]> {
  const pods = await kube.list(`/api/v1/namespaces/${namespace}/pods`);
  return pods.flatMap((pod) => {
    const status = (pod["status"] as PodStatus | undefined) ?? {};
    const containers = [...(status.initContainerStatuses ?? []), ...(status.containerStatuses ?? [])];
    return containers.flatMap(({ name, state, restartCount }) => {
      const waiting = state?.waiting;
      if (waiting === undefined || waiting.reason === "PodInitializing") return [];
      const message = waiting.message === undefined ? "" : `: ${waiting.message}`;
      return [
        `pod ${pod.metadata.name}, container ${name}: ${waiting.reason ?? "waiting"}${message} (restarts: ${restartCount ?? 0}); see kubectl logs -n ${namespace} ${pod.metadata.name} -c ${name}`,
      ];
    });
  });
}

/** Asks a URL of this machine until it answers 200. */
export function waitForAnswer(
  url: string,
  { timeoutMs, anyStatus }: { readonly timeoutMs: number; readonly anyStatus: boolean },
  say: (detail: string) => void,
): Promise<void> {
  return waitUntil(`the first answer of ${url}`, timeoutMs, () => askOnce(url, anyStatus), say);
}

function askOnce(url: string, anyStatus: boolean): Promise<string | undefined> {
  return new Promise((resolve) => {
    const outgoing = get(url, { agent: false, timeout: 5_000 }, (response) => {
      response.resume();
      response.on("end", () =>
        resolve(
          anyStatus || response.statusCode === 200
            ? undefined
            : `an answer with 200 (${response.statusCode} so far)`,
        ),
      );
      response.on("error", () => resolve("an answer"));
    });
    outgoing.on("timeout", () => outgoing.destroy());
    outgoing.on("error", (error: NodeJS.ErrnoException) =>
      resolve(`an answer (${error.code ?? error.message} so far)`),
    );
  });
}
