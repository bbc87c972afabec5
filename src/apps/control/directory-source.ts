// Objects from the YAML files of a directory, read again when a file changes: for trying a configuration without any
// API server, and for tests.

import { readdirSync, readFileSync, watch, type FSWatcher } from "node:fs";
import { join } from "node:path";
import { parseAllDocuments } from "yaml";
import type { Logger } from "#base";
import { objectKey, type KubeObject } from "#objects";

export interface DirectorySourceOptions {
  readonly path: string;
  readonly log: Logger;
  readonly changed: (set: readonly KubeObject[], removed: readonly KubeObject[]) => void;
}

interface Known {
  readonly key: string;
  readonly object: KubeObject;
  /** For comparing. */
  readonly text: string;
}

interface ReadFile {
  readonly text: string;
  readonly objects: readonly Known[];
}

/** Editors write a file in several steps; it is read when it has been left alone for so long. */
const settleMs = 50;

export class DirectorySource {
  readonly #options: DirectorySourceOptions;
  #objects: ReadonlyMap<string, Known> = new Map();
  /** What each file held: one that did not change is not parsed again. */
  #files: ReadonlyMap<string, ReadFile> = new Map();
  #watcher: FSWatcher | undefined;
  #timer: NodeJS.Timeout | undefined;

  constructor(options: DirectorySourceOptions) {
    this.#options = options;
  }

  /** Reads everything once and follows. Throws if the directory cannot be read. */
  start(): void {
    this.#read();
    this.#watcher = watch(this.#options.path, () => {
      clearTimeout(this.#timer);
      this.#timer = setTimeout(() => this.#readAgain(), settleMs);
    });
  }

  stop(): void {
    clearTimeout(this.#timer);
    this.#watcher?.close();
  }

  #readAgain(): void {
    try {
      this.#read();
    } catch (error) {
      this.#options.log.error({ error: String(error) }, "cannot be read; what was read before stays");
    }
  }

  #read(): void {
    const { path, changed } = this.#options;
    const objects = new Map<string, Known>();
    const files = new Map<string, ReadFile>();
    for (const name of readdirSync(path).toSorted()) {
      if (!/\.(ya?ml|json)$/.test(name)) continue;
      const text = readFileSync(join(path, name), "utf8");
      const known = this.#files.get(name);
      const file = known?.text === text ? known : { text, objects: objectsOf(join(path, name), text) };
      files.set(name, file);
      for (const one of file.objects) objects.set(one.key, one);
    }
    const before = this.#objects;
    this.#objects = objects;
    this.#files = files;
    const set = [...objects].filter(([key, { text }]) => before.get(key)?.text !== text);
    const removed = [...before].filter(([key]) => !objects.has(key));
    changed(
      set.map(([, { object }]) => object),
      removed.map(([, { object }]) => object),
    );
  }
}

function objectsOf(file: string, content: string): Known[] {
  const objects = parseAllDocuments(content).flatMap((document) => {
    const [problem] = document.errors;
    if (problem !== undefined) throw new Error(`${file}: ${problem.message}`);
    const object = document.toJS() as (KubeObject & { items?: KubeObject[] }) | null;
    if (object === null) return [];
    return object.kind === "List" ? (object.items ?? []) : [object];
  });
  return objects.map((object) => ({
    key: `${object.apiVersion} ${object.kind} ${objectKey(object)}`,
    object,
    text: JSON.stringify(object),
  }));
}
