// `npm run conformance`: the official conformance suite of the Gateway API against a standalone mesh of its own. Needs Go, which fetches
// and builds the suite and its backend; the rest is there. `--only TEST` runs one test, `--profile NAMES` the runs that cover some profiles,
// `--keep` leaves the mesh up for the next run, words behind `--` go to the suite. Reports and logs lie in .cache/conformance.

import { spawn, spawnSync } from "node:child_process";
import {
  chmodSync,
  createWriteStream,
  existsSync,
  mkdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { parseArgs } from "node:util";
import { parse, stringify } from "yaml";
import { suiteRuns, type SuiteRun } from "../test/gateway-api-suite/features.ts";
import { root } from "./steps.ts";

const suiteDirectory = join(root, "test/gateway-api-suite");
const workDirectory = join(root, ".cache/conformance");
const mesh = { name: "conformance", httpPort: 18_780, httpsPort: 18_781, apiPort: 18_782 };
const home = join(workDirectory, "home");
/** Of the API server inside the mesh's network namespace, from where alone gateways are reached by their own addresses. */
const innerApi = "https://127.0.0.1:6443";

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    only: { type: "string" },
    profile: { type: "string" },
    keep: { type: "boolean", default: false },
  },
});

process.exitCode = await main();

async function main(): Promise<number> {
  const runs = chosenRuns();
  if (typeof runs === "string") return told(runs);
  const go = spawnSync("go", ["version"], { encoding: "utf8" });
  if (go.status !== 0)
    return told(
      "Go is missing, which builds the suite: install Go 1.26 or later (go.dev/dl), then run this again.",
    );
  mkdirSync(workDirectory, { recursive: true });
  const built = build();
  if (built !== undefined) return told(built);
  const images = join(workDirectory, "images.yaml");
  writeFileSync(images, stringify({ images: imageEntries() }));
  console.log("starting the mesh");
  const flags = ["--name", mesh.name];
  const ports = [
    "--port",
    String(mesh.httpPort),
    "--https-port",
    String(mesh.httpsPort),
    "--api-port",
    String(mesh.apiPort),
  ];
  const running = existsSync(`/run/netns/mizzen-${mesh.name}`);
  if (!running && mizzen(["up", "--detach", ...flags, ...ports, "--images", images], "inherit").status !== 0)
    return 1;
  try {
    const kubeconfig = innerKubeconfig();
    let failed = false;
    for (const run of runs) failed = (await runSuite(run, kubeconfig)) || failed;
    return failed ? 1 : 0;
  } finally {
    if (!values.keep) mizzen(["down", ...flags], "inherit");
  }
}

function told(text: string): number {
  console.error(`conformance: ${text}`);
  return 1;
}

/** The runs that are asked for, each with the profiles that are; a sentence when there is no such profile. */
function chosenRuns(): readonly SuiteRun[] | string {
  if (values.profile === undefined) return suiteRuns;
  const asked = values.profile.split(",");
  const all = suiteRuns.flatMap(({ profiles }) => profiles);
  const unknown = asked.filter((profile) => !all.includes(profile));
  if (unknown.length > 0) return `there is no profile ${unknown.join(", ")}; there are ${all.join(", ")}.`;
  return suiteRuns.flatMap((run) => {
    const profiles = run.profiles.filter((profile) => asked.includes(profile));
    return profiles.length === 0 ? [] : [{ ...run, profiles }];
  });
}

/** Builds what is not built yet of this version; a sentence when that fails. */
function build(): string | undefined {
  const stamp = ["go.mod", "go.sum", "suite_test.go"]
    .map((name) => readFileSync(join(suiteDirectory, name), "utf8"))
    .join("\n");
  const stampFile = join(workDirectory, "built");
  if (existsSync(stampFile) && readFileSync(stampFile, "utf8") === stamp) return undefined;
  const steps = [
    {
      what: "the backend",
      args: [
        "build",
        "-o",
        join(workDirectory, "echo-basic"),
        "sigs.k8s.io/gateway-api/conformance/echo-basic",
      ],
    },
    { what: "the suite", args: ["test", "-c", "-o", join(workDirectory, "suite"), "."] },
  ];
  for (const { what, args } of steps) {
    console.log(`building ${what} with Go (minutes, the first time)`);
    // Without C, so that it runs in a container without libraries.
    const ran = spawnSync("go", args, {
      cwd: suiteDirectory,
      stdio: "inherit",
      env: { ...process.env, CGO_ENABLED: "0" },
    });
    if (ran.status !== 0) return `Go could not build ${what}; the lines above say why.`;
  }
  writeFileSync(stampFile, stamp);
  return undefined;
}

function imageEntries(): unknown[] {
  const echo = { hostPath: join(workDirectory, "echo-basic"), path: "/opt/echo-basic" };
  const { key, cert } = certificate();
  // Istio's echo is no part of the suite's module: the demo's stands for it, with the same flags and the same text.
  const node = { hostPath: process.execPath, path: "/opt/node" };
  const demo = { hostPath: join(root, "dist/demo.mjs"), path: "/opt/demo.mjs" };
  const client = join(workDirectory, "client");
  writeFileSync(client, '#!/bin/sh\nexec /opt/node /opt/demo.mjs echo-client "$@"\n', { mode: 0o755 });
  const advanced = [
    node,
    demo,
    { hostPath: client, path: "/opt/mizzen/bin/client" },
    { hostPath: key, path: "/cert.key" },
    { hostPath: cert, path: "/cert.crt" },
  ];
  return [
    { match: "*/gateway-api/echo-basic", command: ["/opt/echo-basic"], user: "1000", mounts: [echo] },
    {
      match: "*/coredns/coredns",
      command: ["/opt/node", "/opt/dns.mjs"],
      mounts: [node, { hostPath: join(suiteDirectory, "dns.mjs"), path: "/opt/dns.mjs" }],
    },
    {
      match: "*/gateway-api/echo-advanced",
      command: ["/opt/node", "/opt/demo.mjs", "echo-advanced"],
      user: "1000",
      mounts: advanced,
    },
  ];
}

