// `mizzen status`: whether the mesh runs, and which of its pods are not well.

import { openAccess } from "../access.ts";
import { clusterFlags, type Command, NotSoError, textFlag } from "../command.ts";
import type { KubeObjectLike } from "../kube.ts";
import { renderDuration, renderTable } from "../table.ts";

export const status: Command = {
  name: "status",
  summary: "whether the mesh runs, and how its pods are",
  flags: [
    ...clusterFlags,
    { syntax: "-o, --output <format>", help: "table or json", default: "table", choices: ["table", "json"] },
  ],
  examples: [{ line: "mizzen status", does: "the pods of the mesh; exit code 1 unless all are ready" }],
  async run(invocation) {
    const { flags, io } = invocation;
    const access = await openAccess(invocation);
    const pods = (await access.kube.list("/api/v1/pods")).map(podRow);
    const unwell = pods.filter(({ ready }) => !ready);
    if (textFlag(flags, "output") === "json")
      io.out(JSON.stringify({ server: access.kube.server, pods }, undefined, 2));
    else {
      const rows = pods.map(({ namespace, name, containers, state, restarts, ageMs }) => [
        namespace,
        name,
        containers,
        state,
        String(restarts),
        renderDuration(ageMs),
      ]);
      io.out(
        `Kubernetes API at ${access.kube.server}\n\n${renderTable(["NAMESPACE", "POD", "READY", "STATUS", "RESTARTS", "AGE"], rows)}`,
      );
    }
    if (pods.length === 0) throw new NotSoError("no pod runs");
    if (unwell.length > 0)
      throw new NotSoError(
        `${unwell.length} of ${pods.length} pods are not ready: ${unwell.map(({ name }) => name).join(", ")}`,
      );
  },
};

interface ContainerStatus {
  readonly name: string;
  readonly ready?: boolean;
  readonly restartCount?: number;
  readonly state?: {
    readonly waiting?: { readonly reason?: string };
    readonly terminated?: { readonly reason?: string };
  };
}

function podRow(pod: KubeObjectLike) {
  const status = (pod["status"] ?? {}) as {
    phase?: string;
    containerStatuses?: ContainerStatus[];
    initContainerStatuses?: ContainerStatus[];
  };
  const inits =
    (pod["spec"] as { initContainers?: { name: string; restartPolicy?: string }[] } | undefined)
      ?.initContainers ?? [];
  const sidecars = new Set(
    inits.filter(({ restartPolicy }) => restartPolicy === "Always").map(({ name }) => name),
  );
  const running = [
    ...(status.initContainerStatuses ?? []).filter(({ name }) => sidecars.has(name)),
    ...(status.containerStatuses ?? []),
  ];
  const readyCount = running.filter(({ ready }) => ready === true).length;
  const trouble = running
    .map(({ state }) => state?.waiting?.reason ?? state?.terminated?.reason)
    .find((reason) => reason !== undefined);
  const isDone = status.phase === "Succeeded";
  return {
    namespace: pod.metadata.namespace ?? "",
    name: pod.metadata.name,
    containers: `${readyCount}/${running.length}`,
    state:
      pod.metadata.deletionTimestamp === undefined ? (trouble ?? status.phase ?? "Unknown") : "Terminating",
    restarts: running.reduce((sum, { restartCount = 0 }) => sum + restartCount, 0),
    ageMs: Date.now() - Date.parse(pod.metadata.creationTimestamp ?? ""),
    ready: isDone || (running.length > 0 && readyCount === running.length),
  };
}
