import assert from "node:assert/strict";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { parsePodName } from "./access.ts";
import type { Command, Io } from "./command.ts";
import { commands } from "./commands/index.ts";
import { proxyConfig } from "./commands/proxy-config.ts";
import { renderStatus } from "./commands/proxy-status.ts";
import { validate } from "./commands/validate.ts";
import { NotSoError, UsageError } from "./command.ts";
import { manifestFiles, readManifest } from "./manifests.ts";
import { Progress } from "./progress.ts";
import { renderDuration } from "./table.ts";

const socket = (address: string, port: number) => ({
  address: { socket_address: { address, port_value: port } },
});
const istio = (config: string) => ({ filter_metadata: { istio: { config } } });
const manager =
  "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager";

const dump = {
  configs: [
    {
      "@type": "type.googleapis.com/envoy.admin.v3.ClustersConfigDump",
      static_clusters: [{ cluster: { name: "agent", type: "STATIC" } }],
      dynamic_active_clusters: [
        {
          cluster: {
            name: "outbound|9080|v1|reviews.default.svc.cluster.local",
            type: "EDS",
            metadata: istio("/apis/networking.istio.io/v1/namespaces/default/destination-rule/reviews"),
          },
        },
      ],
    },
    {
      "@type": "type.googleapis.com/envoy.admin.v3.ListenersConfigDump",
      dynamic_listeners: [
        {
          name: "0.0.0.0_9080",
          active_state: {
            listener: {
              name: "0.0.0.0_9080",
              ...socket("0.0.0.0", 9080),
              filter_chains: [
                { filters: [{ typed_config: { "@type": manager, rds: { route_config_name: "9080" } } }] },
              ],
            },
          },
        },
      ],
    },
    {
      "@type": "type.googleapis.com/envoy.admin.v3.EndpointsConfigDump",
      dynamic_endpoint_configs: [
        {
          endpoint_config: {
            cluster_name: "outbound|9080|v1|reviews.default.svc.cluster.local",
            endpoints: [{ lb_endpoints: [{ endpoint: socket("10.0.0.7", 9080) }] }],
          },
        },
      ],
    },
  ],
};

/** Runs a command in memory and returns what it printed. */
async function run(
  command: Command,
  args: readonly string[],
  flags: Readonly<Record<string, unknown>>,
): Promise<string> {
  const lines: string[] = [];
  const io: Io = { out: (text) => void lines.push(text), note: () => {}, isTerminal: false, env: {} };
  await command.run({ args, flags, io });
  return lines.join("\n");
}

test("proxy-config reads the dump of any Envoy from a file, and filters it", async (context) => {
  const dir = mkdtempSync(join(tmpdir(), "mizzen-cli-"));
  context.after(() => rmSync(dir, { recursive: true }));
  const file = join(dir, "dump.json");
  writeFileSync(file, JSON.stringify(dump));
  const clusters = await run(proxyConfig, ["clusters"], { file, fqdn: "reviews.default" });
  assert.deepEqual(
    clusters
      .split("\n")
      .slice(1)
      .map((line) => line.split(/ {2,}/)),
    [["reviews.default.svc.cluster.local", "9080", "v1", "outbound", "EDS", "reviews.default"]],
  );
  assert.match(await run(proxyConfig, ["l"], { file }), /0\.0\.0\.0 +9080 +ALL +Route: 9080/);
  assert.match(await run(proxyConfig, ["ep"], { file, port: "9080" }), /10\.0\.0\.7:9080 +HEALTHY/);
  const asJson: unknown = JSON.parse(
    await run(proxyConfig, ["clusters"], { file, output: "json", subset: "v1" }),
  );
  assert.equal((asJson as { name: string }[])[0]?.name, "outbound|9080|v1|reviews.default.svc.cluster.local");
});

test("proxy-config refuses what it does not know, with what there is", async () => {
  await assert.rejects(
    run(proxyConfig, ["things"], {}),
    (error) => error instanceof UsageError && /clusters, listeners/.test(error.message),
  );
  await assert.rejects(run(proxyConfig, ["clusters"], { file: "/nowhere" }), NotSoError);
});

