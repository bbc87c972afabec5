import assert from "node:assert/strict";
import { mkdtempSync, rmSync } from "node:fs";
import { createServer } from "node:https";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { ClusterCa } from "./auth/cluster-ca.ts";
import { arrayOf, recordOf, recordsOf, stringOf, valueAt } from "./json.ts";
import type { JsonRecord } from "./json.ts";
import { pod, refusal, startTestServer, until } from "./testing.ts";
import type { TestServer } from "./testing.ts";

describe("admission webhooks", () => {
  let cluster: TestServer;
  const seen: JsonRecord[] = [];
  let answer: (review: JsonRecord) => JsonRecord = () => ({ allowed: true });
  let hook: ReturnType<typeof createServer>;
  let bundle = "";
  before(async () => {
    const dir = mkdtempSync(join(tmpdir(), "mizzen-hook-ca-"));
    const ca = await ClusterCa.open(dir, Date.now());
    rmSync(dir, { recursive: true });
    bundle = Buffer.from(ca.certPem).toString("base64");
    const { certPem, keyPem } = await ca.server(["127.0.0.1", "hook.default.svc"], Date.now());
    hook = createServer({ cert: certPem, key: keyPem }, (incoming, outgoing) => {
      let text = "";
      incoming.on("data", (chunk: Buffer) => (text += chunk.toString()));
      incoming.on("end", () => {
        const review = recordOf(valueAt(JSON.parse(text), "request"));
        seen.push(review);
        outgoing.end(JSON.stringify({ response: { uid: review["uid"], ...answer(review) } }));
      });
    });
    await new Promise<void>((resolve) => hook.listen(0, "127.0.0.1", resolve));
    const { port } = hook.address() as AddressInfo;
    cluster = await startTestServer({
      resolveService: (_namespace, name) => (name === "hook" ? { host: "127.0.0.1", port } : undefined),
    });
    await until(() => cluster.server.store.get("serviceaccounts", "default", "default") !== undefined);
  });
  after(async () => {
    hook.closeAllConnections();
    hook.close();
    await cluster.close();
  });

  const configure = async (kind: "Mutating" | "Validating", webhook: JsonRecord): Promise<void> => {
    const resource = `${kind.toLowerCase()}webhookconfigurations.admissionregistration.k8s.io`;
    await cluster.server.store.create(resource, {
      apiVersion: "admissionregistration.k8s.io/v1",
      kind: `${kind}WebhookConfiguration`,
      metadata: { name: stringOf(webhook["name"]) },
      webhooks: [
        {
          clientConfig: {
            caBundle: bundle,
            service: { name: "hook", namespace: "default", path: "/inject" },
          },
          rules: [{ operations: ["CREATE"], apiGroups: [""], apiVersions: ["v1"], resources: ["pods"] }],
          admissionReviewVersions: ["v1"],
          sideEffects: "None",
          ...webhook,
        },
      ],
    });
  };
  const drop = (kind: "mutating" | "validating", name: string): Promise<unknown> =>
    cluster.server.store.delete(`${kind}webhookconfigurations.admissionregistration.k8s.io`, "", name);

  it("a mutating webhook adds a container, which then gets the account's token too", async () => {
    await configure("Mutating", {
      name: "inject.x.io",
      namespaceSelector: { matchLabels: { inject: "yes" } },
    });
    const { store } = cluster.server;
    const patch = [{ op: "add", path: "/spec/containers/-", value: { name: "proxy", image: "proxy" } }];
    answer = () => ({
      allowed: true,
      patchType: "JSONPatch",
      patch: Buffer.from(JSON.stringify(patch)).toString("base64"),
      warnings: ["injected"],
    });
    const before2 = await store.create("pods", pod("plain"));
    assert.equal(arrayOf(valueAt(before2, "spec", "containers")).length, 1, "the namespace is not selected");
    await store.patch("namespaces", "", "default", { metadata: { labels: { inject: "yes" } } });
    const after2 = await store.create("pods", pod("injected"));
    const containers = recordsOf(valueAt(after2, "spec", "containers"));
    assert.deepEqual(
      containers.map((container) => container["name"]),
      ["c", "proxy"],
    );
    assert.equal(recordsOf(containers[1]?.["volumeMounts"]).length, 1);
    assert.equal(containers[1]?.["imagePullPolicy"], "Always");
    const review = seen.at(-1)!;
    assert.equal(review["operation"], "CREATE");
    assert.equal(review["namespace"], "default");
    assert.equal(valueAt(review, "object", "metadata", "name"), "injected");
    await drop("mutating", "inject.x.io");
  });

  it("a validating webhook refuses with its own words, and is not asked about what it does not select", async () => {
    await configure("Validating", {
      name: "guard.x.io",
      objectSelector: { matchLabels: { guarded: "yes" } },
    });
    const { store } = cluster.server;
    answer = () => ({ allowed: false, status: { code: 422, reason: "Invalid", message: "spec.x: not so" } });
    const guarded = pod("guarded");
    guarded.metadata.labels = { guarded: "yes" };
    const refused = await refusal(store.create("pods", guarded));
    assert.equal(refused.code, 422);
    assert.equal(refused.message, 'admission webhook "guard.x.io" denied the request: spec.x: not so');
    assert.equal(store.get("pods", "default", "guarded"), undefined);
    await store.create("pods", pod("unguarded"));
    await drop("validating", "guard.x.io");
  });

  it("a webhook that cannot be reached fails the request, or is ignored, by its failurePolicy", async () => {
    const { store } = cluster.server;
    const nowhere = { caBundle: bundle, service: { name: "nobody", namespace: "default" } };
    await configure("Validating", { name: "gone.x.io", clientConfig: nowhere });
    const refused = await refusal(store.create("pods", pod("never")));
    assert.equal(refused.code, 500);
    assert.match(
      refused.message,
      /failed calling webhook "gone.x.io": failed to call webhook: no endpoints available for service "nobody"/,
    );
    await store.patch(
      "validatingwebhookconfigurations.admissionregistration.k8s.io",
      "",
      "gone.x.io",
      [{ op: "replace", path: "/webhooks/0/failurePolicy", value: "Ignore" }],
      { type: "json" },
    );
    await store.create("pods", pod("ever"));
    await drop("validating", "gone.x.io");
  });

  it("a webhook whose certificate another authority signed is not trusted", async () => {
    const other = Buffer.from(cluster.server.caPem).toString("base64");
    await configure("Validating", {
      name: "fake.x.io",
      clientConfig: { caBundle: other, service: { name: "hook", namespace: "default" } },
    });
    const refused = await refusal(cluster.server.store.create("pods", pod("trusting")));
    assert.equal(refused.code, 500);
    await drop("validating", "fake.x.io");
  });
});
