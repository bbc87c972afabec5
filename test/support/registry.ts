// A little container registry on loopback, with tokens and passwords where a test asks for them.

import { createHash } from "node:crypto";
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { buffer } from "node:stream/consumers";
import { gzipSync } from "node:zlib";
import { pack } from "tar-stream";

export interface RegistryOptions {
  /** Loopback and a free port without. */
  readonly host?: string;
  readonly port?: number;
  /** What it wants before it gives anything: nothing, a password, or a token that the password buys. */
  readonly wants?: "nothing" | "password" | "token";
  readonly user?: string;
  readonly password?: string;
}

export interface Layer {
  readonly mediaType: string;
  readonly bytes: Uint8Array;
}

export const ociManifest = "application/vnd.oci.image.manifest.v1+json";
export const ociIndex = "application/vnd.oci.image.index.v1+json";
export const dockerManifest = "application/vnd.docker.distribution.manifest.v2+json";
export const ociLayer = "application/vnd.oci.image.layer.v1.tar+gzip";
export const dockerLayer = "application/vnd.docker.image.rootfs.diff.tar.gzip";
export const moduleLayer = "application/vnd.module.wasm.content.layer.v1+wasm";

export class TestRegistry {
  /** Paths with their methods, in the order in which they were asked for. */
  readonly asked: string[] = [];
  /** Answers of its own for some paths; true if it answered. */
  intercept: (path: string, response: ServerResponse) => boolean = () => false;
  readonly #options: RegistryOptions;
  readonly #server: Server;
  /** By `repository/manifests/reference` and `repository/blobs/digest`. */
  readonly #things = new Map<string, Layer>();

  private constructor(options: RegistryOptions) {
    this.#options = options;
    this.#server = createServer((request, response) => this.#answer(request, response));
  }

  static async listen(options: RegistryOptions = {}): Promise<TestRegistry> {
    const registry = new TestRegistry(options);
    await new Promise<void>((resolve) =>
      registry.#server.listen(options.port ?? 0, options.host ?? "127.0.0.1", resolve),
    );
    return registry;
  }

  get host(): string {
    return `127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
  }

  close(): void {
    this.#server.close();
  }

  /** Returns the manifest's digest, without `sha256:`. */
  putImage(repository: string, tag: string, layers: readonly Layer[], mediaType = ociManifest): string {
    const described = layers.map((layer) => ({
      mediaType: layer.mediaType,
      size: layer.bytes.length,
      digest: `sha256:${this.#putBlob(repository, layer.bytes)}`,
    }));
    return this.putManifest(repository, tag, { schemaVersion: 2, mediaType, layers: described }, mediaType);
  }

  putManifest(repository: string, tag: string, content: object, mediaType: string): string {
    const bytes = Buffer.from(JSON.stringify(content));
    const digest = sha256Of(bytes);
    for (const reference of [tag, `sha256:${digest}`])
      this.#things.set(`${repository}/manifests/${reference}`, { mediaType, bytes });
    return digest;
  }

  /** Gives other bytes under a digest than those that it is of. */
  spoilBlobs(): void {
    for (const [key, thing] of this.#things)
      if (key.includes("/blobs/"))
        this.#things.set(key, { ...thing, bytes: Buffer.concat([thing.bytes, Buffer.from("x")]) });
  }

  #putBlob(repository: string, bytes: Uint8Array): string {
    const digest = sha256Of(bytes);
    this.#things.set(`${repository}/blobs/sha256:${digest}`, {
      mediaType: "application/octet-stream",
      bytes,
    });
    return digest;
  }

  #answer({ url = "", headers }: IncomingMessage, response: ServerResponse): void {
    const host = headers.host ?? this.host;
    this.asked.push(url);
    const { wants = "nothing", user = "", password = "" } = this.#options;
    const basic = `Basic ${Buffer.from(`${user}:${password}`).toString("base64")}`;
    if (this.intercept(url, response)) return;
    if (url.startsWith("/token?")) {
      if (headers.authorization !== basic) response.writeHead(401).end();
      else
        response.end(JSON.stringify({ token: `for:${new URL(url, "http://x").searchParams.get("scope")}` }));
      return;
    }
    const name = url.replace(/^\/v2\//, "");
    const repository = name.replace(/\/(manifests|blobs)\/.*/, "");
    const right = wants === "password" ? basic : `Bearer for:repository:${repository}:pull`;
    if (wants !== "nothing" && headers.authorization !== right) {
      const challenge =
        wants === "password" ? 'Basic realm="r"' : `Bearer realm="http://${host}/token",service="s"`;
      response.writeHead(401, { "www-authenticate": challenge }).end();
      return;
    }
    const thing = this.#things.get(name);
    if (thing === undefined) response.writeHead(404).end();
    else response.writeHead(200, { "content-type": thing.mediaType }).end(thing.bytes);
  }
}

export function sha256Of(bytes: Uint8Array): string {
  return createHash("sha256").update(bytes).digest("hex");
}

/** A layer with files, as images have them. */
export async function archiveLayer(
  files: Readonly<Record<string, Uint8Array>>,
  mediaType = ociLayer,
): Promise<Layer> {
  const archive = pack();
  for (const [name, bytes] of Object.entries(files)) archive.entry({ name }, Buffer.from(bytes));
  archive.finalize();
  return { mediaType, bytes: gzipSync(await buffer(archive)) };
}

/** The Secret that `kubectl create secret docker-registry` makes. */
export function pullSecret(registry: string, user: string, password: string): object {
  const config = { auths: { [registry]: { auth: Buffer.from(`${user}:${password}`).toString("base64") } } };
  return {
    type: "kubernetes.io/dockerconfigjson",
    data: { ".dockerconfigjson": Buffer.from(JSON.stringify(config)).toString("base64") },
  };
}
