// The images that the standalone cluster knows: Mizzen's own programs, Bookinfo under the names that Istio's manifests use, and the
// few small tools that sample manifests expect.

import { existsSync } from "node:fs";
import { join } from "node:path";
import { parse } from "yaml";
import type { HostMount, ImageEntry, ProgramImage } from "./image.ts";

/** Where Mizzen's own files appear inside a container. */
const packageDir = "/opt/mizzen";
const searchPath = `${packageDir}/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin`;

export interface PackagePaths {
  /** The directory of Mizzen's package.json. */
  readonly root: string;
  readonly node: string;
  /** Absent when no Envoy is installed: proxies then say so in their own log. */
  readonly envoy?: string;
}

/** The built-in table. Programs run from the built bundles in `dist` where those exist, otherwise from the TypeScript sources. */
export function builtInImages(paths: PackagePaths): ImageEntry[] {
  const own = (program: string, args: readonly string[], user = "0") =>
    ownProgram(paths, program, args, user);
  const bookinfo = [
    "productpage-v1",
    "details-v1",
    "reviews-v1",
    "reviews-v2",
    "reviews-v3",
    "ratings-v1",
  ].map((name) => {
    const [app = "", version = "v1"] = name.split("-");
    return { match: `*/examples-bookinfo-${name}`, image: own("demo", [app, "--version", version], "1000") };
  });
  return [
    { match: "*/mizzen/istiod", image: own("control", []) },
    { match: "*/mizzen/proxyv2", image: own("agent", []) },
    { match: "*/mizzen/demo", image: own("demo", [], "1000") },
    { match: "*/istio/proxyv2", image: own("agent", []) },
    ...bookinfo,
    { match: "*/testing/app", image: own("demo", ["echo"], "1338") },
    { match: "*/go-httpbin", image: own("demo", ["httpbin"], "1000") },
    { match: "*/kennethreitz/httpbin", image: own("demo", ["httpbin"], "1000") },
    { match: "*/curlimages/curl", image: hostProgram(["curl"], [], "100:101") },
    { match: "*/busybox", image: hostProgram([], ["sh"]) },
    { match: "*/alpine", image: hostProgram([], ["sh"]) },
    { match: "*/debian", image: hostProgram([], ["sh"]) },
    { match: "*/ubuntu", image: hostProgram([], ["sh"]) },
    { match: "*/pause", image: hostProgram([], ["sleep", "infinity"], "65535") },
    { match: "*/node", image: nodeProgram(paths) },
  ];
}

/** Something of the host's own /usr: a shell, curl, sleep. */
function hostProgram(entrypoint: readonly string[], args: readonly string[], user = "0"): ProgramImage {
  return { kind: "program", entrypoint, args, env: { PATH: searchPath }, user, workingDir: "/", mounts: [] };
}

function nodeProgram(paths: PackagePaths): ProgramImage {
  const mounts = [{ hostPath: paths.node, path: `${packageDir}/bin/node` }];
  return { ...hostProgram([`${packageDir}/bin/node`], []), mounts };
}

function ownProgram(
  paths: PackagePaths,
  program: string,
  args: readonly string[],
  user: string,
): ProgramImage {
  const bundled = existsSync(join(paths.root, "dist", `${program}.mjs`));
  const entry = bundled ? `dist/${program}.mjs` : `src/apps/${program}/main.ts`;
  const shared = bundled ? ["dist", "package.json"] : ["src", "node_modules", "package.json"];
  const mounts: HostMount[] = [...shared, "deploy"]
    .filter((name) => existsSync(join(paths.root, name)))
    .map((name) => ({ hostPath: join(paths.root, name), path: `${packageDir}/${name}` }));
  mounts.push({ hostPath: paths.node, path: `${packageDir}/bin/node` });
  const env: Record<string, string> = { PATH: searchPath };
  if (paths.envoy !== undefined) {
    mounts.push({ hostPath: paths.envoy, path: `${packageDir}/bin/envoy` });
    env["MIZZEN_ENVOY"] = `${packageDir}/bin/envoy`;
  }
  return {
    kind: "program",
    entrypoint: [`${packageDir}/bin/node`, `${packageDir}/${entry}`],
    args,
    env,
    user,
    workingDir: "/",
    mounts,
  };
}

/**
 * Parses a user's table: `images: [{ match, command?, args?, env?, user?, workingDir?, mounts?: [{ hostPath, path }] }]`.
 * Throws with the entry's place when it does not fit.
 */
export function parseImageTable(text: string): ImageEntry[] {
  const document: unknown = parse(text);
  const list = field(document, "images");
  if (!Array.isArray(list)) throw new Error("images: a list of entries is expected");
  return list.map((entry: unknown, index) => {
    const at = `images[${index}]`;
    const match = field(entry, "match");
    if (typeof match !== "string" || match === "") throw new Error(`${at}.match: a name pattern is expected`);
    const mounts = field(entry, "mounts") ?? [];
    if (!Array.isArray(mounts)) throw new Error(`${at}.mounts: a list is expected`);
    const image: ProgramImage = {
      kind: "program",
      entrypoint: strings(field(entry, "command"), `${at}.command`),
      args: strings(field(entry, "args"), `${at}.args`),
      env: { PATH: searchPath, ...stringMap(field(entry, "env"), `${at}.env`) },
      user: String(field(entry, "user") ?? "0"),
      workingDir: String(field(entry, "workingDir") ?? "/"),
      mounts: mounts.map((mount: unknown, place) => parseMount(mount, `${at}.mounts[${place}]`)),
    };
    return { match, image };
  });
}

function parseMount(mount: unknown, at: string): HostMount {
  const hostPath = field(mount, "hostPath");
  const path = field(mount, "path");
  if (typeof hostPath !== "string" || !hostPath.startsWith("/"))
    throw new Error(`${at}.hostPath: an absolute path is expected`);
  if (typeof path !== "string" || !path.startsWith("/"))
    throw new Error(`${at}.path: an absolute path is expected`);
  return { hostPath, path };
}

function field(value: unknown, name: string): unknown {
  if (typeof value !== "object" || value === null) return undefined;
  return Object.entries(value).find(([key]) => key === name)?.[1];
}

function strings(value: unknown, at: string): string[] {
  if (value === undefined) return [];
  if (!Array.isArray(value)) throw new Error(`${at}: a list of words is expected`);
  return value.map(String);
}

function stringMap(value: unknown, at: string): Record<string, string> {
  if (value === undefined) return {};
  if (typeof value !== "object" || value === null) throw new Error(`${at}: a map is expected`);
  return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, String(item)]));
}
