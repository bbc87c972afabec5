// Gateway API's side that the cluster sees: the status of each object, the proxies of each Gateway, and the class itself.
// One replica writes, the leader, and only what differs from what stands there.

import { isDeepStrictEqual } from "node:util";
import type { Clock, Logger } from "#base";
import type { Changed, Engine } from "#engine";
import { collectionPath, KubeError, type KubeClient, type RateLimitedWriter } from "#kube";
import {
  builtInClasses,
  deploymentFactsOf,
  gatewayController,
  renderStatus,
  statusKeysOf,
  statusKinds,
  wantedStatusOf,
  type StandingStatus,
  type StatusKey,
  type StatusKind,
} from "#model";
import { kinds, type KubeObject } from "#objects";
import { deploymentObjects, type AppliedObject } from "./gateway-deployment.ts";

export interface GatewayApiWriterOptions {
  readonly engine: Engine;
  readonly client: KubeClient;
  readonly writer: RateLimitedWriter;
  readonly clock: Clock;
  readonly log: Logger;
  readonly revision: string;
}

/** Whoever applies: Kubernetes keeps fields apart by it. */
const fieldManager = gatewayController;
/** The object changed between reading and writing: so often it is tried again. */
const conflictsMax = 3;

export class GatewayApiWriter {
  readonly #options: GatewayApiWriterOptions;
  readonly #watched = new Map<StatusKind, Set<string>>();
  #leading = false;

  constructor(options: GatewayApiWriterOptions) {
    this.#options = options;
  }

  setLeading(leading: boolean): void {
    if (leading === this.#leading) return;
    this.#leading = leading;
    const { engine } = this.#options;
    for (const kind of statusKinds) {
      if (leading) {
        this.#watched.set(kind, new Set());
        this.#follow(kind, engine.watch(statusKeysOf, kind));
      } else {
        this.#follow(kind, []);
        engine.unwatch(statusKeysOf, kind);
      }
    }
    if (leading) this.#submitClasses();
  }

  /** To be told what each settling of the engine changed. */
  settled(changed: readonly Changed[]): void {
    if (!this.#leading) return;
    for (const { query, key, value } of changed) {
      if (query.id === statusKeysOf.id) this.#follow(key as StatusKind, value as readonly string[]);
      else if (query.id === wantedStatusOf.id) this.#submitStatus(key as StatusKey);
      else if (query.id === deploymentFactsOf.id) this.#submitDeployment(key as string);
    }
  }

  /** Watches what an object is to have as long as the object is there. */
  #follow(kind: StatusKind, keys: readonly string[]): void {
    const { engine } = this.#options;
    const before = this.#watched.get(kind) ?? new Set();
    const now = new Set(keys);
    for (const key of before) {
      if (now.has(key)) continue;
      engine.unwatch(wantedStatusOf, { kind, key });
      if (kind === "KubeGateway") engine.unwatch(deploymentFactsOf, key);
    }
    this.#watched.set(kind, now);
    for (const key of now) {
      if (before.has(key)) continue;
      engine.watch(wantedStatusOf, { kind, key });
      this.#submitStatus({ kind, key });
      if (kind !== "KubeGateway") continue;
      engine.watch(deploymentFactsOf, key);
      this.#submitDeployment(key);
    }
    if (kind === "GatewayClass" && this.#leading && before.size > now.size) this.#submitClasses();
  }

  /** The class that users name: whoever installs the kinds of Gateway API finds it there. */
  #submitClasses(): void {
    const { client, writer } = this.#options;
    for (const [name, controllerName] of Object.entries(builtInClasses)) {
      // Classes of proxies that we do not run are for those who do.
      if (controllerName !== gatewayController) continue;
      const body = {
        apiVersion: "gateway.networking.k8s.io/v1",
        kind: "GatewayClass",
        metadata: { name },
        spec: { controllerName, description: "Gateways of the mesh" },
      };
      writer.submit(`class ${name}`, async () => {
        try {
          await client.request(pathOf(body), { method: "POST", body });
        } catch (error) {
          if (!(error instanceof KubeError && error.status === 409)) throw error;
        }
      });
    }
  }

  #submitStatus(key: StatusKey): void {
    const { engine, writer } = this.#options;
    if (engine.get(wantedStatusOf, key) === undefined) return;
    writer.submit(`status ${key.kind} ${key.key}`, () => this.#writeStatus(key));
  }

  async #writeStatus(key: StatusKey): Promise<void> {
    const { engine, client, clock } = this.#options;
    const path = objectPath(key);
    for (let attempt = 1; ; attempt++) {
      const object = await client.get<KubeObject>(path);
      const wanted = this.#leading ? engine.get(wantedStatusOf, key) : undefined;
      if (wanted === undefined) return;
      const now = new Date(clock.nowMs()).toISOString().replace(/\.\d+Z$/, "Z");
      const standing = (object.status ?? {}) as StandingStatus;
      const status = renderStatus(wanted, standing, now);
      if (isDeepStrictEqual(status, { ...standing, ...status }) && isDeepStrictEqual(standing, status))
        return;
      const { name, resourceVersion } = object.metadata;
      const body = { metadata: { name, resourceVersion }, status };
      try {
        await client.request(`${path}/status`, { method: "PATCH", patch: "merge", body });
        return;
      } catch (error) {
        const conflicts = error instanceof KubeError && error.status === 409;
        if (!conflicts || attempt >= conflictsMax) throw error;
      }
    }
  }

  #submitDeployment(key: string): void {
    const { engine, writer, log, revision } = this.#options;
    const facts = engine.get(deploymentFactsOf, key);
    if (facts === undefined) return;
    let objects: readonly AppliedObject[];
    try {
      objects = deploymentObjects(facts, revision);
    } catch (error) {
      log.warn({ gateway: key, error: String(error) }, "its proxies cannot be deployed");
      return;
    }
    writer.submit(`deployment ${key}`, async () => {
      for (const object of objects) await this.#apply(object);
    });
  }

  #apply(body: AppliedObject): Promise<unknown> {
    const query = `fieldManager=${encodeURIComponent(fieldManager)}&force=true`;
    const path = `${pathOf(body)}/${body.metadata.name}?${query}`;
    return this.#options.client.request(path, { method: "PATCH", patch: "apply", body });
  }
}

/** Plurals of what is deployed; all end alike. */
function pathOf({
  apiVersion,
  kind,
  metadata,
}: Pick<KubeObject, "apiVersion" | "kind" | "metadata">): string {
  const [version = "", group = ""] = apiVersion.split("/").toReversed();
  const plural = kind === "GatewayClass" ? "gatewayclasses" : `${kind.toLowerCase()}s`;
  return collectionPath({ group, version, plural }, metadata.namespace);
}

function objectPath({ kind, key }: StatusKey): string {
  const name = kind === "KubeGateway" ? "Gateway" : kind;
  const info = kinds.find((one) => one.family !== "istio" && one.kind === name);
  if (info === undefined) throw new Error(`${name} is no kind whose status is written here`);
  const [first = "", second] = key.split("/");
  const resource = { ...info, version: info.storageVersion };
  return `${collectionPath(resource, second === undefined ? undefined : first)}/${second ?? first}`;
}
