// Volumes on the node's disk. A volume made of keys (ConfigMap, Secret, projected, downward API) is written as Kubernetes writes it:
// files in a timestamped directory, `..data` pointing to it, and every name pointing through `..data`; an update swaps `..data`
// alone, so that a reader sees all of the old or all of the new.

import {
  chmod,
  chown,
  lchown,
  mkdir,
  readdir,
  readFile,
  readlink,
  rename,
  rm,
  symlink,
  writeFile,
} from "node:fs/promises";
import { dirname, join } from "node:path";
import type { DownwardItem, KeyPath, Pod, PodSpec, Volume } from "../types.ts";
import { decodeData, MissingReference, readField, type DataReader, type PodFacts } from "./env.ts";

/** One file of a volume; `path` is relative and stays inside. */
export interface VolumeFile {
  readonly path: string;
  readonly content: Buffer;
  readonly mode: number;
}

export interface TokenFile {
  readonly path: string;
  readonly audience: string;
  readonly expirationSeconds: number;
}

export interface VolumeContent {
  readonly files: readonly VolumeFile[];
  /** Reads one token each time the volume is written. */
  readonly tokens: readonly TokenFile[];
}

const fileModeDefault = 0o644;
const tokenSecondsDefault = 3_600;

/** True where the volume's content comes from the API and has to be followed. */
export function isKeyed(volume: Volume): boolean {
  return (
    volume.configMap !== undefined ||
    volume.secret !== undefined ||
    volume.projected !== undefined ||
    volume.downwardAPI !== undefined
  );
}

/** What stands in a keyed volume. Throws MissingReference for an object or key that is not there and not optional. */
export function contentOf(pod: Pod, volume: Volume, facts: PodFacts, data: DataReader): VolumeContent {
  const namespace = pod.metadata.namespace ?? "";
  if (volume.configMap !== undefined) {
    const { name, items, optional, defaultMode } = volume.configMap;
    return {
      files: keyedFiles("configMap", namespace, { name, items, optional }, defaultMode, data),
      tokens: [],
    };
  }
  if (volume.secret !== undefined) {
    const { secretName, items, optional, defaultMode } = volume.secret;
    return {
      files: keyedFiles("secret", namespace, { name: secretName, items, optional }, defaultMode, data),
      tokens: [],
    };
  }
  if (volume.downwardAPI !== undefined) {
    return {
      files: downwardFiles(pod, volume.downwardAPI.items, volume.downwardAPI.defaultMode, facts),
      tokens: [],
    };
  }
  const mode = volume.projected?.defaultMode;
  const files: VolumeFile[] = [];
  const tokens: TokenFile[] = [];
  for (const source of volume.projected?.sources ?? []) {
    if (source.configMap !== undefined)
      files.push(...keyedFiles("configMap", namespace, source.configMap, mode, data));
    if (source.secret !== undefined)
      files.push(...keyedFiles("secret", namespace, source.secret, mode, data));
    if (source.downwardAPI !== undefined)
      files.push(...downwardFiles(pod, source.downwardAPI.items, mode, facts));
    const token = source.serviceAccountToken;
    if (token !== undefined) {
      const expirationSeconds = token.expirationSeconds ?? tokenSecondsDefault;
      tokens.push({ path: token.path, audience: token.audience ?? "", expirationSeconds });
    }
  }
  return { files, tokens };
}

interface KeyedSource {
  readonly name: string;
  readonly items?: readonly KeyPath[];
  readonly optional?: boolean;
}

function keyedFiles(
  kind: "configMap" | "secret",
  namespace: string,
  source: KeyedSource,
  defaultMode: number | undefined,
  data: DataReader,
): VolumeFile[] {
  const values = decodeData(kind, namespace, source.name, data);
  const what = `${kind.toLowerCase()} "${source.name}"`;
  if (values === undefined) {
    if (source.optional === true) return [];
    throw new MissingReference(`${what} not found`);
  }
  const mode = defaultMode ?? fileModeDefault;
  if (source.items === undefined) return [...values].map(([path, content]) => ({ path, content, mode }));
  return source.items.flatMap((item) => {
    const content = values.get(item.key);
    if (content !== undefined) return [{ path: item.path, content, mode: item.mode ?? mode }];
    if (source.optional === true) return [];
    throw new MissingReference(`${what} has no key "${item.key}"`);
  });
}

