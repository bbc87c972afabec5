// The standalone API server as a process of its own: what the control plane watches.

import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { silentLog } from "#base";
import { startApiServer, type ApiObject, type ClusterStore, type NewObject } from "#cluster";
import { parseAllDocuments } from "yaml";
import { sharedNowMs, type FromApi, type ToApi } from "./messages.ts";
import type { Made } from "./world.ts";

const dataDir = mkdtempSync(join(tmpdir(), "mizzen-bench-"));
const clock = {
  nowMs: () => Date.now(),
  monotonicMs: () => performance.now(),
  after: (delayMs: number, callback: () => void) => {
    const timer = setTimeout(callback, delayMs);
    return () => clearTimeout(timer);
  },
};
const server = await startApiServer({
  dataDir,
  listen: [{ host: "127.0.0.1", port: 0 }],
  clock,
  log: silentLog,
  controllers: false,
});
await installDefinitions(server.store);
const kubeconfig = join(dataDir, "kubeconfig");
writeFileSync(kubeconfig, server.adminKubeconfig(server.urls[0] ?? ""), { mode: 0o600 });
say({ kind: "ready", kubeconfig });

process.on("message", (message: ToApi) => void answer(message));
process.on("disconnect", () => {
  void server.close().finally(() => {
    rmSync(dataDir, { recursive: true, force: true });
    process.exit(0);
  });
});

async function answer(message: ToApi): Promise<void> {
  const atMs = sharedNowMs();
  if (message.kind === "load" || message.kind === "putAll")
    for (const made of message.objects) await put(made);
  else if (message.kind === "put") await put(message.made);
  else
    await server.store.delete(
      message.made.resource,
      namespaceOf(message.made),
      message.made.object.metadata.name,
    );
  say({ kind: "done", atMs });
}

async function put({ resource, object }: Made): Promise<void> {
  const { namespace = "", name } = object.metadata;
  const stored = server.store.get(resource, namespace, name);
  if (stored !== undefined) {
    await server.store.update(resource, {
      ...object,
      metadata: { ...stored.metadata, ...object.metadata },
    } as ApiObject);
    return;
  }
  const created = await server.store.create(resource, object as NewObject);
  if (object["status"] !== undefined)
    await server.store.updateStatus(resource, { ...created, status: object["status"] });
}

function namespaceOf(made: Made): string {
  return made.object.metadata.namespace ?? "";
}

async function installDefinitions(store: ClusterStore): Promise<void> {
  for (const name of ["istio-d", "default"]) {
    if (store.get("namespaces", "", name) === undefined)
      await store.create("namespaces", { apiVersion: "v1", kind: "Namespace", metadata: { name } });
  }
  for (const file of ["istio.yaml", "gateway-api.yaml"]) {
    const text = readFileSync(join(import.meta.dirname, "../../deploy/crds", file), "utf8");
    for (const document of parseAllDocuments(text)) {
      const definition = document.toJS() as NewObject | null;
      if (definition !== null)
        await store.create("customresourcedefinitions.apiextensions.k8s.io", definition);
    }
  }
}

function say(message: FromApi): void {
  process.send?.(message);
}
