// Objects from files: read, and applied to a cluster in an order that works.

import { existsSync, readdirSync, readFileSync, statSync } from "node:fs";
import { extname, join, relative } from "node:path";
import { renderProblem } from "#base";
import { parseManifest, renderPosition } from "#objects";
import { NotSoError } from "./command.ts";
import { ApiError, type KubeClient, type KubeObjectLike } from "./kube.ts";

/** Files with objects under a path: itself, or every .yaml, .yml and .json in a folder and its folders, but for kustomizations. */
export function manifestFiles(path: string): string[] {
  let isFolder: boolean;
  try {
    isFolder = statSync(path).isDirectory();
  } catch (cause) {
    throw new NotSoError(`there is no file or folder ${path}`, { cause });
  }
  if (!isFolder) return [path];
  return readdirSync(path, { recursive: true, encoding: "utf8" })
    .filter(
      (name) =>
        [".yaml", ".yml", ".json"].includes(extname(name)) && !/(^|\/)kustomization\.ya?ml$/.test(name),
    )
    .toSorted()
    .map((name) => join(path, name));
}

/**
 * The objects of Mizzen's own `deploy/<path>`, a file or folder. The build leaves them parsed beside the programs; a file that was changed
 * since is read anew.
 */
export function ownManifests(root: string, path: string): KubeObjectLike[] {
  const parsed = parsedByBuild(root);
  return manifestFiles(join(root, "deploy", path)).flatMap((file) => {
    const known = parsed[relative(root, file)];
    return known !== undefined && known.mtimeMs === statSync(file).mtimeMs
      ? known.objects
      : readManifest(file);
  });
}

function parsedByBuild(root: string): Record<string, { mtimeMs: number; objects: KubeObjectLike[] }> {
  const file = join(root, "dist/deploy.json");
  return existsSync(file) ? (JSON.parse(readFileSync(file, "utf8")) as ReturnType<typeof parsedByBuild>) : {};
}

/** Throws NotSoError with file, line and column when a document is no YAML or no object. */
export function readManifest(file: string): KubeObjectLike[] {
  const { documents, problems } = parseManifest(readFileSync(file, "utf8"), file);
  const [problem] = problems;
  if (problem !== undefined) throw new NotSoError(`${renderPosition(problem)}: ${renderProblem(problem)}`);
  return documents.map(({ object }) => object as KubeObjectLike);
}

/** What others need comes first. */
const order = [
  "Namespace",
  "CustomResourceDefinition",
  "ServiceAccount",
  "ClusterRole",
  "ClusterRoleBinding",
  "Role",
  "RoleBinding",
  "ConfigMap",
  "Secret",
  "Service",
];
const lastApplied = "kubectl.kubernetes.io/last-applied-configuration";
const parallelMax = 8;
const retryMs = 100;
const retriesMax = 50;

/** Applies all, several at a time within each rank. A kind whose definition is still being established is waited for, up to 5 s. */
export async function applyAll(kube: KubeClient, objects: readonly KubeObjectLike[]): Promise<void> {
  const rank = (object: KubeObjectLike) => {
    const index = order.indexOf(object.kind);
    return index === -1 ? order.length : index;
  };
  for (const current of [...new Set(objects.map(rank))].toSorted((a, b) => a - b)) {
    const queue = objects.filter((object) => rank(object) === current);
    const workers = Array.from({ length: Math.min(parallelMax, queue.length) }, async () => {
      for (let object = queue.shift(); object !== undefined; object = queue.shift())
        await applyOne(kube, object);
    });
    await Promise.all(workers);
  }
}

async function applyOne(kube: KubeClient, object: KubeObjectLike): Promise<void> {
  for (let attempt = 0; ; attempt += 1) {
    try {
      await kube.apply(object.kind === "CustomResourceDefinition" ? object : withLastApplied(object));
      return;
    } catch (cause) {
      const isPassing =
        cause instanceof NotSoError ||
        (cause instanceof ApiError && [404, 409, 429, 500, 503].includes(cause.status));
      if (!isPassing || attempt >= retriesMax) {
        const { kind, metadata } = object;
        const where =
          metadata.namespace === undefined ? metadata.name : `${metadata.namespace}/${metadata.name}`;
        throw new NotSoError(
          `${kind} ${where} cannot be applied: ${cause instanceof Error ? cause.message : String(cause)}`,
          { cause },
        );
      }
      kube.forgetKinds();
      await new Promise((resolve) => setTimeout(resolve, retryMs));
    }
  }
}

/** What `kubectl apply` compares with: without it, applying one's own version over ours draws a warning for each object. */
function withLastApplied(object: KubeObjectLike): KubeObjectLike {
  const annotations = { ...object.metadata.annotations, [lastApplied]: `${JSON.stringify(object)}\n` };
  return { ...object, metadata: { ...object.metadata, annotations } };
}
