// The walls between the rooms of src, and a few rules of the house that a machine can hold. Each failure says what to do instead.

import assert from "node:assert/strict";
import { globSync, readFileSync } from "node:fs";
import { dirname, join, relative, resolve } from "node:path";
import { test } from "node:test";
import { fileURLToPath } from "node:url";

const root = dirname(dirname(fileURLToPath(import.meta.url)));

/** Which rooms each room may import, besides `base`. Types and values alike. */
const mayImport: Readonly<Record<string, readonly string[]>> = {
  base: [],
  objects: [],
  kube: ["objects"],
  cluster: ["objects"],
  engine: [],
  identity: [],
  model: ["objects", "engine", "identity"],
  plan: ["model", "engine", "objects"],
  envoy: ["model", "plan", "engine", "objects"],
  xds: ["plan", "envoy", "engine"],
  explain: ["model", "plan", "envoy", "engine", "objects"],
  inject: ["objects"],
};
const rooms = Object.keys(mayImport);

/** No sockets, no clock, no environment: what varies is passed in by `apps`. */
const pureRooms = new Set(["model", "plan", "envoy", "engine", "explain", "inject"]);
const impureModules =
  /^(node:)?(net|tls|http|https|http2|dgram|dns|child_process|timers|worker_threads)(\/|$)/;
/** Of node:net what only computes with addresses. */
const pureOfNet =
  /\{\s*((type )?(isIP|isIPv4|isIPv6|BlockList|SocketAddress)\s*,?\s*)+\}\s*from\s*["']node:net["']/;
const impureUses: readonly { readonly pattern: RegExp; readonly instead: string }[] = [
  {
    pattern: /\bprocess\.env\b/,
    instead: "take the value as a parameter; only src/apps read the environment",
  },
  {
    pattern: /\bDate\.now\(|\bnew Date\(\)|\bperformance\.now\(/,
    instead: "take a Clock of #base as a parameter",
  },
  {
    pattern: /(?<![.\w])(setTimeout|setInterval|setImmediate)\(/,
    instead: "take a Clock of #base as a parameter",
  },
  {
    pattern: /\bMath\.random\(|\brandomBytes\(|\brandomUUID\(/,
    instead: "take the source of randomness as a parameter",
  },
];

/** Beyond it a file holds more than one idea. Generated files and tables of data are counted out. */
const fileLinesMax = 700;

interface Import {
  readonly file: string;
  readonly line: number;
  readonly to: string;
}

const sources = globSync("src/**/*.ts", {
  cwd: root,
  exclude: (name) => name.includes("generated"),
}).toSorted();
const texts = new Map(sources.map((file) => [file, readFileSync(join(root, file), "utf8")]));

function importsOf(file: string): Import[] {
  const text = texts.get(file) ?? "";
  const found: Import[] = [];
  const pattern =
    /(?:^|\n)\s*(?:import|export)\b[^;"'`]*?\bfrom\s*["']([^"']+)["']|\bimport\(\s*["']([^"']+)["']\s*\)|(?:^|\n)import\s+["']([^"']+)["']/g;
  for (const match of text.matchAll(pattern)) {
    const line = text.slice(0, match.index + match[0].length).split("\n").length;
    found.push({ file, line, to: match[1] ?? match[2] ?? match[3] ?? "" });
  }
  return found;
}

/** The room of a file, or the app as `apps/<name>`. */
function roomOf(file: string): string {
  const [, first = "", second = ""] = file.split("/");
  return first === "apps" ? `apps/${second}` : first;
}

function wallProblem({ file, line, to }: Import): string | undefined {
  const from = roomOf(file);
  const where = `${file}:${line}`;
  if (to.startsWith("#")) {
    const target = to.slice(1);
    if (!rooms.includes(target))
      return `${where} imports ${to}; there are only the doors ${rooms.map((room) => `#${room}`).join(" ")}`;
    if (from === target)
      return `${where} imports its own room by the door; import the file by its relative path`;
    if (from.startsWith("apps/") || target === "base") return undefined;
    const allowed = mayImport[from];
    if (allowed === undefined)
      return `${where} lies in no room; add the room to the table of test/walls.test.ts and to ARCHITECTURE.md`;
    if (allowed.includes(target)) return undefined;
    return `${where} imports ${to}, but ${from} may import only ${["base", ...allowed].join(", ")}; move the code, or pass what it needs in as a parameter`;
  }
  if (!to.startsWith(".")) return undefined;
  const target = relative(root, resolve(root, dirname(file), to));
  if (!target.startsWith("src/")) return undefined;
  const targetRoom = roomOf(target);
  if (targetRoom === from) return undefined;
  if (targetRoom.startsWith("apps/"))
    return `${where} imports the program ${targetRoom}; programs never import one another, nor do rooms import programs: move what is shared into a room`;
  return `${where} reaches into the room ${targetRoom} by ${to}; import from its door #${targetRoom}, which exports by name`;
}

test("rooms meet at their doors and only where the table allows it", () => {
  const problems = sources
    .flatMap((file) => importsOf(file).map(wallProblem))
    .filter((problem) => problem !== undefined);
  assert.deepEqual(problems, []);
});

test("pure rooms use no sockets, clock, randomness or environment", () => {
  const problems: string[] = [];
  for (const file of sources) {
    if (!pureRooms.has(roomOf(file)) || file.endsWith(".test.ts")) continue;
    for (const { line, to } of importsOf(file)) {
      const onlyComputes = to === "node:net" && pureOfNet.test(texts.get(file) ?? "");
      if (impureModules.test(to) && !onlyComputes)
        problems.push(
          `${file}:${line} imports ${to}; ${roomOf(file)} is pure: let src/apps do it and pass the result in`,
        );
    }
    withoutComments(texts.get(file) ?? "").forEach((text, index) => {
      for (const { pattern, instead } of impureUses) {
        if (pattern.test(text))
          problems.push(`${file}:${index + 1} uses ${pattern.exec(text)?.[0]}; ${instead}`);
      }
    });
  }
  assert.deepEqual(problems, []);
});

test("relative imports name the file with its ending", () => {
  const problems = sources
    .flatMap(importsOf)
    .filter(({ to }) => to.startsWith(".") && !/\.(ts|json)$/.test(to))
    .map(({ file, line, to }) => `${file}:${line} imports ${to}; write ${to}.ts`);
  assert.deepEqual(problems, []);
});

test("a file holds one idea", () => {
  const problems = sources
    .filter((file) => !file.endsWith(".test.ts"))
    .map((file) => ({ file, lines: (texts.get(file) ?? "").split("\n").length }))
    .filter(({ lines }) => lines > fileLinesMax)
    .map(
      ({ file, lines }) =>
        `${file} has ${lines} lines, more than ${fileLinesMax}; cut it where two ideas meet`,
    );
  assert.deepEqual(problems, []);
});

test("unit tests keep their hooks inside a describe", () => {
  const problems = sources
    .filter((file) => file.endsWith(".test.ts"))
    .filter((file) => /^(before|after|beforeEach|afterEach)\(/m.test(texts.get(file) ?? ""))
    .map(
      (file) =>
        `${file} has a hook at the top level; all unit tests share a process: put it into a describe, or use context.after`,
    );
  assert.deepEqual(problems, []);
});

/** Lines with comments blanked, so that an explanation may name what code must not use. */
function withoutComments(text: string): string[] {
  return text
    .replaceAll(/\/\*[\s\S]*?\*\//g, (comment) => comment.replaceAll(/[^\n]/g, " "))
    .split("\n")
    .map((line) => line.replace(/(^|\s)\/\/.*$/, "$1"));
}
