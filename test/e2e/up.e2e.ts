// What a newcomer does: `up --demo`, a page, kubectl, `ps` and `pc`, Ctrl-C. All of it through the built command line, in a home of its own.

import assert from "node:assert/strict";
import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import { existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { after, before, describe, test } from "node:test";
import { fileURLToPath } from "node:url";

const root = dirname(dirname(dirname(fileURLToPath(import.meta.url))));
const home = mkdtempSync(join(tmpdir(), "mizzen-up-"));
const name = "e2e-up";
const port = 18_980;
const apiPort = 18_982;
const flags = [
  "--name",
  name,
  "--port",
  String(port),
  "--https-port",
  "18981",
  "--api-port",
  String(apiPort),
];
const settings = ["get", "configmap", "istio", "-n", "istio-d", "-o", "jsonpath={.data.mesh}"];
const page = `http://127.0.0.1:${port}/productpage`;
const startMaxMs = 120_000;
const settleMaxMs = 15_000;

interface Done {
  readonly code: number | null;
  readonly out: string;
}

function runTool(program: string, args: readonly string[]): Done {
  const env = { ...process.env, MIZZEN_HOME: home, KUBECONFIG: join(home, name, "kubeconfig") };
  const { status, stdout, stderr } = spawnSync(program, args, {
    env,
    encoding: "utf8",
    cwd: root,
    timeout: 120_000,
  });
  return { code: status, out: `${stdout}${stderr}` };
}

const mizzen = (...args: string[]): Done => runTool(process.execPath, [join(root, "dist/cli.mjs"), ...args]);
const kubectl = (...args: string[]): Done => runTool(join(root, ".cache/bin/kubectl"), args);

/** Starts `up` and resolves when the mesh runs. */
async function start(): Promise<ChildProcess> {
  const child = spawn(process.execPath, [join(root, "dist/cli.mjs"), "up", "--demo", ...flags], {
    env: { ...process.env, MIZZEN_HOME: home },
    stdio: ["ignore", "pipe", "pipe"],
  });
  let text = "";
  await new Promise<void>((resolve, reject) => {
    const timer = setTimeout(() => reject(new Error(`up took too long: ${text}`)), startMaxMs);
    const read = (part: Buffer) => {
      text += part.toString();
      if (text.includes("The mesh runs")) resolve();
    };
    child.stdout.on("data", read);
    child.stderr.on("data", read);
    child.once("exit", (code) => reject(new Error(`up ended with ${code}: ${text}`)));
    child.once("exit", () => clearTimeout(timer));
    void Promise.resolve().then(() => timer.unref());
  });
  return child;
}

/** Which versions of reviews answered so many pages. */
async function versions(
  count: number,
  headers: Record<string, string> = {},
): Promise<Record<string, number>> {
  const seen: Record<string, number> = {};
  for (let asked = 0; asked < count; asked += 1) {
    const text = await (await fetch(page, { headers })).text();
    const found = /reviews (v\d) on|(Error fetching product reviews)/.exec(text);
    const word = found?.[1] ?? found?.[2] ?? "nothing";
    seen[word] = (seen[word] ?? 0) + 1;
  }
  return seen;
}

/** Asks until it is so: a change takes a moment to every proxy. */
async function eventually(claim: () => Promise<void>): Promise<void> {
  const endMs = performance.now() + settleMaxMs;
  for (;;) {
    try {
      await claim();
      return;
    } catch (cause) {
      if (performance.now() > endMs) throw cause;
      await new Promise((resolve) => setTimeout(resolve, 200));
    }
  }
}

describe("mizzen up --demo", () => {
  let running: ChildProcess | undefined;
  before(async () => {
    running = await start();
  });
  after(() => {
    running?.kill("SIGKILL");
    mizzen("down", "--name", name);
    rmSync(home, { recursive: true, force: true });
  });

  test("the page answers through the gateway, from all three versions of reviews", async () => {
    const answer = await fetch(page);
    assert.equal(answer.status, 200);
    await eventually(async () => {
      assert.deepEqual(Object.keys(await versions(15)).toSorted(), ["v1", "v2", "v3"]);
    });
  });

  test("kubectl apply of a VirtualService moves jason to v2 and all others to v1, and 50-v3 splits", async () => {
    assert.equal(
      kubectl("apply", "-f", "deploy/demo/networking/virtual-service-reviews-test-v2.yaml").code,
      0,
    );
    await eventually(async () => {
      assert.deepEqual(await versions(10), { v1: 10 });
      assert.deepEqual(await versions(10, { cookie: "session=jason" }), { v2: 10 });
    });
    assert.equal(kubectl("apply", "-f", "deploy/demo/networking/virtual-service-reviews-50-v3.yaml").code, 0);
    await eventually(async () => {
      const { v1 = 0, v2 = 0, v3 = 0 } = await versions(40);
      assert.ok(v2 === 0 && v1 >= 8 && v3 >= 8, `v1 ${v1}, v2 ${v2}, v3 ${v3}`);
    });
  });

  test("status and proxy-status say that all is well", async () => {
    const status = mizzen("status", "--name", name);
    assert.equal(status.code, 0, status.out);
    await eventually(async () => {
      const proxies = mizzen("ps", "--name", name);
      assert.equal(proxies.code, 0, proxies.out);
      assert.equal(
        proxies.out.match(/SYNCED/g)?.length ?? 0,
        proxies.out.match(/SYNCED|STALE|ERROR|NOT SENT/g)?.length ?? 0,
      );
      assert.match(proxies.out, /reviews-v3-\S+\.default/);
    });
  });

  test("proxy-config shows the SPIFFE identity, the routes and the subsets as Envoy has them", () => {
    assert.match(
      mizzen("pc", "secret", "deploy/reviews-v1", "--name", name).out,
      /spiffe:\/\/cluster\.local\/ns\/default\/sa\/bookinfo-reviews/,
    );
    assert.match(
      mizzen("pc", "routes", "deploy/istio-ingressgateway.sm-gateways", "--name", name).out,
      /http\.8080 .*\/productpage +bookinfo\.default/,
    );
    assert.match(
      mizzen("pc", "clusters", "deploy/productpage-v1", "--subset", "v3", "--name", name).out,
      /reviews\.default\.svc\.cluster\.local +9080 +v3 +outbound/,
    );
  });

  test("plaintext from a namespace without injection is refused under STRICT", async () => {
    assert.equal(kubectl("create", "namespace", "outside").code, 0);
    const command = [
      "-s",
      "-o",
      "/dev/null",
      "-w",
      "%{http_code}",
      "-m",
      "5",
      "http://productpage.default:9080/productpage",
    ];
    assert.equal(
      kubectl("-n", "outside", "run", "ask", "--image=curlimages/curl", "--restart=Never", "--", ...command)
        .code,
      0,
    );
    await eventually(async () => {
      assert.match(
        kubectl("-n", "outside", "get", "pod", "ask", "-o", "jsonpath={.status.phase}").out,
        /^Failed$/,
      );
      assert.match(kubectl("-n", "outside", "logs", "ask").out, /^000/);
    });
  });

  test("a wrong object is refused with the field's path, and nothing changes", () => {
    const text = readFileSync(
      join(root, "deploy/demo/networking/virtual-service-reviews-50-v3.yaml"),
      "utf8",
    ).replace("weight: 50", "weight: -50");
    const env = { ...process.env, KUBECONFIG: join(home, name, "kubeconfig") };
    const { status, stderr } = spawnSync(join(root, ".cache/bin/kubectl"), ["apply", "-f", "-"], {
      env,
      input: text,
      encoding: "utf8",
    });
    assert.notEqual(status, 0);
    assert.match(stderr, /spec\.http\[0\]\.route\[0\]\.weight/);
    assert.match(
      kubectl("get", "virtualservice", "reviews", "-o", "jsonpath={.spec.http[0].route[*].weight}").out,
      /^50 50$/,
    );
  });

  test("a taken port is one sentence with the remedy, and nothing is left of the attempt", async () => {
    const taken = createServer();
    await new Promise<void>((resolve) => taken.listen(18_990, "127.0.0.1", resolve));
    const other = mizzen(
      "up",
      "--name",
      "e2e-up-two",
      "--port",
      "18990",
      "--https-port",
      "18991",
      "--api-port",
      "18992",
    );
    taken.close();
    assert.equal(other.code, 1);
    assert.match(other.out, /Port 18990 .* is taken/);
    assert.doesNotMatch(runTool("ip", ["netns"]).out, /e2e-up-two/);
  });

  test("settings, policies and routes that came with the mesh can be changed and deleted", () => {
    const mesh = `${kubectl(...settings).out}connectTimeout: 7s\n`;
    const edited = JSON.stringify({ data: { mesh } });
    for (const verb of [
      ["patch", "configmap", "istio", "-n", "istio-d", "--type=merge", "-p", edited],
      ["delete", "peerauthentication", "default", "-n", "istio-d"],
      ["delete", "gateways.networking.istio.io", "bookinfo-gateway"],
    ])
      assert.equal(kubectl(...verb).code, 0);
  });

  test("Ctrl-C takes everything down: no namespace, mount, process or directory is left", async () => {
    const exited = new Promise<number | null>((resolve) => running?.once("exit", resolve));
    running?.kill("SIGINT");
    assert.equal(await exited, 0);
    assert.doesNotMatch(runTool("ip", ["netns"]).out, new RegExp(`mizzen-${name}\\b`));
    assert.doesNotMatch(readFileSync("/proc/mounts", "utf8"), new RegExp(`/run/mizzen/${name}/`));
    assert.equal(existsSync(`/run/mizzen/${name}`), false);
    assert.equal(
      runTool("ps", ["-eo", "args"])
        .out.split("\n")
        .filter((line) => line.includes(`--name ${name} `) && line.includes("cluster.mjs")).length,
      0,
    );
  });

  test("the next start finds the objects as they were left: what was changed, and what was deleted", async () => {
    running = await start();
    assert.match(kubectl(...settings).out, /connectTimeout: 7s/);
    assert.match(kubectl("get", "peerauthentication", "default", "-n", "istio-d").out, /NotFound/);
    assert.match(
      kubectl("get", "virtualservice", "reviews", "-o", "jsonpath={.spec.http[0].route[*].weight}").out,
      /^50 50$/,
    );
    // The demo cannot do without its Gateway.
    await eventually(async () => assert.equal((await fetch(page)).status, 200));
  });
});
