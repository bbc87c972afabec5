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

/** Editors write a file in several steps; it is read when it has been left alone for so long. */
const settleMs = 50;

export class DirectorySource {
  readonly #options: DirectorySourceOptions;
  #objects = new Map<string, { object: KubeObject; text: string }>();
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
    const objects = new Map<string, { object: KubeObject; text: string }>();
    for (const file of readdirSync(path).toSorted()) {
      if (!/\.(ya?ml|json)$/.test(file)) continue;
      for (const object of objectsOf(join(path, file))) {
        const key = `${object.apiVersion} ${object.kind} ${objectKey(object)}`;
        objects.set(key, { object, text: JSON.stringify(object) });
      }
    }
    const before = this.#objects;
    this.#objects = objects;
    const set = [...objects].filter(([key, { text }]) => before.get(key)?.text !== text);
    const removed = [...before].filter(([key]) => !objects.has(key));
    changed(
      set.map(([, { object }]) => object),
      removed.map(([, { object }]) => object),
    );
  }
}

function objectsOf(file: string): KubeObject[] {
  return parseAllDocuments(readFileSync(file, "utf8")).flatMap((document) => {
    const [problem] = document.errors;
    if (problem !== undefined) throw new Error(`${file}: ${problem.message}`);
    const object = document.toJS() as (KubeObject & { items?: KubeObject[] }) | null;
    if (object === null) return [];
    return object.kind === "List" ? (object.items ?? []) : [object];
  });
}
