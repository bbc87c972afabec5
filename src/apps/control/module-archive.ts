// A Wasm module taken out of what it came in: gzip, tar, or nothing. What comes in is at most as large as a module may be, and so is
// what it unpacks to.

import { extract } from "tar-stream";
import { promisify } from "node:util";
import { gunzip } from "node:zlib";
import { LimitReached } from "./guarded-fetch.ts";
import { controlPlaneLimits } from "./limits.ts";

const bytesMax = controlPlaneLimits.moduleBytes.value;
const gunzipped = promisify(gunzip);

/** The magic number of WebAssembly. */
const wasmMagic = Buffer.from([0, 0x61, 0x73, 0x6d]);

export function isWasm(bytes: Buffer): boolean {
  return bytes.subarray(0, wasmMagic.length).equals(wasmMagic);
}

/** What a web server sends: a module, or one in gzip, tar or both, as Istio unpacks them. Rejects if it is none. */
export async function moduleOfDownload(bytes: Buffer): Promise<Buffer> {
  if (isWasm(bytes)) return bytes;
  const unpacked = await inflated(bytes);
  if (isWasm(unpacked)) return unpacked;
  return checkedModule(isTar(unpacked) ? await fileOfTar(unpacked, () => true) : undefined);
}

/** The file `plugin.wasm` of an image's layer, which is a tar, mostly in gzip. Rejects if there is none. */
export async function moduleOfLayer(bytes: Buffer): Promise<Buffer> {
  const tar = await inflated(bytes);
  const file = await fileOfTar(tar, (name) => name.split("/").at(-1) === "plugin.wasm");
  if (file === undefined) throw new Error("the layer has no file plugin.wasm");
  return checkedModule(file);
}

export function checkedModule(bytes: Buffer | undefined): Buffer {
  if (bytes === undefined || !isWasm(bytes)) throw new Error("what was fetched is no WebAssembly module");
  return bytes;
}

/** Itself where it is no gzip. */
async function inflated(bytes: Buffer): Promise<Buffer> {
  if (bytes[0] !== 0x1f || bytes[1] !== 0x8b) return bytes;
  try {
    return await gunzipped(bytes, { maxOutputLength: bytesMax });
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ERR_BUFFER_TOO_LARGE")
      throw new LimitReached("moduleBytes", `it unpacks to more than ${bytesMax} bytes`);
    throw new Error("its gzip is damaged", { cause: error });
  }
}

function isTar(bytes: Buffer): boolean {
  return bytes.subarray(257, 262).toString("latin1") === "ustar";
}

/** The first file that is wanted; undefined without one. Rejects on a damaged archive. */
function fileOfTar(tar: Buffer, isWanted: (name: string) => boolean): Promise<Buffer | undefined> {
  return new Promise((resolve, reject) => {
    const entries = extract();
    entries.on("entry", ({ name, type }, content, next) => {
      if (type !== "file" || !isWanted(name)) {
        content.on("end", next);
        content.resume();
        return;
      }
      const chunks: Buffer[] = [];
      content.on("data", (chunk) => chunks.push(chunk as Buffer));
      content.on("end", () => {
        resolve(Buffer.concat(chunks));
        entries.destroy();
      });
    });
    entries.on("finish", () => resolve(undefined));
    entries.on("error", (cause: Error) => reject(new Error("its tar is damaged", { cause })));
    entries.end(tar);
  });
}
