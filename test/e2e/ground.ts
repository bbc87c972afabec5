// A mesh with echoes in it, for files of tests of one subject: calls from app to app, objects that are there for a while, and
// programs beside a workload's application.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { createInterface } from "node:readline";
import { stringify } from "yaml";
import { layoutOf, podNetns } from "#cluster";
import type { KubeObject } from "#objects";
import { deployEchoes, echoIn, order, podIp, type EchoApp, type Order, type Result } from "./echoes.ts";
import { leftovers } from "./leftovers.ts";
import { command, eventually, startMesh, type Mesh } from "./mesh.ts";

/** Where the callers and what they call are; injected. */
export const namespace = "default";

export interface GroundOptions {
  readonly name: string;
  readonly port: number;
  readonly apps: readonly EchoApp[];
  /** Without injection. */
  readonly otherNamespaces?: readonly string[];
  /** There before the apps. */
  readonly objects?: readonly KubeObject[];
}

export class Ground {
  readonly mesh: Mesh;
  /** Addresses by app. */
  readonly pods: ReadonlyMap<string, string>;

  private constructor(mesh: Mesh, pods: ReadonlyMap<string, string>) {
    this.mesh = mesh;
    this.pods = pods;
  }

  static async start({ name, port, apps, otherNamespaces = [], objects = [] }: GroundOptions) {
    const mesh = await startMesh({ name, port });
    try {
      for (const other of otherNamespaces) await mesh.kubectl(["create", "namespace", other]);
      await mesh.kubectl(["label", "namespace", namespace, "istio-injection=enabled", "--overwrite"]);
      if (objects.length > 0) await mesh.kubectl(["apply", "-f", "-"], manifest(objects));
      await deployEchoes(mesh, apps);
      const pods = new Map<string, string>();
      for (const { name: app, namespace: of, service = app, version = "v1" } of apps)
        pods.set(app, await podIp(mesh, of, `app=${service},version=${version}`));
      return new Ground(mesh, pods);
    } catch (error) {
      await mesh.down();
      throw error;
    }
  }

  async down(): Promise<void> {
    await this.mesh.down();
    assert.deepEqual(await leftovers(this.mesh.name), [], "nothing of ours is left on the machine");
  }

  addressOf(app: string): string {
    return this.pods.get(app) ?? assert.fail(`no app ${app}`);
  }

  calls(what: Order, from = "caller"): Promise<readonly Result[]> {
    return order(this.mesh, this.addressOf(from), { timeoutMs: 5_000, ...what });
  }

  /** Calls until the check of the only result holds. */
  async answered(what: Order, check: (result: Result) => void, from = "caller"): Promise<void> {
    await eventually(`${what.url} from ${from}`, async () => {
      const [result] = await this.calls(what, from);
      assert.ok(result !== undefined);
      check(result);
      return true;
    });
  }

  /** Calls so many times, until the check of all results holds. */
  async eventuallyOf(url: string, count: number, check: (all: readonly Result[]) => void): Promise<void> {
    await eventually(url, async () => {
      check(await this.calls({ url, count }));
      return true;
    });
  }

  /** Does something while these objects are there. */
  async applied(objects: readonly KubeObject[], work: () => Promise<unknown>): Promise<void> {
    await this.mesh.kubectl(["apply", "-f", "-"], manifest(objects));
    try {
      await work();
    } finally {
      await this.mesh.kubectl(["delete", "--ignore-not-found", "-f", "-"], manifest(objects));
    }
  }

  /** Waits until an object's status names the problems. */
  async toldIn(object: string, of: string, codes: readonly string[]): Promise<void> {
    await eventually(`${codes.join()} in the status of ${object}`, async () => {
      const status = await this.mesh.kubectl(["get", object, "-n", of, "-o", "jsonpath={.status}"]);
      const missing = codes.filter((code) => !status.includes(code));
      if (missing.length > 0) throw new Error(`${missing.join()} not in ${status}`);
      return true;
    });
  }