function downwardFiles(
  pod: Pod,
  items: readonly DownwardItem[] | undefined,
  defaultMode: number | undefined,
  facts: PodFacts,
): VolumeFile[] {
  return (items ?? []).map((item) => ({
    path: item.path,
    content: Buffer.from(readField(pod, item, facts)),
    mode: item.mode ?? defaultMode ?? fileModeDefault,
  }));
}

/**
 * A token's file mode and owner: readable by its group where the Pod has an fsGroup, by its one user where all containers run as
 * the same, by everyone otherwise (Kubernetes' own rule).
 */
export function tokenOwnership(spec: PodSpec): { mode: number; uid: number } {
  if (spec.securityContext?.fsGroup !== undefined) return { mode: 0o640, uid: 0 };
  const all = [...spec.containers, ...(spec.initContainers ?? [])];
  const users = new Set(
    all.map((container) => container.securityContext?.runAsUser ?? spec.securityContext?.runAsUser),
  );
  const [only] = users;
  return users.size === 1 && only !== undefined ? { mode: 0o600, uid: only } : { mode: 0o644, uid: 0 };
}

/** Makes an emptyDir: writable by everyone, and by the Pod's group as that group. */
export async function makeEmptyDir(directory: string, fsGroup: number | undefined): Promise<void> {
  await mkdir(directory, { recursive: true });
  if (fsGroup !== undefined) await chown(directory, 0, fsGroup);
  await chmod(directory, fsGroup === undefined ? 0o777 : 0o2777);
}

/**
 * Writes a keyed volume's files, or swaps them; returns false when all is as it was. `owners` gives files an owner other than root.
 * A crash in between leaves a directory that nothing points to; the next write removes it.
 */
export async function writeKeyedVolume(
  directory: string,
  files: readonly VolumeFile[],
  options: { fsGroup?: number; owners?: ReadonlyMap<string, number> },
): Promise<boolean> {
  await mkdir(directory, { recursive: true, mode: 0o755 });
  const current = await readlink(join(directory, "..data")).catch(() => undefined);
  if (current !== undefined && (await sameFiles(join(directory, current), files))) return false;
  const stamp = `..${new Date().toISOString().replace(/[-:T]/g, "_")}.${Math.random().toString(36).slice(2, 8)}`;
  await mkdir(join(directory, stamp), { mode: 0o755 });
  for (const file of files) {
    const path = join(directory, stamp, file.path);
    if (!path.startsWith(`${join(directory, stamp)}/`))
      throw new Error(`a volume's file leaves the volume: ${file.path}`);
    await mkdir(dirname(path), { recursive: true, mode: 0o755 });
    await writeFile(path, file.content);
    const grouped = options.fsGroup !== undefined;
    await chmod(path, grouped ? file.mode | 0o440 : file.mode);
    await chown(path, options.owners?.get(file.path) ?? 0, options.fsGroup ?? 0);
  }
  await symlink(stamp, join(directory, "..data_tmp"));
  if (options.fsGroup !== undefined) await lchown(join(directory, "..data_tmp"), 0, options.fsGroup);
  await rename(join(directory, "..data_tmp"), join(directory, "..data"));
  await linkNames(directory, files);
  for (const name of await readdir(directory)) {
    if (name.startsWith("..") && name !== "..data" && name !== stamp)
      await rm(join(directory, name), { recursive: true, force: true });
  }
  return true;
}

async function sameFiles(directory: string, files: readonly VolumeFile[]): Promise<boolean> {
  const found = await readdir(directory, { recursive: true, withFileTypes: true });
  if (found.filter((entry) => entry.isFile()).length !== new Set(files.map((file) => file.path)).size)
    return false;
  for (const file of files) {
    const content = await readFile(join(directory, file.path)).catch(() => undefined);
    if (content === undefined || !content.equals(file.content)) return false;
  }
  return true;
}

/** The visible names: one link for each first path element, none for what is gone. */
async function linkNames(directory: string, files: readonly VolumeFile[]): Promise<void> {
  const wanted = new Set(files.map((file) => file.path.split("/")[0] ?? ""));
  for (const name of await readdir(directory)) {
    if (name.startsWith("..")) continue;
    if (wanted.has(name)) wanted.delete(name);
    else await rm(join(directory, name), { force: true });
  }
  for (const name of wanted) await symlink(join("..data", name), join(directory, name));
}
