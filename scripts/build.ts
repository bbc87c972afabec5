// Bundles each program of src/apps into one file of dist/: a bundle starts in 50 ms where the sources take a second, and is what
// containers run. Skips the work when nothing under src changed since the last build. Flags: --quiet, --force.

import { createHash } from "node:crypto";
import {
  existsSync,
  globSync,
  mkdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { build, type BuildOptions } from "esbuild";
import { parseAllDocuments } from "yaml";

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const dist = join(root, "dist");
const stampPath = join(dist, ".stamp");
const programs = ["control", "agent", "cli", "cluster", "demo"];

/** The hash of everything that the bundles are made from. */
function sourceHash(): string {
  const hash = createHash("sha256");
  const sources = globSync(["src/**/*.{ts,json,proto,yaml,html,css}", "deploy/**/*.yaml"], {
    cwd: root,
  }).toSorted();
  for (const path of ["package-lock.json", "scripts/build.ts", ...sources]) {
    hash
      .update(path)
      .update("\0")
      .update(readFileSync(join(root, path)));
  }
  return hash.digest("hex");
}

const common: BuildOptions = {
  absWorkingDir: root,
  outExtension: { ".js": ".mjs" },
  bundle: true,
  platform: "node",
  format: "esm",
  target: "node24",
  sourcemap: "linked",
  logLevel: "warning",
  // Packages in the old module format call `require`, which a module has not by itself.
  banner: {
    js: 'import { createRequire as mizzenRequire } from "node:module"; const require = mizzenRequire(import.meta.url);',
  },
};

/**
 * What stays in node_modules. The command line needs the Kubernetes client, 20 MB, in rare cases only, and never runs without its
 * node_modules; the programs that run in containers carry all they need.
 */
const external: Readonly<Record<string, readonly string[]>> = { cli: ["@kubernetes/client-node"] };

/** Builds into a directory aside and moves file by file, so that a program that starts meanwhile reads a whole bundle. */
async function bundle(): Promise<string[]> {
  const present = programs.filter((program) => existsSync(join(root, "src/apps", program, "main.ts")));
  const aside = join(dist, `.building-${process.pid}`);
  mkdirSync(aside, { recursive: true });
  const buildOne = (program: string) =>
    build({
      ...common,
      entryPoints: [{ in: `src/apps/${program}/main.ts`, out: program }],
      outdir: aside,
      external: [...(external[program] ?? [])],
    });
  try {
    await Promise.all(present.map(buildOne));
    writeFileSync(join(aside, "deploy.json"), JSON.stringify(parsedManifests()));
    for (const file of globSync("*", { cwd: aside })) renameSync(join(aside, file), join(dist, file));
  } finally {
    rmSync(aside, { recursive: true, force: true });
  }
  return present;
}

/** The manifests as JSON, by path: a megabyte of YAML takes 0.7 s to read, which `up` would spend at every start. */
function parsedManifests(): Record<string, { mtimeMs: number; objects: unknown[] }> {
  const files = globSync("deploy/**/*.yaml", { cwd: root }).filter(
    (file) => !file.endsWith("kustomization.yaml"),
  );
  return Object.fromEntries(
    files.toSorted().map((file) => {
      const objects = parseAllDocuments(readFileSync(join(root, file), "utf8")).map((document): unknown =>
        document.toJS(),
      );
      return [file, { mtimeMs: statSync(join(root, file)).mtimeMs, objects }];
    }),
  );
}

const startedMs = performance.now();
const hash = sourceHash();
const upToDate = existsSync(stampPath) && readFileSync(stampPath, "utf8") === hash;
if (!upToDate || process.argv.includes("--force")) {
  const built = await bundle().catch((): never => {
    console.error("build: the sources do not bundle; the lines above say where");
    process.exit(1);
  });
  writeFileSync(stampPath, hash);
  if (!process.argv.includes("--quiet")) {
    console.error(`build: ${built.join(", ")} in ${Math.round(performance.now() - startedMs)} ms`);
  }
}