  /** The network of an app's first Pod, as nsenter takes it. */
  async netnsOf(app: string, of = namespace): Promise<string> {
    const uid = await this.mesh.kubectl([
      ...["get", "pods", "-n", of, "-l", `app=${app},version=v1`],
      ...["-o", "jsonpath={.items[0].metadata.uid}"],
    ]);
    return `--net=/run/netns/${podNetns(layoutOf(this.mesh.name), uid)}`;
  }

  /** What an app's Envoy says at a path of its admin port. */
  async admin(app: string, path: string, of = namespace): Promise<string> {
    const url = `http://127.0.0.1:15000${path}`;
    const asked = await command("nsenter", [await this.netnsOf(app, of), "--", "curl", "-sS", url]);
    assert.equal(asked.code, 0, asked.stderr);
    return asked.stdout;
  }

  /**
   * Does something while a program of Node runs in the network of an app's Pod, with its application's loopback and abstract
   * sockets. It writes a line once it is ready; `lines` has those that it writes afterwards.
   */
  async running(
    {
      app,
      of = namespace,
      args,
    }: { readonly app: string; readonly of?: string; readonly args: readonly string[] },
    work: (lines: string[]) => Promise<unknown>,
  ): Promise<void> {
    const words = [await this.netnsOf(app, of), "--", process.execPath, ...args];
    const child = spawn("nsenter", words, { stdio: ["ignore", "pipe", "inherit"] });
    const lines: string[] = [];
    try {
      const reader = createInterface(child.stdout);
      await Promise.race([
        once(reader, "line"),
        once(child, "exit").then(([code]) => assert.fail(`${args[0]} ended with ${String(code)}`)),
      ]);
      reader.on("line", (line) => lines.push(line));
      await work(lines);
    } finally {
      child.kill();
    }
  }

  /** How many requests the proxies of a service's pods have let in. */
  async served(service: string): Promise<number> {
    const counts = [...this.pods].flatMap(([pod, address]) =>
      pod.startsWith(`${service}-`) ? [address] : [],
    );
    const sums = await Promise.all(
      counts.map(async (address) => {
        const url = `http://${address}:15020/stats/prometheus`;
        const { stdout } = await this.mesh.inNode(["curl", "-sS", url]);
        const lines = stdout
          .split("\n")
          .filter((line) => /^istio_requests_total\{.*reporter="destination"/.test(line));
        return lines.reduce((sum, line) => sum + Number(line.split(" ").at(-1)), 0);
      }),
    );
    return sums.reduce((sum, one) => sum + one, 0);
  }
}

export function assertMutualTls(result: Result): void {
  assert.match(
    echoIn(result)?.headers["x-forwarded-client-cert"] ?? "",
    /URI=spiffe:\/\/cluster\.local\/ns\/default\/sa\/caller/,
    JSON.stringify(result),
  );
}

export function virtualService(host: string, http: readonly object[]): KubeObject {
  return networking("VirtualService", host, { hosts: [host], http });
}

export function destinationRule(host: string, trafficPolicy: object): KubeObject {
  return networking("DestinationRule", host, { host, trafficPolicy });
}

export function serviceEntry(host: string, spec: object): KubeObject {
  return networking("ServiceEntry", host, { hosts: [host], location: "MESH_EXTERNAL", ...spec });
}

/** A Sidecar of one app. */
export function sidecarOf(app: string, spec: object): KubeObject {
  return networking("Sidecar", app, { workloadSelector: { labels: { app } }, ...spec });
}

export function networking(kind: string, name: string, spec: object, of = namespace): KubeObject {
  return { apiVersion: "networking.istio.io/v1", kind, metadata: { name, namespace: of }, spec };
}

function manifest(objects: readonly KubeObject[]): string {
  return objects.map((object) => stringify(object, { version: "1.1" })).join("---\n");
}
