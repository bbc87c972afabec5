// What all containers of a Pod share: its directory, its network, its name files and its volumes.

import { existsSync } from "node:fs";
import { mkdir, realpath, rm, stat, writeFile } from "node:fs/promises";
import { join, relative } from "node:path";
import type { Container, Pod, Volume, VolumeMount } from "../types.ts";
import { clusterDomain, dataReader, factsOf, type NodeContext } from "./context.ts";
import { expand } from "./env.ts";
import { netnsDir } from "./names.ts";
import { addPodNetwork, removePodNetwork } from "./network.ts";
import type { OciMount } from "./oci.ts";
import { renderHosts, renderResolvConf } from "./resolv.ts";
import {
  contentOf,
  isKeyed,
  makeEmptyDir,
  tokenOwnership,
  writeKeyedVolume,
  type VolumeFile,
} from "./volumes.ts";

interface HeldToken {
  readonly token: string;
  readonly refreshAtMs: number;
}

export class Sandbox {
  readonly podIp: string;
  readonly netnsPath: string;
  readonly directory: string;
  readonly #context: NodeContext;
  readonly #uid: string;
  readonly #hostNetwork: boolean;
  #lastWrite: Promise<void> = Promise.resolve();
  readonly #tokens = new Map<string, HeldToken>();

  private constructor(context: NodeContext, pod: Pod, podIp: string, netns: string) {
    this.#context = context;
    this.#uid = pod.metadata.uid ?? "";
    this.#hostNetwork = pod.spec.hostNetwork === true;
    this.podIp = podIp;
    this.netnsPath = join(netnsDir, netns);
    this.directory = join(context.layout.podsDir, this.#uid);
  }

  /** Makes directory and network. When it throws, nothing is left. */
  static async create(context: NodeContext, pod: Pod): Promise<Sandbox> {
    const uid = pod.metadata.uid ?? "";
    const namespace = pod.metadata.namespace ?? "";
    if (pod.spec.hostNetwork === true) {
      const shared = new Sandbox(context, pod, context.plan.nodeIp, context.layout.nodeNetns);
      await shared.#writeNameFiles(pod, namespace);
      return shared;
    }
    const podIp = context.addresses.take();
    try {
      const netns = await addPodNetwork(context.layout, context.plan, uid, podIp);
      const sandbox = new Sandbox(context, pod, podIp, netns);
      await sandbox.#writeNameFiles(pod, namespace);
      return sandbox;
    } catch (error) {
      await removePodNetwork(context.layout, uid);
      context.addresses.giveBack(podIp);
      throw error;
    }
  }

  async #writeNameFiles(pod: Pod, namespace: string): Promise<void> {
    await mkdir(join(this.directory, "volumes"), { recursive: true, mode: 0o755 });
    const resolv = renderResolvConf(pod.spec, namespace, this.#context.plan.dnsIp, clusterDomain);
    const hosts = renderHosts(pod.spec, pod.metadata.name, namespace, this.podIp, clusterDomain);
    await Promise.all([
      writeFile(join(this.directory, "resolv.conf"), resolv),
      writeFile(join(this.directory, "hosts"), hosts),
    ]);
  }

  /** Writes every volume, or brings it up to date. Throws MissingReference while an object that one needs is not there. */
  writeVolumes(pod: Pod): Promise<void> {
    const turn = this.#lastWrite.then(() => this.#writeVolumes(pod));
    this.#lastWrite = turn.catch(() => {}); // the next writer does not fail for this one
    return turn;
  }

  async #writeVolumes(pod: Pod): Promise<void> {
    const fsGroup = pod.spec.securityContext?.fsGroup;
    for (const volume of pod.spec.volumes ?? []) {
      if (isKeyed(volume)) await this.#writeKeyed(pod, volume, fsGroup);
      else if (volume.hostPath !== undefined) this.#checkHostPath(volume.hostPath.path);
      else if (volume.emptyDir !== undefined) {
        const directory = this.#volumeDirectory(volume.name);
        if (!existsSync(directory)) await makeEmptyDir(directory, fsGroup);
      } else
        throw new Error(`volume "${volume.name}" is of a type that the standalone cluster does not have`);
    }
  }

