import assert from "node:assert/strict";
import { after, before, describe, it } from "node:test";
import { ApiError } from "./errors.ts";
import { recordOf, recordsOf, stringOf, valueAt } from "./json.ts";
import type { JsonRecord } from "./json.ts";
import type { ApiObject, ClusterStore } from "./store.ts";
import { pod, refusal, settings, startTestServer, until } from "./testing.ts";
import type { TestServer } from "./testing.ts";

describe("writes", () => {
  let cluster: TestServer;
  let store: ClusterStore;
  before(async () => {
    cluster = await startTestServer();
    store = cluster.server.store;
    await until(() => store.get("serviceaccounts", "default", "default") !== undefined);
  });
  after(() => cluster.close());

  it("an update with an old resourceVersion is a conflict; one that changes nothing is no change", async () => {
    const first = await store.create("configmaps", { ...settings("c"), data: { a: "1" } });
    const second = await store.update("configmaps", { ...first, data: { a: "2" } });
    const stale = await refusal(store.update("configmaps", { ...first, data: { a: "3" } }));
    assert.equal(stale.code, 409);
    assert.match(stale.message, /the object has been modified/);
    const same = await store.update("configmaps", { ...second });
    assert.equal(same.metadata.resourceVersion, second.metadata.resourceVersion);
    assert.equal((await refusal(store.create("configmaps", settings("c")))).reason, "AlreadyExists");
  });

  it("concurrent patches all arrive", async () => {
    await store.create("configmaps", settings("busy"));
    const patches = Array.from({ length: 8 }, (_, i) =>
      store.patch("configmaps", "default", "busy", { data: { [`k${i}`]: "v" } }),
    );
    await Promise.all(patches);
    assert.equal(Object.keys(recordOf(store.get("configmaps", "default", "busy")?.["data"])).length, 8);
  });

  it("the status is written through its subresource alone, and is no new generation", async () => {
    const created = await store.create("pods", { ...pod("s"), status: { phase: "Running" } });
    assert.equal(valueAt(created, "status", "phase"), "Pending");
    const spec = { ...recordOf(created["spec"]), activeDeadlineSeconds: 9 };
    const updated = await store.update("pods", { ...created, spec, status: { phase: "Failed" } });
    assert.equal(valueAt(updated, "status", "phase"), "Pending");
    assert.equal(updated.metadata.generation, 2);
    const after2 = await store.updateStatus("pods", { ...updated, spec: {}, status: { phase: "Running" } });
    assert.equal(valueAt(after2, "status", "phase"), "Running");
    assert.equal(valueAt(after2, "spec", "activeDeadlineSeconds"), 9);
    assert.equal(after2.metadata.generation, 2);
  });

  it("a Pod gets its account's token, and keeps what may not change", async () => {
    const created = await store.create("pods", pod("t"));
    const volume = recordsOf(valueAt(created, "spec", "volumes"))[0];
    assert.match(stringOf(volume?.["name"]), /^kube-api-access-/);
    const refused = await refusal(store.patch("pods", "default", "t", { spec: { dnsPolicy: "Default" } }));
    assert.match(refused.message, /spec: Forbidden: pod updates may not change fields/);
    const unknown = await refusal(store.create("pods", pod("u", { serviceAccountName: "nobody" })));
    assert.match(unknown.message, /serviceaccount "nobody" not found/);
  });

  it("Services get an address and node ports of their own, and keep them", async () => {
    const service = (name: string, spec: JsonRecord): ApiObject => ({
      apiVersion: "v1",
      kind: "Service",
      metadata: { name, namespace: "default" },
      spec,
    });
    const a = await store.create("services", service("a", { ports: [{ port: 80 }], type: "NodePort" }));
    const b = await store.create("services", service("b", { ports: [{ port: 80 }], type: "LoadBalancer" }));
    const address = stringOf(valueAt(a, "spec", "clusterIP"));
    assert.match(address, /^10\.96\./);
    assert.notEqual(address, valueAt(b, "spec", "clusterIP"));
    const portOf = (object: ApiObject): unknown =>
      recordsOf(valueAt(object, "spec", "ports"))[0]?.["nodePort"];
    assert.notEqual(portOf(a), portOf(b));
    const updated = await store.update(
      "services",
      service("a", {
        ports: [{ port: 80 }, { port: 81, name: "x" }].map((port, i) => ({ name: `p${i}`, ...port })),
        type: "NodePort",
      }),
    );
    assert.equal(valueAt(updated, "spec", "clusterIP"), address);
    assert.equal(portOf(updated), portOf(a));
    const taken = await refusal(
      store.create("services", service("c", { clusterIP: address, ports: [{ port: 1 }] })),
    );
    assert.match(taken.message, /provided IP is already allocated/);
    const wrong = await refusal(store.create("services", service("d", { ports: [{ port: 70_000 }] })));
    assert.match(
      wrong.message,
      /spec\.ports\[0\]\.port: Invalid value: 70000: must be between 1 and 65535, inclusive/,
    );
    const headless = await store.create(
      "services",
      service("h", { clusterIP: "None", ports: [{ port: 80 }] }),
    );
    assert.deepEqual(valueAt(headless, "spec", "clusterIPs"), ["None"]);
  });

  it("an object goes when its last finalizer does", async () => {
    await store.create("configmaps", settings("f", { finalizers: ["x.io/a"] }));
    const marked = await store.delete("configmaps", "default", "f");
    assert.ok(marked.metadata.deletionTimestamp);
    assert.ok(store.get("configmaps", "default", "f"));
    await store.patch("configmaps", "default", "f", { metadata: { finalizers: null } });
    assert.equal(store.get("configmaps", "default", "f"), undefined);
  });

  it("dependents go with their owner, wait for it in the foreground, and are let go as orphans", async () => {
    const owned = async (name: string, owner: ApiObject): Promise<void> => {
      const { uid = "" } = owner.metadata;
      const ownerReferences = [
        { apiVersion: "v1", kind: "ConfigMap", name: owner.metadata.name, uid, blockOwnerDeletion: true },
      ];
      await store.create("configmaps", settings(name, { ownerReferences }));
    };
    const there = (name: string): boolean => store.get("configmaps", "default", name) !== undefined;
    await owned("child-1", await store.create("configmaps", settings("owner-1")));
    await store.delete("configmaps", "default", "owner-1");
    await until(() => !there("child-1"));
    await owned("child-2", await store.create("configmaps", settings("owner-2")));
    await store.patch("configmaps", "default", "child-2", { metadata: { finalizers: ["x.io/hold"] } });
    await store.delete("configmaps", "default", "owner-2", { propagationPolicy: "Foreground" });
    await until(
      () => store.get("configmaps", "default", "child-2")?.metadata.deletionTimestamp !== undefined,
    );
    assert.ok(there("owner-2"), "the owner waits for its dependents");
    await store.patch("configmaps", "default", "child-2", { metadata: { finalizers: [] } });
    await until(() => !there("owner-2") && !there("child-2"));
    await owned("child-3", await store.create("configmaps", settings("owner-3")));
    await store.delete("configmaps", "default", "owner-3", { propagationPolicy: "Orphan" });
    await until(() => !there("owner-3"));
    assert.ok(there("child-3"));
    assert.deepEqual(store.get("configmaps", "default", "child-3")?.metadata.ownerReferences ?? [], []);
  });

  it("a watch begins where it is told, sees objects enter and leave its selection, in order", async () => {
    const { resourceVersion } = store.list("configmaps");
    await store.create("configmaps", settings("w", { labels: { side: "left" } }));
    await store.patch("configmaps", "default", "w", { metadata: { labels: { side: "right" } } });
    await store.delete("configmaps", "default", "w");
    const seen: string[] = [];
    const stop = store.watch(
      "configmaps",
      { fromResourceVersion: resourceVersion, labelSelector: "side=left" },
      ({ type, object }) => seen.push(`${type} ${object.metadata.name}`),
    );
    assert.deepEqual(seen, ["ADDED w", "DELETED w"]);
    stop();
    assert.throws(
      () => store.watch("configmaps", { fromResourceVersion: "0" }, () => {}),
      (error) => error instanceof ApiError && error.status.code === 410,
    );
  });
});