test("proxy-status shows the worst state of each kind, and who rejected what", () => {
  const types = [
    { type: "cluster", held: 3, state: "SYNCED" },
    { type: "route", held: 1, state: "SYNCED" },
    { type: "virtualHost", held: 1, state: "STALE" },
    { type: "listener", held: 1, state: "ERROR", rejection: "VirtualService default/x: bad" },
  ];
  const text = renderStatus([
    { proxy: "sidecar~10.0.0.1~a-1.default~default.svc.cluster.local", types, istiod: "istiod-1" },
  ]);
  assert.match(text, /a-1\.default +SYNCED +ERROR +IGNORED +STALE +IGNORED +istiod-1/);
  assert.match(text, /REJECTED by a-1\.default \(listener\): VirtualService default\/x: bad/);
});

test("pods are named as istioctl and kubectl name them", () => {
  const cases = {
    "reviews-v1": ["reviews-v1", "apps", false],
    "reviews-v1.shop": ["reviews-v1", "shop", false],
    "shop/reviews-v1": ["reviews-v1", "shop", false],
    "deploy/reviews-v1": ["reviews-v1", "apps", true],
    "deployment/reviews-v1.shop": ["reviews-v1", "shop", true],
  } as const;
  for (const [text, [name, namespace, isDeployment]] of Object.entries(cases)) {
    assert.deepEqual(parsePodName(text, "apps"), { name, namespace, isDeployment }, text);
  }
});

test("a file that is no YAML is refused with line and column, and folders leave kustomizations out", (context) => {
  const dir = mkdtempSync(join(tmpdir(), "mizzen-cli-"));
  context.after(() => rmSync(dir, { recursive: true }));
  const file = join(dir, "bad.yaml");
  writeFileSync(file, "kind: A\nspec: {a: [1\n");
  writeFileSync(join(dir, "kustomization.yaml"), "");
  assert.deepEqual(manifestFiles(dir), [file]);
  assert.throws(
    () => readManifest(file),
    (error) => error instanceof NotSoError && /bad\.yaml:\d+:\d+: /.test(error.message),
  );
});

test("progress is plain lines in a pipe, and says what failed", async () => {
  let text = "";
  let nowMs = 0;
  const progress = new Progress({ write: (part) => (text += part), isTerminal: false, nowMs: () => nowMs });
  await progress.phase("one", async () => {
    nowMs += 1_500;
  });
  await assert.rejects(progress.phase("two", () => Promise.reject(new Error("no"))));
  assert.match(text, /^ok +one +1\.5 s\nfailed +two +0\.0 s\n$/);
});

test("phases that were interrupted say no more", async () => {
  let text = "";
  const progress = new Progress({ write: (part) => (text += part), isTerminal: false, nowMs: () => 0 });
  const phase = progress.phase("one", () => Promise.reject(new Error("no")));
  progress.abandon();
  await assert.rejects(phase);
  assert.equal(text, "");
});

test("every command says what it does, and shows an example that begins with a command that exists", () => {
  const words = commands.flatMap(({ name, alias }) => [name, alias]);
  for (const { name, summary, examples } of commands) {
    assert.ok(summary.length > 0 && examples.length > 0, name);
    for (const { line } of examples)
      assert.ok(words.includes(/mizzen (\S+?)\)?(\s|$)/.exec(line)?.[1] ?? ""), line);
  }
});

test("validate shows a wrong field where it was written, and a text that is no YAML where it breaks", async (context) => {
  const dir = mkdtempSync(join(tmpdir(), "mizzen-cli-"));
  context.after(() => rmSync(dir, { recursive: true }));
  const file = join(dir, "vs.yaml");
  const head =
    "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: { name: a, namespace: b }\n";
  writeFileSync(
    file,
    `${head}spec:\n  hosts: [a]\n  http:\n    - route:\n        - destination: { host: a }\n          weight: -4\n`,
  );
  const lines: string[] = [];
  const io: Io = { out: (text) => void lines.push(text), note: () => {}, isTerminal: false, env: {} };
  await assert.rejects(validate.run({ args: [], flags: { file }, io }), NotSoError);
  assert.match(lines[0] ?? "", /vs\.yaml:9:11: error: .*spec\.http\[0\]\.route\[0\]\.weight/);
  writeFileSync(file, "a: [1\nb: 2\n");
  await assert.rejects(validate.run({ args: [], flags: { file }, io }), NotSoError);
  assert.match(lines.at(-1) ?? "", /vs\.yaml:\d+:\d+: error: /);
});

test("ages have one unit", () => {
  assert.deepEqual([5_000, 185_000, 7_300_000, 200_000_000, -3_000].map(renderDuration), [
    "5s",
    "3m",
    "2h",
    "2d",
    "-3s",
  ]);
});
