// A Wasm module out of an image, in the layouts that Istio knows: an artifact with a layer of the module itself, and images of OCI and
// Docker whose last layer is a tar with `plugin.wasm`.

import { checkedModule, moduleOfLayer } from "./module-archive.ts";
import { mediaTypes, parsedObject, Registry, type Digested, type RegistryOptions } from "./registry.ts";

/** What the parts of an index and a manifest say that counts here; nothing of it is sure. */
interface Descriptor {
  readonly mediaType?: unknown;
  readonly digest?: unknown;
  readonly platform?: { readonly os?: unknown; readonly architecture?: unknown };
}

const moduleLayer = "application/vnd.module.wasm.content.layer.v1+wasm";
const archiveLayers: ReadonlySet<unknown> = new Set([
  "application/vnd.oci.image.layer.v1.tar+gzip",
  "application/vnd.oci.image.layer.v1.tar",
  "application/vnd.docker.image.rootfs.diff.tar.gzip",
  "application/vnd.docker.image.rootfs.diff.tar",
]);

/**
 * Rejects with what is wrong, in words for the object's writer.
 * @param expected the digest of the image's manifest, or of the index that names it; "" for any
 */
export async function fetchImageModule(options: RegistryOptions, expected: string): Promise<Buffer> {
  const { tag, sha256 } = options.image;
  const registry = new Registry(options);
  const top = await registry.manifest(sha256 === undefined ? (tag ?? "latest") : `sha256:${sha256}`);
  const manifest = isIndex(top) ? await registry.manifest(platformOf(top)) : top;
  if (isIndex(manifest)) throw new Error("the index leads to another index");
  if (expected !== "" && expected !== manifest.sha256 && expected !== top.sha256)
    throw new Error(`the manifest's digest is ${manifest.sha256}, and not the sha256 of the object`);
  const layers = descriptors(manifest, "layers");
  const own = layers.find(({ mediaType }) => mediaType === moduleLayer);
  if (own !== undefined) return checkedModule(await registry.blob(digestOf(own)));
  const last = layers.at(-1);
  if (last === undefined || !archiveLayers.has(last.mediaType))
    throw new Error("the image has no layer of a Wasm module");
  return moduleOfLayer(await registry.blob(digestOf(last)));
}

function isIndex({ mediaType, bytes }: Digested): boolean {
  if (mediaType === mediaTypes.ociIndex || mediaType === mediaTypes.dockerIndex) return true;
  return Array.isArray((parsedObject(bytes) as { readonly manifests?: unknown }).manifests);
}

/** The image for linux/amd64, as Istio takes it; else the first that says to be WebAssembly, else the only one. */
function platformOf(index: Digested): string {
  const all = descriptors(index, "manifests");
  const of = (os: unknown, architecture: unknown): Descriptor | undefined =>
    all.find(({ platform }) => platform?.os === os && platform?.architecture === architecture);
  const chosen =
    of("linux", "amd64") ??
    all.find(({ platform }) => platform?.architecture === "wasm") ??
    (all.length === 1 ? all[0] : undefined);
  if (chosen === undefined) throw new Error("the index names no image for linux/amd64 or wasm");
  return digestOf(chosen);
}

function descriptors({ bytes }: Digested, field: "layers" | "manifests"): readonly Descriptor[] {
  const list = (parsedObject(bytes) as Readonly<Record<string, unknown>>)[field];
  return Array.isArray(list) ? list.filter((one) => typeof one === "object" && one !== null) : [];
}

function digestOf({ digest }: Descriptor): string {
  if (typeof digest !== "string" || !/^sha256:[0-9a-f]{64}$/.test(digest))
    throw new Error("the image names a part by no SHA-256 digest");
  return digest;
}
