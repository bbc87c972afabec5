// Wasm modules of WasmPlugins and TrafficExtensions: fetched here from registries and web servers, so that proxies need no way to the
// outside, and handed on to them over the connection by which they get their configuration.

import { createHash } from "node:crypto";
import type { Clock, Logger } from "#base";
import type { Change, Changed, Engine, Table } from "#engine";
import { fetchedModules, moduleRequests, type FetchedModule, type ModuleRequest } from "#model";
import { fetchBody, LimitReached, type AllowLocal } from "./guarded-fetch.ts";
import { controlPlaneLimits, type ReachControlLimit } from "./limits.ts";
import { moduleOfDownload } from "./module-archive.ts";
import { ModuleStore } from "./module-store.ts";
import { fetchImageModule } from "./oci-image.ts";
import { credentialsFor, type PullSecret } from "./pull-secret.ts";
import type { RegistryCredentials } from "./registry.ts";

export interface ModuleFetcherOptions {
  readonly engine: Engine;
  readonly clock: Clock;
  readonly log: Logger;
  readonly publish: (changes: readonly Change[]) => void;
  /** Undefined if there is none; rejects if nobody answers. */
  readonly readSecret: (namespace: string, name: string) => Promise<PullSecret | undefined>;
  /** Hosts, with the port where one is named, whose certificates are not looked at and that need none; `*` for all. */
  readonly insecureRegistries: readonly string[];
  readonly allowLocal: AllowLocal;
  readonly reached?: ReachControlLimit;
}

const retryMinMs = 1_000;
const retryMaxMs = 60_000;
/** Each holds a module twice while it is unpacked. Those that have failed before, servers that do not answer say, leave some for others. */
const fetchesMax = 8;
const retriesMax = 4;
const sourcesMax = controlPlaneLimits.moduleSources.value;
const firstModulesMs = controlPlaneLimits.firstModules.value;
const timeMs = controlPlaneLimits.moduleTime.value;
const limits = { time: "moduleTime", bytes: "moduleBytes", redirects: "moduleRedirects" } as const;

/** What is fetched once for all objects that ask for the same by the same right. */
interface Source {
  readonly key: string;
  /** The latest of the requests for it. */
  request: ModuleRequest;
  readonly wantedBy: Map<string, ModuleRequest>;
  /** Of the module, once there is one. */
  sha256: string | undefined;
  /** Why the last attempt failed. */
  failure: string | undefined;
  failures: number;
  isQueued: boolean;
  gone: boolean;
  cancel: () => void;
}

export class ModuleFetcher {
  readonly #options: ModuleFetcherOptions;
  readonly #store: ModuleStore;
  readonly #sources = new Map<string, Source>();
  /** The source of each object. */
  readonly #sourceOf = new Map<string, Source>();
  /** What each object's row says. */
  readonly #told = new Map<string, FetchedModule>();
  #queue: Source[] = [];
  #fetching = 0;
  #retrying = 0;
  #idle: (() => void)[] = [];

  constructor(options: ModuleFetcherOptions) {
    this.#options = options;
    this.#store = new ModuleStore(options.clock);
  }

  /**
   * Resolves with the first attempts, so that what is closed by an extension stays so when the control plane starts anew; or after a
   * while. What is not there then counts as failed.
   */
  async start(): Promise<void> {
    this.#follow(this.#options.engine.watch(moduleRequests, ""));
    if (this.#isIdle) return;
    let cancel = (): void => {};
    const patience = new Promise<void>((resolve) => {
      cancel = this.#options.clock.after(firstModulesMs, () => {
        this.#options.reached?.("firstModules");
        resolve();
      });
    });
    await Promise.race([new Promise<void>((resolve) => this.#idle.push(resolve)), patience]);
    cancel();
    for (const source of this.#sources.values()) {
      if (source.sha256 !== undefined || source.failure !== undefined) continue;
      source.failure = `there was no answer within ${firstModulesMs} ms of the control plane's start`;
      this.#tell(source);
    }
  }

  stop(): void {
    for (const source of this.#sources.values()) this.#drop(source);
  }

  /** To be told what each settling of the engine changed. */
  settled(changed: readonly Changed[]): void {
    for (const { query, value } of changed)
      if (query.id === moduleRequests.id) this.#follow(value as readonly ModuleRequest[]);
  }

  /** A module's bytes, for a caller of a namespace: those of its own objects and of the root namespace's. */
  find(sha256: string, namespace: string, rootNamespace: string): Buffer | undefined {
    return this.#store.find(sha256, (key) => {
      const [, owner] = key.split("/");
      return owner === namespace || owner === rootNamespace;
    });
  }

  #follow(requests: readonly ModuleRequest[]): void {
    const wanted = new Map(requests.map((request) => [request.key, request]));
    for (const [key, source] of this.#sourceOf) {
      const request = wanted.get(key);
      if (request !== undefined && sourceKey(request) === source.key) continue;
      source.wantedBy.delete(key);
      this.#sourceOf.delete(key);
    }
    for (const key of this.#told.keys()) if (!wanted.has(key)) this.#forget(key);
    for (const request of requests) this.#want(request);
    for (const source of this.#sources.values()) if (source.wantedBy.size === 0) this.#drop(source);
  }

  #want(request: ModuleRequest): void {
    const key = sourceKey(request);
    let source = this.#sources.get(key);
    if (source === undefined) {
      if (this.#sources.size >= sourcesMax) {
        this.#options.reached?.("moduleSources");
        const failure = `more than ${sourcesMax} modules are asked for`;
        this.#put(request.key, { ...this.#told.get(request.key), failure });
        return;
      }
      source = newSource(key, request);
      this.#sources.set(key, source);
      this.#enqueue(source);
    }
    const before = source.wantedBy.get(request.key);
    source.wantedBy.set(request.key, request);
    this.#sourceOf.set(request.key, source);
    // Whoever writes the object again may have mended what was wrong, with the Secret say.
    if (source.failures > 0 && before !== undefined && before.generation !== request.generation) {
      source.cancel();
      this.#enqueue(source);
    }
    source.request = request;
    if (before === undefined) this.#tellObject(source, request.key);
  }

  #drop(source: Source): void {
    source.gone = true;
    source.cancel();
    this.#sources.delete(source.key);
    this.#queue = this.#queue.filter((one) => one !== source);
    this.#tellIdle();
  }

