// The standalone API server and the control plane in the test's own process, without a node: objects go straight into the store,
// and what the control plane writes can be read there. No root needed.

import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseAllDocuments } from "yaml";
import { silentLog, type Logger } from "#base";
import { startApiServer, type ApiObject, type ApiServer, type NewObject } from "#cluster";
import { ControlPlane } from "../../src/apps/control/control-plane.ts";
import { parseSettings } from "../../src/apps/control/settings.ts";
import { RealClock } from "./real-clock.ts";

const root = join(import.meta.dirname, "../..");

export class ClusterBench {
  readonly directory = mkdtempSync(join(tmpdir(), "mizzen-cluster-bench-"));
  readonly clock = new RealClock();
  api!: ApiServer;
  readonly #controlPlanes: ControlPlane[] = [];

  /** The API server, with the kinds of the mesh, the namespaces `istio-d` and `default` and an account in the latter. */
  async start(log = silentLog): Promise<void> {
    this.api = await startApiServer({
      dataDir: join(this.directory, "data"),
      listen: [{ host: "127.0.0.1", port: 0 }],
      clock: this.clock,
      log,
      controllers: false,
    });
    const { store } = this.api;
    for (const name of ["istio-d", "default"]) {
      if (store.get("namespaces", "", name) === undefined)
        await store.create("namespaces", { apiVersion: "v1", kind: "Namespace", metadata: { name } });
    }
    for (const document of parseAllDocuments(readFileSync(join(root, "deploy/crds/istio.yaml"), "utf8"))) {
      const crd = document.toJS() as NewObject | null;
      if (crd !== null) await store.create("customresourcedefinitions.apiextensions.k8s.io", crd);
    }
    const metadata = { name: "default", namespace: "default" };
    await store.create("serviceaccounts", { apiVersion: "v1", kind: "ServiceAccount", metadata });
  }

  /** A kubeconfig that may do everything. */
  get kubeconfig(): string {
    const file = join(this.directory, "admin.kubeconfig");
    writeFileSync(file, this.api.adminKubeconfig(this.api.urls[0] ?? ""));
    return file;
  }

  /** A control plane that is not started yet; it is stopped with the bench. */
  controlPlane(
    kubeconfig: string,
    options: { readonly log?: Logger; readonly pod?: string; readonly environment?: object } = {},
  ): ControlPlane {
    const flags = ["--kubeconfig", kubeconfig, "--host", "127.0.0.1", "--drain-ms", "0"];
    const ports = ["--monitoring-port", "0", "--webhook-port", "0", "--xds-port", "0"];
    const environment = { POD_NAME: options.pod ?? "istiod-1", ...options.environment };
    const controlPlane = new ControlPlane({
      settings: parseSettings([...flags, ...ports, "--plaintext", "127.0.0.1:0"], environment),
      version: "test",
      clock: this.clock,
      random: () => 0.5,
      log: options.log ?? silentLog,
    });
    this.#controlPlanes.push(controlPlane);
    return controlPlane;
  }

  /** A Pod that runs on loopback. */
  async makePod(
    name: string,
    app: string,
    annotations: Readonly<Record<string, string>> = {},
  ): Promise<void> {
    const created = await this.api.store.create("pods", {
      apiVersion: "v1",
      kind: "Pod",
      metadata: { name, namespace: "default", labels: { app }, annotations },
      spec: { automountServiceAccountToken: false, containers: [{ name: "app", image: "app" }] },
    });
    const status = { phase: "Running", podIP: "127.0.0.1", podIPs: [{ ip: "127.0.0.1" }] };
    await this.api.store.updateStatus("pods", { ...created, status } as ApiObject);
  }

  /** Makes an object of one of Istio's networking kinds, or puts it in the place of the one that is there. */
  async put(plural: string, object: NewObject): Promise<void> {
    const { store } = this.api;
    const { name, namespace = "" } = object.metadata;
    const before = store.get(plural, namespace, name ?? "");
    if (before === undefined) await store.create(plural, object);
    else await store.update(plural, { ...before, ...object, metadata: before.metadata } as ApiObject);
  }

  async stopControlPlanes(): Promise<void> {
    for (const controlPlane of this.#controlPlanes.splice(0)) await controlPlane.stop();
  }

  async close(): Promise<void> {
    await this.stopControlPlanes();
    await this.api?.close();
    rmSync(this.directory, { recursive: true, force: true });
  }
}

/** Sums a metric of a control plane over the label sets whose text holds `labels`. */
export async function metricOf(controlPlane: ControlPlane, name: string, labels = ""): Promise<number> {
  const url = `http://127.0.0.1:${controlPlane.ports.monitoring}/metrics`;
  const text = await (await fetch(url)).text();
  return text
    .split("\n")
    .filter((line) => (line.startsWith(`${name}{`) || line.startsWith(`${name} `)) && line.includes(labels))
    .reduce((sum, line) => sum + Number(line.slice(line.lastIndexOf(" "))), 0);
}

/** What a debug page of a control plane shows. */
export async function debugOf<T>(controlPlane: ControlPlane, page: string): Promise<T> {
  const answer = await fetch(`http://127.0.0.1:${controlPlane.ports.monitoring}/debug/${page}`);
  return (await answer.json()) as T;
}
