// The control plane against the standalone API server, under the ClusterRole that deploy/ gives it: what it keeps in the API, and
// whom it lets in on 15012. No root needed.

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { globSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import http2 from "node:http2";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { after, before, describe, test } from "node:test";
import { fileURLToPath } from "node:url";
import protobuf from "protobufjs/minimal.js";
import { parseAllDocuments, stringify } from "yaml";
import { silentLog } from "#base";
import { startApiServer, type ApiServer, type NewObject } from "#cluster";
import { encodeMessage } from "#envoy";
import { accessFromKubeconfig, KubeClient, RateLimitedWriter } from "#kube";
import { adsPath, type Rejection } from "#xds";
import { createCertificatePath } from "../src/apps/control/ca-service.ts";
import { ControlPlane } from "../src/apps/control/control-plane.ts";
import { RejectionWriter } from "../src/apps/control/rejection-writer.ts";
import { parseSettings } from "../src/apps/control/settings.ts";
import { RealClock } from "./support/real-clock.ts";

const root = dirname(dirname(fileURLToPath(import.meta.url)));

const clock = new RealClock();

const pluralOf: Readonly<Record<string, string>> = {
  Namespace: "namespaces",
  ServiceAccount: "serviceaccounts",
  ConfigMap: "configmaps",
  Pod: "pods",
  Service: "services",
  Role: "roles.rbac.authorization.k8s.io",
  RoleBinding: "rolebindings.rbac.authorization.k8s.io",
  ClusterRole: "clusterroles.rbac.authorization.k8s.io",
  ClusterRoleBinding: "clusterrolebindings.rbac.authorization.k8s.io",
  CustomResourceDefinition: "customresourcedefinitions.apiextensions.k8s.io",
  MutatingWebhookConfiguration: "mutatingwebhookconfigurations.admissionregistration.k8s.io",
  ValidatingWebhookConfiguration: "validatingwebhookconfigurations.admissionregistration.k8s.io",
  VirtualService: "virtualservices.networking.istio.io",
};

interface Reply {
  readonly status: number;
  readonly message: string;
  readonly bytes: Buffer;
}

interface Asking {
  readonly token?: string;
  readonly certificate?: { readonly chain: string; readonly key: string };
}

class Bench {
  readonly directory = mkdtempSync(join(tmpdir(), "mizzen-control-kube-"));
  api!: ApiServer;
  controlPlane!: ControlPlane;

  async start(): Promise<void> {
    const dataDir = join(this.directory, "data");
    this.api = await startApiServer({
      dataDir,
      listen: [{ host: "127.0.0.1", port: 0 }],
      clock,
      log: silentLog,
      resolveService: () => ({ host: "127.0.0.1", port: this.controlPlane.ports.webhook }),
    });
    for (const file of [
      "deploy/namespaces.yaml",
      ...globSync("deploy/crds/*.yaml", { cwd: root }),
      "deploy/istiod-rbac.yaml",
    ])
      await this.create(readFileSync(join(root, file), "utf8"), ["Deployment", "PodDisruptionBudget"]);
    await this.create(workload);
    const { token } = await this.api.store.issueToken({
      namespace: "istio-d",
      serviceAccount: "istiod",
      audiences: [],
      expirationSeconds: 3_600,
    });
    const kubeconfig = join(this.directory, "kubeconfig");
    writeFileSync(kubeconfig, kubeconfigOf(this.api, token));
    const settings = parseSettings(
      [
        ...["--kubeconfig", kubeconfig, "--host", "127.0.0.1", "--drain-ms", "0"],
        ...["--monitoring-port", "0", "--webhook-port", "0", "--xds-port", "0"],
      ],
      { POD_NAME: "istiod-1" },
    );
    this.controlPlane = new ControlPlane({
      settings,
      version: "test",
      clock,
      random: () => 0.5,
      log: silentLog,
    });
    await this.controlPlane.start();
    await this.create(readFileSync(join(root, "deploy/webhooks.yaml"), "utf8"));
  }

  async close(): Promise<void> {
    await this.controlPlane.stop();
    await this.api.close();
    rmSync(this.directory, { recursive: true, force: true });
  }

  async create(text: string, without: readonly string[] = []): Promise<void> {
    for (const document of parseAllDocuments(text)) {
      const object = document.toJS() as (NewObject & { readonly kind: string }) | null;
      if (object === null || without.includes(object.kind)) continue;
      const resource = pluralOf[object.kind];
      assert.ok(resource !== undefined, object.kind);
      await this.api.store.create(resource, object);
    }
  }

  async token(serviceAccount: string, pod?: string, audience = "istio-ca"): Promise<string> {
    const uid = pod === undefined ? "" : (this.api.store.get("pods", "default", pod)?.metadata.uid ?? "");
    const { token } = await this.api.store.issueToken({
      namespace: "default",
      serviceAccount,
      audiences: [audience],
      expirationSeconds: 3_600,
      ...(pod !== undefined && { pod: { name: pod, uid } }),
    });
    return token;
  }

  get rootPem(): string {
    const secret = this.api.store.get("secrets", "istio-d", "istio-ca-secret") as unknown as {
      data: Record<string, string>;
    };
    return Buffer.from(secret.data["root-cert.pem"] ?? "", "base64").toString();
  }

  /** Sends one message and takes the first answer, or the refusal. The server's name is checked against the mesh's root. */
  call(path: string, message: Uint8Array, { token, certificate }: Asking): Promise<Reply> {
    const client = http2.connect(`https://127.0.0.1:${this.controlPlane.ports.xds}`, {
      ca: this.rootPem,
      servername: "istiod.istio-d.svc",
      cert: certificate?.chain,
      key: certificate?.key,
    });
    return new Promise<Reply>((resolve, reject) => {
      client.once("error", reject);
      const stream = client.request({
        ":method": "POST",
        ":path": path,
        "content-type": "application/grpc",
        te: "trailers",
        ...(token !== undefined && { authorization: `Bearer ${token}` }),
      });
      const chunks: Buffer[] = [];
      const done = (headers: http2.IncomingHttpHeaders): void =>
        resolve({
          status: Number(headers["grpc-status"] ?? -1),
          message: decodeURIComponent(String(headers["grpc-message"] ?? "")),
          bytes: Buffer.concat(chunks),
        });
      stream.on("response", (headers) => headers["grpc-status"] !== undefined && done(headers));
      stream.on("trailers", done);
      stream.on("error", reject);
      stream.on("data", (chunk: Buffer) => {
        chunks.push(chunk);
        if (path === adsPath) done({ "grpc-status": "0" });
      });
      const head = Buffer.alloc(5);
      head.writeUInt32BE(message.length, 1);
      stream.write(Buffer.concat([head, message]));
      if (path !== adsPath) stream.end();
    }).finally(() => client.destroy());
  }

  connect(pod: string, asking: Asking, address = "10.1.0.7"): Promise<Reply> {
    const request = encodeMessage("envoy.service.discovery.v3.DeltaDiscoveryRequest", {
      node: { id: `sidecar~${address}~${pod}~default.svc.cluster.local` },
      typeUrl: "type.googleapis.com/envoy.config.cluster.v3.Cluster",
    });
    return this.call(adsPath, request, asking);
  }

  async until<T>(claim: string, look: () => T | undefined): Promise<T> {
    const untilMs = performance.now() + 10_000;
    for (;;) {
      const found = look();
      if (found !== undefined) return found;
      assert.ok(performance.now() < untilMs, claim);
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
  }
}

const workload = `
apiVersion: v1
kind: Namespace
metadata: { name: default-of-another }
---
apiVersion: v1
kind: ServiceAccount
metadata: { name: sleep, namespace: default }
---
apiVersion: v1
kind: ServiceAccount
metadata: { name: thief, namespace: default }
---
apiVersion: v1
kind: ServiceAccount
metadata: { name: other, namespace: default }
---
apiVersion: v1
kind: Pod
metadata: { name: sleep-1, namespace: default, labels: { app: sleep } }
spec: { serviceAccountName: sleep, containers: [{ name: app, image: sleep }] }
---
apiVersion: v1
kind: Pod
metadata: { name: other-1, namespace: default, labels: { app: other } }
spec: { serviceAccountName: other, containers: [{ name: app, image: sleep }] }
`;

function kubeconfigOf(api: ApiServer, token: string): string {
  const certificateAuthority = Buffer.from(api.caPem).toString("base64");
  return stringify({
    apiVersion: "v1",
    kind: "Config",
    "current-context": "test",
    clusters: [
      {
        name: "test",
        cluster: { server: api.urls[0], "certificate-authority-data": certificateAuthority },
      },
    ],
    users: [{ name: "istiod", user: { token } }],
    contexts: [{ name: "test", context: { cluster: "test", user: "istiod" } }],
  });
}

function certificateRequest(directory: string): { csr: string; key: string } {
  const keyFile = join(directory, "key.pem");
  const newKey = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", keyFile];
  const csr = execFileSync("openssl", ["req", "-new", ...newKey, "-subj", "/"], {
    stdio: ["ignore", "pipe", "ignore"],
  });
  return { csr: csr.toString(), key: readFileSync(keyFile, "utf8") };
}

/** IstioCertificateResponse: the chain, each a PEM. */
function chainOf(frame: Buffer): string {
  const reader = protobuf.Reader.create(frame.subarray(5));
  let chain = "";
  while (reader.pos < reader.len) {
    if (reader.uint32() >>> 3 === 1) chain += reader.string();
  }
  return chain;
}

describe("the control plane against an API server", () => {
  const bench = new Bench();
  before(() => bench.start());
  after(() => bench.close());

  test("the root is in every namespace, also in a new one, and comes back when it is deleted", async () => {
    const { store } = bench.api;
    const find = (namespace: string) => () => store.get("configmaps", namespace, "istio-ca-root-cert");
    await bench.until("the root in default", find("default"));
    await store.create("namespaces", { apiVersion: "v1", kind: "Namespace", metadata: { name: "late" } });
    const map = await bench.until("the root in a new namespace", find("late"));
    assert.equal((map as unknown as { data: Record<string, string> }).data["root-cert.pem"], bench.rootPem);
    await store.delete("configmaps", "late", "istio-ca-root-cert");
    await bench.until("the root again", find("late"));
  });

  test("the webhook configurations carry the root", async () => {
    const expected = Buffer.from(bench.rootPem).toString("base64");
    for (const [resource, name] of [
      ["mutatingwebhookconfigurations.admissionregistration.k8s.io", "istio-sidecar-injector"],
      ["validatingwebhookconfigurations.admissionregistration.k8s.io", "istio-validator-istio-d"],
    ] as const) {
      await bench.until(`the bundle of ${name}`, () => {
        const found = bench.api.store.get(resource, "", name) as unknown as {
          webhooks: { clientConfig: { caBundle?: string } }[];
        };
        return found.webhooks.every(({ clientConfig }) => clientConfig.caBundle === expected) || undefined;
      });
    }
  });

  test("a proxy with the token of its pod is let in, and so with the certificate that the CA gives it", async () => {
    const token = await bench.token("sleep", "sleep-1");
    const byToken = await bench.connect("sleep-1.default", { token });
    assert.equal(byToken.message, "");
    assert.equal(byToken.status, 0);
    const { csr, key } = certificateRequest(bench.directory);
    const request = protobuf.Writer.create().uint32(10).string(csr).uint32(24).int64(3_600).finish();
    const signed = await bench.call(createCertificatePath, request, { token });
    assert.equal(signed.status, 0, signed.message);
    const certificate = { chain: chainOf(signed.bytes), key };
    assert.equal((await bench.connect("sleep-1.default", { certificate })).status, 0);
    const other = await bench.connect("other-1.default", { certificate });
    assert.equal(other.status, 7);
    assert.match(other.message, /service account sleep is not the pod's, other/);
  });

  test("a rejection stands in the status of the object at fault and as an event, until it is replaced", async () => {
    const { store } = bench.api;
    await bench.create(`
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: { name: reviews, namespace: default }
spec: { hosts: [reviews], http: [{ route: [{ destination: { host: reviews } }] }] }
`);
    const client = new KubeClient(accessFromKubeconfig(join(bench.directory, "kubeconfig")));
    const writer = new RateLimitedWriter({ clock, log: silentLog });
    const rejections = new RejectionWriter({ client, writer, clock, component: "istiod-1" });
    const rejection: Rejection = {
      type: "route",
      name: "9080",
      version: "v",
      reason: "no such thing",
      proxy: "sidecar~10.1.0.7~sleep-1.default~default.svc.cluster.local",
      atMs: 0,
      origins: [{ at: "", object: { kind: "VirtualService", namespace: "default", name: "reviews" } }],
    };
    const condition = () => {
      const found = store.get("virtualservices.networking.istio.io", "default", "reviews") as unknown as {
        status?: { conditions?: { type: string; status: string; message?: string }[] };
      };
      return found.status?.conditions?.find(({ type }) => type === "Programmed");
    };
    rejections.rejected(rejection);
    const said = await bench.until("the condition", condition);
    assert.equal(said.status, "False");
    assert.match(said.message ?? "", /sleep-1\.default rejected route 9080.*no such thing/);
    await bench.until("the event", () =>
      store.list("events").items.find(({ reason }) => reason === "RejectedByProxy"),
    );
    rejections.cleared(rejection);
    await bench.until("the end of it", () => (condition()?.status === "True" ? true : undefined));
    client.close();
  });

  test("every object says in its status which generation is in use and what is wrong, and is written only when that changes", async () => {
    const { store } = bench.api;
    const kind = "virtualservices.networking.istio.io";
    await bench.create(`
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: { name: lost, namespace: default }
spec: { hosts: [lost.example.com], http: [{ route: [{ destination: { host: nowhere } }] }] }
`);
    const found = () =>
      store.get(kind, "default", "lost") as unknown as {
        metadata: { generation: number; resourceVersion: string };
        status?: {
          observedGeneration?: number;
          conditions?: { type: string; status: string; message?: string; observedGeneration?: number }[];
          validationMessages?: { type: { code: string }; level: string }[];
        };
      };
    const condition = (type: string) => found().status?.conditions?.find((one) => one.type === type);
    const passed = await bench.until("the condition", () => condition("PassedValidation"));
    assert.equal(passed.status, "False");
    assert.match(
      passed.message ?? "",
      /spec\.http\[0\]\.route\[0\]\.destination\.host: No service has the host nowhere\.default/,
    );
    assert.deepEqual(
      found().status?.validationMessages?.map(({ type, level }) => [type.code, level]),
      [["MZ0601", "ERROR"]],
    );
    assert.equal(condition("Reconciled")?.status, "True");
    assert.equal(found().status?.observedGeneration, found().metadata.generation);
    await bench.until("who holds it", () =>
      condition("Reconciled")?.message === "no connected proxy is concerned" ? true : undefined,
    );
    const before = found().metadata.resourceVersion;
    await bench.create(`
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: { name: other, namespace: default }
spec: { hosts: [other.example.com], http: [{ directResponse: { status: 200 } }] }
`);
    await bench.until("the status of another object", () =>
      (store.get(kind, "default", "other") as { status?: object } | undefined)?.status === undefined
        ? undefined
        : true,
    );
    assert.equal(found().metadata.resourceVersion, before, "what says the same is not written again");
    await bench.create(`
apiVersion: v1
kind: Service
metadata: { name: nowhere, namespace: default }
spec: { ports: [{ port: 80 }] }
`);
    await bench.until("the problem is gone", () =>
      condition("PassedValidation")?.status === "True" ? true : undefined,
    );
    assert.deepEqual(found().status?.validationMessages, []);
  });

  test("an unsound object is refused with the path of its field", async () => {
    const unsound = bench.create(`
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: { name: unsound, namespace: default }
spec: { hosts: [reviews], http: [{ route: [{ destination: { host: a }, weight: -1 }] }] }
`);
    await assert.rejects(unsound, /spec\.http\[0\]\.route\[0\]\.weight/);
  });

  test("who proves nothing, or another identity than the pod's, is refused with the reason", async () => {
    const cases: [string, Asking, number, RegExp][] = [
      ["sleep-1.default", {}, 16, /neither a bearer token nor a client certificate/],
      ["sleep-1.default", { token: "nonsense" }, 16, /refused/],
      ["sleep-1.default", { token: await bench.token("sleep", "sleep-1", "vault") }, 16, /./],
      ["sleep-1.default", { token: await bench.token("thief") }, 7, /service account thief is not the pod's/],
      [
        "sleep-1.default-of-another",
        { token: await bench.token("sleep", "sleep-1") },
        7,
        /namespace default/,
      ],
      ["nonsense", { token: await bench.token("sleep", "sleep-1") }, 3, /node id/],
    ];
    for (const [pod, asking, status, message] of cases) {
      const reply = await bench.connect(pod, asking);
      assert.equal(reply.status, status, `${pod}: ${reply.message}`);
      assert.match(reply.message, message);
    }
  });
});
