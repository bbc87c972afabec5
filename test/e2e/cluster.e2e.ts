// The standalone cluster by itself, without a mesh: real runc, real namespaces, real kubectl.

import assert from "node:assert/strict";
import { execFile, spawn, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { existsSync } from "node:fs";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { promisify } from "node:util";
import { clusterStatus, launchCluster, podNetns, teardownCluster, type RunningCluster } from "#cluster";
import { leftovers } from "./leftovers.ts";
import { curl, eventually, root } from "./mesh.ts";

const run = promisify(execFile);
const name = "e2e-cluster";
const waitMaxMs = 20_000;

let home = "";
let cluster: RunningCluster;

before(async () => {
  home = await mkdtemp(join(tmpdir(), "mizzen-e2e-cluster-"));
  const publish = [{ service: "default/web", port: 80, hostPort: 0 }];
  cluster = await launchCluster({ name, home, apiPort: 0, publish });
});

after(async () => {
  await cluster.stop();
  await teardownCluster(name, { home });
  await rm(home, { recursive: true, force: true });
});

async function kubectl(args: readonly string[], input?: string): Promise<string> {
  const running = run(join(root, ".cache/bin/kubectl"), ["--kubeconfig", cluster.kubeconfigPath, ...args]);
  running.child.stdin?.end(input ?? "");
  return (await running).stdout;
}

async function until<T>(what: string, read: () => Promise<T | undefined>): Promise<T> {
  const endMs = performance.now() + waitMaxMs;
  let last: unknown;
  while (performance.now() < endMs) {
    try {
      const value = await read();
      if (value !== undefined) return value;
    } catch (error) {
      last = error;
    }
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
  throw new Error(`${what}: not within ${waitMaxMs} ms`, { cause: last });
}

function podYaml(podName: string, spec: object, labels: Record<string, string> = {}): string {
  const defaults = { terminationGracePeriodSeconds: 1 };
  const metadata = { name: podName, labels };
  return JSON.stringify({ apiVersion: "v1", kind: "Pod", metadata, spec: { ...defaults, ...spec } });
}

function configMapYaml(configMapName: string, data: Record<string, string>): string {
  return JSON.stringify({ apiVersion: "v1", kind: "ConfigMap", metadata: { name: configMapName }, data });
}

async function logOf(pod: string, fits: RegExp): Promise<string> {
  return until(`log of ${pod}`, async () => {
    const text = await kubectl(["logs", pod]);
    return fits.test(text) ? text : undefined;
  });
}

async function containerStatus(pod: string): Promise<Record<string, unknown>> {
  const object = JSON.parse(await kubectl(["get", "pod", pod, "-o", "json"]));
  return object.status.containerStatuses[0];
}

test("a Deployment's Pods are reached by name, by ClusterIP and from the machine, and a rollout replaces them", async () => {
  const serve =
    "process.on('SIGTERM',()=>process.exit(0));" +
    "require('http').createServer((q,r)=>r.end(require('os').hostname()+'\\n')).listen(8080)";
  const container = {
    name: "web",
    image: "node",
    args: ["-e", serve],
    ports: [{ name: "http", containerPort: 8080 }],
    readinessProbe: { httpGet: { path: "/", port: "http" } },
  };
  const objects = [
    {
      apiVersion: "apps/v1",
      kind: "Deployment",
      metadata: { name: "web" },
      spec: {
        replicas: 2,
        selector: { matchLabels: { app: "web" } },
        template: { metadata: { labels: { app: "web" } }, spec: { containers: [container] } },
      },
    },
    {
      apiVersion: "v1",
      kind: "Service",
      metadata: { name: "web" },
      spec: { type: "LoadBalancer", selector: { app: "web" }, ports: [{ port: 80, targetPort: "http" }] },
    },
  ];
  await kubectl(["apply", "-f", "-"], JSON.stringify({ apiVersion: "v1", kind: "List", items: objects }));
  await kubectl(["rollout", "status", "deployment/web", "--timeout=30s"]);
  const script =
    "for i in 1 2 3 4 5 6 7 8 9 10 11 12; do curl -sS -m 5 http://web; done; curl -sS nobody; echo end; sleep 100";
  const client = {
    containers: [{ name: "client", image: "curlimages/curl", command: ["sh", "-c", script] }],
  };
  await kubectl(["apply", "-f", "-"], podYaml("client", client));
  const log = await logOf("client", /^end$/m);
  assert.equal(new Set(log.match(/^web-.*$/gm)).size, 2, log);
  assert.match(log, /Could not resolve host: nobody/);

  const address = cluster.published[0]?.address ?? "";
  // curl opens a connection of its own each time; one that is kept alive ends with the Pod behind it.
  const answer = () => curl([address]);
  await eventually("a Pod answers", async () =>
    (await answer()).body.startsWith("web-") ? true : undefined,
  );
  const [pod] = log.match(/^web-.*$/m) ?? [];
  await kubectl(["rollout", "restart", "deployment/web"]);
  await kubectl(["rollout", "status", "deployment/web", "--timeout=30s"]);
  await eventually("another Pod answers", async () => {
    const { status, body } = await answer();
    return status === 200 && body.trim() !== pod ? true : undefined;
  });
  await kubectl(["rollout", "undo", "deployment/web"]);
  await kubectl(["rollout", "status", "deployment/web", "--timeout=30s"]);
});

test("a security context is enforced: user, groups, capabilities, read-only root", async () => {
  const script =
    "id; grep -E 'Cap(Eff|Bnd)|NoNewPrivs' /proc/self/status; touch /x 2>/dev/null || echo refused; touch /usr/x 2>/dev/null || echo refused; ls /root /home; echo end; sleep 100";
  await kubectl(
    ["apply", "-f", "-"],
    podYaml("guarded", {
      securityContext: { runAsUser: 1337, runAsGroup: 1338, fsGroup: 2000 },
      containers: [
        {
          name: "guarded",
          image: "busybox",
          args: ["sh", "-c", script],
          securityContext: {
            readOnlyRootFilesystem: true,
            allowPrivilegeEscalation: false,
            capabilities: { drop: ["ALL"] },
          },
        },
      ],
    }),
  );
  const log = await logOf("guarded", /^end$/m);
  assert.match(log, /uid=1337.* gid=1338.* groups=.*2000/);
  assert.match(log, /CapEff:\s0{16}\nCapBnd:\s0{16}\nNoNewPrivs:\s1/);
  assert.equal(log.match(/^refused$/gm)?.length, 2, log);
});

test("an image that runs as root is refused where a Pod must not", async () => {
  const containers = [{ name: "a", image: "busybox", securityContext: { runAsNonRoot: true } }];
  await kubectl(["apply", "-f", "-"], podYaml("nonroot", { containers }));
  await until("CreateContainerConfigError", async () =>
    JSON.stringify((await containerStatus("nonroot"))["state"]).includes("CreateContainerConfigError")
      ? true
      : undefined,
  );
});

test("configuration reaches a Pod as variables and files, and a changed ConfigMap reaches its file", async () => {
  await kubectl(["apply", "-f", "-"], configMapYaml("settings", { color: "red" }));
  const secret = {
    apiVersion: "v1",
    kind: "Secret",
    metadata: { name: "hidden" },
    stringData: { word: "open" },
  };
  await kubectl(["apply", "-f", "-"], JSON.stringify(secret));
  const script =
    'echo "$COLOR $WORD $NAME $IP $GREETING"; test -s /var/run/secrets/kubernetes.io/serviceaccount/token && echo token; ' +
    "while true; do cat /settings/color; echo; sleep 0.2; done";
  await kubectl(
    ["apply", "-f", "-"],
    podYaml("configured", {
      volumes: [{ name: "settings", configMap: { name: "settings" } }],
      containers: [
        {
          name: "a",
          image: "busybox",
          args: ["sh", "-c", script],
          env: [
            { name: "COLOR", valueFrom: { configMapKeyRef: { name: "settings", key: "color" } } },
            { name: "WORD", valueFrom: { secretKeyRef: { name: "hidden", key: "word" } } },
            { name: "NAME", valueFrom: { fieldRef: { fieldPath: "metadata.name" } } },
            { name: "IP", valueFrom: { fieldRef: { fieldPath: "status.podIP" } } },
            { name: "GREETING", value: "hello-$(NAME)" },
          ],
          volumeMounts: [{ name: "settings", mountPath: "/settings" }],
        },
      ],
    }),
  );
  const log = await logOf("configured", /^red$/m);
  assert.match(log, /^red open configured 10\.244\.\d+\.\d+ hello-configured\ntoken$/m);
  await kubectl(["patch", "configmap", "settings", "-p", '{"data":{"color":"blue"}}']);
  await logOf("configured", /^blue$/m);
});

test("a failing container restarts at once and then with a pause, and its last life's log is kept", async () => {
  const containers = [{ name: "a", image: "busybox", args: ["sh", "-c", "echo life; exit 3"] }];
  await kubectl(["apply", "-f", "-"], podYaml("crash", { containers }));
  const status = await until("CrashLoopBackOff", async () => {
    const found = await containerStatus("crash");
    return JSON.stringify(found["state"]).includes("CrashLoopBackOff") ? found : undefined;
  });
  assert.equal(status["restartCount"], 1);
  assert.equal((status["lastState"] as { terminated: { exitCode: number } }).terminated.exitCode, 3);
  assert.match(await kubectl(["logs", "crash", "--previous"]), /life/);
});

test("kubectl exec carries input, both outputs and the exit code", async () => {
  const containers = [{ name: "main", image: "busybox", command: ["sleep", "600"] }];
  await kubectl(["apply", "-f", "-"], podYaml("tool", { containers }));
  await kubectl(["wait", "--for=condition=Ready", "pod/tool", "--timeout=20s"]);
  assert.equal(await kubectl(["exec", "-i", "tool", "--", "sort"], "b\na\n"), "a\nb\n");
  const long = await kubectl(["exec", "tool", "--", "sh", "-c", "seq 1 50000"]);
  assert.equal(long.length, 288_894);
  const failed = await kubectl(["exec", "tool", "--", "sh", "-c", "echo out; echo err >&2; exit 3"]).catch(
    (error: { code: number; stdout: string; stderr: string }) => error,
  );
  assert.ok(typeof failed === "object");
  assert.deepEqual([failed.code, failed.stdout], [3, "out\n"]);
  assert.match(failed.stderr, /err/);
});

test("an unknown image is a reason to wait, not a failure of the node", async () => {
  await kubectl(
    ["apply", "-f", "-"],
    podYaml("unknown", { containers: [{ name: "a", image: "example.test/none:1" }] }),
  );
  await until("ErrImageNeverPull", async () =>
    JSON.stringify((await containerStatus("unknown"))["state"]).includes("ErrImageNeverPull")
      ? true
      : undefined,
  );
});

test("init containers run in order, a sidecar runs before the container, and a failing liveness probe restarts it", async () => {
  const shared = [{ name: "work", mountPath: "/work" }];
  const sh = (containerName: string, script: string, more: object = {}) => ({
    name: containerName,
    image: "busybox",
    args: ["sh", "-c", script],
    volumeMounts: shared,
    ...more,
  });
  await kubectl(
    ["apply", "-f", "-"],
    podYaml("ordered", {
      volumes: [{ name: "work", emptyDir: {} }],
      initContainers: [
        sh("first", "echo first >> /work/order"),
        sh("aside", "echo aside >> /work/order; touch /work/up; sleep 100", {
          restartPolicy: "Always",
          startupProbe: { exec: { command: ["test", "-e", "/work/up"] }, periodSeconds: 1 },
        }),
        sh("second", "echo second >> /work/order"),
      ],
      containers: [
        sh("main", "cat /work/order; echo end; sleep 100", {
          livenessProbe: { exec: { command: ["false"] }, periodSeconds: 1, failureThreshold: 2 },
        }),
      ],
    }),
  );
  await until("a restart", async () => {
    const object = JSON.parse(await kubectl(["get", "pod", "ordered", "-o", "json"]));
    return object.status.containerStatuses[0].restartCount > 0 ? true : undefined;
  });
  assert.match(await kubectl(["logs", "ordered", "-c", "main", "--previous"]), /first\naside\nsecond\nend/);
});

test("a deleted Pod leaves no namespace", async () => {
  const uid = await kubectl(["get", "pod", "guarded", "-o", "jsonpath={.metadata.uid}"]);
  const netns = join("/run/netns", podNetns(cluster.layout, uid));
  assert.ok(existsSync(netns));
  await kubectl(["delete", "pod", "guarded", "--wait", "--now"]);
  assert.ok(!existsSync(netns));
});

test("a second start of a running cluster is refused in one sentence", async () => {
  await assert.rejects(
    launchCluster({ name, home, apiPort: 0, publish: [] }),
    /already running .*mizzen down/,
  );
});

test("after kill -9 of everything the next start has the objects, and a stop leaves nothing", async (context) => {
  const other = "e2e-cluster-k";
  const program = join(home, "launch.ts");
  const door = join(root, "src/cluster/index.ts");
  await writeFile(
    program,
    `import { launchCluster } from ${JSON.stringify(door)};
const cluster = await launchCluster({ name: "${other}", home: ${JSON.stringify(home)}, apiPort: 0, publish: [] });
process.on("SIGTERM", () => void cluster.stop());
console.log("up");
await cluster.exited;
`,
  );
  const children: ChildProcess[] = [];
  context.after(() => children.forEach((child) => child.kill("SIGKILL")));
  const first = await start(program, children);
  const status = await clusterStatus(other, { home });
  assert.equal(status.kind, "running");
  const config = ["--kubeconfig", status.layout.kubeconfig];
  await kubectl([...config, "apply", "-f", "-"], configMapYaml("kept", { a: "b" }));
  const sleep = podYaml("sleep", { containers: [{ name: "a", image: "busybox", args: ["sleep", "1000"] }] });
  await kubectl([...config, "apply", "-f", "-"], sleep);
  await kubectl([...config, "wait", "--for=condition=Ready", "pod/sleep", "--timeout=20s"]);
  first.kill("SIGKILL");
  if (status.kind === "running") process.kill(status.clusterPid, "SIGKILL");
  await once(first, "exit");

  const second = await start(program, children);
  assert.match(await kubectl([...config, "get", "configmap", "kept", "-o", "name"]), /kept/);
  await kubectl([...config, "wait", "--for=condition=Ready", "pod/sleep", "--timeout=20s"]);
  second.kill("SIGTERM");
  await once(second, "exit");
  assert.deepEqual(await leftovers(other), []);
});

async function start(program: string, children: ChildProcess[]): Promise<ChildProcess> {
  const child = spawn(process.execPath, [program], { stdio: ["ignore", "pipe", "inherit"] });
  children.push(child);
  await once(child.stdout, "data");
  return child;
}