/** A certificate of its own for the backend's TLS port: nobody checks it. */
function certificate(): { readonly key: string; readonly cert: string } {
  const key = join(workDirectory, "cert.key");
  const cert = join(workDirectory, "cert.crt");
  if (existsSync(cert)) return { key, cert };
  const ec = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-x509"];
  const args = ["req", ...ec, "-subj", "/CN=echo", "-days", "365", "-keyout", key, "-out", cert];
  const ran = spawnSync("openssl", args, { encoding: "utf8" });
  if (ran.status !== 0) throw new Error(`openssl could not make a certificate: ${ran.stderr}`);
  chmodSync(key, 0o644);
  return { key, cert };
}

function mizzen(args: readonly string[], stdio: "inherit" | "pipe"): ReturnType<typeof spawnSync> {
  return spawnSync(join(root, "bin/mizzen"), args, {
    stdio,
    encoding: "utf8",
    env: { ...process.env, MIZZEN_HOME: home },
  });
}

/** The administrator's kubeconfig, with the address that the API server has inside the mesh. */
function innerKubeconfig(): string {
  const path = String(mizzen(["kubeconfig", "--name", mesh.name, "--path"], "pipe").stdout).trim();
  const inner = join(workDirectory, "kubeconfig");
  writeFileSync(inner, readFileSync(path, "utf8").replace(/server: .*/, `server: ${innerApi}`), {
    mode: 0o600,
  });
  return inner;
}

/** Runs the suite once, a line a test. True when something failed. */
async function runSuite(run: SuiteRun, kubeconfig: string): Promise<boolean> {
  const { version } = JSON.parse(readFileSync(join(root, "package.json"), "utf8")) as { version: string };
  const report = join(workDirectory, `${run.name}.yaml`);
  const log = join(workDirectory, `${run.name}.log`);
  rmSync(report, { force: true });
  console.log(`running ${run.profiles.join(", ")}; the log is ${log}`);
  const child = spawn(
    "nsenter",
    [
      `--net=/run/netns/mizzen-${mesh.name}`,
      "--",
      join(workDirectory, "suite"),
      "-test.v",
      "-test.timeout=60m",
      "-test.run=TestConformance",
      "--gateway-class=istio",
      `--conformance-profiles=${run.profiles.join(",")}`,
      `--supported-features=${run.features.join(",")}`,
      `--report-output=${report}`,
      "--organization=mizzen",
      "--project=mizzen",
      "--url=https://github.com/mizzen",
      `--version=v${version}`,
      "--contact=mizzen",
      // An address is the host of a Service that stands in front of the proxies: one of the suite's own, and none.
      "--usable-address=infra-backend-v1.gateway-conformance-infra.svc.cluster.local",
      "--unusable-address=there-is-no-such-service",
      ...(run.sidecars ? ["--namespace-labels=istio-injection=enabled"] : []),
      ...positionals,
      ...(values.only === undefined ? [] : [`--run-test=${values.only}`]),
    ],
    {
      cwd: workDirectory,
      stdio: ["ignore", "pipe", "pipe"],
      env: { ...process.env, KUBECONFIG: kubeconfig },
    },
  );
  const file = createWriteStream(log);
  const output = createInterface({ input: child.stdout });
  child.stderr.pipe(file);
  output.on("line", (line) => {
    file.write(`${line}\n`);
    // Results come at the end; until then one sees where it is.
    const started = /^=== RUN {3}TestConformance\/([^/\s]+)$/.exec(line);
    if (started !== null) console.log(`  runs  ${started[1]}`);
    const result = /^ {4}--- (FAIL): TestConformance\/(\S+) \((.*)\)/.exec(line);
    if (result !== null) console.log(`  ${result[1]!.toLowerCase()}  ${result[2]} (${result[3]})`);
  });
  const code = await new Promise<number>((resolve) => child.once("close", (status) => resolve(status ?? 1)));
  if (existsSync(report)) summarize(report);
  return code !== 0;
}

interface Result {
  readonly result: string;
  readonly statistics: { readonly Passed: number; readonly Failed: number; readonly Skipped: number };
  readonly failedTests?: readonly string[];
}

interface Report {
  readonly profiles?: readonly {
    readonly name: string;
    readonly core: Result;
    readonly extended?: Result & {
      readonly supportedFeatures?: readonly string[];
      readonly unsupportedFeatures?: readonly string[];
    };
  }[];
}

function summarize(file: string): void {
  const { profiles = [] } = parse(readFileSync(file, "utf8")) as Report;
  for (const { name, core, extended } of profiles) {
    console.log(`${name}: core ${counts(core)}`);
    if (extended === undefined) continue;
    const { supportedFeatures = [], unsupportedFeatures = [] } = extended;
    console.log(
      `${name}: extended ${counts(extended)}, ${supportedFeatures.length} features declared, not: ${unsupportedFeatures.join(", ") || "none"}`,
    );
  }
  console.log(`the report is ${file}`);
}

function counts({ result, statistics, failedTests = [] }: Result): string {
  const { Passed, Failed, Skipped } = statistics;
  const failures = failedTests.length === 0 ? "" : ` (${failedTests.join(", ")})`;
  return `${result}, ${Passed} passed, ${Failed} failed${failures}, ${Skipped} skipped`;
}
