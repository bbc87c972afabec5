import assert from "node:assert/strict";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { ClusterCa } from "./auth/cluster-ca.ts";
import type { KeyPem } from "./auth/cluster-ca.ts";
import { recordOf, recordsOf, stringOf, valueAt } from "./json.ts";
import type { JsonRecord } from "./json.ts";
import type { ApiObject } from "./store.ts";
import { ask, pod, settings, startTestServer, until } from "./testing.ts";
import type { TestServer } from "./testing.ts";

describe("who may ask the API server", () => {
  let cluster: TestServer;
  let admin: KeyPem;
  before(async () => {
    cluster = await startTestServer();
    admin = await cluster.server.clientCertificate("root", ["system:masters"]);
    await until(() => cluster.server.store.get("serviceaccounts", "default", "default") !== undefined);
  });
  after(() => cluster.close());

  const tokenFor = async (podObject?: ApiObject, audiences: string[] = []): Promise<string> => {
    const bound = podObject && { name: podObject.metadata.name, uid: podObject.metadata.uid ?? "" };
    const { store } = cluster.server;
    const wanted = {
      namespace: "default",
      serviceAccount: "default",
      audiences,
      expirationSeconds: 3_600,
      pod: bound,
    };
    return (await store.issueToken(wanted)).token;
  };

  it("nobody without a credential is answered, not even for health", async () => {
    for (const path of ["/api/v1/pods", "/healthz", "/version", "/apis"]) {
      const answer = await ask(cluster, path);
      assert.equal(answer.code, 401, path);
      assert.equal(answer.body["reason"], "Unauthorized");
    }
  });

  it("a certificate of another authority is refused, even with the name of an administrator", async () => {
    const dir = mkdtempSync(join(tmpdir(), "mizzen-foreign-ca-"));
    const foreign = await ClusterCa.open(dir, Date.now());
    const client = await foreign.client("root", ["system:masters"], Date.now());
    assert.equal((await ask(cluster, "/api/v1/pods", { client })).code, 401);
    assert.equal((await ask(cluster, "/api/v1/pods", { client: admin })).code, 200);
    rmSync(dir, { recursive: true });
  });

  it("a token that is not ours, or for another audience, is refused", async () => {
    assert.equal((await ask(cluster, "/api/v1/pods", { token: "nonsense" })).code, 401);
    const token = await tokenFor(undefined, ["istio-ca"]);
    assert.equal((await ask(cluster, "/api/v1/pods", { token })).code, 401);
    assert.equal((await ask(cluster, "/api/v1/pods", { token: "nonsense", client: admin })).code, 401);
  });

  it("a service account may do what its roles say, and nothing else", async () => {
    const { store } = cluster.server;
    const token = await tokenFor();
    const denied = await ask(cluster, "/api/v1/namespaces/default/configmaps", { token });
    assert.equal(denied.code, 403);
    assert.match(
      stringOf(denied.body["message"]),
      /User "system:serviceaccount:default:default" cannot list resource "configmaps"/,
    );
    const apiVersion = "rbac.authorization.k8s.io/v1";
    const rules = [
      { apiGroups: [""], resources: ["configmaps"], resourceNames: ["kube-root-ca.crt"], verbs: ["get"] },
    ];
    await store.create("roles.rbac.authorization.k8s.io", {
      apiVersion,
      kind: "Role",
      metadata: { name: "r", namespace: "default" },
      rules,
    });
    await store.create("rolebindings.rbac.authorization.k8s.io", {
      apiVersion,
      kind: "RoleBinding",
      metadata: { name: "r", namespace: "default" },
      roleRef: { kind: "Role", name: "r", apiGroup: "rbac.authorization.k8s.io" },
      subjects: [{ kind: "ServiceAccount", name: "default", namespace: "default" }],
    });
    const path = "/api/v1/namespaces/default/configmaps/kube-root-ca.crt";
    assert.equal((await ask(cluster, path, { token })).code, 200);
    assert.equal((await ask(cluster, path, { token, method: "DELETE" })).code, 403);
    assert.equal(
      (await ask(cluster, "/api/v1/namespaces/kube-system/configmaps/kube-root-ca.crt", { token })).code,
      403,
    );
    const spec = {
      resourceAttributes: {
        verb: "get",
        resource: "configmaps",
        namespace: "default",
        name: "kube-root-ca.crt",
      },
    };
    const review = await ask(cluster, "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", {
      token,
      method: "POST",
      body: { spec },
    });
    assert.equal(valueAt(review.body, "status", "allowed"), true);
  });

  it("TokenReview knows the audience and the Pod, and forgets the token with its Pod", async () => {
    const { store } = cluster.server;
    const created = await store.create("pods", pod("bound"));
    const token = await tokenFor(created, ["istio-ca"]);
    const review = async (audiences: string[]): Promise<JsonRecord> => {
      const body = { spec: { token, audiences } };
      const answer = await ask(cluster, "/apis/authentication.k8s.io/v1/tokenreviews", {
        client: admin,
        method: "POST",
        body,
      });
      assert.equal(answer.code, 201);
      return recordOf(answer.body["status"]);
    };
    const good = await review(["istio-ca", "other"]);
    assert.equal(good["authenticated"], true);
    assert.deepEqual(good["audiences"], ["istio-ca"]);
    assert.equal(valueAt(good, "user", "username"), "system:serviceaccount:default:default");
    assert.deepEqual(valueAt(good, "user", "extra", "authentication.kubernetes.io/pod-name"), ["bound"]);
    assert.deepEqual(valueAt(good, "user", "extra", "authentication.kubernetes.io/pod-uid"), [
      created.metadata.uid,
    ]);
    assert.equal((await review(["other"]))["authenticated"], false);
    assert.equal((await review([]))["authenticated"], false);
    await store.delete("pods", "default", "bound");
    assert.equal((await review(["istio-ca"]))["authenticated"], false);
  });

  it("a TokenRequest for a Pod of another account is refused", async () => {
    const { store } = cluster.server;
    await store.create("serviceaccounts", {
      apiVersion: "v1",
      kind: "ServiceAccount",
      metadata: { name: "other", namespace: "default" },
    });
    const created = await store.create("pods", pod("mine"));
    const body = {
      spec: {
        audiences: ["a"],
        expirationSeconds: 600,
        boundObjectRef: { kind: "Pod", apiVersion: "v1", name: "mine", uid: created.metadata.uid },
      },
    };
    const path = (account: string): string => `/api/v1/namespaces/default/serviceaccounts/${account}/token`;
    assert.equal((await ask(cluster, path("default"), { client: admin, method: "POST", body })).code, 201);
    assert.equal((await ask(cluster, path("other"), { client: admin, method: "POST", body })).code, 400);
    const brief = { spec: { expirationSeconds: 60 } };
    assert.equal(
      (await ask(cluster, path("default"), { client: admin, method: "POST", body: brief })).code,
      422,
    );
  });

  it("a body that is too large or no JSON is refused, and unknown fields are warned of", async () => {
    const path = "/api/v1/namespaces/default/configmaps";
    const data = { big: "x".repeat(3 * 1024 * 1024) };
    assert.equal(
      (await ask(cluster, path, { client: admin, method: "POST", body: { ...settings("big"), data } })).code,
      413,
    );
    const wrong = await ask(cluster, path, {
      client: admin,
      method: "POST",
      body: { ...settings("warned"), colour: "red" },
    });
    assert.equal(wrong.code, 201);
    assert.match(wrong.warning, /299 - "unknown field \\"colour\\""/);
    const strict = await ask(cluster, `${path}?fieldValidation=Strict`, {
      client: admin,
      method: "POST",
      body: { ...settings("strict"), colour: "red" },
    });
    assert.equal(strict.code, 400);
  });

  it("what is lacking says so: 404 for no such path, 501 for attach, 405 for a verb that is not there", async () => {
    await cluster.server.store.create("pods", pod("lacking"));
    assert.equal((await ask(cluster, "/api/v1/submarines", { client: admin })).code, 404);
    assert.equal((await ask(cluster, "/api/v1/pods/%ff", { client: admin })).code, 400);
    const contentType = "application/vnd.kubernetes.protobuf";
    const garbled = await ask(cluster, "/api/v1/namespaces", {
      client: admin,
      method: "POST",
      body: "k8s",
      contentType,
    });
    assert.equal(garbled.code, 400);
    const exec = await ask(cluster, "/api/v1/namespaces/default/pods/lacking/exec", {
      client: admin,
      method: "POST",
    });
    assert.equal(exec.code, 501);
    const attach = await ask(cluster, "/api/v1/namespaces/default/pods/lacking/attach", {
      client: admin,
      method: "POST",
    });
    assert.equal(attach.code, 501);
    assert.match(stringOf(attach.body["message"]), /not offered by the standalone cluster/);
    const review = await ask(cluster, "/apis/authentication.k8s.io/v1/tokenreviews", { client: admin });
    assert.equal(review.code, 405);
  });

  it("pages of a list follow each other by their continue token", async () => {
    const { store } = cluster.server;
    for (const i of [1, 2, 3, 4, 5])
      await store.create("configmaps", settings(`page-${i}`, { labels: { paged: "yes" } }));
    const names: string[] = [];
    let next = "";
    do {
      const path = `/api/v1/configmaps?labelSelector=paged%3Dyes&limit=2${next === "" ? "" : `&continue=${next}`}`;
      const { body } = await ask(cluster, path, { client: admin });
      names.push(...recordsOf(body["items"]).map((item) => stringOf(valueAt(item, "metadata", "name"))));
      next = stringOf(valueAt(body, "metadata", "continue"));
    } while (next !== "");
    assert.deepEqual(names, ["page-1", "page-2", "page-3", "page-4", "page-5"]);
  });
});
