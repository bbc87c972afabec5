import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, it } from "node:test";
import { silentLog } from "#base";
import { Database } from "../src/cluster/api/database.ts";
import { ask, startTestServer, until } from "../src/cluster/api/testing.ts";

describe("durability", () => {
  it("kill -9 in the midst of writes loses no object that was accepted", async () => {
    const dir = mkdtempSync(join(tmpdir(), "mizzen-kill-"));
    const program = `
      import { startApiServer } from ${JSON.stringify(new URL("../src/cluster/api/server.ts", import.meta.url).href)};
      import { testClock } from ${JSON.stringify(new URL("../src/cluster/api/testing.ts", import.meta.url).href)};
      import { silentLog } from ${JSON.stringify(new URL("../src/base/index.ts", import.meta.url).href)};
      const { store } = await startApiServer({ dataDir: ${JSON.stringify(dir)}, listen: [], clock: testClock, log: silentLog });
      for (let i = 0; ; i += 1) {
        await store.create("configmaps", { apiVersion: "v1", kind: "ConfigMap", metadata: { name: "n" + i, namespace: "default" }, data: { i: String(i) } });
        process.stdout.write("n" + i + "\\n");
      }`;
    const child = spawn(process.execPath, ["--input-type=module", "-e", program], {
      stdio: ["ignore", "pipe", "inherit"],
    });
    let text = "";
    child.stdout.on("data", (chunk: Buffer) => {
      text += chunk.toString();
      if (text.includes("n50\n")) child.kill("SIGKILL");
    });
    await once(child, "close");
    const accepted = text.slice(0, text.lastIndexOf("\n")).split("\n");
    const database = new Database(dir, silentLog);
    const revisions = accepted.map((name) =>
      Number(database.get("configmaps", "default", name)?.metadata.resourceVersion),
    );
    assert.ok(accepted.length > 50);
    assert.ok(
      revisions.every((revision) => revision > 0),
      "every accepted object is there",
    );
    assert.ok(
      revisions.every((revision) => revision <= database.revision),
      "the counter did not go back",
    );
    database.close();
    rmSync(dir, { recursive: true });
  });

  it("on a full disk a write fails, reads go on, and nothing that was accepted is lost", async () => {
    const dir = mkdtempSync(join(tmpdir(), "mizzen-full-"));
    const program = `
      import { startApiServer } from ${JSON.stringify(new URL("../src/cluster/api/server.ts", import.meta.url).href)};
      import { testClock } from ${JSON.stringify(new URL("../src/cluster/api/testing.ts", import.meta.url).href)};
      import { silentLog } from ${JSON.stringify(new URL("../src/base/index.ts", import.meta.url).href)};
      const { store } = await startApiServer({ dataDir: ${JSON.stringify(dir)}, listen: [], controllers: false, clock: testClock, log: silentLog });
      const data = { text: "x".repeat(20_000) };
      const written = [];
      let reason = "";
      for (let i = 0; reason === "" && i < 1_000; i += 1) {
        try {
          await store.create("configmaps", { apiVersion: "v1", kind: "ConfigMap", metadata: { name: "n" + i, namespace: "default" }, data });
          written.push("n" + i);
        } catch (error) {
          reason = error.status.reason;
        }
      }
      console.log(JSON.stringify({ written, reason, listed: store.list("configmaps").items.length }));
      process.exit(0);`;
    // No file may grow beyond 2 MiB (4,096 blocks of 512 bytes); the signal for it is ignored, so that the write fails as on a full disk.
    const script = 'trap "" XFSZ; ulimit -f 4096; exec "$0" --input-type=module -e "$1"';
    const child = spawn("sh", ["-c", script, process.execPath, program], {
      stdio: ["ignore", "pipe", "inherit"],
    });
    let text = "";
    child.stdout.on("data", (chunk: Buffer) => (text += chunk.toString()));
    await once(child, "close");
    const { written, reason, listed } = JSON.parse(text) as {
      written: string[];
      reason: string;
      listed: number;
    };
    assert.equal(reason, "InternalError");
    assert.ok(written.length > 10);
    assert.equal(listed, written.length);
    const database = new Database(dir, silentLog);
    assert.ok(written.every((name) => database.get("configmaps", "default", name) !== undefined));
    assert.equal(database.list("configmaps").length, written.length);
    database.close();
    rmSync(dir, { recursive: true });
  });

  it("a restart keeps objects, custom kinds, the authority and tokens", async () => {
    const dir = mkdtempSync(join(tmpdir(), "mizzen-restart-"));
    const first = await startTestServer({ dataDir: dir });
    const { store } = first.server;
    await until(() => store.get("serviceaccounts", "default", "default") !== undefined);
    const schema = { openAPIV3Schema: { type: "object", "x-kubernetes-preserve-unknown-fields": true } };
    await store.create("customresourcedefinitions.apiextensions.k8s.io", {
      apiVersion: "apiextensions.k8s.io/v1",
      kind: "CustomResourceDefinition",
      metadata: { name: "kites.x.io" },
      spec: {
        group: "x.io",
        scope: "Namespaced",
        names: { plural: "kites", kind: "Kite" },
        versions: [{ name: "v1", served: true, storage: true, schema }],
      },
    });
    await store.create("kites.x.io", {
      apiVersion: "x.io/v1",
      kind: "Kite",
      metadata: { name: "k", namespace: "default" },
    });
    const { token } = await store.issueToken({
      namespace: "default",
      serviceAccount: "default",
      audiences: [],
      expirationSeconds: 600,
    });
    const client = await first.server.clientCertificate("root", ["system:masters"]);
    const { caPem } = first.server;
    await first.close();
    const second = await startTestServer({ dataDir: dir });
    assert.equal(second.server.caPem, caPem);
    assert.equal((await ask(second, "/apis/x.io/v1/namespaces/default/kites/k", { client })).code, 200);
    assert.equal((await ask(second, "/version", { token })).code, 200);
    await second.close();
    rmSync(dir, { recursive: true });
  });
});
