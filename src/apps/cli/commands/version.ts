// `mizzen version`: of this program, and of the control plane it can reach.

import { openAccess } from "../access.ts";
import { clusterFlags, type Command, textFlag } from "../command.ts";
import { packageVersion } from "../root.ts";

export const version: Command = {
  name: "version",
  summary: "the version of this program and of the control plane",
  flags: [
    ...clusterFlags,
    {
      syntax: "--remote <bool>",
      help: "whether to ask the cluster",
      default: "true",
      choices: ["true", "false"],
    },
    { syntax: "-o, --output <format>", help: "short or json", default: "short", choices: ["short", "json"] },
  ],
  examples: [{ line: "mizzen version --remote=false", does: "only this program's" }],
  async run(invocation) {
    const { flags, io } = invocation;
    const found: { client: string; controlPlane?: string[] } = { client: packageVersion() };
    if (textFlag(flags, "remote") !== "false")
      found.controlPlane = await remoteVersions(invocation).catch(() => []);
    if (textFlag(flags, "output") === "json") return io.out(JSON.stringify(found));
    io.out(`client version: ${found.client}`);
    if (found.controlPlane !== undefined)
      io.out(`control plane version: ${found.controlPlane.join(", ") || "none reached"}`);
  },
};

/** The tags of the images that istiod runs. */
async function remoteVersions(invocation: Parameters<Command["run"]>[0]): Promise<string[]> {
  const access = await openAccess(invocation);
  const pods = await access.kube.list(
    `/api/v1/namespaces/${access.istioNamespace}/pods?labelSelector=app%3Distiod`,
  );
  const images = pods.flatMap(
    (pod) => (pod["spec"] as { containers?: { image?: string }[] } | undefined)?.containers ?? [],
  );
  return [...new Set(images.map(({ image = "" }) => image.split(":")[1] ?? "unknown"))];
}