  async #writeKeyed(pod: Pod, volume: Volume, fsGroup: number | undefined): Promise<void> {
    const content = contentOf(
      pod,
      volume,
      factsOf(this.#context, this.podIp),
      dataReader(this.#context.store),
    );
    const owners = new Map<string, number>();
    const files: VolumeFile[] = [...content.files];
    const { mode, uid } = tokenOwnership(pod.spec);
    for (const token of content.tokens) {
      const text = await this.#token(pod, token.audience, token.expirationSeconds);
      files.push({ path: token.path, content: Buffer.from(text), mode });
      owners.set(token.path, uid);
    }
    await writeKeyedVolume(this.#volumeDirectory(volume.name), files, { fsGroup, owners });
  }

  /** A token is asked for anew once four fifths of its life, or a day, have gone. */
  async #token(pod: Pod, audience: string, expirationSeconds: number): Promise<string> {
    const key = `${audience}|${expirationSeconds}`;
    const held = this.#tokens.get(key);
    const nowMs = Date.now();
    if (held !== undefined && nowMs < held.refreshAtMs) return held.token;
    const issued = await this.#context.store.issueToken({
      namespace: pod.metadata.namespace ?? "",
      serviceAccount: pod.spec.serviceAccountName ?? "default",
      audiences: audience === "" ? [] : [audience],
      expirationSeconds,
      pod: { name: pod.metadata.name, uid: this.#uid },
    });
    const lifeMs = issued.expiresAtMs - nowMs;
    this.#tokens.set(key, { token: issued.token, refreshAtMs: nowMs + Math.min(lifeMs * 0.8, 86_400_000) });
    return issued.token;
  }

  /** When the next token has to be asked for; undefined without tokens. */
  nextRefreshAtMs(): number | undefined {
    const times = [...this.#tokens.values()].map((held) => held.refreshAtMs);
    return times.length === 0 ? undefined : Math.min(...times);
  }

  /** A container's mounts: its name files and its volumes. */
  async mountsOf(pod: Pod, container: Container, env: Readonly<Record<string, string>>): Promise<OciMount[]> {
    const mounts: OciMount[] = [
      { destination: "/etc/resolv.conf", source: join(this.directory, "resolv.conf"), readOnly: false },
      { destination: "/etc/hosts", source: join(this.directory, "hosts"), readOnly: false },
    ];
    for (const mount of container.volumeMounts ?? []) mounts.push(await this.#volumeMount(pod, mount, env));
    return mounts;
  }

  async #volumeMount(pod: Pod, mount: VolumeMount, env: Readonly<Record<string, string>>): Promise<OciMount> {
    const volume = pod.spec.volumes?.find((one) => one.name === mount.name);
    if (volume === undefined) throw new Error(`volume "${mount.name}" is mounted but not declared`);
    const base = volume.hostPath?.path ?? this.#volumeDirectory(volume.name);
    const subPath = mount.subPathExpr === undefined ? mount.subPath : expand(mount.subPathExpr, env);
    const readOnly = mount.readOnly === true || isKeyed(volume) || volume.hostPath !== undefined;
    if (subPath === undefined || subPath === "")
      return { destination: mount.mountPath, source: base, readOnly };
    const wanted = join(base, subPath);
    if (!isKeyed(volume) && !existsSync(wanted) && inside(base, wanted))
      await mkdir(wanted, { recursive: true, mode: 0o777 });
    // A container may have put a link there that leads out of the volume.
    const source = await realpath(wanted);
    if (!inside(await realpath(base), source))
      throw new Error(`subPath "${subPath}" leaves volume "${mount.name}"`);
    return { destination: mount.mountPath, source, readOnly };
  }

  #checkHostPath(path: string): void {
    if (this.#context.hostPathsAllowed.some((allowed) => path === allowed || inside(allowed, path))) return;
    throw new Error(
      `hostPath "${path}" is not allowed: the standalone cluster shows no Pod the machine's files`,
    );
  }

  #volumeDirectory(name: string): string {
    return join(this.directory, "volumes", name);
  }

  /** Removes network and directory; the Pod's containers are gone by now. */
  async remove(): Promise<void> {
    if (!this.#hostNetwork) {
      await removePodNetwork(this.#context.layout, this.#uid);
      this.#context.addresses.giveBack(this.podIp);
    }
    await this.#lastWrite; // a volume that is being written would come back
    await rm(this.directory, { recursive: true, force: true, maxRetries: 3 });
  }
}

function inside(directory: string, path: string): boolean {
  const way = relative(directory, path);
  return way === "" || !(way === ".." || way.startsWith("../") || way.startsWith("/"));
}

/** True for a plain file: the mount point has to be one too. */
export async function isFile(path: string): Promise<boolean> {
  return stat(path).then(
    (found) => !found.isDirectory(),
    () => false,
  );
}
