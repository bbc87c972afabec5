import assert from "node:assert/strict";
import { once } from "node:events";
import { request } from "node:https";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { CoreV1Api, KubeConfig, makeInformer } from "@kubernetes/client-node";
import type { KeyPem } from "./auth/cluster-ca.ts";
import { recordOf, stringOf, valueAt } from "./json.ts";
import type { JsonRecord } from "./json.ts";
import { settings, startTestServer, until } from "./testing.ts";
import type { TestServer } from "./testing.ts";

describe("watches over HTTPS", () => {
  let cluster: TestServer;
  let admin: KeyPem;
  before(async () => {
    cluster = await startTestServer();
    admin = await cluster.server.clientCertificate("root", ["system:masters"]);
  });
  after(() => cluster.close());

  /** Reads events until enough have come, then breaks off. */
  async function events(
    query: string,
    enough: (events: readonly JsonRecord[]) => boolean,
    headers = {},
  ): Promise<JsonRecord[]> {
    const call = request(`${cluster.url}/api/v1/namespaces/default/configmaps?watch=true&${query}`, {
      ca: cluster.server.caPem,
      key: admin.keyPem,
      cert: admin.certPem,
      agent: false,
      headers,
    });
    call.end();
    const [response] = (await once(call, "response")) as [AsyncIterable<Buffer> & { statusCode?: number }];
    const found: JsonRecord[] = [];
    let text = "";
    for await (const chunk of response) {
      text += chunk.toString();
      const lines = text.split("\n");
      text = lines.pop() ?? "";
      found.push(...lines.map((line) => recordOf(JSON.parse(line))));
      if (response.statusCode !== 200 || enough(found)) break;
    }
    call.destroy();
    return response.statusCode === 200 ? found : [recordOf(JSON.parse(text))];
  }

  const nameOf = (event: JsonRecord): string => stringOf(valueAt(event, "object", "metadata", "name"));

  it("a streaming list sends what there is, then the bookmark that ends it, then changes", async () => {
    const { store } = cluster.server;
    await store.create("configmaps", settings("first"));
    const query =
      "sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true&resourceVersion=";
    let isSent = false;
    const found = await events(query, (seen) => {
      const isBookmarked = seen.some((event) => event["type"] === "BOOKMARK");
      if (isBookmarked && !isSent) {
        isSent = true;
        void store.create("configmaps", settings("second"));
      }
      return seen.some((event) => nameOf(event) === "second");
    });
    const bookmark = found.findIndex((event) => event["type"] === "BOOKMARK");
    assert.ok(
      found.slice(0, bookmark).some((event) => event["type"] === "ADDED" && nameOf(event) === "first"),
    );
    assert.equal(
      valueAt(found[bookmark], "object", "metadata", "annotations", "k8s.io/initial-events-end"),
      "true",
    );
    assert.equal(found.at(-1)?.["type"], "ADDED");
  });

  it("a version before the history is answered 410, one after it continues without a gap", async () => {
    const { store } = cluster.server;
    assert.equal((await events("resourceVersion=1000000000000000000000", () => true))[0]?.["code"], 400);
    const { resourceVersion } = store.list("configmaps");
    for (const i of [1, 2, 3]) await store.create("configmaps", settings(`gap-${i}`));
    const found = await events(`resourceVersion=${resourceVersion}`, (seen) => seen.length >= 3);
    assert.deepEqual(found.map(nameOf), ["gap-1", "gap-2", "gap-3"]);
  });

  it("a watch as Table sends its columns once", async () => {
    const accept = "application/json;as=Table;v=v1;g=meta.k8s.io";
    const found = await events("", (seen) => seen.length >= 2, { accept });
    assert.equal(valueAt(found[0], "object", "kind"), "Table");
    assert.ok(Array.isArray(valueAt(found[0], "object", "columnDefinitions")));
    assert.equal(valueAt(found[1], "object", "columnDefinitions"), null);
  });

  it("client-node's informer follows the store", async () => {
    const config = new KubeConfig();
    config.loadFromFile(join(cluster.dir, "kubeconfig"));
    const api = config.makeApiClient(CoreV1Api);
    const list = (): ReturnType<CoreV1Api["listNamespacedConfigMap"]> =>
      api.listNamespacedConfigMap({ namespace: "kube-public" });
    const informer = makeInformer(config, "/api/v1/namespaces/kube-public/configmaps", list);
    await informer.start();
    const { store } = cluster.server;
    await store.create("configmaps", {
      ...settings("informed"),
      metadata: { name: "informed", namespace: "kube-public" },
    });
    await until(() => informer.get("informed", "kube-public") !== undefined);
    await store.delete("configmaps", "kube-public", "informed");
    await until(() => informer.get("informed", "kube-public") === undefined);
    await informer.stop();
  });

  it("a unix socket serves the same API over TLS", async () => {
    const socketPath = join(cluster.dir, "api.sock");
    const other = await startTestServer({ listen: [{ path: socketPath }, { host: "127.0.0.1", port: 0 }] });
    const { keyPem, certPem } = await other.server.clientCertificate("root", ["system:masters"]);
    const call = request({
      socketPath,
      path: "/readyz",
      host: "localhost",
      ca: other.server.caPem,
      key: keyPem,
      cert: certPem,
      agent: false,
    });
    call.end();
    const [response] = (await once(call, "response")) as [{ statusCode?: number; resume(): void }];
    response.resume();
    assert.equal(response.statusCode, 200);
    await other.close();
  });
});