  #enqueue(source: Source): void {
    if (source.isQueued) return;
    source.isQueued = true;
    this.#queue.push(source);
    this.#next();
  }

  #next(): void {
    while (this.#fetching < fetchesMax) {
      const at = this.#queue.findIndex(({ failures }) => failures === 0 || this.#retrying < retriesMax);
      const source = this.#queue[at];
      if (source === undefined) break;
      this.#queue.splice(at, 1);
      const isRetry = source.failures > 0 ? 1 : 0;
      this.#fetching++;
      this.#retrying += isRetry;
      void this.#round(source).finally(() => {
        this.#fetching--;
        this.#retrying -= isRetry;
        this.#next();
        this.#tellIdle();
      });
    }
  }

  get #isIdle(): boolean {
    return this.#fetching === 0 && this.#queue.length === 0;
  }

  #tellIdle(): void {
    if (!this.#isIdle) return;
    const waiting = this.#idle;
    this.#idle = [];
    for (const tell of waiting) tell();
  }

  async #round(source: Source): Promise<void> {
    const { clock, log, reached } = this.#options;
    const { request } = source;
    try {
      const module = await this.#fetch(request);
      if (source.gone) return;
      source.sha256 = this.#store.keep(module, source.wantedBy.keys());
      source.failure = undefined;
      source.failures = 0;
      this.#tell(source);
    } catch (error) {
      if (error instanceof LimitReached) reached?.(error.limit);
      if (source.gone) return;
      const failure = error instanceof Error ? error.message : String(error);
      if (source.failures === 0)
        log.warn({ object: request.key, failure }, "a Wasm module cannot be fetched");
      const pauseMs = Math.min(retryMaxMs, retryMinMs * 2 ** source.failures++);
      source.cancel = clock.after(pauseMs, () => this.#enqueue(source));
      if (source.failure === failure) return;
      source.failure = failure;
      this.#tell(source);
    } finally {
      source.isQueued = false;
    }
  }

  async #fetch(request: ModuleRequest): Promise<Buffer> {
    const { allowLocal } = this.#options;
    const { from, sha256 } = request;
    const signal = AbortSignal.timeout(timeMs);
    if (from.kind === "image") {
      const { image } = from;
      const credentials = await this.#credentials(request);
      const insecure = this.#isInsecure(image.registry);
      return fetchImageModule({ image, credentials, insecure, allowLocal, signal }, sha256);
    }
    const insecure = this.#isInsecure(new URL(from.url).host);
    const download = await fetchBody(from.url, { allowLocal, limits, signal, insecure });
    const module = await moduleOfDownload(download);
    if (sha256 === "") return module;
    const actual = createHash("sha256").update(module).digest("hex");
    if (sha256 !== actual)
      throw new Error(`the module's SHA-256 is ${actual}, and not the one of the object`);
    return module;
  }

  /** Those for the image's registry; a Secret without any for it means that none are needed. */
  async #credentials({ from, namespace, secret }: ModuleRequest): Promise<RegistryCredentials | undefined> {
    if (secret === "" || from.kind !== "image") return undefined;
    const found = await this.#options.readSecret(namespace, secret);
    if (found === undefined) throw new Error(`there is no Secret ${namespace}/${secret}`);
    return credentialsFor(found, from.image);
  }

  #isInsecure(host: string): boolean {
    const { insecureRegistries } = this.#options;
    return insecureRegistries.includes("*") || insecureRegistries.includes(host);
  }

  #tell(source: Source): void {
    for (const key of source.wantedBy.keys()) this.#tellObject(source, key);
  }

  /** What the object had before, a module or a failure, stays until there is another: what was closed does not open meanwhile. */
  #tellObject({ sha256, failure }: Source, key: string): void {
    if (sha256 !== undefined) {
      this.#store.share(sha256, key);
      this.#put(key, { sha256 });
    } else if (failure !== undefined) this.#put(key, { ...this.#told.get(key), failure });
  }

  #forget(key: string): void {
    this.#store.release(key);
    this.#put(key, undefined);
  }

  #put(key: string, value: FetchedModule | undefined): void {
    const before = this.#told.get(key);
    if (before?.sha256 === value?.sha256 && before?.failure === value?.failure) return;
    if (value === undefined) this.#told.delete(key);
    else this.#told.set(key, value);
    this.#options.publish([{ table: fetchedModules as Table<unknown>, key, value }]);
  }
}

function newSource(key: string, request: ModuleRequest): Source {
  return {
    key,
    request,
    wantedBy: new Map(),
    sha256: undefined,
    failure: undefined,
    failures: 0,
    isQueued: false,
    gone: false,
    cancel: () => {},
  };
}

/**
 * Objects share what they ask for alike: what was fetched with a Secret serves those alone that name the same Secret, and what is
 * to be fetched anew with each change of its object is that object's own.
 */
function sourceKey({ key, namespace, from, sha256, secret, policy, generation }: ModuleRequest): string {
  return JSON.stringify([
    from,
    sha256,
    secret === "" ? "" : `${namespace}/${secret}`,
    policy === "always" ? `${key}@${generation}` : "",
  ]);
}
