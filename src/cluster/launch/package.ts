// Where Mizzen's own files are, whether it runs from its sources or from the built bundles.

import { existsSync, realpathSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import type { PackagePaths } from "../images/table.ts";

/** The package's directory: the nearest one above this file with a package.json. */
export function packageRoot(): string {
  let directory = dirname(fileURLToPath(import.meta.url));
  while (!existsSync(join(directory, "package.json"))) {
    const parent = dirname(directory);
    if (parent === directory) throw new Error("Mizzen's package.json is not above its programs");
    directory = parent;
  }
  return directory;
}

/** The cluster's program: the bundle when this runs from a bundle, otherwise the source. */
export function clusterProgram(): string {
  const root = packageRoot();
  const bundled = dirname(fileURLToPath(import.meta.url)) === join(root, "dist");
  return bundled ? join(root, "dist/cluster.mjs") : join(root, "src/apps/cluster/main.ts");
}

/** The Envoy that proxies will run: the one that MIZZEN_ENVOY names, or the one that the set-up brought. */
export function envoyPath(): string {
  const named = process.env["MIZZEN_ENVOY"] ?? "";
  return named === "" ? join(packageRoot(), ".cache/bin/envoy") : named;
}

/** `envoy` names the binary to use instead of the installed one. */
export function packagePaths(envoy: string | undefined): PackagePaths {
  const root = packageRoot();
  const installed = envoy ?? join(root, ".cache/bin/envoy");
  return {
    root,
    node: realpathSync(process.execPath),
    ...(existsSync(installed) ? { envoy: realpathSync(installed) } : {}),
  };
}
